"""Outcome rows: attributed to decisions, added to responses and tallies, in one transaction under the decisions' locks.

Locks are taken in one order everywhere (decisions by id, then responses, then tallies), so that deadlocks are rare.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from functools import cache
from typing import Any

from sqlalchemy import Connection, Row, and_, select, update
from sqlalchemy.dialects import postgresql, sqlite

from experiments.corrections.in_force import add_excluded, counted, mark_arrivals
from experiments.corrections.totals import count_again
from experiments.customers.aliases import persons_of
from experiments.decisions.hashing import period_of, series_of
from experiments.outcomes.attribution import CLOCK_SKEW, REACH, Attributed, DecisionRef, OutcomeRow, attribute
from experiments.outcomes.responses import apply_hits
from experiments.series import SeriesMetrics, read_series_metrics
from experiments.tables import Attribution, Decision, Outcome

RETRY_SECONDS = 5
WAIT_HOURS = 24  # an outcome that no decision has claimed by then stays unattributed

_outcome: Any = Outcome.__table__  # type: ignore[attr-defined]  # SQLModel's type stub lacks it
_decision: Any = Decision.__table__  # type: ignore[attr-defined]
_attribution: Any = Attribution.__table__  # type: ignore[attr-defined]


def write_outcomes(
    connection: Connection, rows: Sequence[OutcomeRow], *, shard: int, has_people: Callable[[], bool] = lambda: True
) -> list[str]:
    """Store outcomes and count them where they belong.

    Args:
        connection: Of a transaction that writes.
        rows: As reported.
        shard: Of the tallies.
        has_people: Whether any customer has several ids.
    Returns:
        For each row ``attributed``, ``waiting``, ``unattributed``, ``future``, ``late`` or ``duplicate``.
    """
    unique: dict[bytes, OutcomeRow] = {}
    for row in rows:
        unique.setdefault(row.id, row)
    present = [row for row in unique.values() if not row.is_future]
    found = _attribute(connection, present, has_people=has_people())
    statuses = {row.id: found[row.id].status if row.id in found else "future" for row in unique.values()}
    new = _insert(connection, sorted(unique.values(), key=lambda row: row.id), statuses=statuses)
    marks = mark_arrivals(connection, [unique[id_] for id_ in unique if id_ in new], attributed=_counting(found))
    _apply(connection, [found[id_] for id_ in unique if id_ in new and id_ in found], excluded=marks, shard=shard)
    answer = list(_answer(connection, rows, new=new, statuses=statuses))
    add_excluded(connection, counted(marks))
    return answer


def sweep(connection: Connection, now: datetime, *, shard: int, limit: int = 500) -> int:
    """Try again to attribute outcomes that came before their decision; returns how many were looked at."""
    due = select(_outcome).where(_outcome.c.retry_at <= now, _outcome.c.status == "waiting")
    waiting = due.order_by(_outcome.c.retry_at).limit(limit).with_for_update(skip_locked=True)
    records = connection.execute(waiting).all()
    rows = [_row(record) for record in records]
    found = _attribute(connection, rows, has_people=True)
    for row in rows:
        connection.execute(update(_outcome).where(_outcome.c.id == row.id).values(**_next(row, found[row.id], now=now)))
    marked = {record.id for record in records if record.excluded_by is not None}
    fresh = [row for row in rows if row.id not in marked]
    marks = mark_arrivals(connection, fresh, attributed=_counting(found), now=now) if rows else {}
    _apply(connection, [found[row.id] for row in rows], excluded=marked | marks.keys(), shard=shard)
    add_excluded(connection, counted(marks))
    return len(rows)


def _counting(found: Mapping[bytes, Attributed]) -> set[bytes]:
    return {id_ for id_, result in found.items() if result.hits or result.kept}


def _next(row: OutcomeRow, found: Attributed, *, now: datetime) -> dict[str, Any]:
    if found.status != "waiting":
        return {"status": found.status, "retry_at": None}
    waited = now - row.received_at
    if waited > timedelta(hours=WAIT_HOURS):
        return {"status": "unattributed", "retry_at": None}
    return {"retry_at": now + max(waited, timedelta(seconds=RETRY_SECONDS))}


def _row(record: Row[Any]) -> OutcomeRow:
    values = record._mapping  # noqa: SLF001  # public, whatever its underscore says
    return OutcomeRow(**{name: values[name] for name in OutcomeRow.__dataclass_fields__ if name != "is_future"})


# Attribution: which decisions an outcome belongs to.


def _attribute(connection: Connection, rows: Collection[OutcomeRow], *, has_people: bool) -> dict[bytes, Attributed]:
    """Find the decisions of each outcome, lock those that count it, and say what counts where."""
    if not rows:
        return {}
    named = _named(connection, {row.decision_id for row in rows if row.decision_id is not None})
    customers = {ref.customer_id for ref in named.values()}
    customers |= {row.customer_id for row in rows if row.decision_id is None and row.customer_id is not None}
    persons = persons_of(connection, customers) if has_people and customers else {}
    theirs = _of_customers(connection, customers | persons.keys(), rows=rows)
    refs = [*named.values(), *theirs]
    metrics = read_series_metrics(connection, {series_of(ref.id) for ref in refs})
    by_customer = _by_customer(theirs, persons=persons, metrics=metrics)
    found = {row.id: attribute(row, named=named, by_customer=by_customer, metrics=metrics) for row in rows}
    exposed_at = lock_decisions(connection, {id_ for result in found.values() for id_ in result.decisions})
    if any(ref.exposed_at != exposed_at.get(ref.id, ref.exposed_at) for ref in refs):  # before the locks were held

        def now(ref: DecisionRef) -> DecisionRef:
            return replace(ref, exposed_at=exposed_at.get(ref.id, ref.exposed_at))

        named = {id_: now(ref) for id_, ref in named.items()}
        by_customer = {id_: [now(ref) for ref in refs] for id_, refs in by_customer.items()}
        found = {row.id: attribute(row, named=named, by_customer=by_customer, metrics=metrics) for row in rows}
    return found


_REF = (
    _decision.c.id,
    _decision.c.customer_id,
    _decision.c.occasion_id,
    _decision.c.segment,
    _decision.c.variant,
    _decision.c.allocation_version,
    _decision.c.decided_at,
    _decision.c.covariate,
    _decision.c.exposed_at,
)


def _named(connection: Connection, ids: Collection[bytes]) -> dict[bytes, DecisionRef]:
    if not ids:
        return {}
    query = select(*_REF).where(_decision.c.id.in_(ids), ~_decision.c.late)
    return {record[0]: DecisionRef(*record) for record in connection.execute(query)}


def _of_customers(
    connection: Connection, customers: Collection[str], *, rows: Iterable[OutcomeRow]
) -> list[DecisionRef]:
    """Decisions of customers that may still be open at the outcomes' times."""
    if not customers:
        return []
    times = [row.occurred_at for row in rows]
    query = select(*_REF).where(
        and_(
            _decision.c.customer_id.in_(customers),
            _decision.c.decided_at.between(min(times) - REACH, max(times) + CLOCK_SKEW),
            ~_decision.c.late,
        )
    )
    return [DecisionRef(*record) for record in connection.execute(query)]


