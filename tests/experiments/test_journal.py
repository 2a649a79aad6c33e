"""The journal: acknowledged means committed; lanes, back-pressure, poison rows, a database that goes away."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import DataError, OperationalError

from experiments.errors import JournalBusy, RowRefused
from experiments.journal import MAX_ROWS_QUEUED, Entry, Journal

Write = Callable[[Connection, Sequence[Any]], Sequence[Any]]


@pytest.fixture
def numbers(engine: Engine) -> Engine:
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE number (n INTEGER PRIMARY KEY)"))
    return engine


def _insert(connection: Connection, rows: Sequence[Any]) -> list[int]:
    connection.execute(text("INSERT INTO number VALUES (:n) ON CONFLICT DO NOTHING"), [{"n": row} for row in rows])
    return [row * 10 for row in rows]


def _stored(engine: Engine) -> list[int]:
    with engine.connect() as connection:
        return list(connection.execute(text("SELECT n FROM number ORDER BY n")).scalars())


@contextmanager
def _journal(engine: Engine, write: Write = _insert, **options: Any) -> Iterator[Journal]:
    journal = Journal(engine, writers={"number": write}, **options)
    try:
        yield journal
    finally:
        journal.close()


def test_what_is_acknowledged_is_committed(numbers: Engine) -> None:
    with _journal(numbers) as journal:
        assert journal.write("number", [3, 1]) == [30, 10]
        assert _stored(numbers) == [1, 3]


def test_requests_that_gather_share_a_commit(numbers: Engine) -> None:
    sizes: list[int] = []

    def slow(connection: Connection, rows: Sequence[Any]) -> list[int]:
        sizes.append(len(rows))
        time.sleep(0.02)
        return _insert(connection, rows)

    with _journal(numbers, slow) as journal:
        threads = [threading.Thread(target=journal.write, args=("number", [n])) for n in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert _stored(numbers) == list(range(20))
    assert len(sizes) < 10


@pytest.mark.parametrize("error", [DataError("insert", {}, Exception("13")), KeyError(13)])
def test_a_poison_row_fails_alone(numbers: Engine, error: Exception) -> None:
    def picky(connection: Connection, rows: Sequence[Any]) -> list[int]:
        if 13 in rows:
            raise error
        time.sleep(0.01)
        return _insert(connection, rows)

    refused: list[int] = []

    def send(n: int, journal: Journal) -> None:
        try:
            journal.write("number", [n])
        except RowRefused:
            refused.append(n)

    with _journal(numbers, picky) as journal:
        threads = [threading.Thread(target=send, args=(n, journal)) for n in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert refused == [13]
    assert _stored(numbers) == [n for n in range(20) if n != 13]


@contextmanager
def _stuck(engine: Engine, **options: Any) -> Iterator[tuple[Journal, threading.Event]]:
    """A journal whose writer is in a commit until the event is set."""
    release, entered = threading.Event(), threading.Event()

    def wait(connection: Connection, rows: Sequence[Any]) -> list[int]:
        entered.set()
        release.wait(10)
        return _insert(connection, rows)

    with _journal(engine, wait, **options) as journal:
        first = threading.Thread(target=journal.write, args=("number", [0]))
        first.start()
        entered.wait(5)
        try:
            yield journal, release
        finally:
            release.set()
            first.join()


def test_a_request_that_waits_too_long_is_taken_back_and_never_written(numbers: Engine) -> None:
    with _stuck(numbers) as (journal, _):
        started = time.monotonic()
        with pytest.raises(JournalBusy):
            journal.write("number", [7])
        assert time.monotonic() - started < 1
    assert _stored(numbers) == [0]


def test_requests_behind_an_old_entry_are_refused_at_once(numbers: Engine) -> None:
    with _stuck(numbers) as (journal, _):
        with pytest.raises(JournalBusy):
            journal.write("number", [7])
        started = time.monotonic()
        with pytest.raises(JournalBusy):
            journal.write("number", [8])
        assert time.monotonic() - started < 0.1


def test_no_more_requests_wait_than_allowed(numbers: Engine) -> None:
    with _stuck(numbers, max_waiting=1) as (journal, _), pytest.raises(JournalBusy, match="too many"):
        journal.write("number", [7])


def test_no_more_lists_wait_than_leave_threads_for_others(numbers: Engine) -> None:
    with _stuck(numbers, max_waiting=4) as (journal, release):
        waiting = threading.Thread(target=journal.write_bulk, args=("number", [1]))
        waiting.start()
        while journal.n_rows == 0:
            time.sleep(0.001)
        with pytest.raises(JournalBusy, match="too many lists"):
            journal.write_bulk("number", [2])
        release.set()
        waiting.join()
    assert _stored(numbers) == [0, 1]


def test_the_queue_is_bounded(numbers: Engine) -> None:
    with _stuck(numbers) as (journal, _):
        assert journal.offer("number", range(1, MAX_ROWS_QUEUED + 2), seconds=0.01) is None
        assert journal.n_rows == 0


def test_an_offer_that_takes_too_long_is_written_later(numbers: Engine) -> None:
    with _stuck(numbers) as (journal, release):
        assert journal.offer("number", [7], seconds=0.05) is None
        release.set()
        assert journal.write("number", [8]) == [80]
    assert _stored(numbers) == [0, 7, 8]


def test_what_was_answered_in_haste_is_looked_at_afterwards(numbers: Engine) -> None:
    seen: list[Sequence[Any]] = []

    def look(entry: Entry) -> None:
        seen.append(list(entry.future.result()))

    with _stuck(numbers, after_answered=look) as (journal, release):
        journal.offer("number", [7], seconds=0.05)
        release.set()
        journal.write("number", [8])
    assert seen == [[70]]


def test_a_list_does_not_hold_up_single_requests(numbers: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the order of the lanes: with so much patience a busy machine refuses nobody."""
    monkeypatch.setattr("experiments.journal.MAX_WAIT_SECONDS", 10.0)
    written: list[int] = []

    def note(connection: Connection, rows: Sequence[Any]) -> list[int]:
        time.sleep(0.02)
        written.append(len(rows))
        return _insert(connection, rows)

    with _journal(numbers, note, max_waiting=160) as journal:
        lists = [
            threading.Thread(target=journal.write_bulk, args=("number", range(k * 100, k * 100 + 20)))
            for k in range(1, 41)
        ]
        for one in lists:
            one.start()
        time.sleep(0.03)
        n_before = len(written)
        journal.write("number", [1])
        assert written.index(1) - n_before < 4
        for one in lists:
            one.join()
    assert len(_stored(numbers)) == 801


def test_a_database_that_is_away_refuses_requests_keeps_offers_and_comes_back(numbers: Engine) -> None:
    away = threading.Event()
    away.set()

    def sometimes(connection: Connection, rows: Sequence[Any]) -> list[int]:
        if away.is_set():
            raise OperationalError("insert", {}, Exception("away"))
        return _insert(connection, rows)

    with _journal(numbers, sometimes) as journal:
        assert journal.offer("number", [5], seconds=0.3) is None
        assert not journal.is_healthy
        with pytest.raises(JournalBusy):
            journal.write("number", [6])
        away.clear()
        deadline = time.monotonic() + 5
        while _stored(numbers) != [5] and time.monotonic() < deadline:
            time.sleep(0.05)
        assert _stored(numbers) == [5]
        assert journal.write("number", [7]) == [70]


def test_closing_commits_what_is_queued(numbers: Engine) -> None:
    with _stuck(numbers) as (journal, release):
        journal.offer("number", [7], seconds=0.01)
        release.set()
        journal.close()
        assert _stored(numbers) == [0, 7]
        with pytest.raises(JournalBusy):
            journal.write("number", [8])
