"""Decisions are written under the id that goes on, whatever the process that chose knows of it.

A process remembers who a customer is for some seconds, so it may choose for an id that another process has joined to
another meanwhile. The writer looks, in the transaction that writes, while no link is made: such a row is not written
but answered ``Moved``, and its process chooses again.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from sqlalchemy import Connection

from experiments.customers.aliases import hold_off_links, persons_of
from experiments.decisions.rows import DecisionRow, Stored, write_decisions


@dataclass(frozen=True, slots=True)
class Moved:
    """Nothing was written: decisions for the row's customer are made under another id."""

    customer_id: str


def write_peoples_decisions(
    connection: Connection, rows: Sequence[DecisionRow], *, shard: int, has_people: Callable[[], bool]
) -> list[Stored | Moved]:
    """As ``write_decisions``, for rows whose customers may be known by several ids; no query where nobody is."""
    if not has_people():
        return list(write_decisions(connection, rows, shard=shard))
    hold_off_links(connection)
    persons = persons_of(connection, {row.customer_id for row in rows})
    if not persons:
        return list(write_decisions(connection, rows, shard=shard))
    moved = {id_: Moved(canonical) for id_, canonical in persons.items() if id_ != canonical}
    staying = [
        replace(row, has_aliases=True) if row.customer_id in persons else row
        for row in rows
        if row.customer_id not in moved
    ]
    written = iter(write_decisions(connection, staying, shard=shard))
    return [moved.get(row.customer_id) or next(written) for row in rows]
