"""GET /v1/placements/{key}/decision, as email tools call it."""

import pytest
from sqlalchemy import text

from experiments.worker import Worker
from tests.api.conftest import EXPERIMENT, PLACEMENT, Client, assert_problem, pointers, start_now

DOOR = "/v1/placements/welcome/decision"


def n_decisions(worker: Worker) -> int:
    """How many are stored."""
    with worker.engine.connect() as connection:
        return int(connection.execute(text("SELECT count(*) FROM decision")).scalar_one())


def test_it_answers_as_the_post_door_does(running: Client) -> None:
    answer = running.get(f"{DOOR}?customer_id=c1")
    assert answer.get_json() == running.decide("c1")
    assert answer.headers["Cache-Control"] == "private, no-store"
    assert answer.headers["Vary"] == "Authorization"
    assert answer.content_type == "application/json; charset=utf-8"


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
        answer = welcome.get(f"{DOOR}?customer_id=c&format=text{field}")
        assert (answer.status_code, answer.text, answer.headers["X-Reason"]) == (200, "", "field_missing")
    answer = welcome.get(f"{DOOR}?customer_id=c&field=no")
    assert (answer.status_code, answer.get_json()["value"]) == (200, None)


def test_a_variant_without_the_field_leaves_it_to_the_default(welcome: Client, worker: Worker) -> None:
    content = {"subject": "Hi", "preheader": "News"}
    welcome.put("/v1/placements/welcome", PLACEMENT | {"default": {"key": "plain", "content": content}})
    variants = [{"key": "a", "content": content, "is_control": True}, {"key": "b", "content": {"subject": "Yo"}}]
    start_now(welcome, worker, {"placement": "welcome", "goal": "click", "variants": variants})
    for n in range(8):
        address = f"{DOOR}?customer_id=c{n}&format=text&field=preheader"
        answer = welcome.get(address)
        assert (answer.status_code, answer.text) == (200, "News")
        assert answer.headers["X-Reason"] == {"a": "allocated", "b": "field_missing"}[answer.headers["X-Variant"]]


def test_head_decides_nothing(running: Client, worker: Worker) -> None:
    answer = running.ask("HEAD", f"{DOOR}?customer_id=c1")
    assert (answer.status_code, answer.data) == (200, b"")
    nowhere = running.ask("HEAD", "/v1/placements/nowhere/decision?customer_id=c1")
    assert nowhere.status_code == 404
    assert n_decisions(worker) == 0


@pytest.mark.parametrize("path", [f"{DOOR}/?customer_id=c1", f"{DOOR}?customer_id=c1"])
def test_nothing_redirects(welcome: Client, path: str) -> None:
    assert welcome.get(path).status_code == 200


def test_what_is_missing_or_wrong_is_said(welcome: Client) -> None:
    assert_problem(welcome.get(DOOR), 400, "missing_parameter")
    assert_problem(welcome.get("/v1/placements/nowhere/decision?customer_id=c"), 404, "placement_not_found")
    problem = assert_problem(welcome.get(f"{DOOR}?customer_id=c&format=xml"), 422, "invalid_input")
    assert pointers(problem) == {"/format"}


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        ("customer_id=", "customer_id_missing"),
        ("customer_id=%ff", "customer_id_invalid"),
        ("customer_id=%ed%a0%80", "customer_id_invalid"),
        ("customer_id=a%00b", "customer_id_invalid"),
        (f"customer_id={'x' * 300}", "customer_id_invalid"),
        ("anonymous_id=", "customer_id_missing"),
        ("anonymous_id=%ff", "customer_id_invalid"),
        ("anonymous_id=a%00b", "customer_id_invalid"),
        ("customer_id=%ff&anonymous_id=v", "customer_id_invalid"),
    ],
)
def test_a_recipient_without_a_usable_id_gets_the_default(
    running: Client, worker: Worker, query: str, reason: str
) -> None:
    answer = running.get(f"{DOOR}?{query}")
    assert answer.status_code == 200
    said = answer.get_json()
    assert (said["reason"], said["content"], said["recorded"]) == (reason, {"text": "Welcome!"}, False)
    text_answer = running.get(f"{DOOR}?{query}&format=text")
    assert (text_answer.text, text_answer.headers["X-Reason"]) == ("Welcome!", reason)
    assert n_decisions(worker) == 0


