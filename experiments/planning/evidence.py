"""What past tallies of a placement say of its segments: what units answer, and how many come."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import BigInteger, Table, cast, func
from sqlmodel import Session, col, select

from experiments.corrections.hours import hours_left_out
from experiments.review.money import RATE_HOURS
from experiments.series import PinnedMetric
from experiments.tables import Series, Tally
from experiments.tallies.read import Tallies, read_tallies

Floats = NDArray[np.float64]

_HOUR = 3600
_WEEK_HOURS = 7 * 24
_RECENT_HOURS = 90 * 24  # a baseline older than that is history
_IN_LIST = 500  # databases limit a statement's parameters
_tally: Table = Tally.__table__  # type: ignore[attr-defined]  # SQLModel's type stub lacks it


@dataclass(frozen=True, slots=True)
class Observed:
    """What units of a segment did, whatever they were shown.

    The standard deviation of a ratio is that of its linearised values (Deng, Knoblich and Lu, 2018, "Applying the Delta
    Method in Metric Analytics"): of (total - ratio * denominator) / mean denominator.

    Attributes:
        n_units: Matured units.
        total: Sum of their outcomes, capped where the metric has a cap; of a ratio the numerators.
        squares: Sum of the squares of these.
        units_per_week: At the rate of the last seven days with decisions; None from less than a day.
        source: Which series was read, in words.
        denominators: Of a ratio: sum of denominators, of their squares, of their products with the totals.
    """

    n_units: float
    total: float
    squares: float
    units_per_week: float | None
    source: str
    denominators: tuple[float, float, float] | None = None

    @property
    def mean(self) -> float:
        """Mean outcome of a unit; or the ratio."""
        return self.total / (self.n_units if self.denominators is None else self.denominators[0])

    @property
    def sd(self) -> float | None:
        """Standard deviation of a unit's outcome; None from one unit."""
        if self.n_units < 2:
            return None
        if self.denominators is None:
            squares = self.squares - self.total**2 / self.n_units
        else:
            below, below_squares, products = self.denominators
            squares = self.squares - 2.0 * self.mean * products + self.mean**2 * below_squares
            squares /= (below / self.n_units) ** 2
        return float(np.sqrt(max(squares, 0.0) / (self.n_units - 1.0)))


def together(observed: Sequence[Observed]) -> Observed | None:
    """Segments as one; None without any."""
    if not observed:
        return None
    rates = [one.units_per_week for one in observed]
    below = [one.denominators for one in observed if one.denominators is not None]
    return Observed(
        sum(one.n_units for one in observed),
        sum(one.total for one in observed),
        sum(one.squares for one in observed),
        None if None in rates else sum(rate or 0.0 for rate in rates),
        "; ".join(dict.fromkeys(one.source for one in observed)),
        (sum(one[0] for one in below), sum(one[1] for one in below), sum(one[2] for one in below)) if below else None,
    )


def observed_in(
    session: Session,
    placement: str,
    *,
    metric: PinnedMetric,
    segmentation: str,
    segments: Iterable[str],
    unit: str,
    held_out: float,
    exposure: str | None = None,
    now: datetime,
) -> dict[str, Observed]:
    """What happened lately in segments of a placement, each read from the series that served it last.

    Series of the same kind of unit are preferred. Customers who stick to their variant count once however often they
    come, so that the rate of an experiment that has run for long is that of newcomers.

    Args:
        session: Any.
        placement: Existing.
        metric: As it is now; series that measured something else by this key are not read.
        segmentation: Of the placement now.
        segments: Keys of it.
        unit: ``customer`` or ``occasion``.
        exposure: The event from which units are to count; series whose units counted otherwise are not read.
        held_out: Share of the customers whom experiments don't get, of those that a programme counts.
        now: Units decided in the 90 days before are read.
    Returns:
        By segment; those without matured units are not in it.
    """
    matured_before = int((now - metric.window - metric.grace).timestamp()) // _HOUR
    series = _measuring(session, placement, metric=metric, segmentation=segmentation, exposure=exposure)
    chosen = _chosen(session, series, unit=unit, hours=(matured_before - _RECENT_HOURS, matured_before))
    wanted, found = set(segments), dict[str, Observed]()
    for number, own in chosen.items():
        keys = [key for key in own if key in wanted]
        if keys:
            row = series[number]
            tallies = read_tallies(session, number, metric=metric.key, segments=keys)
            since = max(_since(row, metric), matured_before - _RECENT_HOURS)
            read = _observed(tallies, hours=(since, matured_before), metric=metric, source=_named(row))
            scale = 1.0 - held_out if row.kind == "programme" else 1.0
            found |= {key: replace(one, units_per_week=_times(one.units_per_week, scale)) for key, one in read.items()}
    return found


def _measuring(
    session: Session, placement: str, *, metric: PinnedMetric, segmentation: str, exposure: str | None
) -> dict[int, Series]:
    """Series of a placement that measured the metric, over the same segmentation (a programme counts by any)."""
    query = select(Series).where(Series.placement == placement, col(Series.exposure).is_not_distinct_from(exposure))
    query = query.where((col(Series.kind) == "programme") | (col(Series.segmentation) == segmentation))
    wanted = _meaning(metric.to_json())
    return {row.number or 0: row for row in session.exec(query) if any(_meaning(one) == wanted for one in row.metrics)}


def _meaning(pinned: Mapping[str, Any]) -> tuple[Any, ...]:
    """What a pinned metric measures; ratios pin two keys more than others did before there were ratios."""
    return tuple(pinned.get(name) for name in ("key", "event", "kind", "aggregate", "denominator"))


def _chosen(
    session: Session, series: Mapping[int, Series], *, unit: str, hours: tuple[int, int]
) -> dict[int, list[str]]:
    """The segments to be read from each series: that of the same unit, then of the last day, then with most units."""
    c, numbers = _tally.c, sorted(series)[-_IN_LIST:]
    n_units = cast(func.sum(c.n_units), BigInteger)
    query = select(c.series, c.segment, func.max(c.hour), n_units).where(
        c.series.in_(numbers),
        c.hour >= hours[0],
        c.hour < hours[1],
        *(left_out.spares(_tally) for left_out in hours_left_out(session, numbers)),
    )
    best: dict[str, tuple[tuple[bool, int, int], int]] = {}
    for number, segment, hour, n in session.connection().execute(query.group_by(c.series, c.segment)):
        alike = (series[number].unit == "occasion") == (unit == "occasion")
        candidate = ((alike, hour // 24, int(n)), number)
        best[segment] = max(candidate, best.get(segment, candidate))
    by_series = defaultdict(list)
    for segment, (_, number) in best.items():
        by_series[number].append(segment)
    return dict(by_series)


def _since(series: Series, metric: PinnedMetric) -> int:
    """The first whole hour in which a series counted the metric."""
    pinned = PinnedMetric.from_json(next(one for one in series.metrics if one["key"] == metric.key))
    return 0 if pinned.since is None else -int(-pinned.since.timestamp() // _HOUR)


def _named(series: Series) -> str:
    if series.kind == "experiment":
        return f"experiment {series.experiment!r}"
    return f"the {series.kind} of placement {series.placement!r}"


def _observed(tallies: Tallies, *, hours: tuple[int, int], metric: PinnedMetric, source: str) -> dict[str, Observed]:
    rows = (tallies.hour >= hours[0]) & (tallies.hour < hours[1])
    capped, is_ratio = metric.cap is not None, metric.kind == "ratio"
    values = [
        tallies.n_units,
        tallies.capped_total if capped else tallies.total,
        tallies.capped_squares if capped else tallies.total_squares,
        tallies.denominator,
        tallies.denominator_squares,
        tallies.denominator_capped if capped else tallies.denominator_total,
    ]
    sums = np.stack([_by_segment(tallies, np.where(rows, one, 0.0)) for one in values], axis=1).tolist()
    rates = _units_per_week(tallies)
    return {
        key: Observed(
            n, total, squares, float(rates[i]) if rates[i] > 0.0 else None, source, tuple(below) if is_ratio else None
        )
        for i, (key, (n, total, squares, *below)) in enumerate(zip(tallies.segments, sums, strict=True))
        if n > 0.0 and (below[0] != 0.0 or not is_ratio)
    }


def _units_per_week(tallies: Tallies) -> Floats:
    """At the rate of each segment's last seven days with decisions, shape (n_segments,); 0 from less than a day."""
    n_segments = len(tallies.segments)
    first, end = np.full(n_segments, np.iinfo(np.int64).max), np.zeros(n_segments, dtype=np.int64)
    np.minimum.at(first, tallies.segment, tallies.hour)
    np.maximum.at(end, tallies.segment, tallies.hour + 1)
    start = np.maximum(first, end - RATE_HOURS)
    units = _by_segment(tallies, np.where(tallies.hour >= start[tallies.segment], tallies.n_units, 0.0))
    hours = end - start
    rates: Floats = np.where(hours >= 24, units * _WEEK_HOURS / np.maximum(hours, 1), 0.0)
    return rates


def _by_segment(tallies: Tallies, values: Floats) -> Floats:
    sums: Floats = np.bincount(tallies.segment, weights=values, minlength=len(tallies.segments)).astype(np.float64)
    return sums


def _times(rate: float | None, scale: float) -> float | None:
    return None if rate is None else rate * scale
