"""A send for tests: a real worker on a placement, an experiment with a send plan, customers, clicks, and time."""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlmodel import Session, select

from experiments.background import work_once
from experiments.catalog import definition_store, experiment_store, lifecycle
from experiments.database import bump_snapshot, transaction
from experiments.decide import Decided
from experiments.outcomes.rows import write_outcomes
from experiments.tables import Series
from experiments.worker import Worker
from tests.experiments.rows import outcome

PLACEMENT: dict[str, Any] = {
    "channel": "email",
    "segmentation": "value",
    "holdout": {"share": 0.0},
    "default": {"key": "plain", "content": {"text": "Welcome"}},
}
PLAN: dict[str, Any] = {"test_share": 0.2, "winner_after_hours": 4, "if_unclear": "best"}
EXPERIMENT: dict[str, Any] = {
    "placement": "hero",
    "goal": "click",
    "send_plan": PLAN,
    "variants": [
        {"key": "a", "content": {"text": "News"}, "is_control": True},
        {"key": "b", "content": {"text": "A gift"}},
    ],
}


def put_placement(session: Session, **changes: Any) -> None:
    """The placement ``hero`` with segments loyal (five orders or more) and others."""
    definition_store.put_attribute(session, "orders", payload={"type": "number"}, actor="test")
    segments = {"segments": [{"key": "loyal", "rule": {"attribute": "orders", "gte": 5}}], "otherwise": "others"}
    definition_store.put_segmentation(session, "value", payload=segments, actor="test")
    definition_store.put_placement(session, "hero", payload=PLACEMENT | changes, actor="test")


def start(worker: Worker, key: str = "send", **changes: Any) -> int:
    """Define and start an experiment, in effect at once; the number of its series."""
    with transaction(worker.engine) as session:
        experiment_store.put_experiment(session, key, payload=EXPERIMENT | changes, actor="test")
        lifecycle.start(session, key, actor="test")
        series = series_of(session, key)
        series.opens_at -= timedelta(seconds=lifecycle.EFFECT_SECONDS)
        number = series.number or 0
    worker.snapshots.refresh()
    return number


def series_of(session: Session, key: str = "send") -> Series:
    """The series of an experiment."""
    return session.exec(select(Series).where(Series.experiment == key)).one()


def decide(worker: Worker, customers: Iterable[str], **attributes: Any) -> dict[str, Decided]:
    """Decide for a list of customers."""
    names = list(customers)
    asked = [worker.decider.ask(name, attributes=attributes) for name in names]
    return dict(zip(names, worker.decider.decide_list(asked, "hero"), strict=True))


def click(worker: Worker, decided: Iterable[Decided]) -> None:
    """Let the units of decisions click a moment later."""
    at = datetime.now(UTC)
    rows = [outcome("click", decision_id=bytes.fromhex(one.decision_id or ""), at=at) for one in decided]
    with transaction(worker.engine) as session:
        assert set(write_outcomes(session.connection(), rows, shard=1)) <= {"attributed"}


def let_pass(worker: Worker, *, hours: float, key: str = "send") -> None:
    """Let time pass, as far as the send plan's clock goes."""
    with transaction(worker.engine) as session:
        bump_snapshot(session)
        series = series_of(session, key)
        begun_at = datetime.fromisoformat(series.send_plan["begun_at"]) - timedelta(hours=hours)
        series.send_plan = {**series.send_plan, "begun_at": begun_at.isoformat()}
    worker.snapshots.refresh()


def learn(worker: Worker) -> None:
    """One pass of the background process, which the worker has seen."""
    assert work_once(worker.engine, holder="test") is not None
    worker.snapshots.refresh()
