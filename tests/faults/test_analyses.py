"""Processes of analyses that are killed: the background process notices, tries again, and takes its own along."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from sqlalchemy import Engine

from experiments.analyses import analyst, queue
from experiments.analyses.analyst import Analyst
from experiments.analyses.ask import ask_for, cancel
from experiments.analyses.kinds import KINDS
from experiments.database import transaction
from tests.experiments.review_world import KEY, start_experiment, two_weeks
from tests.experiments.tiny_analysis import COMMAND, TINY, ask, find, silence, start
from tests.server import processes

pytestmark = pytest.mark.xdist_group("faults")

LEARN = (sys.executable, "-m", "experiments.cli", "learn", "--until-parent-exits")
PATIENCE_SECONDS = 60.0


def _wait_for(condition: Callable[[], bool]) -> None:
    give_up_at = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < give_up_at
        time.sleep(0.2)


@contextmanager
def _background(engine: Engine, folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The real background process."""
    url = engine.url.render_as_string(hide_password=False)
    settings = {"OPTIMIZER_DATABASE_URL": url, "OPTIMIZER_LEARN_SECONDS": "0.1"}
    with (
        (folder / "background.log").open("ab") as log,
        subprocess.Popen(LEARN, env=os.environ | settings, stdin=subprocess.PIPE, stderr=log) as process,
    ):
        yield process
        process.kill()


def _ask_for_hierarchy(engine: Engine) -> str:
    """Ask for an analysis that takes half a minute."""
    with transaction(engine) as session:
        series = start_experiment(session, segments=("new", "all"))
        for segment in ("new", "all"):
            two_weeks(session, series, rates={"a": 0.1, "b": 0.12}, n_units=500, segment=segment)
        return ask_for(session, KEY, request={"kind": "hierarchy"}, actor="test").id


def _child_of(background: subprocess.Popen[bytes], *, but: int = 0) -> int:
    def others() -> list[int]:
        lines = processes(parent=background.pid).items()
        return [pid for pid, line in lines if "experiments.analyses" in line and pid != but]

    _wait_for(lambda: len(others()) == 1)
    return others()[0]


def _is_running(engine: Engine, id_: str, *, attempt: int) -> Callable[[], bool]:
    def is_so() -> bool:
        found = find(engine, id_)
        return (found.status, found.n_attempts) == ("running", attempt)

    return is_so


def test_kill_9_of_its_process_is_noticed_and_it_is_tried_three_times(engine: Engine, tmp_path: Path) -> None:
    id_, victim = _ask_for_hierarchy(engine), 0
    with _background(engine, tmp_path) as background:
        for attempt in (1, 2, 3):
            victim = _child_of(background, but=victim)
            _wait_for(_is_running(engine, id_, attempt=attempt))
            os.kill(victim, signal.SIGKILL)
        _wait_for(lambda: find(engine, id_).status == "failed")
        failed = find(engine, id_)
        assert failed.error == {"code": queue.ENDED, "detail": "Its process ended with -9."}
        assert background.poll() is None
    assert '"had_one":true' in (tmp_path / "background.log").read_text()


@pytest.mark.parametrize("how", ["SIGTERM", "SIGKILL"])
def test_a_process_ends_with_the_background_process(engine: Engine, tmp_path: Path, how: str) -> None:
    id_ = _ask_for_hierarchy(engine)
    with _background(engine, tmp_path) as background:
        child = _child_of(background)
        _wait_for(_is_running(engine, id_, attempt=1))
        background.send_signal(signal.Signals[how])
        background.wait(PATIENCE_SECONDS)
        _wait_for(lambda: child not in processes(group=os.getpgid(0)))
    left = find(engine, id_)
    if how == "SIGTERM":
        assert (left.status, left.n_attempts) == ("queued", 0)
    else:
        assert (left.status, left.n_attempts) == ("running", 1)
        silence(engine, id_, seconds=61)
        with _background(engine, tmp_path):
            _wait_for(_is_running(engine, id_, attempt=2))


@pytest.fixture
def tiny(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> Engine:
    monkeypatch.setitem(KINDS, "tiny", TINY)
    start(engine)
    return engine


def _look_until(analyst_: Analyst, condition: Callable[[], bool]) -> None:
    def looked() -> bool:
        analyst_.look()
        return condition()

    _wait_for(looked)


def test_one_process_at_a_time_runs_all_that_is_queued(tiny: Engine) -> None:
    ids = [ask(tiny, "answer"), ask(tiny, "refuse")]
    holders = []
    with closing(Analyst(tiny, command=COMMAND)) as at_work:
        while (holder := at_work.look()) is not None:
            holders.append(holder)
            time.sleep(0.05)
    found = [find(tiny, id_) for id_ in ids]
    assert [(one.status, one.n_attempts, (one.error or {}).get("code")) for one in found] == [
        ("done", 1, None),
        ("failed", 1, "analysis_refused"),
    ]
    assert len(set(holders)) == 2


def test_what_takes_too_long_or_is_cancelled_ends(tiny: Engine) -> None:
    long, cancelled = ask(tiny, "hang", seed=1), ask(tiny, "hang", seed=2)
    clock = iter(range(10**9))  # a second at each look
    with closing(Analyst(tiny, command=COMMAND, clock=lambda: next(clock) * late)) as at_work:
        late = 0.0
        _look_until(at_work, lambda: find(tiny, long).status == "running")
        late = analyst.MAX_SECONDS
        _look_until(at_work, lambda: find(tiny, long).status == "failed")
        late = 0.0
        _look_until(at_work, lambda: find(tiny, cancelled).status == "running")
        with transaction(tiny) as session:
            cancel(session, cancelled, actor="key/ann")
        _look_until(at_work, lambda: at_work.look() is None)
    ended = [find(tiny, id_) for id_ in (long, cancelled)]
    assert [(one.error["code"], one.n_attempts) for one in ended] == [(analyst.TOO_LONG, 1), ("cancelled", 1)]


def test_a_process_that_cannot_start_is_not_started_again_at_once(tiny: Engine) -> None:
    id_ = ask(tiny)
    with closing(Analyst(tiny, command=(sys.executable, "-c", "raise SystemExit(1)"))) as at_work:
        assert at_work.look() is not None
        _wait_for(lambda: at_work.look() is None)
        assert at_work.look() is None
    assert (find(tiny, id_).status, find(tiny, id_).n_attempts) == ("queued", 0)
