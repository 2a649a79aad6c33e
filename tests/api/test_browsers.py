"""Publishable keys and other origins: what a page may do, and what it may not. CORS as the Fetch standard has it."""

from typing import Any

import pytest
from flask import Flask

from experiments.access.keys import Pages, create_key
from experiments.database import transaction
from experiments.errors import InvalidInput
from experiments.worker import Worker
from tests.api.conftest import Client, assert_problem, pointers

SHOP = "https://shop.example"
FROM_SHOP = {"Origin": SHOP}
DECIDE = {"placement": "welcome", "customer_id": "anna"}


@pytest.fixture
def page(app: Flask, running: Client, worker: Worker) -> Client:
    """A client with a publishable key of the shop."""
    running.put("/v1/attributes/country", {"type": "string", "public": True})
    running.put("/v1/attributes/income", {"type": "number"})
    with transaction(worker.engine) as session:
        pages = Pages([SHOP], ["click", "shown"])
        _, key = create_key(session, "page", scopes=["decide", "record"], actor="test", pages=pages)
    worker.snapshots.refresh()
    assert key.startswith("opt_pub_")
    return Client(app.test_client(), key)


def test_a_page_decides_with_public_attributes(page: Client) -> None:
    answer = page.post("/v1/decisions", DECIDE | {"attributes": {"country": "DE"}}, headers=FROM_SHOP)
    assert answer.status_code == 200
    assert answer.headers["Access-Control-Allow-Origin"] == SHOP
    assert "ETag" in answer.headers["Access-Control-Expose-Headers"]
    assert "Origin" in answer.headers["Vary"]


@pytest.mark.parametrize("attributes", [{"income": 3}, {"first_name": "Anna"}])  # not public, not declared
def test_other_attributes_are_refused_by_name(page: Client, attributes: dict[str, Any]) -> None:
    answer = page.post("/v1/decisions", DECIDE | {"attributes": attributes}, headers=FROM_SHOP)
    assert pointers(assert_problem(answer, 422, "invalid_input")) == {f"/attributes/{name}" for name in attributes}


def test_a_page_learns_nothing_of_a_customer_that_is_not_public(page: Client, running: Client, worker: Worker) -> None:
    """Anybody can ask with a page's key, for anybody's id."""
    running.put("/v1/attributes/first_name", {"type": "string"})
    told = {"userId": "anna", "traits": {"first_name": "Anna", "country": "DE"}}
    assert running.post("/v1/identify", told).get_json()["accepted"] == 1
    worker.snapshots.refresh()
    greets = {"key": "greets", "content": {"text": "Hi {{ first_name | default('there') }}"}}
    running.put("/v1/placements/greeting", {"holdout": {"share": 0.0}, "default": greets})
    asked, context = {"placement": "greeting", "customer_id": "anna"}, {"context": {"targetingKey": "anna"}}
    for path, body in (
        ("/v1/decisions", asked),
        ("/ofrep/v1/evaluate/flags/greeting", context),
        ("/ofrep/v1/evaluate/flags", context),
    ):
        assert "Hi Anna" in running.post(path, body).text
        assert "Anna" not in page.post(path, body, headers=FROM_SHOP).text


def test_a_page_learns_no_segment_that_others_decided_in(page: Client, running: Client, worker: Worker) -> None:
    rich = {"key": "rich", "rule": {"attribute": "income", "gte": 100}}
    running.put("/v1/segmentations/money", {"segments": [rich], "otherwise": "others"})
    still = {"key": "still", "content": {"text": "Static"}}
    running.put("/v1/placements/vault", {"segmentation": "money", "holdout": {"share": 0.0}, "default": still})
    asked = {"placement": "vault", "customer_id": "anna"}
    worker.snapshots.refresh()
    decided = running.post("/v1/decisions", asked | {"attributes": {"income": 500}}).get_json()
    assert decided["segment"] == "rich"
    seen = page.post("/v1/decisions", asked, headers=FROM_SHOP).get_json()
    assert (seen["decision_id"], seen["segment"]) == (decided["decision_id"], "others")
    assert running.post("/v1/decisions", asked).get_json()["segment"] == "rich"


@pytest.mark.parametrize("headers", [{}, {"Origin": "https://elsewhere.example"}, {"Origin": "null"}])
def test_a_page_of_another_origin_may_not_use_the_key(page: Client, headers: dict[str, str]) -> None:
    answer = page.post("/v1/decisions", DECIDE, headers=headers)
    assert_problem(answer, 403, "wrong_origin")
    assert "Access-Control-Allow-Origin" not in answer.headers


