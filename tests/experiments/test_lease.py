"""Leases: one holder at a time, and a token that fences off who held one before."""

import threading

import pytest
from sqlalchemy import Engine

from experiments.database import transaction
from experiments.errors import LeaseLost
from experiments.learning.lease import Lease, check, release, take


def _take(engine: Engine, holder: str, *, seconds: float = 60) -> Lease | None:
    with transaction(engine) as session:
        return take(session, "learn", holder=holder, seconds=seconds)


def test_one_holder_at_a_time(engine: Engine) -> None:
    assert _take(engine, "first") == Lease("learn", token=1)
    assert _take(engine, "second") is None


def test_a_holder_renews_its_lease_under_the_same_token(engine: Engine) -> None:
    assert _take(engine, "first") == _take(engine, "first") == Lease("learn", token=1)


def test_a_lease_that_has_run_out_passes_on_with_a_new_token(engine: Engine) -> None:
    _take(engine, "first", seconds=0)
    assert _take(engine, "second") == Lease("learn", token=2)


def test_a_lease_that_is_let_go_passes_on_at_once(engine: Engine) -> None:
    _take(engine, "first")
    with transaction(engine) as session:
        release(session, "learn", holder="second")  # who has nothing to let go
    assert _take(engine, "second") is None
    with transaction(engine) as session:
        release(session, "learn", holder="first")
    assert _take(engine, "second") == Lease("learn", token=2)


def test_two_names_are_two_leases(engine: Engine) -> None:
    _take(engine, "first")
    with transaction(engine) as session:
        assert take(session, "sweep", holder="second", seconds=60) == Lease("sweep", token=1)


def test_who_was_paused_beyond_its_lease_is_told_so(engine: Engine) -> None:
    paused = _take(engine, "paused", seconds=0)
    assert paused is not None
    _take(engine, "successor")
    with transaction(engine) as session, pytest.raises(LeaseLost, match="'learn'"):
        check(session, paused)


def test_a_lease_that_has_run_out_but_not_passed_on_still_counts(engine: Engine) -> None:
    late = _take(engine, "late", seconds=0)
    assert late is not None
    with transaction(engine) as session:
        check(session, late)


def test_nobody_takes_a_lease_over_between_its_check_and_the_commit(engine: Engine) -> None:
    first = _take(engine, "first", seconds=0)
    assert first is not None
    taken: list[Lease | None] = []
    successor = threading.Thread(target=lambda: taken.append(_take(engine, "second")))
    with transaction(engine) as session:
        check(session, first)
        successor.start()
        successor.join(timeout=0.3)
        assert taken == []
    successor.join(timeout=10)
    assert taken == [Lease("learn", token=2)]


def test_of_many_who_ask_for_a_new_lease_at_once_one_gets_it(engine: Engine) -> None:
    taken: list[Lease | None] = []
    threads = [threading.Thread(target=lambda i=i: taken.append(_take(engine, f"holder {i}"))) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=10)
    assert sorted(taken, key=str) == [Lease("learn", token=1), None, None, None]
