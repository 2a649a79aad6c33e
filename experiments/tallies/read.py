"""Reading tallies: what learning and reviewing start from, in time that does not grow with the number of decisions.

What is stored is exact; what is read here becomes floats (a recount and the exports read exactly).
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import BigInteger, ColumnElement, Table, cast, func, select
from sqlmodel import Session

from experiments.corrections.hours import LeftOut, hours_left_out
from experiments.tables import (
    Allocation,
    Series,
    SeriesVariant,
    Tally,
    TallyAge,
    TallyCovariate,
    TallyProduct,
    TallyResponse,
)
from experiments.tallies.days import ALL_HOURS, Day, Hours, days_that_are_right
from experiments.tallies.moves import MACHINES, Covariates, Products, Responses
from experiments.tallies.rows import Chosen, Rows, added, groups, placed, read_rows

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_tally: Table = Tally.__table__  # type: ignore[attr-defined]  # SQLModel's type stub lacks it
_response: Table = TallyResponse.__table__  # type: ignore[attr-defined]
_covariate: Table = TallyCovariate.__table__  # type: ignore[attr-defined]
_product: Table = TallyProduct.__table__  # type: ignore[attr-defined]
_variant: Table = SeriesVariant.__table__  # type: ignore[attr-defined]
_age: Table = TallyAge.__table__  # type: ignore[attr-defined]
_allocation: Table = Allocation.__table__  # type: ignore[attr-defined]

_UNITS = ("n_units", "n_lacking", "decided_seconds")
_RESPONSES = tuple(Responses.__dataclass_fields__)
_COVARIATES = tuple(Covariates.__dataclass_fields__)
_PRODUCTS = tuple(Products.__dataclass_fields__)
_IN_LIST = 500  # longer lists of segments are filtered here: databases limit a statement's parameters


@dataclass(frozen=True, slots=True)
class Blocks:
    """Tallies of blocks of time: one block is a (segment, day, allocation version), in this order.

    Attributes:
        segment: Index of each block's segment, shape (n_blocks,).
        day: Days since 1970, shape (n_blocks,).
        version: Allocation version, shape (n_blocks,).
        of_row: Block of each row of the tallies, shape (n_rows,).
    """

    segment: Ints
    day: Ints
    version: Ints
    of_row: Ints


@dataclass(frozen=True, slots=True)
class Tallies:
    """A series' tallies and one metric's sums below them, one row a (segment, allocation version, variant, hour).

    Attributes:
        segments: Keys of the segments read, in the order of the series; those without units are there too.
        variants: Keys of all variants, retired ones too, in the order of the series.
        has_covariate: Whether the series has a covariate.
        segment: Index into ``segments``, shape (n_rows,); so are all arrays.
        version: Allocation version.
        variant: Index into ``variants``.
        hour: Whole hours since 1970 in which the units were decided (the first of a day, where days were asked for).
        n_units: Units.
        n_lacking: Of these, units that lacked an attribute that their segmentation needs.
        decided_seconds: Sum of the seconds since the start of ``hour`` at which they were decided.
        first_hour: The first hour in which any of them was decided: ``hour`` itself but for days.
        last_hour: The last such hour.
        n_responders: Units with a response; of a ratio, those with a denominator.
        total: Sum of the units' totals, in the metric's unit (binary: 0 or 1; of a ratio the numerators).
        total_squares: Sum of the squares of these.
        capped_total: As ``total``, each unit's total capped by the metric's cap.
        capped_squares: Sum of the squares of these.
        covariate_missing: Units whose covariate is missing; a constant stands for it. 0 without a covariate, as below.
        covariate: Sum of the units' covariates.
        covariate_squares: Sum of the squares of these.
        denominator: Sum of the units' denominators; 0 unless the metric is a ratio, as below.
        denominator_squares: Sum of the squares of these.
        denominator_total: Sum of the products of denominator and total.
        denominator_capped: As that, with the capped total.
        covariate_total: Sum of the products of covariate and total (binary: of the covariates of responders).
        covariate_capped: As that, with the capped total.
        covariate_denominator: Sum of the products of covariate and denominator.
    """

    segments: tuple[str, ...]
    variants: tuple[str, ...]
    has_covariate: bool
    segment: Ints
    version: Ints
    variant: Ints
    hour: Ints
    n_units: Floats
    n_lacking: Floats
    decided_seconds: Floats
    first_hour: Floats
    last_hour: Floats
    n_responders: Floats
    total: Floats
    total_squares: Floats
    capped_total: Floats
    capped_squares: Floats
    covariate_missing: Floats
    covariate: Floats
    covariate_squares: Floats
    denominator: Floats
    denominator_squares: Floats
    denominator_total: Floats
    denominator_capped: Floats
    covariate_total: Floats
    covariate_capped: Floats
    covariate_denominator: Floats

    def by_variant(self, values: Floats) -> Floats:
        """Sum a row array to shape (n_segments, n_variants)."""
        shape = len(self.segments), len(self.variants)
        return _summed_to(shape, self.segment * shape[1] + self.variant, values=values)

    def blocks(self) -> Blocks:
        """The blocks of time that rows belong to; within one, base rates and shares are taken as constant."""
        key = np.stack([self.segment, self.hour // 24, self.version])
        order, starts = groups(key)
        of_row = np.empty(order.size, dtype=np.int64)
        of_row[order] = np.repeat(np.arange(starts.size), np.diff(starts, append=order.size))
        segment, day, version = key[:, order[starts]]
        return Blocks(segment, day, version, of_row)

    def by_block(self, values: Floats, blocks: Blocks) -> Floats:
        """Sum a row array to shape (n_blocks, n_variants)."""
        shape = blocks.segment.size, len(self.variants)
        return _summed_to(shape, blocks.of_row * shape[1] + self.variant, values=values)

    def age_seconds(self, now: datetime) -> Floats:
        """Mean age of each row's units, shape (n_rows,)."""
        decided = self.hour * 3600.0 + self.decided_seconds / np.maximum(self.n_units, 1.0)
        return np.maximum(now.timestamp() - decided, 0.0)


