"""Acknowledged means durable: request threads hand rows over and wait, one writer thread commits what has gathered.

The journal knows nothing of decisions or outcomes: each kind of row comes with the function that writes a batch of
them. It takes the connection and rows, and returns one result a row; calling it again with the same rows is harmless.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

import structlog
from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, InterfaceError, OperationalError, StatementError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from experiments.database import write_queue
from experiments.errors import JournalBusy, RowRefused

log = structlog.get_logger(__name__)

Writer = Callable[[Connection, Sequence[Any]], Sequence[Any]]

MAX_WAIT_SECONDS = 0.25  # an entry that is older when nobody has claimed it is taken back
MAX_COMMIT_SECONDS = 5.0
MAX_BULK_SECONDS = 60.0
PAUSE_SECONDS = 0.5  # before the next attempt, once the database was away
UNHEALTHY_SECONDS = 5.0
MAX_ROWS_QUEUED = 50_000
MAX_ROWS_COMMIT = 1_000
MAX_ROWS_BULK = 2_000
_NORMAL_PER_BULK = 8  # single decisions go first, but a long list must not starve
_WAITING_PER_LIST = 4  # so many fewer lists may wait than single requests: each holds a thread for seconds
_RETRIES = 4
_RETRY_STATES = {"40P01", "40001"}  # deadlock and serialisation failure: the same rows may simply be tried again
# Whatever else a writer raised would end the thread, and with it all that this process can record.
_DOWN = (OperationalError, InterfaceError, PoolTimeout, OSError)
_POISON = (DataError, IntegrityError, StatementError, ValueError, TypeError, ArithmeticError, LookupError)


@dataclass(slots=True, eq=False)
class Entry:
    """Rows of one kind that are committed together; its future's result is the list of their results."""

    kind: str
    rows: Sequence[Any]
    future: Future[Sequence[Any]] = field(default_factory=Future)
    submitted_at: float = field(default_factory=time.monotonic)
    keep: bool = False  # wanted even when nobody waits for it any more
    answered: bool = False  # nobody waits any more


