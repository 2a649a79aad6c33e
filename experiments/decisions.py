"""Decision rows: written once per unit, whoever asks again gets the stored one back."""

from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import Any

from sqlalchemy import Connection, select, update
from sqlalchemy.dialects import postgresql, sqlite

from experiments.hashing import series_of
from experiments.tables import Decision, Series
from experiments.tallies import TallyKey, Units, add_units, hour_of

_table: Any = Decision.__table__  # type: ignore[attr-defined]  # SQLModel's type stub lacks it
_series: Any = Series.__table__  # type: ignore[attr-defined]


@dataclass(slots=True)  # not frozen: that alone would cost a tenth of the time of choosing
class DecisionRow:
    """A decision as chosen. ``stale``: chosen on a snapshot too old to have seen every change of the lifecycle."""

    id: bytes
    customer_id: str
    occasion_id: str | None
    segment: str
    variant: str
    allocation_version: int
    propensity: float
    decided_at: datetime
    attributes: dict[str, Any] | None = None
    lacks_attribute: bool = False
    stale: bool = False


@dataclass(frozen=True, slots=True)
class Stored:
    """What stands in the database for a unit."""

    segment: str
    variant: str
    allocation_version: int
    propensity: float


def write_decisions(connection: Connection, rows: Sequence[DecisionRow], *, shard: int) -> list[Stored]:
    """Insert decisions of new units, count them, and return what is stored for each row, in the order of the rows."""
    unique = {row.id: row for row in sorted(rows, key=lambda row: row.id)}
    late = _late(connection, [row for row in unique.values() if row.stale])
    new = _insert(connection, list(unique.values()), late=late)
    _count(connection, [unique[id_] for id_ in new if id_ not in late], shard=shard)
    stored = {id_: _stored(unique[id_]) for id_ in new}
    if len(stored) < len(unique):
        stored |= _read(connection, unique.keys() - new)
    return [stored[row.id] for row in rows]


def mark_contradicted(connection: Connection, ids: Sequence[bytes]) -> list[None]:
    """Mark decisions whose unit was answered with another variant than the stored one (the email door, in haste)."""
    connection.execute(update(_table).where(_table.c.id.in_(ids)).values(contradicted=True))
    return [None] * len(ids)


def _stored(row: DecisionRow) -> Stored:
    return Stored(row.segment, row.variant, row.allocation_version, row.propensity)


@cache
def _inserting(dialect: str) -> postgresql.Insert | sqlite.Insert:
    insert = postgresql.insert(_table) if dialect == "postgresql" else sqlite.insert(_table)
    return insert.on_conflict_do_nothing().returning(_table.c.id)  # type: ignore[return-value]  # still an Insert


def _insert(connection: Connection, rows: list[DecisionRow], *, late: Collection[bytes]) -> set[bytes]:
    """Insert the rows in id order and say which were new."""
    values = [
        {
            "id": row.id,
            "customer_id": row.customer_id,
            "occasion_id": row.occasion_id,
            "segment": row.segment,
            "variant": row.variant,
            "allocation_version": row.allocation_version,
            "propensity": row.propensity,
            "decided_at": row.decided_at,
            "attributes": row.attributes,
            "lacks_attribute": row.lacks_attribute,
            "late": row.id in late,
            "contradicted": False,
        }
        for row in rows
    ]
    return set(connection.execute(_inserting(connection.dialect.name), values).scalars())


def _read(connection: Connection, ids: Collection[bytes]) -> dict[bytes, Stored]:
    """What is stored for ids; a statement of its own, so that rows another worker has just committed are seen."""
    c = _table.c
    query = select(c.id, c.segment, c.variant, c.allocation_version, c.propensity).where(c.id.in_(ids))
    return {row[0]: Stored(*row[1:]) for row in connection.execute(query)}


def _count(connection: Connection, rows: list[DecisionRow], *, shard: int) -> None:
    changes: dict[TallyKey, Units] = defaultdict(Units)
    for row in rows:
        hour, seconds = hour_of(row.decided_at)
        units = changes[series_of(row.id), row.segment, row.allocation_version, row.variant, hour]
        units.n_units += 1
        units.n_lacking += row.lacks_attribute
        units.decided_seconds += seconds
    add_units(connection, changes, shard=shard)


def _late(connection: Connection, stale: list[DecisionRow]) -> set[bytes]:
    """Those of stale rows whose series, or whose segment of it, had closed before they were decided."""
    if not stale:
        return set()
    c = _series.c
    query = select(c.number, c.closes_at, c.closed_segments).where(c.number.in_({series_of(row.id) for row in stale}))
    closings: dict[int, dict[str, Any]] = {
        number: {"closes_at": closes_at, "closed_segments": segments}
        for number, closes_at, segments in connection.execute(query)
    }
    return {row.id for row in stale if _has_closed(row, **closings[series_of(row.id)])}


def _has_closed(row: DecisionRow, closes_at: datetime | None, *, closed_segments: dict[str, str]) -> bool:
    if closes_at is not None and row.decided_at >= closes_at:
        return True
    left = closed_segments.get(row.segment)
    return left is not None and row.decided_at >= datetime.fromisoformat(left)
