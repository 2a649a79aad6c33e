"""What the background process does for corrections: walk over the stored outcomes, in short transactions.

A correction is walked over once when it is made and once when it is taken back, in order of outcome id; its cursor
says how far, so that a process that was killed goes on where it was. Tallies equal a recount after each transaction.
"""

import time
from dataclasses import dataclass
from typing import Any

import structlog
from sqlalchemy import ColumnElement, Connection, Engine, and_, select, text, update
from sqlmodel import Session, col
from sqlmodel import select as select_rows

from experiments.corrections.in_force import add_excluded
from experiments.corrections.settle import settle
from experiments.database import database_now, reading, transaction
from experiments.errors import OutcomesMoved
from experiments.learning.lease import Lease, check
from experiments.tables import Correction, Outcome

log = structlog.get_logger(__name__)

CHUNK = 100  # outcomes of one transaction, some 40 ms on SQLite: it must not hold up the journals
MAX_SECONDS = 10.0  # of one pass: the rest goes on in the next
_SCAN = 20_000  # stored outcomes looked at for one chunk, so that no reader is long
_WAIT_SECONDS = 1.0  # for writers that may not have seen a new correction
_PAUSE_SECONDS = 0.01
_SHARD = 0  # of the tallies: the background process's
_DONE = {"applying": "applied", "reverting": "reverted"}

_correction: Any = Correction.__table__  # type: ignore[attr-defined]  # SQLModel's type stub lacks it
_outcome: Any = Outcome.__table__  # type: ignore[attr-defined]


def correct(engine: Engine, lease: Lease, *, seconds: float = MAX_SECONDS) -> int:
    """Go on with every correction that is being applied or reverted; returns how many outcomes were looked at.

    Raises:
        LeaseLost: Another process has taken over; what was committed is right and stays.
    """
    stop_at = time.monotonic() + seconds
    n_looked_at = 0
    try:
        n_looked_at += settle_arrivals(engine, lease, stop_at=stop_at)
        for id_ in _unfinished(engine):
            while time.monotonic() < stop_at and (step := walk_on(engine, lease, id_=id_)) is not None:
                n_looked_at += step
    except OutcomesMoved as error:
        log.info("corrections_try_again", reason=str(error))
    return n_looked_at


def is_unfinished(engine: Engine) -> bool:
    """Whether any correction is still being applied or reverted."""
    return bool(_unfinished(engine))


def settle_arrivals(engine: Engine, lease: Lease, *, stop_at: float) -> int:
    """Say which of the outcomes that arrived under a ``keep_first`` is the first; returns how many were looked at.

    Args:
        engine: Of a migrated database.
        lease: The background process's.
        stop_at: On the monotonic clock; the rest waits for the next pass.
    """
    n_settled = 0
    while time.monotonic() < stop_at:
        with transaction(engine) as session:
            check(session, lease)
            n_rows = _settle_due(session)
        n_settled += n_rows
        if n_rows == 0:
            break
    return n_settled


def _settle_due(session: Session) -> int:
    """Settle some of those that are due, of one event: then locks are taken in one order."""
    c, connection = _outcome.c, session.connection()
    due = select(c.id, c.event).where(c.retry_at <= database_now(session), c.status == "attributed")
    rows = connection.execute(due.order_by(c.retry_at).limit(CHUNK)).all()
    ids = [row.id for row in rows if row.event == rows[0].event]
    if ids:
        changes = settle(connection, ids, event=rows[0].event, shard=_SHARD)
        connection.execute(update(_outcome).where(c.id.in_(ids)).values(retry_at=None))
        add_excluded(connection, changes)
    return len(ids)


def _unfinished(engine: Engine) -> list[int]:
    with reading(engine) as session:
        unfinished = col(Correction.status).in_(_DONE) & (Correction.kind == "outcomes")
        return [id_ for id_ in session.exec(select_rows(Correction.id).where(unfinished).order_by("id")) if id_]


@dataclass(frozen=True, slots=True)
class _Walk:
    """The next chunk of a correction: outcomes that it covers, and how far the walk has come with them."""

    correction: Correction
    ids: list[bytes]
    cursor: bytes
    is_last: bool


def walk_on(engine: Engine, lease: Lease, *, id_: int, chunk: int = CHUNK) -> int | None:
    """Settle the next outcomes of one correction, in a transaction of their own.

    Args:
        engine: Of a migrated database.
        lease: The background process's.
        id_: Of the correction.
        chunk: How many outcomes, at most.
    Returns:
        How many outcomes were looked at; None when there is no more to do now.
    Raises:
        LeaseLost: Another process has taken over.
        OutcomesMoved: Something came in between; try again.
    """
    with reading(engine) as session:
        walk = _next_chunk(session, session.get_one(Correction, id_), chunk=chunk)
    if walk is None or (walk.correction.cursor is None and not _all_writers_know(engine)):
        return None
    with transaction(engine) as session:
        check(session, lease)
        event = walk.correction.event or ""
        changes = settle(session.connection(), walk.ids, event=event, shard=_SHARD) if walk.ids else {}
        _go_on(session.connection(), walk, changes=changes)
    return len(walk.ids)


def _next_chunk(session: Session, correction: Correction, *, chunk: int) -> _Walk | None:
    if correction.status not in _DONE:
        return None
    c, connection = _outcome.c, session.connection()
    after: ColumnElement[bool] = c.id > (correction.cursor or b"")
    last = connection.execute(select(c.id).where(after).order_by(c.id).offset(_SCAN - 1).limit(1)).scalar()
    within = after if last is None else and_(after, c.id <= last)
    covered = select(c.id).where(
        within,
        c.event == correction.event,
        c.occurred_at >= correction.starts_at,
        c.occurred_at < correction.ends_at,
    )
    ids = list(connection.execute(covered.order_by(c.id).limit(chunk)).scalars())
    is_full = len(ids) == chunk
    cursor = ids[-1] if is_full else last or b""
    return _Walk(correction, ids, cursor, is_last=last is None and not is_full)


def _go_on(connection: Connection, walk: _Walk, *, changes: Any) -> None:
    """Write how far the walk has come, unless somebody reverted the correction, or went on with it, meanwhile."""
    c, was = _correction.c, walk.correction
    locked = select(c.id).where(c.id.in_({was.id, *changes})).order_by(c.id).with_for_update()
    connection.execute(locked).all()
    end = {"status": _DONE[was.status], "cursor": None}
    same = and_(c.id == was.id, c.status == was.status, c.cursor.is_not_distinct_from(was.cursor))
    reached = update(_correction).where(same).values(**(end if walk.is_last else {"cursor": walk.cursor}))
    if connection.execute(reached).rowcount != 1:
        raise OutcomesMoved
    add_excluded(connection, changes)


def _all_writers_know(engine: Engine) -> bool:
    """Whether every writer that began before now has ended: those after it see the corrections as they are now.

    A writer reads the corrections in force after it has written something, so it has a transaction id by then.
    """
    if engine.dialect.name == "sqlite":
        return True
    with engine.begin() as connection:
        now = connection.execute(text("SELECT CAST(CAST(pg_current_xact_id() AS text) AS bigint)")).scalar_one()
    oldest = text("SELECT CAST(CAST(pg_snapshot_xmin(pg_current_snapshot()) AS text) AS bigint)")
    give_up_at = time.monotonic() + _WAIT_SECONDS
    while True:
        with engine.connect() as connection:
            if connection.execute(oldest).scalar_one() > now:
                return True
        if time.monotonic() >= give_up_at:
            log.warning("correction_waits_for_writers")
            return False
        time.sleep(_PAUSE_SECONDS)