def _by_customer(
    refs: Iterable[DecisionRef], *, persons: Mapping[str, str], metrics: Mapping[int, SeriesMetrics]
) -> dict[str, list[DecisionRef]]:
    """Decisions of customers, the earliest first; those of a person with several ids are under each of them."""
    sorted_refs: dict[str, list[DecisionRef]] = {}
    for ref in sorted(refs, key=lambda ref: ref.decided_at):
        sorted_refs.setdefault(persons.get(ref.customer_id, ref.customer_id), []).append(ref)
    for id_ in set(persons.values()):
        sorted_refs[id_] = _first_of_each_unit(sorted_refs.get(id_, ()), metrics=metrics)
    return sorted_refs | {name: sorted_refs[id_] for name, id_ in persons.items()}


def _first_of_each_unit(refs: Iterable[DecisionRef], *, metrics: Mapping[int, SeriesMetrics]) -> list[DecisionRef]:
    """Of the decisions that a person's ids have for one and the same unit, the earliest."""
    first: dict[tuple[int, str | int | None], DecisionRef] = {}
    for ref in refs:
        is_experiment = metrics[series_of(ref.id)].kind == "experiment"
        part = ref.occasion_id if is_experiment else period_of(ref.decided_at.timestamp())
        first.setdefault((series_of(ref.id), part), ref)
    return list(first.values())