def test_a_page_reports_its_events_by_decision_without_values(page: Client) -> None:
    decision_id = page.post("/v1/decisions", DECIDE, headers=FROM_SHOP).get_json()["decision_id"]
    outcomes = [
        {"decision_id": decision_id, "event": "click"},
        {"decision_id": decision_id, "event": "purchase"},
        {"decision_id": decision_id, "event": "click", "value": 5},
        {"customer_id": "anna", "event": "click"},
    ]
    answer = page.post("/v1/outcomes", {"outcomes": outcomes}, headers=FROM_SHOP).get_json()
    assert answer["accepted"] == 1
    assert [one["index"] for one in answer["rejected"]] == [1, 2, 3]
    assert ["/event" in one["detail"] for one in answer["rejected"]] == [True, False, False]


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/placements/welcome/best"),
        ("GET", "/v1/placements/welcome/decision?customer_id=anna"),
        ("POST", "/v1/decisions/batch"),
        ("GET", "/v1/experiments/subject/results"),
        ("PUT", "/v1/attributes/x"),
    ],
)
def test_everything_else_is_closed_to_a_page(page: Client, method: str, path: str) -> None:
    assert_problem(page.ask(method, path, headers=FROM_SHOP), 403, "missing_scope")


def test_a_page_has_no_previews(page: Client) -> None:
    answer = page.post("/v1/decisions", DECIDE | {"preview": "b"}, headers=FROM_SHOP)
    assert pointers(assert_problem(answer, 422, "invalid_input")) == {"/preview"}


@pytest.mark.parametrize("path", ["/v1/decisions", "/v1/outcomes", "/ofrep/v1/evaluate/flags/welcome"])
def test_a_preflight_needs_no_key(page: Client, path: str) -> None:
    asked = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "content-type,x-api-key"}
    answer = page.flask.options(path, headers=FROM_SHOP | asked)
    assert answer.status_code == 200
    assert answer.headers["Access-Control-Allow-Origin"] == SHOP
    assert "POST" in answer.headers["Access-Control-Allow-Methods"]
    allowed = answer.headers["Access-Control-Allow-Headers"].split(", ")
    assert {"authorization", "content-type", "if-none-match", "x-api-key"} <= set(allowed)
    assert "Access-Control-Allow-Credentials" not in answer.headers


def test_a_preflight_from_elsewhere_gets_no_leave(page: Client) -> None:
    answer = page.flask.options("/v1/decisions", headers={"Origin": "https://elsewhere.example"})
    assert "Access-Control-Allow-Origin" not in answer.headers
    assert "Origin" in answer.headers["Vary"]


def test_a_refusal_can_be_read_by_the_page(page: Client) -> None:
    answer = page.flask.post("/v1/decisions", json=DECIDE, headers=FROM_SHOP | {"X-API-Key": "opt_wrong"})
    assert_problem(answer, 401, "unauthenticated")
    assert answer.headers["Access-Control-Allow-Origin"] == SHOP


def test_openfeature_in_a_page_leaves_out_what_is_not_public(page: Client) -> None:
    context = {"targetingKey": "anna", "country": "DE", "income": 3, "userAgent": "x"}
    answer = page.post("/ofrep/v1/evaluate/flags/welcome", {"context": context}, headers=FROM_SHOP)
    assert answer.status_code == 200


@pytest.mark.parametrize(
    ("pages", "scopes", "pointer"),
    [
        (Pages([]), ["decide"], "/origins"),
        (Pages(["shop.example"]), ["decide"], "/origins"),
        (Pages(["https://shop.example/"]), ["decide"], "/origins"),
        (Pages(["https://shop.example:443"]), ["decide"], "/origins"),
        (Pages(["*"]), ["decide"], "/origins"),
        (Pages(["https://b\u00fccher.example"]), ["decide"], "/origins"),  # a browser sends xn--bcher-kva.example
        (Pages(["https://shop .example"]), ["decide"], "/origins"),
        (Pages([SHOP], [""]), ["decide"], "/events"),
        (Pages([SHOP]), ["admin"], "/scopes"),
        (Pages([SHOP]), ["analyse"], "/scopes"),
    ],
)
def test_what_a_publishable_key_may_not_be(worker: Worker, pages: Pages, scopes: list[str], pointer: str) -> None:
    with transaction(worker.engine) as session, pytest.raises(InvalidInput) as refused:
        create_key(session, "page", scopes=scopes, actor="test", pages=pages)
    assert {field.pointer for field in refused.value.fields} == {pointer}


def test_the_script_is_served_and_revalidated(page: Client) -> None:
    answer = page.flask.get("/optimizer.js")
    assert answer.content_type == "text/javascript; charset=utf-8"
    assert b"data-placement" in answer.data
    again = page.flask.get("/optimizer.js", headers={"If-None-Match": answer.headers["ETag"]})
    assert (again.status_code, again.data) == (304, b"")
    assert b"/optimizer.js" in page.flask.get("/optimizer.html").data
