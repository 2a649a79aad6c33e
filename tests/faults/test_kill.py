"""Processes that are killed: what was acknowledged is there, exactly once, and the tallies agree."""

import os
import signal
from pathlib import Path

import pytest
from sqlalchemy import Engine

from tests.faults.load import Load, assert_nothing_was_lost, assert_sending_again_changes_nothing
from tests.faults.shop import open_shop
from tests.server import processes, serving

pytestmark = pytest.mark.xdist_group("faults")

N_OUTCOMES = 150  # acknowledged before each blow


def test_kill_9_of_a_worker_and_of_the_whole_server_loses_nothing_acknowledged(
    engine: Engine, database_url: str, tmp_path: Path
) -> None:
    key = open_shop(engine)
    with serving(database_url, tmp_path) as server:
        load = Load(server.port, key)
        with load.run(name="first"):
            load.wait_for(N_OUTCOMES)
            victim = min(server.workers())
            os.kill(victim, signal.SIGKILL)
            load.wait_for(N_OUTCOMES)
            server.wait_until(lambda: len(server.workers().keys() - {victim}) == 2, what="a new worker")
            load.wait_for(N_OUTCOMES)
            server.kill_all()
    assert load.n_lost > 0
    assert_nothing_was_lost(engine, load)
    with serving(database_url, tmp_path) as server:
        load.port = server.port
        with load.run(name="second"):
            load.wait_for(N_OUTCOMES)
        assert_sending_again_changes_nothing(engine, load)


def test_sigterm_under_load_ends_in_time_with_nothing_acknowledged_lost(
    engine: Engine, database_url: str, tmp_path: Path
) -> None:
    key = open_shop(engine)
    with serving(database_url, tmp_path) as server:
        load = Load(server.port, key)
        with load.run(name="load"):
            load.wait_for(N_OUTCOMES)
            assert len(server.learners()) == 1
            assert server.terminate() < 10
        assert server.process.returncode == 0
        assert processes(group=server.process.pid) == {}
    assert_nothing_was_lost(engine, load)


def test_when_the_arbiter_is_killed_learner_and_workers_end_by_themselves(
    engine: Engine, database_url: str, tmp_path: Path
) -> None:
    key = open_shop(engine)
    with serving(database_url, tmp_path) as server:
        load, group = Load(server.port, key), server.process.pid
        with load.run(name="load", n_threads=2):
            load.wait_for(20)
        learners, hanging = server.learners().keys(), min(server.workers())
        os.kill(hanging, signal.SIGSTOP)  # the learner must not wait for the workers
        server.process.kill()
        server.process.wait()
        server.wait_until(lambda: not learners & processes(group=group).keys(), what="no learner", seconds=8)
        os.kill(hanging, signal.SIGCONT)
        server.wait_until(lambda: processes(group=group) == {}, what="no process is left", seconds=10)
    assert_nothing_was_lost(engine, load)
