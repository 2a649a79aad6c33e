"""Several ids of one person: joined once, then decided for under the id that was there first.

An anonymous id is a customer's id that was used before it was known whose it is. Of two ids that are joined, the one
with the earlier decision goes on deciding (hash and holdout follow it), the other becomes its alias. A unit that only
the other had a decision for is *stood for* by that decision. Where both had one with different variants, the later is
marked ``merged``: it keeps its place in the tallies, and results say how many there are.

An anonymous id belongs to the first customer that it was joined with: a second one uses the same device. A person who
has ``MAX_IDS`` gets no more.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import Connection, func, select, text, update

from experiments.customers.ids import canonical_ids, tell_workers
from experiments.customers.traits import join_traits
from experiments.database import database_now, upsert
from experiments.decisions.hashing import UnitHash, period_of, series_of
from experiments.tables import Alias, Customer, Decision, DecisionAlias, Series, Workspace

_alias: Any = Alias.__table__  # type: ignore[attr-defined]  # SQLModel's type stub lacks it
_customer: Any = Customer.__table__  # type: ignore[attr-defined]
_stands_for: Any = DecisionAlias.__table__  # type: ignore[attr-defined]
_decision: Any = Decision.__table__  # type: ignore[attr-defined]
_series: Any = Series.__table__  # type: ignore[attr-defined]
_workspace: Any = Workspace.__table__  # type: ignore[attr-defined]
MAX_IDS = 100  # of one person; more are a robot, or everybody's guest account
MAX_LINKS = 100  # made in one transaction: no decision of anybody who may be joined is written meanwhile
_LOCK = 0x616C6961736573  # any constant of our own: the key of PostgreSQL's advisory lock


@dataclass(frozen=True, slots=True)
class Link:
    """Two ids of one person. Where neither has a decision yet, ``customer_id`` is the one that goes on."""

    anonymous_id: str
    customer_id: str


def write_links(connection: Connection, links: Sequence[Link]) -> list[str]:
    """Join ids; returns the id that goes on for each link's customer. Joining again changes nothing."""
    if connection.dialect.name == "postgresql":  # SQLite's writer is alone
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})
    return [_join(connection, link) for link in links]


def persons_of(connection: Connection, ids: Collection[str]) -> dict[str, str]:
    """All ids of the persons who have any of these, with the id that goes on; those without an alias are left out."""
    canonical = canonical_ids(connection, ids)
    wanted = {*ids, *canonical.values()}
    rows = connection.execute(select(_alias.c.id, _alias.c.customer_id).where(_alias.c.customer_id.in_(wanted)))
    found = {row[0]: row[1] for row in rows}
    return found | {id_: id_ for id_ in found.values()}


def _join(connection: Connection, link: Link) -> str:
    known = canonical_ids(connection, {link.anonymous_id, link.customer_id})
    one = known.get(link.anonymous_id, link.anonymous_id)
    other = known.get(link.customer_id, link.customer_id)
    if one == other or _is_taken(connection, link.anonymous_id):
        return other
    names = persons_of(connection, {one, other})
    people = {id_: {id_, *(name for name, whose in names.items() if whose == id_)} for id_ in (one, other)}
    if sum(map(len, people.values())) > MAX_IDS:
        return other
    made = {id_: _decisions(connection, people[id_]) for id_ in people}
    first = {id_: min((row.decided_at for row in rows), default=None) for id_, rows in made.items()}
    kept, gone = (one, other) if _is_earlier(first[one], first[other]) else (other, one)
    _rename(connection, kept, gone=gone, anonymous_id=link.anonymous_id)
    _reconcile(connection, kept, ours=made[kept], theirs=made[gone])
    join_traits(connection, kept, gone=gone)
    return kept


def _is_earlier(one: datetime | None, other: datetime | None) -> bool:
    return one is not None and (other is None or one < other)


def _is_taken(connection: Connection, anonymous_id: str) -> bool:
    query = select(_alias.c.id).where(_alias.c.anonymous_id == anonymous_id).limit(1)
    return connection.execute(query).first() is not None


