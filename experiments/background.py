"""The background process: sweeps, corrects, guards, settles sends, learns, sums days, cuts SQLite's log, over again.

Beside it, in a process of its own, it has one analysis run at a time; in a thread of its own, webhooks are delivered.
"""

import contextlib
import sqlite3
import threading
import time
from dataclasses import dataclass

import structlog
from sqlalchemy import Engine

from experiments.access.idempotency import prune
from experiments.analyses.analyst import Analyst
from experiments.corrections.progress import correct, is_unfinished
from experiments.database import AWAY, database_now, transaction, write_queue
from experiments.errors import LeaseLost
from experiments.guardrails.guard import Guarded, guard
from experiments.learn import LEASE, Learned, learn
from experiments.learning.lease import holder_name, release, take
from experiments.mail_events.rows import forget
from experiments.outcomes.rows import sweep
from experiments.send_plans.settle import settle
from experiments.tallies.summing import DaySums
from experiments.webhooks.courier import Courier
from experiments.webhooks.verdicts import Verdicts

log = structlog.get_logger(__name__)

LEASE_SECONDS = 60.0
MAX_BACK_OFF_SECONDS = 30.0
CHECKPOINT_SECONDS = 30.0
_CHECKPOINT_WAIT_SECONDS = 0.2  # for readers: writers wait as long
_SWEEP_ROWS = 500
_MAX_SWEEPS = 200  # of one pass: new outcomes may keep coming
_SHARD = 0  # of the tallies: web workers have 1 and up


@dataclass(frozen=True, slots=True)
class Pass:
    """What one pass did: waiting outcomes looked at again, what guardrails paused, and what was learnt.

    ``is_behind``: corrections are left that need no pause before the next pass.
    """

    n_swept: int
    is_behind: bool
    guarded: Guarded
    learned: Learned


def work_once(engine: Engine, *, holder: str) -> Pass | None:
    """Sweep, correct, guard, settle send plans and learn once; None when another process is the learner now.

    Raises:
        LeaseLost: Another took over meanwhile.
    """
    with transaction(engine) as session:
        lease = take(session, LEASE, holder=holder, seconds=LEASE_SECONDS)
    if lease is None:
        return None
    n_swept = _sweep(engine)
    with transaction(engine) as session:
        forget(session.connection(), database_now(session))
    moved = correct(engine, lease) > 0  # before the others, which read the tallies that this moves
    is_behind = moved and is_unfinished(engine)
    guarded = guard(engine, lease)
    settle(engine, lease)
    return Pass(n_swept, is_behind, guarded, learn(engine, lease))


def let_go(engine: Engine, *, holder: str) -> None:
    """Let another process be the learner at once, if this one was."""
    with transaction(engine) as session:
        release(session, LEASE, holder=holder)


def run(engine: Engine, *, learn_seconds: float, stop: threading.Event, webhooks_private: bool = True) -> None:
    """Do passes until ``stop`` is set; while the database is away, wait longer and longer between attempts.

    Args:
        engine: Of a migrated database.
        learn_seconds: Pause between two passes.
        stop: Looked at between passes.
        webhooks_private: Whether webhooks may lead to private addresses.
    """
    holder, n_failures, checkpoint_at = holder_name(), 0, time.monotonic()
    analyst, verdicts, day_sums = Analyst(engine), Verdicts(engine), DaySums(engine)
    courier = Courier(engine, allows_private=webhooks_private)
    while not stop.is_set():
        done = None
        try:
            done = work_once(engine, holder=holder)
            _log(done)
            analyst.look()
            courier.look()
            if done is not None:
                day_sums.look()
                verdicts.look(holder=holder, lease_seconds=LEASE_SECONDS)
            if time.monotonic() >= checkpoint_at:
                checkpoint(engine)
                with transaction(engine) as session:
                    prune(session)
                checkpoint_at = time.monotonic() + CHECKPOINT_SECONDS
            n_failures = 0
        except LeaseLost as error:
            log.warning("lease_lost", reason=str(error))
        except AWAY as error:
            n_failures += 1
            log.warning("database_away", error=type(error).__name__, n_failures=n_failures)
        if done is None or not done.is_behind:
            stop.wait(min(learn_seconds * 2 ** min(n_failures, 10), max(learn_seconds, MAX_BACK_OFF_SECONDS)))
    courier.close()
    with contextlib.suppress(*AWAY):
        analyst.close()
    with contextlib.suppress(*AWAY):
        let_go(engine, holder=holder)


def checkpoint(engine: Engine) -> None:
    """Move SQLite's write-ahead log into the database and cut it short, unless a reader is in the way."""
    if engine.dialect.name != "sqlite":
        return
    path = str(engine.url.database)
    connecting = sqlite3.connect(path, timeout=_CHECKPOINT_WAIT_SECONDS, isolation_level=None)
    with write_queue(engine), contextlib.closing(connecting) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()  # answers "busy" where a reader is in the way


def _sweep(engine: Engine) -> int:
    n_swept = 0
    for _ in range(_MAX_SWEEPS):
        with transaction(engine) as session:
            n_rows = sweep(session.connection(), database_now(session), shard=_SHARD, limit=_SWEEP_ROWS)
        n_swept += n_rows
        if n_rows < _SWEEP_ROWS:
            break
    return n_swept


def _log(done: Pass | None) -> None:
    if done is not None and (done.n_swept or done.learned.n_allocations):
        learned = done.learned
        log.info("learnt", n_swept=done.n_swept, n_series=learned.n_series, n_allocations=learned.n_allocations)