def lock_decisions(connection: Connection, ids: Collection[bytes]) -> Mapping[bytes, datetime | None]:
    """Lock decisions in order of id: whoever counts an outcome of theirs holds these locks.

    Returns:
        When each was exposed, as it is while the lock is held; nothing on SQLite, whose writer is alone.
    """
    if not ids or connection.dialect.name != "postgresql":
        return {}
    c = _decision.c
    query = select(c.id, c.exposed_at).where(c.id.in_(ids)).order_by(c.id)
    return {row[0]: row[1] for row in connection.execute(query.with_for_update(key_share=True))}


# Writing.


@cache
def _inserting(dialect: str) -> Any:
    insert = postgresql.insert(_outcome) if dialect == "postgresql" else sqlite.insert(_outcome)
    return insert.on_conflict_do_nothing().returning(_outcome.c.id)


def _insert(connection: Connection, rows: list[OutcomeRow], *, statuses: dict[bytes, str]) -> set[bytes]:
    values = [
        {name: getattr(row, name) for name in OutcomeRow.__dataclass_fields__ if name != "is_future"}
        | {
            "status": statuses[row.id],
            "retry_at": row.received_at + timedelta(seconds=RETRY_SECONDS) if statuses[row.id] == "waiting" else None,
            "n_duplicates": 0,
        }
        for row in rows
    ]
    return set(connection.execute(_inserting(connection.dialect.name), values).scalars())


def _apply(connection: Connection, found: Iterable[Attributed], *, excluded: Collection[bytes], shard: int) -> None:
    """Attribute outcomes, and count them; those that a correction excludes stay attributed without counting.

    Decisions that an outcome exposes are counted again from all that they keep.
    """
    results = list(found)
    exposed = {id_ for result in results for id_ in result.exposes}
    hits = [(result.outcome, hit) for result in results for hit in result.hits if hit.decision.id not in exposed]
    links = {(decision, result.outcome.id) for result in results for decision in result.decisions}
    if links:
        values = [{"decision_id": decision, "outcome_id": outcome} for decision, outcome in sorted(links)]
        connection.execute(_attribution.insert(), values)
        apply_hits(connection, [one for one in hits if one[0].id not in excluded], shard=shard)
        count_again(connection, exposed, shard=shard)


def _answer(
    connection: Connection, rows: Sequence[OutcomeRow], *, new: set[bytes], statuses: dict[bytes, str]
) -> Iterable[str]:
    """Each row's status: a repeat (in these rows, or of an earlier call) is a duplicate, and is counted as one."""
    seen: set[bytes] = set()
    repeats: dict[bytes, int] = {}
    for row in rows:
        if row.id in new and row.id not in seen:
            seen.add(row.id)
            yield statuses[row.id]
        else:
            repeats[row.id] = repeats.get(row.id, 0) + 1
            yield "duplicate"
    for id_, n in sorted(repeats.items()):
        counted = _outcome.c.n_duplicates + n
        connection.execute(update(_outcome).where(_outcome.c.id == id_).values(n_duplicates=counted))
