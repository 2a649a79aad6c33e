"""Reading the units of an experiment: what they got, with which propensities, what they were like, what they did."""

import hashlib
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Row, Select, Table, and_, func, select
from sqlmodel import Session

from experiments.catalog.definition_store import declared_attributes
from experiments.catalog.definitions import EVERYONE
from experiments.corrections.hours import LeftOut, hours_left_out
from experiments.decisions.hashing import series_range
from experiments.series import PinnedMetric
from experiments.tables import Decision, Response, Series
from experiments.tallies.moves import hour_of
from experiments.tallies.read import Weights, read_weights
from experiments.uplift.errors import UndeclaredAttributes
from experiments.uplift.features import Census, Feature

Floats = NDArray[np.float64]
Index = NDArray[np.intp]

_PART: Final = 20_000
_DAY: Final = 86_400.0
_NEAR: Final = 0.1  # relative: a past campaign logs its observed shares, its allocation the shares that were meant

_decision: Table = Decision.__table__  # type: ignore[attr-defined]  # SQLModel's type stub lacks it
_response: Table = Response.__table__  # type: ignore[attr-defined]


@dataclass(frozen=True, slots=True)
class UnitsRead:
    """Matured units in the order of time, one row each.

    Attributes:
        features: The columns of ``x``.
        x: Attributes as they were at the decision, shape (n_units, n_features).
        y: The metric's value, capped; shape (n_units,), as all that follow but ``propensities``.
        responded: Whether the unit responded on the goal.
        variant: Index into the series' variants.
        customer: Whole numbers in the order of first decisions.
        segment: Index into the series' segments.
        day: Whole days since 1970 on which the unit counts from.
        propensities: Of all variants of the series, shape (n_units, n_variants); rows of zeros where what was logged is
            not what the allocation gives.
        fingerprint: Of all of it: the version of the data.
    """

    features: tuple[Feature, ...]
    x: Floats
    y: Floats
    responded: NDArray[np.bool_]
    variant: Index
    customer: Index
    segment: Index
    day: Index
    propensities: Floats
    fingerprint: str


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to be read; ``attributes``: only these (None: all declared ones)."""

    series: Series
    metric: PinnedMetric
    goal: PinnedMetric
    variants: Sequence[str]
    as_of: datetime
    attributes: Collection[str] | None = None


def read_units(session: Session, wanted: Wanted, *, progress: Callable[[float], None]) -> UnitsRead:
    """Read the units that have matured on a metric (and met their variant, where an exposure says so).

    Late decisions and hours that corrections leave out do not count, as in results.

    Args:
        session: Reads one state of the database.
        wanted: What.
        progress: Told of the share that is read, now and then.
    Raises:
        UndeclaredAttributes: Of those asked for.
    """
    declared = declared_attributes(session)
    if wanted.attributes is not None:
        unknown = [key for key in wanted.attributes if key not in declared]
        if unknown:
            raise UndeclaredAttributes(unknown)
        declared = {key: one for key, one in declared.items() if key in wanted.attributes}
    left_out = hours_left_out(session, [wanted.series.number or 0])
    census = Census(declared)
    columns = _Columns(wanted, weights=read_weights(session, wanted.series.number or 0))
    low, high = series_range(wanted.series.number or 0)
    counting = select(func.count()).select_from(_decision).where(_decision.c.id.between(low, high))
    n_all, n_read = session.connection().execute(counting).scalar_one(), 0
    for part in _parts(session, wanted, left_out=left_out):
        census.add([row.attributes or {} for row in part])
        columns.add(part)
        n_read += len(part)
        progress(n_read / n_all)
    return columns.joined(*census.joined())


def _parts(session: Session, wanted: Wanted, *, left_out: Sequence[LeftOut]) -> Iterator[list[Row[Any]]]:
    query = _query(wanted).execution_options(yield_per=_PART)
    for part in session.connection().execute(query).partitions():
        rows = [row for row in part if not _is_left_out(row, left_out)]
        if rows:
            yield rows


def _query(wanted: Wanted) -> Select[Any]:
    d, metric = _decision.c, wanted.metric
    own, goal = _response.alias("own"), _response.alias("goal")
    starts_at = d.decided_at if wanted.series.exposure is None else d.exposed_at
    low, high = series_range(wanted.series.number or 0)
    query = (
        select(
            d.customer_id,
            d.segment,
            d.variant,
            d.allocation_version,
            d.propensity,
            d.attributes,
            starts_at.label("starts_at"),
            own.c.n_outcomes,
            own.c.total,
            goal.c.n_outcomes.label("goal_outcomes"),
            goal.c.total.label("goal_total"),
        )
        .select_from(
            _decision.outerjoin(own, and_(own.c.decision_id == d.id, own.c.metric == metric.key)).outerjoin(
                goal, and_(goal.c.decision_id == d.id, goal.c.metric == wanted.goal.key)
            )
        )
        .where(d.id.between(low, high), d.late.is_(False), d.decided_at <= wanted.as_of)
        .where(starts_at <= wanted.as_of - metric.window - metric.grace)
    )
    return query.order_by(starts_at, d.id)


def _is_left_out(row: Row[Any], left_out: Sequence[LeftOut]) -> bool:
    hour = hour_of(row.starts_at)[0] if left_out else 0
    return any(one.first <= hour < one.end for one in left_out)


class _Columns:
    """Rows as arrays, gathered a part at a time."""

    def __init__(self, wanted: Wanted, *, weights: Weights) -> None:
        self._wanted, self._weights = wanted, weights
        self._variants = {key: at for at, key in enumerate(wanted.variants)}
        self._segments = {key: at for at, key in enumerate(wanted.series.segments)}
        self._customers: dict[str, int] = {}
        self._parts: list[tuple[NDArray[Any], ...]] = []
        self._vectors: dict[tuple[str, int], Floats] = {}

    def add(self, rows: Sequence[Row[Any]]) -> None:
        """Add some rows."""
        customers = self._customers
        self._parts.append(
            (
                np.array([self._value(row) for row in rows]),
                np.array([_responds(row, self._wanted.goal) for row in rows], dtype=np.bool_),
                np.array([self._variants[row.variant] for row in rows], dtype=np.intp),
                np.array([customers.setdefault(row.customer_id, len(customers)) for row in rows], dtype=np.intp),
                np.array([self._segments.get(row.segment, 0) for row in rows], dtype=np.intp),
                np.array([row.starts_at.timestamp() // _DAY for row in rows], dtype=np.intp),
                np.array([self._vector(row) for row in rows]),
            )
        )

    def joined(self, features: tuple[Feature, ...], x: Floats) -> UnitsRead:
        """All of it, and its fingerprint."""
        empty = [*(np.zeros(0) for _ in range(6)), np.zeros((0, len(self._variants)))]
        arrays = [np.concatenate(one) for one in zip(*self._parts, strict=True)] if self._parts else empty
        digest = hashlib.sha256(repr([one.to_json() for one in features]).encode())
        for one in (x, *arrays):
            digest.update(np.ascontiguousarray(one).tobytes())
        y, responded, variant, customer, segment, day, propensities = arrays
        return UnitsRead(
            features,
            x,
            y,
            responded.astype(np.bool_),
            variant.astype(np.intp),
            customer.astype(np.intp),
            segment.astype(np.intp),
            day.astype(np.intp),
            propensities,
            digest.hexdigest()[:32],
        )

    def _value(self, row: Row[Any]) -> float:
        metric = self._wanted.metric
        if row.n_outcomes is None:
            return 0.0
        if metric.kind == "binary":
            return float(row.n_outcomes > 0)
        value = row.n_outcomes if metric.kind == "count" else row.total
        return float(value if metric.cap is None else min(value, metric.cap))

    def _vector(self, row: Row[Any]) -> Floats:
        """All propensities of a row's allocation; zeros if its own is not what was logged."""
        place = (row.segment, row.allocation_version)
        vector = self._vectors.get(place)
        if vector is None:
            weights = self._weights.get(place) or self._weights.get((EVERYONE, row.allocation_version), {})
            vector = np.array([weights.get(key, 0.0) for key in self._variants], dtype=np.float64)
            self._vectors[place] = vector
        agrees = abs(vector[self._variants[row.variant]] - row.propensity) <= _NEAR * row.propensity
        return vector if agrees else np.zeros_like(vector)


def _responds(row: Row[Any], goal: PinnedMetric) -> bool:
    if row.goal_outcomes is None:
        return False
    return bool(row.goal_total != 0) if goal.kind == "mean" else row.goal_outcomes > 0
