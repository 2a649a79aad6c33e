"""Summing tallies by the day for those who read them later (``days``): now and then, in the background process."""

import time
from collections.abc import Callable
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Engine, delete, func, select
from sqlmodel import Session

from experiments.database import database_now, reading, transaction, upsert
from experiments.tables import Series, Tally, TallyDay
from experiments.tallies.days import NO_HOURS, Day, kept_days, n_changes, unpacked
from experiments.tallies.moves import HOURS_UNTIL_SUMMED, hour_of
from experiments.tallies.read import COLUMNS, Tallies, read_hours

Floats = NDArray[np.float64]

EVERY_SECONDS: Final = 300.0
_TURN_SECONDS: Final = 1.0
_day: Any = TallyDay.__table__  # type: ignore[attr-defined]  # SQLModel's type stub lacks it
_series: Any = Series.__table__  # type: ignore[attr-defined]
_tally: Any = Tally.__table__  # type: ignore[attr-defined]


class DaySums:
    """Sums what is over, one series after the other, a second at a time.

    Args:
        engine: Of a migrated database.
        clock: In seconds.
    """

    def __init__(self, engine: Engine, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._engine = engine
        self._clock = clock
        self._waiting: list[int] = []
        self._not_before = -float("inf")

    def look(self) -> int:
        """Sum for a second, if it is time to; returns how many days were summed."""
        began, n_days = self._clock(), 0
        if not self._waiting and began >= self._not_before:
            self._not_before = began + EVERY_SECONDS
            with reading(self._engine) as session:
                self._waiting = list(session.connection().execute(select(_series.c.number)).scalars())
        while self._waiting and self._clock() < began + _TURN_SECONDS:
            n_days += sum_days(self._engine, self._waiting.pop())
        return n_days


def sum_days(engine: Engine, series: int) -> int:
    """Sum the days of a series that are over and not rightly summed yet, for all its metrics; returns how many."""
    rows = []
    with reading(engine) as session:
        days = _over(session, series)
        changes = n_changes(session, series) if days else {}
        for metric in session.get_one(Series, series).metrics if days else ():
            rows += _summed(session, series, metric=metric["key"], days=days, changes=changes)
    if rows:
        with transaction(engine) as session:
            insert = upsert(session.connection(), _day)
            names = [column.name for column in _day.columns if not column.primary_key]
            keeping = insert.on_conflict_do_update(
                index_elements=list(_day.primary_key), set_={name: insert.excluded[name] for name in names}
            )
            session.connection().execute(keeping, rows)
    return len(rows)


def wrong_days(session: Session, series: int) -> list[tuple[str, int]]:
    """The metrics and days whose sums are not what their tallies by the hour give, though no change is known."""
    changes, wrong = n_changes(session, series), []
    for metric in session.get_one(Series, series).metrics:
        kept = [
            day for day in kept_days(session, series, metric=metric["key"]) if day.n_changes == changes.get(day.day, 0)
        ]
        if kept:
            right = _tables(session, series, metric=metric["key"], days=range(kept[0].day, kept[-1].day + 1))
            wrong += [(metric["key"], day.day) for day in kept if not _agree(unpacked(day), right[day.day])]
    return wrong


def forget_days(session: Session, series: int) -> None:
    """Have the days of a series summed anew."""
    session.connection().execute(delete(_day).where(_day.c.series == series))


def _over(session: Session, series: int) -> range:
    """The days that can be summed, of those from the first with units to the last."""
    hour = _tally.c.hour
    query = select(func.min(hour), func.max(hour)).where(_tally.c.series == series)
    first, last = session.connection().execute(query).one()
    end = (hour_of(database_now(session))[0] - HOURS_UNTIL_SUMMED) // 24
    return range(0) if first is None else range(first // 24, min(end, last // 24 + 1))


def _summed(
    session: Session, series: int, *, metric: str, days: range, changes: dict[int, int]
) -> list[dict[str, Any]]:
    query = select(_day.c.day, _day.c.n_changes).where(_day.c.series == series, _day.c.metric == metric)
    kept = {row.day: row.n_changes for row in session.connection().execute(query)}
    wrong = [day for day in days if kept.get(day) != changes.get(day, 0)]
    if not wrong:
        return []
    tables = _tables(session, series, metric=metric, days=range(wrong[0], wrong[-1] + 1))
    return [
        {
            "series": series,
            "metric": metric,
            "day": day,
            "n_changes": changes.get(day, 0),
            "segments": list(tables[day].segments),
            "variants": list(tables[day].variants),
            "columns": list(tables[day].columns),
            "numbers": tables[day].numbers.tobytes(),
        }
        for day in wrong
    ]


def _tables(session: Session, series: int, *, metric: str, days: range) -> dict[int, Day]:
    """Days from their hours."""
    hours = days.start * 24, days.stop * 24
    tallies = read_hours(session, series, metric=metric, hours=[hours], by_hour=NO_HOURS)
    table = np.stack([getattr(tallies, name) for name in COLUMNS]).astype(np.float64)
    of_day = table[COLUMNS.index("hour")] // 24
    return {day: _table(day, tallies, numbers=table[:, of_day == day]) for day in days}


def _table(day: int, tallies: Tallies, *, numbers: Floats) -> Day:
    used = np.flatnonzero(numbers.any(axis=1)).tolist()
    return Day(day, tallies.segments, tallies.variants, [COLUMNS[i] for i in used], numbers[used])


def _agree(kept: Day, right: Day) -> bool:
    places = {key: i for i, key in enumerate(right.segments)}, {key: i for i, key in enumerate(right.variants)}
    found, expected = (day.table(COLUMNS, segments=places[0], variants=places[1]) for day in (kept, right))
    return found.shape == expected.shape and np.allclose(found, expected, rtol=1e-9, atol=0.0)