def test_an_unusable_id_is_not_looked_up_among_people(running: Client) -> None:
    """PostgreSQL can't even be asked for a text with a NUL."""
    running.decide("c", anonymous_id="v")
    answer = running.get(f"{DOOR}?customer_id=a%00b")
    assert (answer.status_code, answer.get_json()["reason"]) == (200, "customer_id_invalid")


@pytest.mark.parametrize(
    ("occasion", "reason"),
    [
        ("", "occasion_id_missing"),
        ("&occasion_id=", "occasion_id_missing"),
        ("&occasion_id=a%c3", "occasion_id_invalid"),
        (f"&occasion_id={'x' * 300}", "occasion_id_invalid"),
        ("&occasion_id=monday", "allocated"),
    ],
)
def test_an_experiment_on_occasions_needs_to_know_which(
    welcome: Client, worker: Worker, occasion: str, reason: str
) -> None:
    start_now(welcome, worker, EXPERIMENT | {"unit": "occasion"})
    answer = welcome.get(f"{DOOR}?customer_id=c{occasion}")
    assert (answer.status_code, answer.get_json()["reason"]) == (200, reason)
    assert welcome.get(f"{DOOR}?customer_id=c{occasion}").get_json() == answer.get_json()
    assert (answer.get_json()["source"] == "default") == (reason != "allocated")


@pytest.mark.parametrize(
    "attributes",
    [
        "attr.first_name=Zo%eb",
        "attr.orders=many",
        "attr.first_name=a%00b",
        "&".join(f"attr.a{n}=1" for n in range(100)),
        f"attr.first_name={'x' * 20_000}",
        "attr.=1&attr.&&=&%fe=1&%00=2",
        "utm_source=mail&_=17",
    ],
)
def test_attributes_that_cannot_be_used_are_as_good_as_absent(running: Client, attributes: str) -> None:
    running.put("/v1/attributes/orders", {"type": "number"})
    for n in range(6):
        answer = running.get(f"{DOOR}?customer_id=c{n}&format=text&{attributes}")
        assert answer.status_code == 200
        assert answer.text in {"Hi there", "A gift inside"}


def test_of_a_parameter_that_comes_twice_the_first_counts(running: Client) -> None:
    said = running.get(f"{DOOR}?customer_id=a&customer_id=b&attr.first_name=Al&attr.first_name=Bo").get_json()
    assert said["customer_id"] == "a"
    assert said["content"]["text"] in {"Hi Al", "A gift inside"}


@pytest.mark.parametrize(
    "header",
    [("Purpose", "prefetch"), ("Sec-Purpose", "prefetch;prerender"), ("X-Purpose", "preview"), ("X-Moz", "prefetch")],
)
def test_a_prefetch_gets_the_content_and_leaves_no_trace(
    running: Client, worker: Worker, header: tuple[str, str]
) -> None:
    answer = running.get(f"{DOOR}?customer_id=c1", headers=[header])
    assert (answer.status_code, answer.get_json()["recorded"]) == (200, False)
    assert n_decisions(worker) == 0
    assert running.get(f"{DOOR}?customer_id=c1").get_json()["variant"] == answer.get_json()["variant"]
    assert n_decisions(worker) == 1


def test_errors_are_not_cached(running: Client) -> None:
    for path in (DOOR, f"{DOOR}?customer_id=c&format=xml", "/v1/placements/nowhere/decision?customer_id=c"):
        assert running.get(path).headers["Cache-Control"] == "private, no-store", path


def test_a_customer_whose_id_looks_like_an_escape_is_taken_as_written(welcome: Client) -> None:
    assert welcome.get(f"{DOOR}?customer_id=%25FF").get_json()["customer_id"] == "%FF"
    assert welcome.get(f"{DOOR}?customer_id=Zo%C3%AB").get_json()["customer_id"] == "Zoë"
