"""A row that the database refuses, among good ones that wait for the same commit: only that one fails."""

import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import Engine, text
from sqlmodel import select

from experiments.config import Config
from experiments.database import reading, transaction
from experiments.decide import DECISIONS
from experiments.decisions.hashing import UnitHash
from experiments.decisions.rows import DecisionRow
from experiments.errors import JournalBusy, RowRefused
from experiments.outcomes.attribution import OutcomeRow
from experiments.record import OUTCOMES
from experiments.tables import Decision, Outcome
from experiments.worker import Worker
from tests.faults.shop import differences, open_shop, the_series

pytestmark = pytest.mark.xdist_group("faults")

N_GOOD = 20


def _write(worker: Worker, kind: str, *, row: Any, start: threading.Barrier) -> bool:
    """Whether the database took the row; one that could not wait is sent again, as clients do."""
    start.wait(timeout=30)
    for _ in range(100):
        try:
            worker.journal.write(kind, [row])
        except JournalBusy:
            time.sleep(0.05)
        except RowRefused:
            return False
        else:
            return True
    raise TimeoutError(kind)


def _write_together(worker: Worker, kind: str, *, rows: list[Any]) -> list[bool]:
    """Write each row in a thread of its own, while the database is locked for a moment so that they gather."""
    start = threading.Barrier(len(rows) + 1)
    with ThreadPoolExecutor(len(rows)) as threads, ExitStack() as locked:
        waiting = [threads.submit(_write, worker, kind, row=row, start=start) for row in rows]
        session = locked.enter_context(transaction(worker.engine))
        if worker.engine.dialect.name == "postgresql":
            session.connection().execute(text("LOCK TABLE decision, outcome IN EXCLUSIVE MODE"))
        start.wait(timeout=30)
        time.sleep(0.1)
        locked.close()
        return [one.result() for one in waiting]


def _decisions(series: int, worker: Worker) -> list[DecisionRow]:
    hashed = UnitHash(bytes(32), series)
    names = [f"c{n}" for n in range(N_GOOD)]
    now = worker.snapshots.now()
    return [DecisionRow(hashed(name)[0], name, None, "everyone", "a", 1, 0.5, now) for name in names]


def _click(decision: DecisionRow) -> OutcomeRow:
    return OutcomeRow(
        id=os.urandom(16),
        source="test",
        outcome_id=None,
        decision_id=decision.id,
        customer_id=None,
        occasion_id=None,
        event="click",
        value=None,
        occurred_at=decision.decided_at,
        received_at=decision.decided_at,
    )


def test_a_poison_row_among_good_ones_fails_alone(engine: Engine, database_url: str) -> None:
    open_shop(engine)
    with reading(engine) as session:
        number = the_series(session).number or 0
    worker = Worker(Config(database_url=database_url), shard=1)
    worker.start()
    try:
        good = _decisions(number, worker)
        impossible = DecisionRow(bytes(16), "x", None, "everyone", "a", 1, 2.0, worker.snapshots.now())
        poison = [impossible]
        if engine.dialect.name == "postgresql":  # SQLite can hold a NUL
            poison.append(replace(impossible, customer_id="n\0l", propensity=0.5))
        rows = [*good[:7], *poison, *good[7:]]
        assert _write_together(worker, DECISIONS, rows=rows) == [row not in poison for row in rows]
        clicks = [_click(row) for row in good]
        nobody = replace(_click(impossible), decision_id=None)
        rows_of_outcomes = [*clicks[:7], nobody, *clicks[7:]]
        taken = _write_together(worker, OUTCOMES, rows=rows_of_outcomes)
        assert taken == [row is not nobody for row in rows_of_outcomes]
    finally:
        worker.close()
    with reading(engine) as session:
        assert set(session.exec(select(Decision.id)).all()) == {row.id for row in good}
        assert set(session.exec(select(Outcome.id)).all()) == {row.id for row in clicks}
    assert differences(engine) == []
