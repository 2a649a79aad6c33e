"""Hours of decisions that are left out wherever tallies are read: nothing is rewritten, so taking back is immediate."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Table, and_, or_, select
from sqlmodel import Session

from experiments.column_types import to_microseconds
from experiments.tables import Correction, Experiment

HOUR_MICROSECONDS = 3_600_000_000

_correction: Any = Correction.__table__  # type: ignore[attr-defined]  # SQLModel's type stub lacks it
_experiment: Any = Experiment.__table__  # type: ignore[attr-defined]


@dataclass(frozen=True, slots=True)
class LeftOut:
    """Hours since 1970, from ``first`` until just before ``end``, of one series; of all if that is None."""

    series: int | None
    first: int
    end: int

    def covers(self, table: Table) -> ColumnElement[bool]:
        """Which rows of a table of tallies are left out."""
        hours = and_(table.c.hour >= self.first, table.c.hour < self.end)
        return hours if self.series is None else and_(hours, table.c.series == self.series)

    def spares(self, table: Table) -> ColumnElement[bool]:
        """Which rows of a table of tallies are read."""
        hours = or_(table.c.hour < self.first, table.c.hour >= self.end)
        return hours if self.series is None else or_(hours, table.c.series != self.series)


def hours_left_out(session: Session, series: Collection[int]) -> list[LeftOut]:
    """What corrections of decisions leave out of series; one of an experiment concerns its own series alone."""
    c, e = _correction.c, _experiment.c
    query = select(c.starts_at, c.ends_at, e.series).select_from(
        _correction.outerjoin(_experiment, e.key == c.experiment)
    )
    rows = session.connection().execute(
        query.where(
            c.kind == "decisions", c.status == "applied", or_(c.experiment.is_(None), e.series.in_(series))
        ).order_by(c.id)
    )
    return [LeftOut(row[2], _hour(row[0]), _hour(row[1])) for row in rows]


def _hour(moment: Any) -> int:
    return to_microseconds(moment) // HOUR_MICROSECONDS