def _rename(connection: Connection, kept: str, *, gone: str, anonymous_id: str) -> None:
    is_first = connection.execute(select(_alias.c.id).limit(1)).first() is None
    connection.execute(update(_alias).where(_alias.c.customer_id == gone).values(customer_id=kept))
    row = {"id": gone, "customer_id": kept, "anonymous_id": anonymous_id, "created_at": database_now(connection)}
    connection.execute(_alias.insert().values(**row))
    if is_first:  # every worker must learn that there are aliases at all
        tell_workers(connection)


class _Made(NamedTuple):
    """A decision, as far as joining looks at it; ``kind`` and ``unit`` are its series'."""

    id: bytes
    occasion_id: str | None
    variant: str
    decided_at: datetime
    kind: str
    unit: str

    @property
    def place(self) -> tuple[int, str | None]:
        """Its series, and which of a customer's units it is: the occasion, or the period."""
        return series_of(self.id), self.part

    @property
    def part(self) -> str | None:
        """What stands beside the customer in the unit."""
        return str(period_of(self.decided_at.timestamp())) if self.unit == "period" else self.occasion_id


def _decisions(connection: Connection, ids: Collection[str]) -> list[_Made]:
    c = _decision.c
    query = select(c.id, c.occasion_id, c.variant, c.decided_at).where(c.customer_id.in_(ids), ~c.late)
    rows = connection.execute(query).all()
    numbers = {series_of(row[0]) for row in rows}
    described = select(_series.c.number, _series.c.kind, _series.c.unit).where(_series.c.number.in_(numbers))
    series = {row[0]: (row[1], row[2]) for row in connection.execute(described)}
    return [_Made(row[0], row[1], row[2], row[3], *series[series_of(row[0])]) for row in rows]


def _reconcile(connection: Connection, kept: str, *, ours: Iterable[_Made], theirs: Iterable[_Made]) -> None:
    """Let their decisions stand for units that have none, and mark the later of two that differ."""
    first, others = _earliest(ours), _earliest(theirs)
    merged = {
        max(first[place], row, key=lambda made: made.decided_at).id
        for place, row in others.items()
        if place in first and first[place].variant != row.variant
    }
    if merged:
        connection.execute(update(_decision).where(_decision.c.id.in_(merged)).values(merged=True))
    standing = {
        place: row
        for place, row in others.items()
        if row.kind != "programme" and (place not in first or row.decided_at < first[place].decided_at)
    }
    if standing:
        secret = connection.execute(select(_workspace.c.secret)).scalar_one()
        insert = upsert(connection, _stands_for)
        values = [
            {"id": _unit_id(kept, row, secret=secret, number=place[0]), "decision_id": row.id}
            for place, row in sorted(standing.items(), key=lambda item: item[1].id)
        ]
        changed = {"decision_id": insert.excluded["decision_id"]}
        connection.execute(insert.on_conflict_do_update(index_elements=["id"], set_=changed), values)


def _earliest(rows: Iterable[_Made]) -> Mapping[tuple[int, str | None], _Made]:
    return {row.place: row for row in sorted(rows, key=lambda row: row.decided_at, reverse=True)}


def _unit_id(customer_id: str, row: _Made, *, secret: bytes, number: int) -> bytes:
    parts = (customer_id,) if row.part is None else (customer_id, row.part)
    return UnitHash(secret, number)(*parts)[0]


def n_merged(connection: Connection, ids: tuple[bytes, bytes]) -> int:
    """Decisions of a series (from one id to another) that are marked merged; an index holds no others."""
    query = select(func.count()).where(_decision.c.merged, _decision.c.id.between(*ids))
    return connection.execute(query).scalar_one()


def has_people(connection: Connection) -> bool:
    """Whether anybody has several ids, or attributes of their own."""
    queries = select(_alias.c.id).limit(1), select(_customer.c.id).limit(1)
    return any(connection.execute(query).first() is not None for query in queries)


def hold_off_links(connection: Connection) -> None:
    """Let nobody join ids until this transaction ends; many may hold off at once."""
    if connection.dialect.name == "postgresql":  # SQLite's writer is alone
        connection.execute(text("SELECT pg_advisory_xact_lock_shared(:key)"), {"key": _LOCK})
