"""Rows of the tables of tallies as arrays, summed over shards and to periods of hours.

What a segment has under one allocation comes as one text a column: as many rows of Python would cost more than the
database's sorting.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import orjson
from numpy.typing import NDArray
from sqlalchemy import ColumnElement, String, Table, and_, case, cast, func, or_, select
from sqlmodel import Session

from experiments.corrections.hours import LeftOut
from experiments.tallies.days import ALL_HOURS, Hours

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Chosen:
    """Which rows are read: of one series, but for hours left out.

    Attributes:
        series: Number of the series.
        segments: Index of each segment; rows of others are left out.
        variants: Keys of all its variants.
        few: Only these segments are asked for; None asks for all.
        before_hour: Only units decided before; None is all.
        left_out: Hours corrected away.
        hours: Only units decided in one of these spans.
    """

    series: int
    segments: Mapping[str, int]
    variants: tuple[str, ...]
    few: Collection[str] | None
    before_hour: int | None
    left_out: Sequence[LeftOut]
    hours: Sequence[Hours] = ALL_HOURS

    def conditions(self, table: Table) -> list[ColumnElement[bool]]:
        """What a row of a table has to meet."""
        conditions: list[ColumnElement[bool]] = [table.c.series == self.series]
        if self.few is not None:
            conditions.append(table.c.segment.in_(self.few))
        if self.before_hour is not None:
            conditions.append(table.c.hour < self.before_hour)
        if self.hours != ALL_HOURS:
            conditions.append(table.c.hour >= min(first for first, _ in self.hours))  # or else all hours are searched
            conditions.append(or_(*(_within(table, hours) for hours in self.hours)))
        return conditions + [hours.spares(table) for hours in self.left_out]


def _within(table: Table, hours: Hours) -> ColumnElement[bool]:
    first, end = hours
    from_first = table.c.hour >= first
    return from_first if end is None else and_(from_first, table.c.hour < end)


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows of a table of tallies.

    Attributes:
        key: Index of the segment, allocation version, index of the variant, hour; shape (4, n_rows).
        values: Columns of the table beside its key, shape (n_columns, n_rows).
    """

    key: Ints
    values: Floats


def read_rows(
    session: Session, chosen: Chosen, *, table: Table, columns: Sequence[str], metrics: Sequence[str] = ()
) -> Rows:
    """Read columns of the chosen rows, of some metrics where the table has them: then several may have the same key."""
    c, n_variants = table.c, len(chosen.variants)
    variant = case({key: i for i, key in enumerate(chosen.variants)}, value=c.variant)
    columns_of_row = (c.hour * n_variants + variant, *(c[name] for name in columns))
    texts = (func.aggregate_strings(cast(column, String), ",") for column in columns_of_row)
    query = select(c.segment, c.allocation_version, func.count(), *texts).where(*chosen.conditions(table))
    if metrics:
        query = query.where(c.metric.in_(metrics))
    rows = session.connection().execute(query.group_by(c.segment, c.allocation_version))
    found = [row for row in rows if row[0] in chosen.segments]
    of_group = np.array([(chosen.segments[row[0]], row[1]) for row in found], dtype=np.int64).reshape(-1, 2)
    segment, version = np.repeat(of_group, [row[2] for row in found], axis=0).T
    hours, *values = (_numbers(row[_N_GROUP + i] for row in found) for i in range(1 + len(columns)))
    hour, variants = np.divmod(hours.astype(np.int64), n_variants)
    return Rows(np.stack([segment, version, variants, hour]), np.stack(values))


_N_GROUP = 3  # segment, version, number of rows


def _numbers(texts: Iterable[str]) -> Floats:
    """Texts of JSON numbers: SQLite keeps exact numbers without an exponent, and PostgreSQL writes them so."""
    return np.array(orjson.loads(f"[{','.join(texts)}]"), dtype=np.float64)


def groups(key: Ints) -> tuple[Ints, Ints]:
    """Columns of a key that are alike.

    Args:
        key: Whole numbers, shape (n_parts, n_rows).
    Returns:
        The order that sorts the rows by their key, shape (n_rows,), and where in it each group starts, (n_groups,).
    """
    if key.shape[1] == 0:
        return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
    low = key.min(axis=1)
    code = np.ravel_multi_index(tuple(key - low[:, np.newaxis]), tuple(key.max(axis=1) - low + 1))
    order = np.argsort(code, kind="stable")  # nearly sorted as it is, so that this takes one pass
    ordered = code[order]
    return order, np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))


def added(values: Floats, *, order: Ints, starts: Ints) -> Floats:
    """Sums over groups, shape (n_values, n_groups)."""
    if starts.size == 0:
        return np.zeros((len(values), 0))
    return np.asarray(np.add.reduceat(values[:, order], starts, axis=1), dtype=np.float64)


def placed(rows: Rows, key: Ints) -> Floats:
    """The values of rows in the places of a key; 0 where there are none.

    Args:
        rows: Any; those whose key is not among ``key`` are left out.
        key: Distinct columns, shape (4, n_keys).
    Returns:
        Sums, shape (n_values, n_keys).
    """
    n_keys = key.shape[1]
    order, starts = groups(np.concatenate([key, rows.key], axis=1))
    values = np.concatenate([np.zeros((len(rows.values), n_keys)), rows.values], axis=1)
    sums = added(values, order=order, starts=starts)
    first = order[starts]  # sorting is stable and keys come first: a group without one starts with a row
    is_asked = first < n_keys
    result = np.zeros((len(values), n_keys))
    result[:, first[is_asked]] = sums[:, is_asked]
    return result
