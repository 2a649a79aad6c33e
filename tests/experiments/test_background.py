"""The background process: it sweeps and learns, survives the database's absences, and ends when it is told to."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import orjson
import psycopg
import pytest
from psycopg.sql import SQL, Identifier
from sqlalchemy import Engine
from sqlmodel import select

from experiments.background import checkpoint, let_go, run, work_once
from experiments.database import migrate, open_engine, reading, transaction
from experiments.decisions.rows import DecisionRow, write_decisions
from experiments.outcomes.attribution import OutcomeRow
from experiments.outcomes.rows import write_outcomes
from experiments.tables import Allocation, Outcome
from tests.databases import TEMPLATE
from tests.experiments.worlds import SEGMENTS, clicks, observe, start_experiment
from tests.postgres import PostgresServer

LEARN = (sys.executable, "-m", "experiments.cli", "learn")
PATIENCE_SECONDS = 20.0


def _world(engine: Engine) -> int:
    with transaction(engine) as session:
        series = start_experiment(session)
        for variant, clicked in [("a", 10), ("b", 40)]:
            observe(session.connection(), series, variant=variant, n_units=100, values=clicks(clicked))
    return series


def _outcome_before_its_decision(engine: Engine, series: int) -> None:
    """Written 10 s ago without its decision, which has come since."""
    now = datetime.now(UTC)
    id_, early = series.to_bytes(4, "big") + bytes(12), now - timedelta(seconds=10)
    outcome = OutcomeRow(bytes(16), "test", None, id_, None, None, "click", Decimal(1), early, early)
    decision = DecisionRow(id_, "anna", None, SEGMENTS[0], "a", 1, 0.5, early)
    with transaction(engine) as session:
        assert write_outcomes(session.connection(), [outcome], shard=1) == ["waiting"]
        write_decisions(session.connection(), [decision], shard=1)


def _n_learned(engine: Engine) -> int:
    with reading(engine) as session:
        return len(session.exec(select(Allocation).where(Allocation.reason == "learned")).all())


def _wait_for(condition: Callable[[], bool]) -> None:
    give_up_at = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < give_up_at
        time.sleep(0.02)


def _environment(engine: Engine) -> dict[str, str]:
    url = engine.url.render_as_string(hide_password=False)
    return os.environ | {"OPTIMIZER_DATABASE_URL": url, "OPTIMIZER_LEARN_SECONDS": "0.1"}


def test_a_pass_sweeps_up_outcomes_that_came_before_their_decision(engine: Engine) -> None:
    _outcome_before_its_decision(engine, _world(engine))
    done = work_once(engine, holder="only")
    assert done is not None
    assert done.n_swept == 1
    with reading(engine) as session:
        assert session.exec(select(Outcome.status).where(Outcome.id == bytes(16))).one() == "attributed"


def test_the_loop_learns_until_it_is_stopped_and_lets_go_of_its_lease(engine: Engine) -> None:
    _world(engine)
    stop = threading.Event()
    thread = threading.Thread(target=run, args=(engine,), kwargs={"learn_seconds": 0.05, "stop": stop})
    thread.start()
    _wait_for(lambda: _n_learned(engine) == 1)
    stop.set()
    thread.join(PATIENCE_SECONDS)
    assert not thread.is_alive()
    assert work_once(engine, holder="successor") is not None


def test_the_loop_survives_a_database_that_is_not_there(
    backend: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    server: PostgresServer | None = None if backend == "sqlite" else request.getfixturevalue("postgres_server")
    engine = open_engine(f"sqlite:///{tmp_path / 'later.db'}" if server is None else server.url(tmp_path.name))
    stop = threading.Event()
    thread = threading.Thread(target=run, args=(engine,), kwargs={"learn_seconds": 0.05, "stop": stop})
    thread.start()
    time.sleep(0.3)
    if server is not None:
        _create_database(server, tmp_path.name)
    migrate(engine)
    _world(engine)
    _wait_for(lambda: _n_learned(engine) == 1)
    stop.set()
    thread.join(PATIENCE_SECONDS)
    assert not thread.is_alive()
    engine.dispose()


def _create_database(server: PostgresServer, name: str) -> None:
    host = str(server.socket_folder)
    with psycopg.connect(host=host, user="postgres", dbname="postgres", autocommit=True) as connection:
        connection.execute(SQL("CREATE DATABASE {} TEMPLATE {}").format(Identifier(name), Identifier(TEMPLATE)))


def test_a_checkpoint_cuts_the_write_ahead_log_unless_somebody_reads(tmp_path: Path) -> None:
    engine = open_engine(f"sqlite:///{tmp_path / 'logged.db'}")
    migrate(engine)
    _world(engine)
    log = tmp_path / "logged.db-wal"
    with reading(engine) as session:
        session.exec(select(Allocation)).all()
        let_go(engine, holder="anybody")  # a write that the reader does not see
        checkpoint(engine)
        assert log.stat().st_size > 0
    checkpoint(engine)
    assert log.stat().st_size == 0
    engine.dispose()


def test_one_pass_from_the_command_line_says_what_it_did(engine: Engine) -> None:
    _outcome_before_its_decision(engine, _world(engine))
    answer = subprocess.run([*LEARN, "--once", "--json"], env=_environment(engine), check=True, capture_output=True)
    assert orjson.loads(answer.stdout) == {
        "n_swept": 1,
        "is_behind": False,
        "guarded": {"n_experiments": 0, "n_pauses": 0},
        "learned": {"n_series": 1, "n_allocations": 1},
    }
    again = subprocess.run([*LEARN, "--once"], env=_environment(engine), check=True, capture_output=True, text=True)
    assert (
        again.stdout == "0 new allocations in 0 series; 0 pauses by guardrails; 0 waiting outcomes looked at again.\n"
    )


def test_one_pass_beside_a_learner_is_refused(engine: Engine) -> None:
    work_once(engine, holder="the other")
    answer = subprocess.run([*LEARN, "--once"], env=_environment(engine), capture_output=True, text=True, check=False)
    assert answer.returncode == 1
    assert "Another process is learning" in answer.stderr


@pytest.mark.parametrize("how", ["SIGTERM", "end of input"])
def test_the_process_ends_cleanly(engine: Engine, how: str) -> None:
    _world(engine)
    command = [*LEARN, "--until-parent-exits"]
    with subprocess.Popen(command, env=_environment(engine), stdin=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        _wait_for(lambda: _n_learned(engine) == 1)
        assert process.stdin is not None
        if how == "SIGTERM":
            process.send_signal(signal.SIGTERM)
        else:
            process.stdin.close()
        assert process.wait(PATIENCE_SECONDS) == 0
    assert work_once(engine, holder="successor") is not None
