"""learn: shift traffic. Tallies become posteriors, posteriors become new allocation versions, never overwriting one.

What is read is read on one state of the database; computing holds no transaction; writing takes short ones, each of
which checks that this learner still has its lease and that nobody has changed the allocation meanwhile.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
import structlog
from sqlalchemy import Engine, Table, func
from sqlalchemy import select as select_columns
from sqlmodel import Session, col, select

from experiments.catalog.definitions import ExperimentDefinition
from experiments.catalog.lifecycle import open_segments
from experiments.database import bump_snapshot, database_now, reading, transaction
from experiments.guardrails.pauses import live_by_segment
from experiments.learning.allocations import newest_allocations
from experiments.learning.lease import LEARNING, Lease, check
from experiments.learning.new_weights import Learnable, NewWeights, new_weights
from experiments.send_plans.pinned import PinnedSendPlan
from experiments.series import PinnedMetric
from experiments.tables import Allocation, Experiment, Series, SeriesVariant
from experiments.tallies.moves import hour_of
from experiments.tallies.read import read_ages, read_tallies
from optimizer.errors import NoVariation, OptimizerError

log = structlog.get_logger(__name__)

LEASE = LEARNING
_MAX_ROWS = 1_000  # of one transaction: it must not hold up the journals
_HOURS_APART = 24  # units older than this may be read by the day: ages differ little then

_allocation: Table = Allocation.__table__  # type: ignore[attr-defined]  # SQLModel's type stub lacks it


@dataclass(frozen=True, slots=True)
class Learned:
    """What one pass wrote: new allocation versions, and of how many series."""

    n_series: int
    n_allocations: int


def learn(engine: Engine, lease: Lease) -> Learned:
    """Look at every running experiment that learns, once, and write the weights that should change.

    Raises:
        LeaseLost: Another learner has taken over; what was written before is right and stays.
    """
    n_series = n_allocations = 0
    for key in _learning(engine):
        n_written = _learn_one(engine, lease, key=key)
        n_series += n_written > 0
        n_allocations += n_written
    return Learned(n_series, n_allocations)


def _learning(engine: Engine) -> list[str]:
    with reading(engine) as session:
        query = select(Experiment.key).where(Experiment.status == "running").order_by(Experiment.key)
        return list(session.exec(query))


def _learn_one(engine: Engine, lease: Lease, *, key: str) -> int:
    with reading(engine) as session:
        now = database_now(session)
        learnable = read_learnable(session, key, now=now)
    if learnable is None:
        return 0
    try:
        rows = new_weights(learnable, now=now)
    except NoVariation:
        return 0  # nobody has responded yet
    except OptimizerError as error:
        log.warning("not_learnt", experiment=key, code=error.code, reason=str(error))
        return 0
    return sum(_write(engine, lease, rows=portion) for portion in _portions(rows))


def _portions(rows: Sequence[NewWeights]) -> Iterator[Sequence[NewWeights]]:
    for start in range(0, len(rows), _MAX_ROWS):
        yield rows[start : start + _MAX_ROWS]


def _write(engine: Engine, lease: Lease, *, rows: Sequence[NewWeights]) -> int:
    with transaction(engine) as session:
        return write_weights(session, rows, lease=lease)


def read_learnable(session: Session, key: str, *, now: datetime) -> Learnable | None:
    """Read what an experiment's next weights follow from; None where it does not learn (any more)."""
    experiment = session.get(Experiment, key)
    if experiment is None or experiment.status != "running" or experiment.series is None:
        return None
    definition = ExperimentDefinition.model_validate(experiment.body)
    if definition.method == "fixed":
        return None
    series = session.get_one(Series, experiment.series)
    number, send_plan = experiment.series, PinnedSendPlan.from_json(series.send_plan)
    query = select(SeriesVariant).where(SeriesVariant.series == number).order_by(col(SeriesVariant.position))
    variants = session.exec(query).all()
    learning = [key for key in open_segments(series) if send_plan is None or send_plan.splits(key)]
    if not learning:
        return None  # all is promoted, or a send plan's weights: they stay as they are before it has a winner, and then
    newest, live = newest_allocations(session, number), live_by_segment(session, series)
    tallies = read_tallies(session, number, metric=definition.goal, by_hour=(hour_of(now)[0] - _HOURS_APART, None))
    available = [[key in live[segment] for key in tallies.variants] for segment in tallies.segments]
    return Learnable(
        series=number,
        definition=definition,
        goal=next(PinnedMetric.from_json(metric) for metric in series.metrics if metric["key"] == definition.goal),
        tallies=tallies,
        ages=read_ages(session, number, metric=definition.goal),
        newest={segment: row for segment, row in newest.items() if segment in learning},
        available=np.array(available, dtype=np.bool_).reshape(len(tallies.segments), len(tallies.variants)),
        control=next(i for i, variant in enumerate(variants) if variant.is_control),
    )


def write_weights(session: Session, rows: Sequence[NewWeights], *, lease: Lease) -> int:
    """Write new allocation versions of one series, but for those whose segment has changed meanwhile; returns how many.

    Raises:
        LeaseLost: Another learner has taken over.
    """
    bump_snapshot(session)  # first: it keeps changes of the lifecycle out until we commit
    check(session, lease)
    now = database_now(session)
    versions = _open_versions(session, rows[0].series)
    values = [_values(row, now) for row in rows if versions.get(row.segment) == row.version - 1]
    if values:
        session.connection().execute(_allocation.insert(), values)
    return len(values)


def _open_versions(session: Session, number: int) -> dict[str, int]:
    """The newest version of each segment that its running experiment still has."""
    closed = select(Series.closed_segments).join(Experiment, col(Experiment.series) == Series.number)
    left = session.exec(closed.where(Series.number == number, Experiment.status == "running")).one_or_none()
    if left is None:
        return {}
    c = _allocation.c
    newest = select_columns(c.segment, func.max(c.version)).where(c.series == number).group_by(c.segment)
    return {segment: version for segment, version in session.connection().execute(newest) if segment not in left}


def _values(row: NewWeights, now: datetime) -> dict[str, Any]:
    return {
        "series": row.series,
        "segment": row.segment,
        "version": row.version,
        "weights": row.weights,
        "basis": row.basis,
        "reason": "learned",
        "created_at": now,
    }
