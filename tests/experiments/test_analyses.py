"""The queue of analyses and the runner: one process has one, dead ones are tried again, refusals are not."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import Engine

from experiments.analyses import queue
from experiments.analyses.ask import cancel
from experiments.analyses.kinds import KINDS
from experiments.analyses.queue import Job
from experiments.analyses.runner import run_one
from experiments.database import transaction
from tests.experiments.tiny_analysis import GO_ON, TINY, Does, ask, find, silence, start


@pytest.fixture(autouse=True)
def world(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setitem(KINDS, "tiny", TINY)
    start(engine)
    GO_ON.clear()
    yield
    GO_ON.set()


def _claim(engine: Engine, holder: str) -> Job | None:
    with transaction(engine) as session:
        return queue.claim(session, holder=holder, kinds=KINDS)


def _run(engine: Engine, holder: str = "first") -> None:
    assert run_one(engine, holder=holder, on_lost=lambda: None) is not None


def _retry_silent(engine: Engine) -> bool:
    with transaction(engine) as session:
        return queue.retry_silent(session)


def test_of_many_claimers_each_analysis_has_one(engine: Engine) -> None:
    wanted = {ask(engine, seed=seed) for seed in range(4)}
    ready = threading.Barrier(8)

    def claim(holder: str) -> Job | None:
        ready.wait()
        return _claim(engine, holder)

    with ThreadPoolExecutor(8) as pool:
        jobs = [job for job in pool.map(claim, map(str, range(8))) if job is not None]
    assert sorted(job.id for job in jobs) == sorted(wanted)
    assert {find(engine, id_).n_attempts for id_ in wanted} == {1}


def test_a_claim_waits_for_another_and_then_finds_nothing(engine: Engine) -> None:
    ask(engine)
    begun, other = threading.Event(), ThreadPoolExecutor(1)

    def claim_too() -> Job | None:
        begun.set()
        return _claim(engine, "second")

    with transaction(engine) as session:
        assert queue.claim(session, holder="first", kinds=KINDS) is not None
        late = other.submit(claim_too)
        assert begun.wait(10)
    assert late.result(20) is None
    other.shutdown()


def test_the_oldest_is_claimed_first_and_unknown_kinds_are_left_to_others(engine: Engine) -> None:
    first, second = ask(engine, seed=1), ask(engine, seed=2)
    with transaction(engine) as session:
        assert queue.claim(session, holder="of an older version", kinds=["hierarchy"]) is None
    assert [job.id for holder in "ab" if (job := _claim(engine, holder)) is not None] == [first, second]
    assert _claim(engine, "c") is None


def test_a_silent_process_loses_its_analysis_and_what_it_says_later_changes_nothing(engine: Engine) -> None:
    id_ = ask(engine)
    _claim(engine, "silent")
    silence(engine, id_, seconds=queue.SILENT_SECONDS - 5)
    assert not _retry_silent(engine)
    silence(engine, id_, seconds=queue.SILENT_SECONDS + 1)
    assert _retry_silent(engine)
    waiting = find(engine, id_)
    assert (waiting.status, waiting.holder, waiting.error["code"]) == ("queued", None, queue.SILENT)
    assert _claim(engine, "second") is not None
    with transaction(engine) as session:
        assert not queue.beat(session, holder="silent", progress=0.9)
        assert not queue.finish(session, holder="silent", result={"mean": 0.0})
        assert not queue.fail(session, holder="silent", code="too", detail="late")
        assert queue.beat(session, holder="second", progress=0.1)
    running = find(engine, id_)
    assert (running.status, running.holder, running.progress, running.result) == ("running", "second", 0.1, None)


def test_after_three_attempts_it_has_failed(engine: Engine) -> None:
    id_ = ask(engine)
    for attempt in (1, 2, 3):
        assert find(engine, id_).status == "queued"
        _claim(engine, f"process {attempt}")
        silence(engine, id_, seconds=61)
        assert _retry_silent(engine)
    failed = find(engine, id_)
    assert (failed.status, failed.n_attempts, failed.error["code"]) == ("failed", 3, queue.SILENT)
    assert failed.finished_at is not None
    assert _claim(engine, "process 4") is None


def test_an_attempt_that_was_told_to_stop_does_not_count(engine: Engine) -> None:
    id_ = ask(engine)
    for _ in range(5):
        _claim(engine, "stopped")
        with transaction(engine) as session:
            assert queue.give_back(session, holder="stopped")
    assert (find(engine, id_).status, find(engine, id_).n_attempts) == ("queued", 0)


def test_a_result_is_stored_and_depends_on_the_seed_alone(engine: Engine) -> None:
    first, second = "2020-01-01T00:00:00Z", "2020-01-02T00:00:00Z"
    ids = [ask(engine, seed=seed, as_of=as_of) for seed, as_of in ((1, first), (1, second), (2, None))]
    for holder in "abc":
        _run(engine, holder)
    done = [find(engine, id_) for id_ in ids]
    assert {(one.status, one.progress, one.error) for one in done} == {("done", 1.0, None)}
    assert done[0].result == done[1].result != done[2].result
    assert done[0].result["mean"] == pytest.approx(0.5118216247002567)  # default_rng(1).random() of NumPy's docs


@pytest.mark.parametrize(
    ("does", "code", "detail"),
    [
        ("refuse", "analysis_refused", "There is one segment; it takes two."),
        ("contradict", "invalid_counts", "Impossible counts: n_units is negative."),
        ("say nan", "invalid_input", "/result/mean: must be finite, not nan"),
    ],
)
def test_what_cannot_be_has_failed_at_the_first_attempt(engine: Engine, does: Does, code: str, detail: str) -> None:
    id_ = ask(engine, does)
    _run(engine)
    failed = find(engine, id_)
    assert (failed.status, failed.n_attempts, failed.result) == ("failed", 1, None)
    assert failed.error == {"code": code, "detail": detail}


def test_a_crash_is_tried_again(engine: Engine) -> None:
    id_ = ask(engine, "crash")
    with pytest.raises(ZeroDivisionError):
        _run(engine, "crashed")
    with transaction(engine) as session:
        assert queue.retry_ended(session, holder="crashed", detail="Its process ended with 1.")
    again = find(engine, id_)
    assert (again.status, again.error) == ("queued", {"code": queue.ENDED, "detail": "Its process ended with 1."})


def test_while_it_runs_its_heartbeat_says_how_far_it_is(engine: Engine) -> None:
    id_ = ask(engine, "wait")
    lost, pause = threading.Event(), threading.Event()
    with ThreadPoolExecutor(1) as pool:
        ran = pool.submit(run_one, engine, holder="first", on_lost=lost.set, beat_seconds=0.05)
        for _ in range(400):
            if find(engine, id_).progress == 0.5:
                break
            pause.wait(0.05)
        running = find(engine, id_)
        assert (running.status, running.progress) == ("running", 0.5)
        assert running.heartbeat_at is not None
        assert running.started_at is not None
        assert running.heartbeat_at > running.started_at
        GO_ON.set()
        ran.result(20)
    assert find(engine, id_).status == "done"
    assert not lost.is_set()


def test_a_process_learns_that_its_analysis_was_cancelled(engine: Engine) -> None:
    id_ = ask(engine, "wait")
    lost = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        ran = pool.submit(run_one, engine, holder="first", on_lost=lost.set, beat_seconds=0.05)
        while find(engine, id_).status == "queued":
            threading.Event().wait(0.02)
        with transaction(engine) as session:
            cancel(session, id_, actor="key/ann")
        assert lost.wait(20)
        GO_ON.set()
        ran.result(20)
    cancelled = find(engine, id_)
    assert (cancelled.status, cancelled.result) == ("failed", None)
    assert cancelled.error == {"code": "cancelled", "detail": "Cancelled by key/ann."}
