"""Events of emails as the journal writes them: tokens used once, machines in haste found out, then outcomes.

A click at most ``HASTE`` after its delivery (or before it) is a machine's. Deliveries and clicks of a message meet in
one locked row, so that it doesn't matter which comes first: an early click counts as a person's until the delivery
comes, and is then marked and counted again. Both are known to each other for ``REMEMBER``.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import Connection, select, update

from experiments.corrections.in_force import rules_in_force
from experiments.corrections.settle import decisions_of
from experiments.corrections.totals import count_again
from experiments.database import upsert
from experiments.outcomes.attribution import OutcomeRow
from experiments.outcomes.rows import lock_decisions, write_outcomes
from experiments.tables import MailMessage, MailToken, Outcome

HASTE: Final = timedelta(seconds=2)
REMEMBER: Final = timedelta(days=2)
TOO_SOON: Final = "soon_after_delivery"
_MAX_EARLY: Final = 50  # clicks of one message that are kept in mind

_message: Any = MailMessage.__table__  # type: ignore[attr-defined]  # SQLModel's type stub lacks it
_token: Any = MailToken.__table__  # type: ignore[attr-defined]
_outcome: Any = Outcome.__table__  # type: ignore[attr-defined]


@dataclass(frozen=True, slots=True)
class Token:
    """A token that works once: hashes of it and of the body that it came with."""

    id: bytes
    digest: bytes
    forget_at: datetime


@dataclass(frozen=True, slots=True)
class MailRow:
    """An event as an outcome. ``message``: a hash of what all events of its email share."""

    outcome: OutcomeRow
    kind: str
    message: bytes | None
    token: Token | None


@dataclass(slots=True)
class _Memory:
    """What is known of one message."""

    delivered_at: datetime | None
    clicks: list[str]


def write_mail(
    connection: Connection, rows: Sequence[MailRow], *, shard: int, has_people: Callable[[], bool] = lambda: True
) -> list[str]:
    """Store events as outcomes, and count them where they belong.

    Returns:
        For each row what ``write_outcomes`` says, or ``replayed``: its token came with another body before.
    """
    replayed = _replayed(connection, [row.token for row in rows if row.token is not None])
    good = [row for row in rows if row.token is None or row.token not in replayed]
    marked = _told_apart(connection, good, shard=shard) if good else []
    statuses = iter(write_outcomes(connection, marked, shard=shard, has_people=has_people) if marked else ())
    return [next(statuses) if row.token is None or row.token not in replayed else "replayed" for row in rows]


def forget(connection: Connection, now: datetime) -> None:
    """Let go of messages and tokens that no longer matter."""
    for table in (_message, _token):
        connection.execute(table.delete().where(table.c.forget_at < now))


def _replayed(connection: Connection, tokens: Collection[Token]) -> set[Token]:
    if not tokens:
        return set()
    values = [
        {"id": one.id, "digest": one.digest, "forget_at": one.forget_at}
        for one in sorted(tokens, key=lambda token: token.id)
    ]
    connection.execute(upsert(connection, _token).on_conflict_do_nothing(), values)
    query = select(_token.c.id, _token.c.digest).where(_token.c.id.in_({one.id for one in tokens}))
    first = {row.id: row.digest for row in connection.execute(query)}
    return {one for one in tokens if first.get(one.id) != one.digest}


def _told_apart(connection: Connection, rows: Sequence[MailRow], *, shard: int) -> list[OutcomeRow]:
    """The rows' outcomes, those in haste marked; clicks that came before their delivery are marked in the database."""
    memory = _remembered(connection, [row for row in rows if row.kind in {"delivered", "click"}])
    for row in rows:
        if row.kind == "delivered" and row.message is not None and memory[row.message].delivered_at is None:
            memory[row.message].delivered_at = row.outcome.occurred_at
    early = {
        bytes.fromhex(click): one.delivered_at
        for one in memory.values()
        if one.delivered_at is not None
        for click in one.clicks
    }
    _mark(connection, early, shard=shard)
    found = []
    for row in rows:
        known = memory.get(row.message) if row.kind == "click" and row.message is not None else None
        outcome = row.outcome
        if known is not None and known.delivered_at is None:
            known.clicks = [*known.clicks, outcome.id.hex()][:_MAX_EARLY]
        elif known is not None and outcome.machine is None and _is_hasty(outcome.occurred_at, known.delivered_at):
            outcome = replace(outcome, machine=TOO_SOON)
        found.append(outcome)
    _remember(connection, memory)
    return found


def _is_hasty(clicked_at: datetime, delivered_at: datetime | None) -> bool:
    return delivered_at is not None and clicked_at - delivered_at <= HASTE


def _remembered(connection: Connection, rows: Sequence[MailRow]) -> dict[bytes, _Memory]:
    """What is known of the messages of rows, their memories locked, in order of id."""
    until = {row.message: row.outcome.received_at + REMEMBER for row in rows if row.message is not None}
    if not until:
        return {}
    values = [{"id": id_, "clicks": [], "forget_at": forget_at} for id_, forget_at in sorted(until.items())]
    connection.execute(upsert(connection, _message).on_conflict_do_nothing(), values)
    c = _message.c
    query = select(c.id, c.delivered_at, c.clicks).where(c.id.in_(until)).order_by(c.id).with_for_update()
    return {row[0]: _Memory(row[1], list(row[2])) for row in connection.execute(query)}


def _remember(connection: Connection, memory: Mapping[bytes, _Memory]) -> None:
    for id_, one in sorted(memory.items()):
        clicks = one.clicks if one.delivered_at is None else []
        values = {"delivered_at": one.delivered_at, "clicks": clicks}
        connection.execute(update(_message).where(_message.c.id == id_).values(**values))


def _mark(connection: Connection, early: Mapping[bytes, datetime], *, shard: int) -> None:
    """Mark those of these stored clicks that were in haste, and count the units that they count for again."""
    if not early:
        return
    c = _outcome.c
    query = select(c.id, c.event, c.occurred_at, c.received_at, c.status).where(c.id.in_(early), c.machine.is_(None))
    rows = connection.execute(query.order_by(c.id).with_for_update()).all()
    hasty = [row for row in rows if _is_hasty(row.occurred_at, early[row.id])]
    for event in sorted({row.event for row in hasty}):
        ids = [row.id for row in hasty if row.event == event]
        decisions = decisions_of(connection, ids, event=event)
        lock_decisions(connection, decisions)
        connection.execute(update(_outcome).where(c.id.in_(ids)).values(machine=TOO_SOON))
        count_again(connection, decisions, shard=shard)
        if any(rule.keeps_first for rule in rules_in_force(connection, event=event)):  # another may be the first now
            attributed = update(_outcome).where(c.id.in_(ids), c.status == "attributed")
            connection.execute(attributed.values(retry_at=c.received_at))
