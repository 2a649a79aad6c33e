"""GET /v1/placements/{key}/decision, as email tools call it."""

import pytest
from sqlalchemy import text

from experiments.worker import Worker
from tests.api.conftest import PLACEMENT, Client, assert_problem, pointers

DOOR = "/v1/placements/welcome/decision"


def test_it_answers_as_the_post_door_does(running: Client) -> None:
    answer = running.get(f"{DOOR}?customer_id=c1")
    assert answer.get_json() == running.decide("c1")
    assert answer.headers["Cache-Control"] == "private, no-store"


def test_attributes_come_as_text_and_are_typed_by_their_declaration(welcome: Client) -> None:
    welcome.put("/v1/attributes/orders", {"type": "number"})
    rule = {"attribute": "orders", "gte": 2}
    welcome.put("/v1/segmentations/value", {"segments": [{"key": "loyal", "rule": rule}], "otherwise": "new"})
    welcome.put("/v1/placements/welcome", PLACEMENT | {"segmentation": "value"})
    for given, segment in [("2", "loyal"), ("1.5", "new"), ("many", "new"), ("", "new")]:
        answer = welcome.get(f"{DOOR}?customer_id=c-{given}&attr.orders={given}")
        assert answer.get_json()["segment"] == segment, given


def test_text_is_what_goes_into_the_message(running: Client) -> None:
    for customer in ("c1", "c2", "c3", "c4", "c5"):
        answer = running.get(f"{DOOR}?customer_id={customer}&format=text&attr.first_name=Zoë")
        assert answer.content_type == "text/plain; charset=utf-8"
        assert answer.text == {"a": "Hi Zoë", "b": "A gift inside"}[answer.headers["X-Variant"]]
        assert answer.headers["X-Decision-Id"] == running.decide(customer)["decision_id"]


def test_a_field_names_one_member_of_the_content(welcome: Client) -> None:
    content = {"subject": "Hi", "teaser": {"links": ["one", "two"]}}
    welcome.put("/v1/placements/welcome", PLACEMENT | {"default": {"key": "plain", "content": content}})
    assert welcome.get(f"{DOOR}?customer_id=c&format=text&field=teaser.links.1").text == "two"
    assert welcome.get(f"{DOOR}?customer_id=c&format=text&field=teaser").text == '{"links":["one","two"]}'
    assert welcome.get(f"{DOOR}?customer_id=c&field=subject").get_json()["value"] == "Hi"
    for field in ("", "&field=no", "&field=teaser.links.2", "&field=subject.x"):
        assert_problem(welcome.get(f"{DOOR}?customer_id=c&format=text{field}"), 422, "field_missing")


def test_head_decides_nothing(running: Client, worker: Worker) -> None:
    answer = running.ask("HEAD", f"{DOOR}?customer_id=c1")
    assert (answer.status_code, answer.data) == (200, b"")
    nowhere = running.ask("HEAD", "/v1/placements/nowhere/decision?customer_id=c1")
    assert nowhere.status_code == 404
    with worker.engine.connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM decision")).scalar_one() == 0


@pytest.mark.parametrize("path", [f"{DOOR}/?customer_id=c1", f"{DOOR}?customer_id=c1"])
def test_nothing_redirects(welcome: Client, path: str) -> None:
    assert welcome.get(path).status_code == 200


def test_what_is_missing_or_wrong_is_said(welcome: Client) -> None:
    assert_problem(welcome.get(DOOR), 400, "missing_parameter")
    assert_problem(welcome.get(f"{DOOR}?customer_id="), 400, "missing_parameter")
    assert_problem(welcome.get("/v1/placements/nowhere/decision?customer_id=c"), 404, "placement_not_found")
    problem = assert_problem(welcome.get(f"{DOOR}?customer_id=c&format=xml"), 422, "invalid_input")
    assert pointers(problem) == {"/format"}
    problem = assert_problem(welcome.get(f"{DOOR}?customer_id=a%00b"), 422, "invalid_input")
    assert pointers(problem) == {"/customer_id"}
    assert_problem(welcome.get(f"{DOOR}?customer_id={'x' * 300}"), 422, "invalid_input")


@pytest.mark.parametrize(
    ("query", "pointer"),
    [
        ("customer_id=%ff", "/customer_id"),
        ("customer_id=%ed%a0%80", "/customer_id"),
        ("customer_id=c&occasion_id=a%c3", "/occasion_id"),
        ("customer_id=c&attr.first_name=Zo%eb", "/attr.first_name"),
        ("customer_id=c&%fe=1", "/\ufffd"),
    ],
)
def test_bytes_that_are_no_utf_8_are_refused(welcome: Client, worker: Worker, query: str, pointer: str) -> None:
    problem = assert_problem(welcome.get(f"{DOOR}?{query}"), 422, "invalid_input")
    assert pointers(problem) == {pointer}
    with worker.engine.connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM decision")).scalar_one() == 0


def test_a_customer_whose_id_looks_like_an_escape_is_taken_as_written(welcome: Client) -> None:
    assert welcome.get(f"{DOOR}?customer_id=%25FF").get_json()["customer_id"] == "%FF"
    assert welcome.get(f"{DOOR}?customer_id=Zo%C3%AB").get_json()["customer_id"] == "Zoë"
