"""What corrections do to weights, and which of them results show."""

from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Engine
from sqlmodel import Session, select

from experiments.background import work_once
from experiments.corrections.shown import correction_warnings, corrections_of
from experiments.database import reading, transaction
from experiments.series import PinnedDenominator
from experiments.tables import Allocation, Correction, Series
from tests.experiments.correcting import AT, HOUR, make, outcomes_body, take_back
from tests.experiments.rows import CLICK, metric
from tests.experiments.worlds import SEGMENTS, clicks, observe, start_experiment


def _newest(engine: Engine) -> Allocation:
    with reading(engine) as session:
        query = select(Allocation).where(Allocation.segment == SEGMENTS[0]).order_by("version")
        return session.exec(query).all()[-1]


def test_weights_follow_a_correction_and_its_taking_back(engine: Engine) -> None:
    """By hand: b answered 40 of 100 against 20, but 35 of these in the hour of the bug; without it 5 against 20."""
    with transaction(engine) as session:
        number = start_experiment(session)
        for variant, before, bug in (("a", 20, 0), ("b", 5, 35)):
            for n_clicks, at in ((before, AT - HOUR), (bug, AT)):
                observe(session.connection(), number, variant=variant, n_units=50, values=clicks(n_clicks), at=at)
    assert work_once(engine, holder="test") is not None
    wrong = _newest(engine)
    assert (wrong.version, wrong.basis["b"]["n_responders"]) == (2, 40)
    assert wrong.weights["b"] > 0.95
    id_ = make(engine, outcomes_body("click", AT, AT + HOUR))
    work_once(engine, holder="test")
    right = _newest(engine)
    assert (right.version, right.basis["b"]["n_responders"], right.basis["a"]["n_responders"]) == (3, 5, 20)
    assert right.weights["a"] > 0.95
    take_back(engine, id_)
    work_once(engine, holder="test")
    again = _newest(engine)
    assert (again.version, again.basis["b"]["n_responders"]) == (4, 40)
    assert again.weights == pytest.approx(wrong.weights, abs=0.01)


def _series(**changes: Any) -> Series:
    ratio = metric(
        "rate", event="order", kind="ratio", aggregate="count", denominator=PinnedDenominator("visit", "count")
    )
    values: dict[str, Any] = {
        "kind": "experiment",
        "placement": "hero",
        "experiment": "mine",
        "unit": "customer",
        "segmentation": "everyone",
        "segmentation_version": 0,
        "segments": ["everyone"],
        "metrics": [one.to_json() for one in (CLICK, ratio)],
        "opens_at": AT,
        "closes_at": AT + timedelta(days=2),
        "created_at": AT,
    }
    return Series(**values | changes)


def _corrected(since: datetime, until: datetime, **changes: Any) -> Correction:
    kind = "outcomes" if changes.get("event") else "decisions"
    values = {"kind": kind, "action": "exclude", "reason": "why", "status": "applied", "created_by": "test"}
    return Correction(starts_at=since, ends_at=until, created_at=until, **values | changes)


@pytest.mark.parametrize(
    ("correction", "n_shown"),
    [
        (_corrected(AT, AT + HOUR, event="click"), 1),
        (_corrected(AT, AT + HOUR, event="order"), 1),
        (_corrected(AT, AT + HOUR, event="visit"), 1),
        (_corrected(AT, AT + HOUR, event="purchase"), 0),
        (_corrected(AT - HOUR, AT - HOUR / 2, event="click"), 0),
        (_corrected(AT + timedelta(days=4), AT + timedelta(days=9), event="click"), 1),  # two days and the window
        (_corrected(AT + timedelta(days=5), AT + timedelta(days=9), event="click"), 0),
        (_corrected(AT, AT + HOUR), 1),
        (_corrected(AT, AT + HOUR, experiment="mine"), 1),
        (_corrected(AT, AT + HOUR, experiment="other"), 0),
        (_corrected(AT - HOUR, AT), 0),
        (_corrected(AT + timedelta(days=2), AT + timedelta(days=3)), 0),
        (_corrected(AT, AT + HOUR, status="reverted"), 0),
        (_corrected(AT, AT + HOUR, event="click", status="applying"), 1),
    ],
)
def test_results_show_the_corrections_that_touch_them(session: Session, correction: Correction, n_shown: int) -> None:
    values = correction.model_dump(exclude={"id"})
    session.add(Correction(**values))
    session.flush()
    shown = corrections_of(session, _series())
    assert len(shown) == n_shown
    assert len(correction_warnings(shown)) == (correction.status == "applying")


def test_a_policy_of_the_experiment_keeps_the_hours_that_only_the_experiment_lost(session: Session) -> None:
    session.add(_corrected(AT, AT + HOUR, experiment="mine"))
    session.flush()
    assert corrections_of(session, _series(kind="policy")) == []