@dataclass(frozen=True, slots=True)
class Ages:
    """First responses by age: a row a (variant, day of decision, age bin of ``optimizer.delay``), shapes (n_rows,)."""

    variants: tuple[str, ...]
    variant: Ints
    day: Ints
    age_bin: Ints
    n_first: Floats


COLUMNS = tuple(Tallies.__dataclass_fields__)[3:]  # of the rows, the key's four first
_N_KEY = 4

Weights = Mapping[tuple[str, int], Mapping[str, float]]  # each variant's share, by segment and allocation version


def read_tallies(
    session: Session,
    series: int,
    *,
    metric: str,
    segments: Collection[str] | None = None,
    before_hour: int | None = None,
    by_hour: Hours = ALL_HOURS[0],
    with_machines: bool = False,
) -> Tallies:
    """Read the tallies of a series and of one of its metrics, summed over shards, but for hours corrected away.

    Args:
        session: May be of any isolation: responses are read before units, so no response is without its unit; but
            only on one state of the database do products belong to the very responses read.
        series: Number of an existing series.
        metric: Key of a pinned metric; one that nobody has answered yet gives zeros.
        segments: Only these; by default all.
        before_hour: Only units decided before this hour (since 1970); by default all.
        by_hour: The hours that stay apart, by default all; others are summed to days.
        with_machines: Count what machines did as if people had.
    """
    left_out = hours_left_out(session, [series])
    days: list[Day] = []
    hours = ALL_HOURS
    if by_hour != ALL_HOURS[0] and not with_machines:
        spans = [by_hour, *((one.first, one.end) for one in left_out)]
        if before_hour is not None:
            spans.append((before_hour, None))
        days, hours = days_that_are_right(session, series, metric=metric, by_hour=spans)
    tallies = read_hours(
        session,
        series,
        metric=metric,
        segments=segments,
        hours=hours,
        before_hour=before_hour,
        by_hour=by_hour,
        left_out=left_out,
        with_machines=with_machines,
    )
    return _with_days(tallies, days) if days else tallies


