"""Attributes, segmentations, placements and metrics over HTTP."""

from typing import Any

import pytest
from sqlalchemy import text

from experiments.worker import Worker
from tests.api.conftest import PLACEMENT, Client, assert_problem, pointers

BODIES: list[tuple[str, dict[str, Any]]] = [
    ("/v1/attributes/age", {"type": "number"}),
    (
        "/v1/segmentations/value",
        {"segments": [{"key": "vip", "rule": {"attribute": "age", "gte": 65}}], "otherwise": "rest"},
    ),
    ("/v1/placements/welcome", PLACEMENT),
    ("/v1/metrics/signup", {"event": "signup", "kind": "binary"}),
]


def test_a_definition_is_put_read_and_listed(client: Client) -> None:
    for path, body in BODIES:
        put = client.put(path, body)
        assert (put.status_code, put.headers["ETag"]) == (201, '"1"'), put.text
        again = client.put(path, body)
        assert (again.status_code, again.headers["ETag"]) == (200, '"1"')
        read = client.get(path)
        assert read.headers["ETag"] == '"1"'
        assert read.get_json() == put.get_json() | {"key": path.rsplit("/", 1)[1], "version": 1}
        listed = client.get(path.rsplit("/", 1)[0]).get_json()
        assert read.get_json() in listed["items"]


def test_a_change_makes_a_version_and_if_match_guards_it(client: Client) -> None:
    path, body = "/v1/metrics/signup", {"event": "signup", "kind": "binary"}
    client.put(path, body)
    changed = client.put(path, body | {"window_hours": 24.0}, headers={"If-Match": '"1"'})
    assert (changed.status_code, changed.headers["ETag"]) == (200, '"2"')
    late = client.put(path, body, headers={"If-Match": '"1"'})
    assert_problem(late, 412, "precondition_failed")
    assert_problem(client.put(path, body, headers={"If-Match": "soon"}), 400, "invalid_header")
    assert client.get(path).get_json()["window_hours"] == 24.0


def test_what_is_built_in_can_be_read(client: Client) -> None:
    assert client.get("/v1/metrics/click").get_json()["version"] == 0
    assert client.get("/v1/segmentations/everyone").get_json()["otherwise"] == "everyone"


def test_a_list_has_pages(client: Client) -> None:
    for key in ("a", "b", "c"):
        client.put(f"/v1/attributes/{key}", {"type": "string"})
    first = client.get("/v1/attributes?limit=2").get_json()
    assert [one["key"] for one in first["items"]] == ["a", "b"]
    second = client.get(f"/v1/attributes?limit=2&cursor={first['next_cursor']}").get_json()
    assert ([one["key"] for one in second["items"]], second["next_cursor"]) == (["c"], None)


@pytest.mark.parametrize(
    ("query", "pointer"),
    [
        ("limit=0", "/limit"),
        ("limit=many", "/limit"),
        ("limit=1001", "/limit"),
        ("limit=99999999999999999999999", "/limit"),
        ("colour=red", "/colour"),
        ("cursor=%ff", "/cursor"),
    ],
)
def test_a_wrong_query_is_refused(client: Client, query: str, pointer: str) -> None:
    problem = assert_problem(client.get(f"/v1/attributes?{query}"), 422, "invalid_input")
    assert pointers(problem) == {pointer}


@pytest.mark.parametrize("path", ["/v1/attributes/no", "/v1/segmentations/no", "/v1/metrics/no"])
def test_what_is_not_defined_is_not_found(client: Client, path: str) -> None:
    assert_problem(client.get(path), 404, "definition_not_found")


def test_every_fault_of_a_definition_is_named(client: Client) -> None:
    body = {
        "channel": 7,
        "holdout": {"share": 0.9},
        "default": {"key": "a b", "content": {"text": "{{ 1/0 }}"}},
        "x": 1,
    }
    problem = assert_problem(client.put("/v1/placements/welcome", body), 422, "invalid_definition")
    expected = {"/channel", "/holdout/share", "/default/key", "/default/content/text", "/x"}
    assert pointers(problem) == expected


def test_a_template_bomb_is_refused(client: Client) -> None:
    bomb = PLACEMENT | {"default": {"key": "plain", "content": {"text": "{{ 'a' * 200000000 }}"}}}
    assert client.put("/v1/placements/welcome", bomb).status_code == 422


def test_a_rule_with_ten_thousand_nodes_is_refused(client: Client) -> None:
    client.put("/v1/attributes/age", {"type": "number"})
    rule = {"any": [{"attribute": "age", "eq": i} for i in range(10_000)]}
    body = {"segments": [{"key": "many", "rule": rule}], "otherwise": "rest"}
    problem = assert_problem(client.put("/v1/segmentations/many", body), 422, "invalid_definition")
    assert all(pointer.startswith("/segments/0/rule") for pointer in pointers(problem))


def test_a_deep_definition_is_refused(client: Client) -> None:
    body = '{"a":' * 900 + "1" + "}" * 900
    answer = client.ask("PUT", "/v1/placements/welcome", data=body, content_type="application/json")
    assert_problem(answer, 422, "invalid_definition")


@pytest.mark.parametrize("key", ["a b", "%00", "x" * 129, "é", "-a"])
def test_a_key_that_cannot_be_is_refused(client: Client, key: str) -> None:
    assert client.put(f"/v1/metrics/{key}", {"event": "e", "kind": "binary"}).status_code in {404, 422}
    assert client.get(f"/v1/metrics/{key}").status_code == 404


def test_every_change_is_in_the_audit(client: Client) -> None:
    client.put("/v1/attributes/age", {"type": "number"})
    client.put("/v1/attributes/age", {"type": "number", "public": True})
    entries = client.get("/v1/audit?subject=attribute/age").get_json()["items"]
    assert [(one["actor"], one["action"], one["detail"]["version"]) for one in entries] == [
        ("key/test", "put", 2),
        ("key/test", "put", 1),
    ]
    page = client.get("/v1/audit?limit=1").get_json()
    following = client.get(f"/v1/audit?limit=1&cursor={page['next_cursor']}").get_json()
    assert following["items"][0]["id"] == page["items"][0]["id"] - 1


@pytest.mark.parametrize("cursor", ["99999999999999999999999", "9223372036854775808", "0", "-1", "x"])
def test_a_cursor_that_is_no_number_of_an_entry_is_refused(client: Client, cursor: str) -> None:
    problem = assert_problem(client.get(f"/v1/audit?cursor={cursor}"), 422, "invalid_input")
    assert pointers(problem) == {"/cursor"}


def test_the_last_cursor_that_can_be_is_taken(client: Client) -> None:
    assert client.get("/v1/audit?cursor=9223372036854775807").get_json()["items"] != []


def test_a_change_that_was_made_is_answered_though_its_worker_cannot_read_it(client: Client, worker: Worker) -> None:
    client.get("/v1/metrics/click")  # the worker knows the key from here on
    with worker.engine.begin() as connection:
        connection.execute(text("ALTER TABLE override RENAME TO elsewhere"))
    put = client.put("/v1/attributes/age", {"type": "number"})
    assert (put.status_code, client.get("/v1/attributes/age").get_json()["type"]) == (201, "number")
