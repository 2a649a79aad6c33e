"""POST /v1/outcomes."""

from typing import Any

import pytest

from tests.api.conftest import Client, assert_problem, pointers


def test_an_outcome_is_taken_once(running: Client) -> None:
    decided = running.decide("c1")
    outcome = {"outcome_id": "o1", "decision_id": decided["decision_id"], "event": "click"}
    taken = running.post("/v1/outcomes", outcome).get_json()
    assert taken == {"accepted": 1, "duplicates": 0, "rejected": [], "statuses": {"attributed": 1}}
    assert running.post("/v1/outcomes", outcome).get_json()["duplicates"] == 1


def test_an_outcome_before_its_decision_waits(running: Client) -> None:
    taken = running.post("/v1/outcomes", {"customer_id": "c1", "event": "click"}).get_json()
    assert taken["statuses"] == {"waiting": 1}


def test_an_outcome_out_of_its_time_is_kept_and_marked(running: Client) -> None:
    decided = running.decide("c1")
    for occurred_at, status in [("2999-01-01T00:00:00Z", "future"), ("2001-01-01T00:00:00Z", "unattributed")]:
        outcome = {"decision_id": decided["decision_id"], "event": "click", "occurred_at": occurred_at}
        taken = running.post("/v1/outcomes", outcome).get_json()
        assert (taken["accepted"], set(taken["statuses"])) == (1, {status}), occurred_at


def test_an_outcome_twice_in_one_body_is_taken_once(running: Client) -> None:
    outcome = {"outcome_id": "o1", "customer_id": "c1", "event": "click"}
    taken = running.post("/v1/outcomes", {"outcomes": [outcome, outcome]}).get_json()
    assert (taken["accepted"], taken["duplicates"]) == (1, 1)


def test_a_bad_outcome_never_harms_its_neighbours(running: Client) -> None:
    good: dict[str, Any] = {"customer_id": "c1", "event": "purchase", "value": 12.5}
    bad: list[Any] = [
        7,
        {},
        {"event": "click"},
        good | {"event": ""},
        good | {"value": "much"},
        good | {"value": 1e300},
        good | {"customer_id": "x" * 10_000},
        good | {"customer_id": "a\x00"},
        good | {"event": "a\x00"},
        good | {"outcome_id": "x" * 10_000},
        good | {"occurred_at": "yesterday"},
        good | {"decision_id": "no"},
        good | {"colour": "red"},
    ]
    running.decide("c1")
    taken = running.post("/v1/outcomes", {"outcomes": [good, *bad, good]}).get_json()
    assert taken["accepted"] == 2
    assert [one["index"] for one in taken["rejected"]] == list(range(1, len(bad) + 1))
    assert all(one["code"] and one["detail"] for one in taken["rejected"])


def test_an_outcome_that_json_cannot_hold_never_harms_its_neighbours(running: Client) -> None:
    bad = [
        b'{"customer_id": "c1", "event": "purchase", "value": NaN}',
        b'{"customer_id": "c1", "event": "purchase", "value": 1e999}',
        b'{"customer_id": "c1", "event": "purchase", "value": -Infinity}',
        b'{"customer_id": "c1", "event": "purchase", "value": ' + b"9" * 5_000 + b"}",
        b'{"customer_id": "\\ud800", "event": "purchase"}',
        b'{"customer_id": "c1", "event": "purchase", "\\udc00": 1}',
    ]
    good = b'{"customer_id": "c1", "event": "purchase", "value": 12.5}'
    body = b'{"outcomes": [' + b", ".join([good, *bad, good]) + b"]}"
    answer = running.post("/v1/outcomes", data=body, content_type="application/json")
    assert answer.status_code == 200, answer.text
    taken = answer.get_json()
    assert (taken["accepted"], taken["statuses"]) == (2, {"waiting": 2})
    assert [one["index"] for one in taken["rejected"]] == list(range(1, len(bad) + 1))
    assert all(one["code"] == "invalid_outcome" and one["detail"] for one in taken["rejected"])


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b'{"outcomes": [',
        b'{"outcomes": [{"customer_id": "\xff", "event": "click"}]}',
        b'{"outcomes": [{"customer_id": nothing, "event": "click"}]}',
        b'{"outcomes": ' + b"[" * 100_000,
        b'[{"value": NaN}]',
    ],
)
def test_a_body_that_is_no_json_is_refused_whole(running: Client, body: bytes) -> None:
    assert_problem(running.post("/v1/outcomes", data=body, content_type="application/json"), 400, "invalid_json")


def test_what_stands_beside_a_list_is_refused_whatever_it_is(running: Client) -> None:
    body = b'{"outcomes": [], "\\ud800": NaN}'
    answer = running.post("/v1/outcomes", data=body, content_type="application/json")
    assert pointers(assert_problem(answer, 422, "invalid_input")) == {"/?"}


def test_an_outcome_belongs_to_the_decision_that_it_names_whatever_customer_it_names(running: Client) -> None:
    decided = running.decide("c1")
    outcome = {"decision_id": decided["decision_id"], "customer_id": "somebody-else", "event": "click"}
    assert running.post("/v1/outcomes", outcome).get_json()["statuses"] == {"attributed": 1}
    responses = running.get(f"/v1/decisions/{decided['decision_id']}").get_json()["responses"]
    assert [(one["metric"], one["n_outcomes"]) for one in responses] == [("click", 1)]


def test_a_list_that_is_none_is_refused(running: Client) -> None:
    for body, pointer in [
        ([], ""),
        ({"outcomes": {}}, "/outcomes"),
        ({"outcomes": [], "more": 1}, "/more"),
        ({"outcomes": [{}] * 2_001}, "/outcomes"),
    ]:
        problem = assert_problem(running.post("/v1/outcomes", body), 422, "invalid_input")
        assert pointers(problem) == {pointer}
    answer = running.post("/v1/outcomes", data=b'{"value": NaN}', content_type="application/json")
    assert_problem(answer, 400, "invalid_json")