def read_hours(
    session: Session,
    series: int,
    *,
    metric: str,
    hours: Sequence[Hours],
    by_hour: Hours,
    segments: Collection[str] | None = None,
    before_hour: int | None = None,
    left_out: Sequence[LeftOut] = (),
    with_machines: bool = False,
) -> Tallies:
    """As `read_tallies`, from tallies by the hour alone, of these hours less those left out."""
    keys, variants = _segments(session, series, wanted=segments), _variants(session, series)
    chosen = Chosen(
        series=series,
        segments={key: i for i, key in enumerate(keys)},
        variants=variants,
        few=keys if segments is not None and len(keys) <= _IN_LIST else None,
        hours=hours,
        before_hour=before_hour,
        left_out=left_out,
    )
    metrics = (metric, metric + MACHINES) if with_machines else (metric,)
    return _read(session, chosen, metrics=metrics, by_hour=by_hour)


def _read(session: Session, chosen: Chosen, *, metrics: tuple[str, ...], by_hour: Hours) -> Tallies:
    kind, has_covariate = _kind(session, chosen.series, metric=metrics[0])
    products = responses = covariates = None
    if has_covariate or kind == "ratio":
        products = read_rows(session, chosen, table=_product, columns=_PRODUCTS, metrics=metrics)
    responses = read_rows(session, chosen, table=_response, columns=_responses(kind), metrics=metrics)
    if has_covariate:
        covariates = read_rows(session, chosen, table=_covariate, columns=_COVARIATES)
    key, counts = _periods(read_rows(session, chosen, table=_tally, columns=_UNITS), by_hour)
    by_period = partial(_placed, key=key, by_hour=by_hour)
    answered = by_period(responses, n=len(_responses(kind)))
    return Tallies(
        tuple(chosen.segments),
        chosen.variants,
        has_covariate,
        *key,
        *counts,
        *np.broadcast_to(answered, (len(_RESPONSES), key.shape[1])),
        *by_period(covariates, n=len(_COVARIATES)),
        *by_period(products, n=len(_PRODUCTS)),
    )


def _with_days(tallies: Tallies, days: Sequence[Day]) -> Tallies:
    """Tallies and days that they lack, in the order of their keys."""
    places = {key: i for i, key in enumerate(tallies.segments)}, {key: i for i, key in enumerate(tallies.variants)}
    tables = [day.table(COLUMNS, segments=places[0], variants=places[1]) for day in days]
    whole = np.concatenate([*tables, np.stack([getattr(tallies, name) for name in COLUMNS])], axis=1)
    key, values = whole[:_N_KEY].astype(np.int64), whole[_N_KEY:]
    order, _ = groups(key)
    ordered, used = np.zeros(values.shape), values.any(axis=1)
    ordered[used] = values[used][:, order]
    return Tallies(tallies.segments, tallies.variants, tallies.has_covariate, *key[:, order], *ordered)


def _responses(kind: str | None) -> tuple[str, ...]:
    """The columns to read: of a binary metric every sum is the number of responders."""
    return _RESPONSES[:1] if kind == "binary" else _RESPONSES


def _period(hour: Ints, by_hour: Hours) -> Ints:
    """The first hour of the period that an hour falls into."""
    first, end = by_hour
    apart = (hour >= first) & (True if end is None else hour < end)
    return np.where(apart, hour, hour - hour % 24)


