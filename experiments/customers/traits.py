"""Attributes that were reported of customers, beside those that a request says: declared ones only, typed."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, delete, select

from experiments.customers.ids import canonical_ids, tell_workers
from experiments.database import database_now, upsert
from experiments.tables import Customer

TRAITS = "traits"  # the journal's name for them
_customer: Any = Customer.__table__  # type: ignore[attr-defined]  # SQLModel's type stub lacks it


@dataclass(frozen=True, slots=True)
class Traits:
    """What was reported of a customer, as JSON by attribute; null takes an attribute away."""

    customer_id: str
    attributes: dict[str, Any]


def write_traits(connection: Connection, rows: Sequence[Traits]) -> list[None]:
    """Keep what was reported, on top of what is known; later rows go over earlier ones."""
    canonical = canonical_ids(connection, {row.customer_id for row in rows})
    ids = {canonical.get(row.customer_id, row.customer_id) for row in rows}
    known = _read(connection, ids)
    is_first = connection.execute(select(_customer.c.id).limit(1)).first() is None
    for row in rows:
        id_ = canonical.get(row.customer_id, row.customer_id)
        merged = known.get(id_, {}) | row.attributes
        known[id_] = {name: value for name, value in merged.items() if value is not None}
    _write(connection, known)
    if is_first:  # every worker must learn that there are such attributes at all
        tell_workers(connection)
    return [None] * len(rows)


def join_traits(connection: Connection, kept: str, *, gone: str) -> None:
    """Let one customer have both's attributes; where both have one, that of the id that goes on stands."""
    known = _read(connection, {kept, gone})
    if gone in known:
        _write(connection, {kept: known[gone] | known.get(kept, {})})
        connection.execute(delete(_customer).where(_customer.c.id == gone))


def _read(connection: Connection, ids: set[str]) -> dict[str, dict[str, Any]]:
    query = select(_customer.c.id, _customer.c.attributes).where(_customer.c.id.in_(ids)).order_by(_customer.c.id)
    locked = query.with_for_update() if connection.dialect.name == "postgresql" else query
    return {row[0]: row[1] for row in connection.execute(locked)}


def _write(connection: Connection, customers: dict[str, dict[str, Any]]) -> None:
    now = database_now(connection)
    insert = upsert(connection, _customer)
    changed = {name: insert.excluded[name] for name in ("attributes", "updated_at")}
    values = [{"id": id_, "attributes": known, "updated_at": now} for id_, known in sorted(customers.items())]
    connection.execute(insert.on_conflict_do_update(index_elements=["id"], set_=changed), values)
