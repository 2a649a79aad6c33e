"""Some stored outcomes made as the corrections in force want them: marked or not, and counted or not.

Locks are taken as everywhere: decisions by id, then outcomes by id, then responses, tallies, and corrections by id.
What must be so is worked out from scratch each time, so doing it again, or in another order, ends alike.
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, select, update

from experiments.corrections.in_force import rules_in_force
from experiments.corrections.rules import Reported, Rule, exclusions
from experiments.corrections.totals import count_again, parts
from experiments.customers.aliases import persons_of
from experiments.errors import OutcomesMoved
from experiments.outcomes.attribution import CLOCK_SKEW, REACH
from experiments.outcomes.rows import lock_decisions
from experiments.tables import Attribution, Decision, Outcome

_AT_ONCE = 5_000
_outcome: Any = Outcome.__table__  # type: ignore[attr-defined]  # SQLModel's type stub lacks it
_decision: Any = Decision.__table__  # type: ignore[attr-defined]
_attribution: Any = Attribution.__table__  # type: ignore[attr-defined]
_o = _outcome.c
_REPORTED = (_o.id, _o.event, _o.occurred_at, _o.received_at, _o.excluded_by, _o.machine)


def settle(connection: Connection, ids: Sequence[bytes], *, event: str, shard: int) -> Counter[int]:
    """Mark and count outcomes as the corrections in force want them.

    Where one of these keeps the first of a customer, all outcomes of that customer are settled.

    Args:
        connection: Of a transaction that writes.
        ids: At most some hundred outcomes of one event.
        event: Theirs.
        shard: Of the tallies that move.
    Returns:
        By how much the number of outcomes that each correction excludes has changed: for ``add_excluded``.
    Raises:
        OutcomesMoved: Another process attributed some of them meanwhile; roll back and try again.
    """
    rules = rules_in_force(connection, event=event)
    seen = _look(connection, ids, event=event, rules=rules)
    if connection.dialect.name == "postgresql":  # SQLite's writer is alone
        locked = _lock(connection, seen)
        seen = _look(connection, ids, event=event, rules=rules)
        if not _decisions(seen) <= locked:
            raise OutcomesMoved
    wanted = exclusions(seen.values(), rules=rules)
    changed = {id_: by for id_, by in wanted.items() if by != seen[id_].excluded_by}
    if not changed:
        return Counter()
    for by in set(changed.values()):
        _mark(connection, sorted(id_ for id_, one in changed.items() if one == by), by=by)
    flipped = [seen[id_] for id_, by in changed.items() if (by is None) != (seen[id_].excluded_by is None)]
    count_again(connection, {decision for one in flipped for decision in one.decisions}, shard=shard)
    return _difference((seen[id_].excluded_by, by) for id_, by in changed.items())


def decisions_of(connection: Connection, ids: Sequence[bytes], *, event: str) -> set[bytes]:
    """The decisions that outcomes of one event are attributed to."""
    return _decisions(_look(connection, ids, event=event, rules=()))


def _mark(connection: Connection, ids: Sequence[bytes], *, by: int | None) -> None:
    for part in parts(ids, _AT_ONCE):
        connection.execute(update(_outcome).where(_o.id.in_(part)).values(excluded_by=by))


def _lock(connection: Connection, seen: dict[bytes, Reported]) -> set[bytes]:
    decisions = _decisions(seen)
    for part in parts(sorted(decisions), _AT_ONCE):
        lock_decisions(connection, part)
    for part in parts(sorted(seen), _AT_ONCE):
        connection.execute(select(_o.id).where(_o.id.in_(part)).order_by(_o.id).with_for_update()).all()
    return decisions


def _decisions(seen: dict[bytes, Reported]) -> set[bytes]:
    return {decision for one in seen.values() for decision in one.decisions}


def _difference(moves: Iterable[tuple[int | None, int | None]]) -> Counter[int]:
    difference: Counter[int] = Counter()
    for before, after in moves:
        if before is not None:
            difference[before] -= 1
        if after is not None:
            difference[after] += 1
    return difference


# Reading: what outcomes are, and to whom they are attributed.


@dataclass(frozen=True, slots=True)
class _Span:
    """The times of outcomes, both ends included."""

    first: datetime
    last: datetime


def _look(connection: Connection, ids: Sequence[bytes], *, event: str, rules: Sequence[Rule]) -> dict[bytes, Reported]:
    """The outcomes with these ids; where a rule keeps the first, all that their customers have in such rules' times."""
    rows = connection.execute(select(*_REPORTED, _o.decision_id, _o.customer_id).where(_o.id.in_(ids))).all()
    if not rows:
        return {}
    seen = {row.id: _reported(row) for row in rows}
    firsts = [rule for rule in rules if rule.keeps_first]
    times = [row.occurred_at for row in rows]
    span = _Span(min([*times, *(rule.starts_at for rule in firsts)]), max([*times, *(rule.ends_at for rule in firsts)]))
    customer_of = _decisions_of(connection, _customers(connection, rows), span=span)
    links = _links(connection, sorted(customer_of))
    if firsts:
        seen |= _in_span(connection, sorted(links.keys() - seen.keys()), event=event, span=span)
    return {
        id_: replace(one, customer_id=customer_of[links[id_][0]], decisions=frozenset(links[id_]))
        if id_ in links
        else one
        for id_, one in seen.items()
    }


def _reported(row: Any) -> Reported:
    id_, event, occurred_at, received_at, excluded_by, machine = row[:6]
    return Reported(id_, event, occurred_at, received_at, excluded_by, is_machine=machine is not None)


def _customers(connection: Connection, rows: Iterable[Any]) -> set[str]:
    """Whose outcomes they may be: of the decision that one names, else of the customer that it names."""
    rows = list(rows)
    named = {row.decision_id for row in rows if row.decision_id is not None}
    query = select(_decision.c.customer_id).where(_decision.c.id.in_(named), ~_decision.c.late)
    found = set(connection.execute(query).scalars()) if named else set()
    found |= {row.customer_id for row in rows if row.decision_id is None}
    return found | persons_of(connection, found).keys()


# An attribution has no index by outcome. Each of these goes by a key of its own table, so that no plan of a join can
# begin with the outcomes and read every attribution.


def _decisions_of(connection: Connection, customers: Collection[str], *, span: _Span) -> dict[bytes, str]:
    """Decisions that outcomes of a span may be attributed to, and whose they are."""
    if not customers:
        return {}
    c = _decision.c
    open_then = c.decided_at.between(span.first - REACH, span.last + CLOCK_SKEW)
    rows = connection.execute(select(c.id, c.customer_id).where(c.customer_id.in_(customers), open_then))
    return {row[0]: row[1] for row in rows}


def _links(connection: Connection, decisions: Sequence[bytes]) -> dict[bytes, list[bytes]]:
    """The decisions of each outcome that is attributed to any of these."""
    c, links = _attribution.c, defaultdict[bytes, list[bytes]](list)
    for part in parts(decisions, _AT_ONCE):
        for row in connection.execute(select(c.outcome_id, c.decision_id).where(c.decision_id.in_(part))):
            links[row[0]].append(row[1])
    return dict(links)


def _in_span(connection: Connection, ids: Sequence[bytes], *, event: str, span: _Span) -> dict[bytes, Reported]:
    found: dict[bytes, Reported] = {}
    for part in parts(ids, _AT_ONCE):
        query = select(*_REPORTED).where(_o.id.in_(part), _o.event == event)
        rows = connection.execute(query.where(_o.occurred_at.between(span.first, span.last)))
        found |= {row.id: _reported(row) for row in rows}
    return found
