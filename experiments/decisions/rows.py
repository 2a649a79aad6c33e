"""Decision rows: written once per unit, whoever asks again gets the stored one back."""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import orjson
from sqlalchemy import Connection, select, update

from experiments.column_types import to_microseconds
from experiments.customers.ids import stood_for
from experiments.decisions.hashing import series_of
from experiments.series import PinnedCovariate
from experiments.tables import Decision, Series
from experiments.tallies.moves import (
    Covariates,
    Exposures,
    TallyKey,
    Units,
    add_covariates,
    add_exposures,
    add_units,
    hour_of,
)

_table: Any = Decision.__table__  # type: ignore[attr-defined]  # SQLModel's type stub lacks it
_series: Any = Series.__table__  # type: ignore[attr-defined]


@dataclass(slots=True)  # not frozen: that alone made choosing a third slower, or more
class DecisionRow:
    """A decision as chosen. ``stale``: chosen on a snapshot too old to have seen every change of the lifecycle.

    ``covariate``: the unit's value of ``of_covariate``, its series' covariate; None where it is missing.
    ``has_aliases``: another id of the person may have a decision that stands for this one.
    ``awaits_exposure``: the unit counts once it is reported to have met its variant.
    """

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
    covariate: float | None = None
    of_covariate: PinnedCovariate | None = None
    has_aliases: bool = False
    awaits_exposure: bool = False


@dataclass(frozen=True, slots=True)
class Stored:
    """What stands in the database for a unit; ``decision_id``: of the decision that stands for it, if not its own."""

    segment: str
    variant: str
    allocation_version: int
    propensity: float
    decision_id: bytes | None = None


def write_decisions(connection: Connection, rows: Sequence[DecisionRow], *, shard: int) -> list[Stored]:
    """Insert decisions of new units, count them, and return what is stored for each row, in the order of the rows."""
    unique = {row.id: row for row in sorted(rows, key=lambda row: row.id)}
    others = _of_other_ids(connection, [row.id for row in rows if row.has_aliases])
    for id_ in others:
        del unique[id_]
    late = _late(connection, [row for row in unique.values() if row.stale])
    insert = _insert_sqlite if connection.dialect.name == "sqlite" else _insert_postgresql
    stored = insert(connection, unique, late=late) if unique else {}
    _count(connection, [row for id_, row in unique.items() if id_ not in stored and id_ not in late], shard=shard)
    return [others.get(row.id) or stored.get(row.id) or _stored(unique[row.id]) for row in rows]


def read_decisions(connection: Connection, ids: Collection[bytes]) -> dict[bytes, Stored]:
    """What is stored for units, by their ids; those without a decision are not in it."""
    c = _table.c
    query = select(c.id, c.segment, c.variant, c.allocation_version, c.propensity).where(c.id.in_(ids))
    return {found[0]: Stored(*found[1:]) for found in connection.execute(query)}


def read_units(connection: Connection, ids: Collection[bytes]) -> dict[bytes, Stored]:
    """What stands for units, by their ids: their own decision, or the earlier one of the person's other id."""
    return read_decisions(connection, ids) | _of_other_ids(connection, ids)


def _of_other_ids(connection: Connection, ids: Collection[bytes]) -> dict[bytes, Stored]:
    """What stands for units whose person has a decision under another id."""
    stand_ins = stood_for(connection, ids) if ids else {}
    if not stand_ins:
        return {}
    stored = read_decisions(connection, set(stand_ins.values()))
    return {id_: replace(stored[other], decision_id=other) for id_, other in stand_ins.items() if other in stored}


def mark_contradicted(connection: Connection, ids: Sequence[bytes]) -> list[None]:
    """Mark decisions whose unit was answered with another variant than the stored one (the email door, in haste)."""
    connection.execute(update(_table).where(_table.c.id.in_(ids)).values(contradicted=True))
    return [None] * len(ids)


def _stored(row: DecisionRow) -> Stored:
    return Stored(row.segment, row.variant, row.allocation_version, row.propensity)


# Inserting is text for the driver itself: SQLAlchemy's own would cost several times what the database does.

