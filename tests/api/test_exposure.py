"""An experiment that names an exposure event, as its users see it: who counts, what is shown, and what warns."""

from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest
from sqlmodel import Session

from experiments.catalog import lifecycle
from experiments.database import transaction
from experiments.learn import read_learnable
from experiments.tables import Experiment, Series
from experiments.worker import Worker
from tests.api.conftest import EXPERIMENT, Client, assert_problem, pointers
from tests.experiments.correcting import assert_recount_agrees


@pytest.fixture
def shown(welcome: Client, worker: Worker) -> Client:
    """A client of a service where ``subject`` runs, whose units count once they are shown their variant."""
    assert welcome.put("/v1/experiments/subject", EXPERIMENT | {"exposure": "shown"}).status_code == 201
    with transaction(worker.engine) as session:
        changed = lifecycle.start(session, "subject", actor="test")
        series = session.get_one(Series, changed.experiment.series)
        series.opens_at = series.created_at
    worker.snapshots.refresh()
    return welcome


def _report(client: Client, *outcomes: dict[str, Any]) -> dict[str, Any]:
    answer = client.post("/v1/outcomes", {"outcomes": list(outcomes)})
    assert answer.status_code == 200, answer.text
    return dict(answer.get_json())


def _decide_all(client: Client, n: int) -> list[dict[str, Any]]:
    body = {"placement": "welcome", "items": [{"customer_id": f"c{i}"} for i in range(n)]}
    answer = client.post("/v1/decisions/batch", body)
    assert answer.status_code == 200, answer.text
    return list(answer.get_json()["decisions"])


def _results(client: Client) -> dict[str, Any]:
    answer = client.get("/v1/experiments/subject/results")
    assert answer.status_code == 200, answer.text
    return dict(answer.get_json())


def test_only_who_met_the_variant_counts_and_results_say_how_many_were_decided(shown: Client, worker: Worker) -> None:
    ids = [shown.decide(f"c{n}")["decision_id"] for n in range(20)]
    before = _results(shown)
    assert sum(one["n_units"] for one in before["overall"]["variants"]) == 0
    assert before["checks"]["exposure"]["status"] == "not_estimable"
    assert any("no shown is reported of any of 20 decisions" in words for words in before["warnings"])
    _report(
        shown,
        *({"decision_id": id_, "event": "click"} for id_ in ids[:8]),  # before the exposure is reported
        *({"decision_id": id_, "event": "shown"} for id_ in ids[:6]),
        *({"decision_id": id_, "event": "shown"} for id_ in ids[:6]),
    )
    overall, check = _results(shown)["overall"], _results(shown)["checks"]["exposure"]
    assert sum(one["n_decided"] for one in overall["variants"]) == 20
    assert sum(one["n_units"] for one in overall["variants"]) == 6
    assert sum(one["n_responders"] for one in overall["variants"]) == 6
    assert (check["event"], check["n_decided"], check["n_exposed"]) == ("shown", 20, 6)
    assert_recount_agrees(worker.engine)


def test_a_decision_says_when_it_was_met_and_the_experiment_by_which_event(shown: Client) -> None:
    id_ = shown.decide("anna")["decision_id"]
    assert shown.get(f"/v1/decisions/{id_}").get_json()["exposed_at"] is None
    now = datetime.now(UTC)
    _report(shown, {"decision_id": id_, "event": "shown"})
    exposed_at = datetime.fromisoformat(shown.get(f"/v1/decisions/{id_}").get_json()["exposed_at"])
    assert abs(exposed_at - now) < timedelta(seconds=30)
    assert shown.get("/v1/experiments/subject").get_json()["exposure"] == "shown"


def test_an_exposure_must_be_an_events_name(welcome: Client) -> None:
    for wrong in ("", 5, ["shown"], "x" * 129):
        answer = welcome.put("/v1/experiments/subject", EXPERIMENT | {"exposure": wrong})
        assert pointers(assert_problem(answer, 422, "invalid_definition")) == {"/exposure"}


def test_a_definition_from_before_there_were_exposures_is_the_same_when_put_again(
    running: Client, worker: Worker
) -> None:
    with transaction(worker.engine) as session:
        row = session.get_one(Experiment, "subject")
        row.body = {key: value for key, value in row.body.items() if key != "exposure"}
    assert running.put("/v1/experiments/subject", EXPERIMENT).status_code == 200
    assert_problem(
        running.put("/v1/experiments/subject", EXPERIMENT | {"exposure": "shown"}), 409, "experiment_not_draft"
    )


def test_learning_counts_only_who_met_the_variant(shown: Client, worker: Worker) -> None:
    ids = [shown.decide(f"c{n}")["decision_id"] for n in range(10)]
    _report(shown, *({"decision_id": id_, "event": "shown"} for id_ in ids[:4]))
    with Session(worker.engine) as session:
        learnable = read_learnable(session, "subject", now=datetime.now(UTC))
        assert learnable is not None
        assert learnable.tallies.n_units.sum() == 4


def test_a_variant_that_changes_who_meets_it_is_told_by_both_checks(shown: Client, worker: Worker) -> None:
    """Of a all are met, of b half: some 1,500 of 2,000 units, in shares of 2 to 1 (p < 1e-8)."""
    made = _decide_all(shown, 2_000)
    met = [one for n, one in enumerate(made) if one["variant"] == "a" or n % 2]
    _report(shown, *({"decision_id": one["decision_id"], "event": "shown"} for one in met))
    answer = _results(shown)
    check = answer["checks"]["exposure"]
    assert check["status"] == "warning"
    assert check["p_value"] < 1e-8
    assert check["rate"]["a"] == 1.0
    assert 0.3 < check["rate"]["b"] < 0.7
    assert any("differ in how many units met them" in words for words in answer["warnings"])
    assert answer["checks"]["sample_ratio"]["status"] == "alarm"
    assert answer["overall"]["verdict"] == "broken"
    assert_recount_agrees(worker.engine)


def test_where_three_in_ten_meet_it_the_effect_on_them_is_found_which_all_units_would_dilute(
    shown: Client,
) -> None:
    """Truth: 10 % of those who met a answer and 40 % of those who met b, 2 % of the others. False alarm: 1 in 10**5.

    Over all units the difference would be 0.3 * 0.3 = 0.09; on those who met it, it is 0.3.
    """
    rng = np.random.default_rng(20261126)
    events = []
    for one in _decide_all(shown, 2_000):
        is_met = rng.random() < 0.3
        rate = (0.1 if one["variant"] == "a" else 0.4) if is_met else 0.02
        if rng.random() < rate:
            events.append({"decision_id": one["decision_id"], "event": "click"})
        if is_met:
            events.append({"decision_id": one["decision_id"], "event": "shown"})
    _report(shown, *events)
    answer = _results(shown)
    b = next(one for one in answer["overall"]["variants"] if one["variant"] == "b")
    se = (0.1 * 0.9 / 300 + 0.4 * 0.6 / 300) ** 0.5  # some 300 of each variant met it
    assert abs(b["uplift"]["absolute"] - 0.3) < 4.4 * se
    assert b["uplift"]["absolute"] - 0.09 > 4.4 * se
    assert answer["checks"]["exposure"]["status"] == "ok"
    assert answer["checks"]["sample_ratio"]["status"] in {"ok", "not_estimable"}


def test_a_goal_that_is_the_exposure_is_refused(welcome: Client) -> None:
    answer = welcome.put("/v1/experiments/subject", EXPERIMENT | {"exposure": "click"})
    assert pointers(assert_problem(answer, 422, "invalid_definition")) == {"/exposure"}
