"""settle: start the clocks of send plans whose test has begun, and write the winners when they are due.

As for guarding, what is read is read on one state of the database, and the transaction that writes checks that this
process still has its lease, and that nobody has changed the weights meanwhile.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import structlog
from sqlalchemy import Engine
from sqlmodel import Session, col, func, select

from experiments.access import audit
from experiments.catalog.definitions import ExperimentDefinition
from experiments.catalog.lifecycle import open_segments
from experiments.database import bump_snapshot, database_now, reading, transaction
from experiments.decisions.hashing import series_range
from experiments.errors import ResultsImpossible
from experiments.guardrails.pauses import live_by_segment
from experiments.learning.allocations import add_allocations, newest_allocations
from experiments.learning.lease import Lease, check
from experiments.send_plans.evidence import review_test
from experiments.send_plans.pinned import PinnedSendPlan, Winner
from experiments.send_plans.winners import choose_winners
from experiments.tables import Decision, Experiment, Series, SeriesVariant
from optimizer.errors import OptimizerError

log = structlog.get_logger(__name__)

ACTOR = "send plan"
REASON = "send_plan_winner"


@dataclass(frozen=True, slots=True)
class Found:
    """The winners of a send plan, with the review they came from, and the versions of the weights that it read."""

    winners: Mapping[str, Winner]
    review: Mapping[str, Any]
    versions: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class _Undecided:
    """A running experiment whose send plan has no winner yet."""

    experiment: Experiment
    series: Series
    plan: PinnedSendPlan


def settle(engine: Engine, lease: Lease) -> int:
    """Look at every running send plan once; returns how many got their winners.

    Raises:
        LeaseLost: Another process has taken over; what was written before is right and stays.
    """
    return sum(_settle_one(engine, lease, key=key) for key in _undecided(engine))


def _undecided(engine: Engine) -> list[str]:
    with reading(engine) as session:
        query = select(Experiment.key, Series.send_plan).join(Series, col(Series.number) == Experiment.series)
        query = query.where(Experiment.status == "running").order_by(col(Experiment.key))
        return [key for key, plan in session.exec(query) if plan is not None and plan["decided_at"] is None]


def _settle_one(engine: Engine, lease: Lease, *, key: str) -> bool:
    with reading(engine) as session:
        first = first_decision(session, key)
    if first is not None:
        with transaction(engine) as session:
            begin(session, key, first=first, lease=lease)
    try:
        with reading(engine) as session:
            found = find_winners(session, key)
    except (OptimizerError, ResultsImpossible) as error:
        log.warning("send_plan_not_decided", experiment=key, code=error.code, reason=str(error))
        return False
    if found is None:
        return False
    with transaction(engine) as session:
        is_written = write_winners(session, key, found=found, lease=lease)
    if is_written:
        log.info("send_plan_decided", experiment=key, n_segments=len(found.winners))
    return is_written


def first_decision(session: Session, key: str) -> datetime | None:
    """When the first unit of a send plan's test was decided, if its clock has not been started by that yet."""
    undecided = _find(session, key, is_locked=False)
    if undecided is None or undecided.plan.begun_at is not None:
        return None
    low, high = series_range(undecided.series.number or 0)
    query = select(func.min(Decision.decided_at)).where(col(Decision.id).between(low, high))
    first: datetime | None = session.exec(query).one()
    return first


def begin(session: Session, key: str, *, first: datetime, lease: Lease) -> None:
    """Start the clock of a send plan, once.

    Raises:
        LeaseLost: Another process has taken over.
    """
    bump_snapshot(session)  # first: it keeps changes of the lifecycle out until we commit
    check(session, lease)
    undecided = _find(session, key, is_locked=True)
    if undecided is not None and undecided.plan.begun_at is None:
        _store(session, undecided, plan=replace(undecided.plan, begun_at=first), action="send_plan_began")


def find_winners(session: Session, key: str) -> Found | None:
    """The winners of a send plan whose time has come; None before, and where there is nothing (more) to decide.

    Raises:
        ResultsImpossible: The sums contradict each other.
    """
    undecided, now = _find(session, key, is_locked=False), database_now(session)
    if undecided is None or (due := undecided.plan.decide_after) is None or now < due:
        return None
    series = undecided.series
    definition = ExperimentDefinition.model_validate(undecided.experiment.body)
    review = review_test(session, series, definition=definition, now=now)
    query = select(SeriesVariant.key).where(SeriesVariant.series == series.number, col(SeriesVariant.is_control))
    live = live_by_segment(session, series)
    winners = choose_winners(
        review,
        if_unclear=undecided.plan.if_unclear,
        live={segment: live[segment] for segment in open_segments(series)},
        control=session.exec(query).one(),
    )
    return Found(winners, review, _versions(session, series))


def write_winners(session: Session, key: str, *, found: Found, lease: Lease) -> bool:
    """Write the winners, once: all the weight of each segment goes to its own. False if something has changed.

    Raises:
        LeaseLost: Another process has taken over.
    """
    bump_snapshot(session)  # first: it keeps changes of the lifecycle out until we commit
    check(session, lease)
    undecided = _find(session, key, is_locked=True)
    if undecided is None or set(open_segments(undecided.series)) != set(found.winners):
        return False
    series = undecided.series
    if _versions(session, series) != found.versions:
        return False
    now = database_now(session)
    newest = newest_allocations(session, series.number or 0)
    won = {segment: one.variant for segment, one in found.winners.items() if one.variant is not None}
    add_allocations(
        session,
        series.number or 0,
        weights={segment: {**dict.fromkeys(newest[segment].weights, 0.0), key: 1.0} for segment, key in won.items()},
        reason=REASON,
        now=now,
        bases=_bases(found.review),
    )
    decided = replace(undecided.plan, decided_at=now, winners=found.winners)
    _store(session, undecided, plan=decided, action=REASON, detail={"verdicts": _verdicts(found.review)})
    return True


def _find(session: Session, key: str, *, is_locked: bool) -> _Undecided | None:
    """A running experiment whose send plan has no winner yet."""
    experiment = session.get(Experiment, key, with_for_update=is_locked, populate_existing=True)
    if experiment is None or experiment.status != "running" or experiment.series is None:
        return None
    series = session.get_one(Series, experiment.series, with_for_update=is_locked, populate_existing=True)
    plan = PinnedSendPlan.from_json(series.send_plan)
    return None if plan is None or plan.decided_at is not None else _Undecided(experiment, series, plan)


def _store(
    session: Session,
    undecided: _Undecided,
    *,
    plan: PinnedSendPlan,
    action: str,
    detail: Mapping[str, Any] | None = None,
) -> None:
    experiment, undecided.series.send_plan = undecided.experiment, plan.to_json()
    experiment.version += 1
    session.flush()
    said = {"version": experiment.version, **plan.shown(), **(detail or {})}
    audit.record(session, actor=ACTOR, action=action, subject=f"experiment/{experiment.key}", detail=said)


def _versions(session: Session, series: Series) -> dict[str, int]:
    return {segment: row.version for segment, row in newest_allocations(session, series.number or 0).items()}


_BASIS = ("n_units", "n_responders", "mean", "probability_best")


def _bases(review: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """What each segment's winner was chosen from, as allocations keep it."""
    return {
        row["segment"]: {one["variant"]: {name: one[name] for name in _BASIS} for one in row["variants"]}
        for row in review["segments"]
    }


def _verdicts(review: Mapping[str, Any]) -> dict[str, Any]:
    rows = [*review["segments"], {**review["overall"], "segment": ""}]
    return {row["segment"]: {name: row[name] for name in ("verdict", "winner", "leader", "reason")} for row in rows}