class Journal:
    """One writer thread and its two lanes: single requests, and lists (bulk) in between."""

    def __init__(
        self,
        engine: Engine,
        *,
        writers: Mapping[str, Writer],
        max_waiting: int = 24,
        after_answered: Callable[[Entry], Entry | None] = lambda _entry: None,
    ) -> None:
        self._engine = engine
        self._writers = writers
        self._max_waiting = max_waiting
        self._after_answered = after_answered
        self._normal: deque[Entry] = deque()
        self._bulk: deque[Entry] = deque()
        self._changed = threading.Condition()
        self._n_rows = 0
        self._n_waiting = 0
        self._n_lists = 0
        self._n_since_bulk = 0
        self._stopping = False
        self._down_until = 0.0
        self._failed_at = float("-inf")
        self._thread = threading.Thread(target=self._run, name="journal", daemon=True)
        self._thread.start()

    # What request threads call.

    def write(self, kind: str, rows: Sequence[Any]) -> Sequence[Any]:
        """Commit rows and return their results; durable when this returns.

        Raises:
            JournalBusy: Not claimed within 250 ms, the queue is full, or the database is away. Nothing is written, or
                (if the commit itself timed out) the same rows may be sent again.
            RowRefused: The database refuses these very rows.
        """
        self._admit()
        entry = self._submit(Entry(kind, rows), self._normal)
        try:
            return self._wait(entry)
        finally:
            with self._changed:
                self._n_waiting -= 1

    def write_bulk(self, kind: str, rows: Sequence[Any]) -> Sequence[Any]:
        """Commit a slice of a long list (at most ``MAX_ROWS_BULK`` rows) in the low-priority lane.

        Raises:
            JournalBusy: Enough lists are waiting, or as for ``write``.
            RowRefused: The database refuses one of these rows.
        """
        with self._changed:
            if self._n_lists >= max(1, self._max_waiting // _WAITING_PER_LIST):
                raise JournalBusy("too many lists are waiting")
            self._n_lists += 1
        try:
            entry = self._submit(Entry(kind, rows), self._bulk)
            return self._result(entry, seconds=MAX_BULK_SECONDS)
        finally:
            with self._changed:
                self._n_lists -= 1

    def offer(self, kind: str, rows: Sequence[Any], *, seconds: float) -> Sequence[Any] | None:
        """Commit rows if that is done within ``seconds``; else leave them queued (if there is room) and return None.

        Nobody waits while the database is away or the journal behind: threads that wait answer no one else.
        """
        is_in_time = time.monotonic() >= self._down_until and not self._is_behind()
        try:
            entry = self._submit(Entry(kind, rows, keep=True), self._normal)
        except JournalBusy:
            return None
        wait = seconds if is_in_time else 0.0
        try:
            return entry.future.result(timeout=wait)
        except RowRefused:
            return None
        except TimeoutError:
            entry.answered = True  # the writer looks at this after it has set the result, so one of us sees the other
            return entry.future.result() if entry.future.done() and not entry.future.exception() else None

    @property
    def n_rows(self) -> int:
        """Rows queued now."""
        return self._n_rows

    @property
    def is_healthy(self) -> bool:
        """Writing works: the thread lives, the last commit was no recent failure, the queue has room."""
        has_failed = time.monotonic() - self._failed_at < UNHEALTHY_SECONDS
        return self._thread.is_alive() and not has_failed and self._n_rows < MAX_ROWS_QUEUED // 2

    def close(self, *, seconds: float = 5.0) -> None:
        """Take nothing more, commit what is queued, stop the thread."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        self._thread.join(timeout=seconds)

    def _admit(self) -> None:
        with self._changed:
            if self._n_waiting >= self._max_waiting or self._stopping:
                raise JournalBusy("too many requests are waiting")
            if self._is_behind():
                raise JournalBusy("the journal is behind")
            self._n_waiting += 1

    def _is_behind(self) -> bool:
        with self._changed:
            return bool(self._normal) and time.monotonic() - self._normal[0].submitted_at > MAX_WAIT_SECONDS

    def _submit(self, entry: Entry, lane: deque[Entry]) -> Entry:
        with self._changed:
            if self._n_rows + len(entry.rows) > MAX_ROWS_QUEUED or self._stopping:
                raise JournalBusy("the journal is full")
            self._queue(entry, lane)
        return entry

    def _queue(self, entry: Entry, lane: deque[Entry]) -> None:
        with self._changed:
            lane.append(entry)
            self._n_rows += len(entry.rows)
            self._changed.notify()

    def _wait(self, entry: Entry) -> Sequence[Any]:
        try:
            return entry.future.result(timeout=MAX_WAIT_SECONDS)
        except TimeoutError:
            if entry.future.cancel():
                raise JournalBusy("the journal is behind") from None
        return self._result(entry, seconds=MAX_COMMIT_SECONDS)

    @staticmethod
    def _result(entry: Entry, *, seconds: float) -> Sequence[Any]:
        try:
            return entry.future.result(timeout=seconds)
        except TimeoutError:
            entry.future.cancel()
            raise JournalBusy("the database did not answer in time") from None

    # What the writer thread does.

    def _run(self) -> None:
        while (batch := self._claim()) is not None:
            if batch:
                self._commit(batch)

    def _claim(self) -> list[Entry] | None:
        """Wait for entries, then claim what has gathered of one kind; None when closed and empty."""
        with self._changed:
            while not self._normal and not self._bulk:
                if self._stopping:
                    return None
                self._changed.wait()
            pause = self._down_until - time.monotonic()
            if pause > 0:
                if self._stopping:
                    return None
                self._changed.wait(pause)
                return []
            return self._take(*self._lane())

    def _lane(self) -> tuple[deque[Entry], int]:
        bulk_is_due = self._bulk and (not self._normal or self._n_since_bulk >= _NORMAL_PER_BULK)
        self._n_since_bulk = 0 if bulk_is_due else self._n_since_bulk + 1
        return (self._bulk, MAX_ROWS_BULK) if bulk_is_due else (self._normal, MAX_ROWS_COMMIT)

    def _take(self, lane: deque[Entry], max_rows: int) -> list[Entry]:
        batch: list[Entry] = []
        n_rows = 0
        while lane and (not batch or (lane[0].kind == batch[0].kind and n_rows + len(lane[0].rows) <= max_rows)):
            entry = lane.popleft()
            self._n_rows -= len(entry.rows)
            if entry.future.running() or entry.future.set_running_or_notify_cancel():
                batch.append(entry)
                n_rows += len(entry.rows)
        return batch

    def _commit(self, batch: list[Entry]) -> None:
        try:
            results = self._write(batch)
        except _DOWN as error:
            self._database_is_away(batch, error)
        except _POISON as error:
            self._part(batch, error)
        else:
            self._failed_at = float("-inf")
            for entry, result in zip(batch, results, strict=True):
                self._done(entry, result)

    def _write(self, batch: list[Entry]) -> list[Sequence[Any]]:
        rows = [row for entry in batch for row in entry.rows]
        for attempt in range(_RETRIES):
            try:
                with write_queue(self._engine), self._engine.begin() as connection:
                    results = self._writers[batch[0].kind](connection, rows)
                break
            except DBAPIError as error:
                if getattr(error.orig, "sqlstate", None) not in _RETRY_STATES or attempt == _RETRIES - 1:
                    raise
                time.sleep(0.005 * 2**attempt)
        return list(_split(results, (len(entry.rows) for entry in batch)))

    def _done(self, entry: Entry, result: Sequence[Any]) -> None:
        entry.future.set_result(result)
        if entry.answered:
            follow_up = self._after_answered(entry)
            if follow_up is not None:
                self._queue(follow_up, self._normal)  # neither a full queue nor closing may refuse it

    def _database_is_away(self, batch: list[Entry], error: Exception) -> None:
        """Refuse those who insist on an answer from the database; keep the others and try again."""
        log.warning("journal_database_away", error=type(error).__name__, n_entries=len(batch))
        kept = [entry for entry in batch if entry.keep]
        with self._changed:
            self._failed_at = time.monotonic()
            self._down_until = self._failed_at + PAUSE_SECONDS
            self._normal.extendleft(reversed(kept))
            self._n_rows += sum(len(entry.rows) for entry in kept)
        for entry in batch:
            if not entry.keep:
                entry.future.set_exception(JournalBusy("the database is away"))

    def _part(self, batch: list[Entry], error: Exception) -> None:
        """A poison row fails alone: halve the batch until it stands by itself."""
        if len(batch) == 1:
            log.error("journal_row_refused", kind=batch[0].kind, error=type(error).__name__)
            batch[0].future.set_exception(RowRefused(batch[0].kind))
            return
        middle = len(batch) // 2
        self._commit(batch[:middle])
        self._commit(batch[middle:])


def _split(results: Sequence[Any], sizes: Iterable[int]) -> Iterable[Sequence[Any]]:
    start = 0
    for size in sizes:
        yield results[start : start + size]
        start += size