def _periods(rows: Rows, by_hour: Hours) -> tuple[Ints, Floats]:
    """The distinct keys of units, with their counts: as of `Tallies`, `n_units` until `last_hour`."""
    if (rows.values[0] <= 0.0).any():
        rows = _with_units(rows)
    hour = rows.key[-1]
    key = np.stack([*rows.key[:-1], _period(hour, by_hour)])
    n_units, n_lacking, decided_seconds = rows.values
    since_period = decided_seconds + n_units * (hour - key[-1]) * 3600.0
    order, starts = groups(key)
    counts = added(np.stack([n_units, n_lacking, since_period]), order=order, starts=starts)
    hours = hour[order].astype(np.float64)
    spans = [one.reduceat(hours, starts) if starts.size else hours for one in (np.minimum, np.maximum)]
    return key[:, order[starts]], np.stack([*counts, *spans])


def _with_units(rows: Rows) -> Rows:
    """Rows summed over shards, without those that no unit is left in (its exposure was of another hour after all)."""
    order, starts = groups(rows.key)
    sums = added(rows.values, order=order, starts=starts)
    has_units = sums[0] > 0.0
    return Rows(rows.key[:, order[starts]][:, has_units], sums[:, has_units])


def _placed(rows: Rows | None, *, key: Ints, by_hour: Hours, n: int) -> Floats:
    """The sums of rows in the periods of units, 0 where there are none, shape (n, n_keys)."""
    if rows is None:
        return np.zeros((n, key.shape[1]))
    period = np.stack([*rows.key[:-1], _period(rows.key[-1], by_hour)])
    return placed(Rows(period, rows.values), key)


def read_ages(session: Session, series: int, *, metric: str) -> Ages:
    """Read a metric's first responses by age, over all segments, summed over shards.

    Hours that are corrected away stay in: these counts are by the day, and only say how long responses take.
    """
    variants = _variants(session, series)
    c = _age.c
    key = (c.variant, c.day, c.age_bin)
    query = select(*key, _int_sum(c.n_first)).where(c.series == series, c.metric == metric).group_by(*key)
    rows = session.connection().execute(query).all()
    return Ages(
        variants,
        _ints(variants.index(row[0]) for row in rows),
        _ints(row[1] for row in rows),
        _ints(row[2] for row in rows),
        np.array([row[3] for row in rows], dtype=np.float64),
    )


def read_weights(session: Session, series: int) -> Weights:
    """The weights of every allocation version of a series."""
    c = _allocation.c
    rows = session.connection().execute(select(c.segment, c.version, c.weights).where(c.series == series))
    return {(segment, version): weights for segment, version, weights in rows}


def _segments(session: Session, series: int, *, wanted: Collection[str] | None) -> tuple[str, ...]:
    row = session.get_one(Series, series)
    everything = (row.kind == "programme" and _enrolled_in(session, series)) or row.segments
    return tuple(key for key in everything if wanted is None or key in wanted)


def _enrolled_in(session: Session, series: int) -> Sequence[str]:
    """The segments of a programme: those of whatever segmentation its placement had when it enrolled customers."""
    query = select(_tally.c.segment).where(_tally.c.series == series).distinct().order_by(_tally.c.segment)
    return session.connection().execute(query).scalars().all()


def _variants(session: Session, series: int) -> tuple[str, ...]:
    query = select(_variant.c.key).where(_variant.c.series == series).order_by(_variant.c.position)
    return tuple(session.connection().execute(query).scalars())


def _int_sum(column: ColumnElement[int]) -> ColumnElement[int]:
    return cast(func.sum(column), BigInteger)  # PostgreSQL adds bigints to a numeric


def _kind(session: Session, series: int, *, metric: str) -> tuple[str | None, bool]:
    """A metric's kind, and whether its series has a covariate."""
    row = session.get_one(Series, series)
    return next((one["kind"] for one in row.metrics if one["key"] == metric), None), row.covariate is not None


def _ints(values: Iterable[int]) -> Ints:
    return np.fromiter(values, dtype=np.int64)


def _summed_to(shape: tuple[int, int], cell: Ints, *, values: Floats) -> Floats:
    sums: Floats = np.bincount(cell, weights=values, minlength=shape[0] * shape[1]).astype(np.float64)
    return sums.reshape(shape)
