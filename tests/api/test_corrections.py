"""Corrections over HTTP: made, seen, shown in results, and taken back."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from experiments.background import work_once
from experiments.worker import Worker
from tests.api.conftest import Client, assert_problem, make_key, pointers

PATH = "/v1/corrections"
RESULTS = "/v1/experiments/subject/results"


def _body(**changes: Any) -> dict[str, Any]:
    now = datetime.now(UTC)
    return {
        "event": "click",
        "occurred_from": (now - timedelta(hours=1)).isoformat(),
        "occurred_to": now.isoformat(),
        "action": "exclude",
        "reason": "the tracker doubled them",
    } | changes


@pytest.fixture
def clicked(running: Client) -> Client:
    """A client of a service whose experiment has six decisions, each clicked twice."""
    for i in range(6):
        decided = running.decide(f"c{i}")
        for _ in range(2):
            running.post("/v1/outcomes", {"decision_id": decided["decision_id"], "event": "click"})
    return running


def _responders(client: Client) -> int:
    return sum(one["n_responders"] for one in client.get(RESULTS).get_json()["overall"]["variants"])


def test_a_correction_is_made_applied_shown_and_taken_back(clicked: Client, worker: Worker) -> None:
    answer = clicked.post(PATH, _body())
    assert answer.status_code == 202, answer.text
    made = answer.get_json()
    assert (made["status"], made["n_excluded"], made["created_by"]) == ("applying", 0, "key/test")
    assert {"kind": "experiment", "key": "subject"} in made["touches"]
    results = clicked.get(RESULTS).get_json()
    assert [(one["id"], one["status"]) for one in results["corrections"]] == [(made["id"], "applying")]
    assert any("is applying" in warning for warning in results["warnings"])
    assert work_once(worker.engine, holder="test") is not None
    assert _responders(clicked) == 0
    results = clicked.get(RESULTS).get_json()
    assert (
        results["corrections"][0] | {"status": "applied", "n_excluded": 12, "event": "click"}
        == results["corrections"][0]
    )
    assert not any("applying" in warning for warning in results["warnings"])
    back = clicked.post(f"{PATH}/{made['id']}/revert", {"reason": "it was right"})
    assert (back.status_code, back.get_json()["status"]) == (202, "reverting")
    assert any("is reverting" in warning for warning in clicked.get(RESULTS).get_json()["warnings"])
    work_once(worker.engine, holder="test")
    assert _responders(clicked) == 6
    assert clicked.get(RESULTS).get_json()["corrections"] == []
    now = clicked.get(f"{PATH}/{made['id']}").get_json()
    assert (now["status"], now["n_excluded"], now["revert_reason"]) == ("reverted", 0, "it was right")
    entries = clicked.get(f"/v1/audit?subject=correction/{made['id']}").get_json()["items"]
    assert [(entry["action"], entry["detail"]["n_excluded"]) for entry in entries] == [("revert", 12), ("correct", 0)]


def test_an_outcome_that_comes_after_its_correction_is_answered_as_ever(clicked: Client, worker: Worker) -> None:
    made = clicked.post(PATH, _body()).get_json()
    decided = clicked.decide("c0")
    late = datetime.now(UTC) - timedelta(minutes=4)
    outcome = {"decision_id": decided["decision_id"], "event": "click", "occurred_at": late.isoformat()}
    assert clicked.post("/v1/outcomes", outcome).get_json()["statuses"] == {"attributed": 1}
    assert clicked.get(f"{PATH}/{made['id']}").get_json()["n_excluded"] == 1
    work_once(worker.engine, holder="test")
    assert clicked.get(f"{PATH}/{made['id']}").get_json()["n_excluded"] == 13


def test_hours_of_decisions_are_left_out_at_once(running: Client) -> None:
    hour = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
    body = {
        "decided_from": (hour - timedelta(hours=2)).isoformat(),
        "decided_to": hour.isoformat(),
        "experiment": "subject",
        "action": "exclude",
        "reason": "an outage",
    }
    answer = running.post(PATH, body)
    made = answer.get_json()
    assert (answer.status_code, made["status"]) == (201, "applied")
    assert (made["kind"], made["experiment"]) == ("decisions", "subject")
    assert made["touches"] == [], "it started after these hours"
    back = running.post(f"{PATH}/{made['id']}/revert", {"reason": "none"})
    assert (back.status_code, back.get_json()["status"]) == (200, "reverted")


def test_a_misspelt_event_is_seen_to_touch_nothing(running: Client) -> None:
    made = running.post(PATH, _body(event="clik")).get_json()
    assert made["touches"] == []
    assert running.get(f"{PATH}/{made['id']}").get_json()["touches"] == []


def test_what_is_wrong_is_said(running: Client) -> None:
    problem = assert_problem(running.post(PATH, _body(decided_from="2026-01-01T00:00:00Z")), 422, "invalid_input")
    assert pointers(problem) == {"/decided_from"}
    future = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    problem = assert_problem(running.post(PATH, _body(occurred_to=future)), 422, "invalid_input")
    assert pointers(problem) == {"/occurred_to"}
    zoneless = _body(occurred_from="2026-01-01T00:00:00")
    problem = assert_problem(running.post(PATH, zoneless), 422, "invalid_input")
    assert pointers(problem) == {"/occurred_from"}
    assert "time zone" in problem["errors"][0]["detail"]
    assert pointers(assert_problem(running.post(PATH, _body(reason="")), 422, "invalid_input")) == {"/reason"}
    assert pointers(assert_problem(running.post(PATH, _body(event="a\x00")), 422, "invalid_input")) == {"/event"}
    assert_problem(running.post(PATH, [1]), 422, "invalid_input")
    made = running.post(PATH, _body()).get_json()
    revert = f"{PATH}/{made['id']}/revert"
    assert pointers(assert_problem(running.post(revert, {}), 422, "invalid_input")) == {"/reason"}
    assert running.post(revert, {"reason": "why not"}).status_code == 202
    assert_problem(running.post(revert, {"reason": "again"}), 409, "correction_reverted")
    for id_ in ("999", "none", "-1", "9" * 30):
        assert_problem(running.get(f"{PATH}/{id_}"), 404, "correction_not_found")
        assert_problem(running.post(f"{PATH}/{id_}/revert", {"reason": "x"}), 404, "correction_not_found")


def test_corrections_are_listed_by_pages_and_made_by_administrators_alone(running: Client, worker: Worker) -> None:
    ids = [running.post(PATH, _body()).get_json()["id"] for _ in range(3)]
    first = running.get(f"{PATH}?limit=2").get_json()
    assert [one["id"] for one in first["items"]] == ids[:0:-1]
    second = running.get(f"{PATH}?limit=2&cursor={first['next_cursor']}").get_json()
    assert ([one["id"] for one in second["items"]], second["next_cursor"]) == ([ids[0]], None)
    analyst = Client(running.flask, make_key(worker, "analyse", name="analyst"))
    assert analyst.get(PATH).status_code == 200
    assert_problem(analyst.post(PATH, _body()), 403, "missing_scope")
    assert_problem(analyst.post(f"{PATH}/{ids[0]}/revert", {"reason": "x"}), 403, "missing_scope")