_COLUMNS = (
    "id, customer_id, occasion_id, segment, variant, allocation_version, propensity, decided_at, attributes, "
    "lacks_attribute, late, contradicted, covariate"
)
_READ = "SELECT id, segment, variant, allocation_version, propensity FROM decision WHERE id"


def _insert_sqlite(
    connection: Connection, rows: Mapping[bytes, DecisionRow], *, late: Collection[bytes]
) -> dict[bytes, Stored]:
    """Insert what is new and return what was there; the only writer sees all there is."""
    marks = ", ".join("?" * len(rows))
    stored = _read(connection, f"{_READ} IN ({marks})", values=tuple(rows))
    values = [
        (
            *_plain(row),
            to_microseconds(row.decided_at),
            _json(row),
            row.lacks_attribute,
            id_ in late,
            False,
            row.covariate,
        )
        for id_, row in rows.items()
        if id_ not in stored
    ]
    if values:
        connection.exec_driver_sql(
            f"INSERT INTO decision ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",  # noqa: S608  # our names
            values,
        )
    return stored


def _insert_postgresql(
    connection: Connection, rows: Mapping[bytes, DecisionRow], *, late: Collection[bytes]
) -> dict[bytes, Stored]:
    """Insert what is new and return what was there.

    The second statement is one of its own, so that it sees rows that another worker has committed meanwhile.
    """
    values = [
        (*_plain(row), row.decided_at, _json(row), row.lacks_attribute, id_ in late, row.covariate)
        for id_, row in rows.items()
    ]
    columns = tuple(list(column) for column in zip(*values, strict=True))
    inserted = connection.exec_driver_sql(_INSERT_POSTGRESQL, columns).scalars()
    others = rows.keys() - {bytes(id_) for id_ in inserted}
    return _read(connection, f"{_READ} = ANY(%s)", values=(list(others),)) if others else {}


_INSERT_POSTGRESQL = f"""
    INSERT INTO decision ({_COLUMNS})
    SELECT id, customer_id, occasion_id, segment, variant, allocation_version, propensity, decided_at,
           attributes::jsonb, lacks_attribute, late, false, covariate
    FROM unnest(%s::bytea[], %s::text[], %s::text[], %s::text[], %s::text[], %s::int[], %s::float8[],
                %s::timestamptz[], %s::text[], %s::bool[], %s::bool[], %s::float8[])
      AS row (id, customer_id, occasion_id, segment, variant, allocation_version, propensity, decided_at,
              attributes, lacks_attribute, late, covariate)
    ON CONFLICT DO NOTHING RETURNING id
"""  # noqa: S608  # our names


def _plain(row: DecisionRow) -> tuple[bytes, str, str | None, str, str, int, float]:
    return (
        row.id,
        row.customer_id,
        row.occasion_id,
        row.segment,
        row.variant,
        row.allocation_version,
        row.propensity,
    )


def _json(row: DecisionRow) -> str | None:
    return None if row.attributes is None else orjson.dumps(row.attributes).decode()


def _read(connection: Connection, query: str, *, values: tuple[Any, ...]) -> dict[bytes, Stored]:
    return {bytes(found[0]): Stored(*found[1:]) for found in connection.exec_driver_sql(query, values)}


def _count(connection: Connection, rows: list[DecisionRow], *, shard: int) -> None:
    changes: dict[TallyKey, Units] = defaultdict(Units)
    covariates: dict[TallyKey, Covariates] = defaultdict(Covariates)
    exposures: dict[TallyKey, Exposures] = defaultdict(Exposures)
    for row in rows:
        hour, seconds = hour_of(row.decided_at)
        key = (series_of(row.id), row.segment, row.allocation_version, row.variant, hour)
        if row.awaits_exposure:
            exposures[key].n_decided += 1
            continue
        units = changes[key]
        units.n_units += 1
        units.n_lacking += row.lacks_attribute
        units.decided_seconds += seconds
        if row.of_covariate is not None:
            covariates[key].add_unit(row.of_covariate.counted(row.covariate), is_missing=row.covariate is None)
    add_units(connection, changes, shard=shard)
    add_covariates(connection, covariates, shard=shard)
    add_exposures(connection, exposures, shard=shard)


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
