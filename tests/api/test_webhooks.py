"""Webhooks out over HTTP: defined, read without their secrets, tested, replayed; and what is wrong with a request."""

from typing import Any

import pytest
from sqlmodel import select

from experiments.database import reading
from experiments.tables import Idempotency
from experiments.worker import Worker
from tests.api.conftest import Client, assert_problem, make_key, pointers

HOOK = "/v1/webhooks/team"
GOOD = {"url": "https://hooks.example/optimizer?token=s3cret", "events": ["variant.paused", "experiment.verdict"]}


def test_the_secret_is_shown_once_and_versions_count_changes(client: Client) -> None:
    first = client.put(HOOK, GOOD)
    assert (first.status_code, first.headers["ETag"], first.headers["Cache-Control"]) == (201, '"1"', "no-store")
    assert first.get_json()["secret"].startswith("whsec_")
    same = client.put(HOOK, GOOD)
    assert (same.status_code, same.headers["ETag"]) == (200, '"1"')
    assert "secret" not in same.get_json()
    changed = client.put(HOOK, GOOD | {"events": "all"})
    assert (changed.get_json()["version"], changed.get_json()["events"]) == (2, "all")
    got = client.get(HOOK).get_json()
    assert "secret" not in str(got).replace("s3cret", "").replace("previous_secret_until", "")
    assert [one["key"] for one in client.get("/v1/webhooks").get_json()["items"]] == ["team"]
    assert client.ask("DELETE", HOOK).status_code == 204
    assert_problem(client.get(HOOK), 404, "webhook_not_found")


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"url": "ftp://hooks.example"}, "/url"),
        ({"url": "https://"}, "/url"),
        ({"url": "https://user:pass@hooks.example"}, "/url"),
        ({"url": "https://hooks.example/#part"}, "/url"),
        ({"url": "https://hooks.example:0"}, "/url"),
        ({"url": "https://h\u00f6oks.example"}, "/url"),
        ({"url": ""}, "/url"),
        ({"events": ["experiment.exploded"]}, "/events/0"),
        ({"events": []}, "/events"),
        ({"events": "some"}, "/events"),
        ({"events": None}, "/events"),
        ({"secret": "whsec_mine"}, "/secret"),
    ],
    ids=[
        "scheme",
        "no host",
        "password",
        "fragment",
        "port",
        "not ASCII",
        "empty",
        "event",
        "no event",
        "word",
        "null",
        "field",
    ],
)
def test_what_is_wrong_is_named(client: Client, change: dict[str, Any], where: str) -> None:
    answer = client.put(HOOK, GOOD | change)
    assert answer.status_code == 422
    assert where in pointers(answer.get_json())
    assert all(place.startswith(where[:4]) for place in pointers(answer.get_json()))


def test_only_admins_have_these_doors(client: Client, worker: Worker) -> None:
    client.put(HOOK, GOOD)
    analyst = Client(client.flask, make_key(worker, "analyse"))
    assert_problem(analyst.get(HOOK), 403, "missing_scope")
    assert_problem(analyst.put(HOOK, GOOD), 403, "missing_scope")


def test_a_new_secret_is_shown_once_and_kept_nowhere_else(client: Client, worker: Worker) -> None:
    """An Idempotency-Key would keep the answer for a day: this door does not heed it."""
    old = client.put(HOOK, GOOD).get_json()["secret"]
    answer = client.post(f"{HOOK}/rotate", {}, headers={"Idempotency-Key": "twice"})
    assert answer.status_code == 200, answer.text
    assert answer.get_json()["secret"] not in {old, None}
    assert answer.headers["Cache-Control"] == "no-store"
    with reading(worker.engine) as session:
        assert session.exec(select(Idempotency)).all() == []


def test_tests_replays_and_deliveries(client: Client) -> None:
    client.put(HOOK, GOOD)
    sent = client.post(f"{HOOK}/test", {})
    assert sent.status_code == 202
    (delivery,) = client.get(f"{HOOK}/deliveries").get_json()["items"]
    assert (delivery["message_id"], delivery["type"], delivery["status"]) == (
        sent.get_json()["message_id"],
        "webhook.test",
        "pending",
    )
    again = client.post(f"{HOOK}/replay", {"message_ids": [delivery["message_id"]]})
    assert again.get_json() == {"webhook": "team", "n_messages": 1}
    unknown = client.post(f"{HOOK}/replay", {"message_ids": ["msg_nope"]})
    assert pointers(unknown.get_json()) == {"/message_ids/0"}
    both = client.post(f"{HOOK}/replay", {"message_ids": ["msg_nope"], "since": "2026-01-01T00:00:00Z"})
    assert pointers(both.get_json()) == {"/message_ids"}
    for path in ("test", "replay", "enable", "rotate"):
        assert_problem(client.post(f"/v1/webhooks/nobody/{path}", {}), 404, "webhook_not_found")
