"""Days of tallies that were summed ahead of reading (``summing``), as long as they are right.

A day is summed six hours after its end, and kept with the number of changes that its tallies had seen since it was
over; writers count these (``moves``). While both numbers agree the sum is right, else the day is read by the hour until
it is summed anew. So nobody waits for whoever sums, and a sum that is missing costs time alone.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import BigInteger, cast, func, select
from sqlmodel import Session

from experiments.tables import TallyChange, TallyDay

Floats = NDArray[np.float64]
Hours = tuple[int, int | None]  # from one until just before another; None is without end
ALL_HOURS: Final[Sequence[Hours]] = ((0, None),)
NO_HOURS: Final[Hours] = (0, 0)

_change: Any = TallyChange.__table__  # type: ignore[attr-defined]  # SQLModel's type stub lacks it
_day: Any = TallyDay.__table__  # type: ignore[attr-defined]
_MOST_GAPS: Final = 10  # between days that are right: each is a condition of a query


@dataclass(frozen=True, slots=True)
class Day:
    """A metric's tallies of one day as one table.

    Attributes:
        day: Days since 1970.
        segments: Keys that the column of segments points into.
        variants: Keys that the column of variants points into.
        columns: Names of the columns; others are 0.
        numbers: Shape (n_columns, n_rows).
    """

    day: int
    segments: Sequence[str]
    variants: Sequence[str]
    columns: Sequence[str]
    numbers: Floats

    def table(self, columns: Sequence[str], *, segments: Mapping[str, int], variants: Mapping[str, int]) -> Floats:
        """The rows of some segments, with columns and positions as asked for, shape (n_columns, n_rows)."""
        table = np.zeros((len(columns), self.numbers.shape[1]))
        table[[columns.index(name) for name in self.columns]] = self.numbers
        for name, keys, positions in (("segment", self.segments, segments), ("variant", self.variants, variants)):
            row = columns.index(name)
            table[row] = np.array([positions.get(key, -1) for key in keys] or [-1])[table[row].astype(np.int64)]
        return np.asarray(table[:, table[columns.index("segment")] >= 0.0])


def days_that_are_right(
    session: Session, series: int, *, metric: str, by_hour: Sequence[Hours]
) -> tuple[list[Day], Sequence[Hours]]:
    """The days that need not be read by the hour, and the hours that must be.

    Args:
        session: Changes are read before sums: whatever its isolation, a sum that agrees with them was right then.
        series: Its number.
        metric: A pinned one's key.
        by_hour: Hours to be read as they are: a day that has any of them is.
    """
    changes = n_changes(session, series)
    rows = kept_days(session, series, metric=metric)
    right = {
        row.day: row for row in rows if row.n_changes == changes.get(row.day, 0) and not _touches(by_hour, row.day)
    }
    if not right:
        return [], ALL_HOURS
    end = max(right) + 1
    gaps = _gaps(right, days=range(min([rows[0].day, *changes]), end))
    if len(gaps) > _MOST_GAPS:
        end = gaps[_MOST_GAPS].start
    hours = [(gap.start * 24, gap.stop * 24) for gap in gaps[:_MOST_GAPS]]
    return [unpacked(row) for day, row in right.items() if day < end], [*hours, (end * 24, None)]


def n_changes(session: Session, series: int) -> dict[int, int]:
    """How often the tallies of each day have changed since it was over."""
    c = _change.c
    number = cast(func.sum(c.n_changes), BigInteger)  # PostgreSQL adds bigints to a numeric
    rows = session.connection().execute(select(c.day, number).where(c.series == series).group_by(c.day))
    return {row[0]: row[1] for row in rows}


def kept_days(session: Session, series: int, *, metric: str) -> Sequence[Any]:
    """The rows of the days that were summed, right or not, in order."""
    query = select(_day).where(_day.c.series == series, _day.c.metric == metric).order_by(_day.c.day)
    return session.connection().execute(query).all()


def _touches(spans: Iterable[Hours], day: int) -> bool:
    return any(first < (day + 1) * 24 and (end is None or end > day * 24) for first, end in spans)


def _gaps(right: Collection[int], *, days: range) -> list[range]:
    """The runs of days that are not among the right ones."""
    gaps: list[range] = []
    for day in days:
        if day in right:
            continue
        if gaps and gaps[-1].stop == day:
            gaps[-1] = range(gaps[-1].start, day + 1)
        else:
            gaps.append(range(day, day + 1))
    return gaps


def unpacked(row: Any) -> Day:
    """A day as it was kept."""
    numbers = np.frombuffer(row.numbers, dtype=np.float64).reshape(len(row.columns), -1 if row.columns else 0)
    return Day(row.day, row.segments, row.variants, row.columns, numbers)
