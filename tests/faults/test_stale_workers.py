"""Web processes that know different things at the same moment answer the same, and count only what is in time."""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime

import pytest
from sqlalchemy import Engine
from sqlmodel import col, select

from experiments.catalog import lifecycle
from experiments.config import Config
from experiments.database import bump_snapshot, database_now, reading, transaction
from experiments.decide import Decided
from experiments.decisions.rows import DecisionRow, write_decisions
from experiments.learning.allocations import add_allocations
from experiments.snapshot.holder import FRESH_SECONDS
from experiments.snapshot.plans import SeriesPlan
from experiments.tables import Decision
from experiments.worker import Worker
from tests.faults.shop import ACTOR, EXPERIMENT, PLACEMENT, differences, open_shop, the_series

pytestmark = pytest.mark.xdist_group("faults")

N_UNITS = 100


@contextmanager
def _workers(database_url: str) -> Iterator[tuple[Worker, Worker]]:
    """Two workers, each with a snapshot of now, which stays as it is."""
    workers = tuple(Worker(Config(database_url=database_url), shard=shard) for shard in (1, 2))
    for worker in workers:
        worker.snapshots.refresh()
    yield workers[0], workers[1]
    for worker in workers:
        worker.close()


def _give_nearly_all_to_b(engine: Engine) -> None:
    with transaction(engine) as session:
        bump_snapshot(session)
        weights = {"everyone": {"a": 0.01, "b": 0.99}}
        series = the_series(session).number or 0
        add_allocations(session, series, weights=weights, reason="test", now=database_now(session))


def _decide(worker: Worker, customer: str, *, preview: bool | None = None) -> Decided:
    return worker.decider.decide(worker.decider.ask(customer, preview=preview), [PLACEMENT])[0]


def test_workers_with_different_allocations_answer_the_same_for_a_new_unit(engine: Engine, database_url: str) -> None:
    open_shop(engine)
    customers = [f"c{n}" for n in range(N_UNITS)]
    barrier = threading.Barrier(2)

    def ask(worker: Worker) -> list[Decided]:
        answers = []
        for customer in customers:
            barrier.wait(timeout=30)
            answers.append(_decide(worker, customer))
        return answers

    with _workers(database_url) as (old, new), ThreadPoolExecutor(2) as threads:
        _give_nearly_all_to_b(engine)
        new.snapshots.refresh()
        chosen = [
            (_decide(old, one, preview=True).variant, _decide(new, one, preview=True).variant) for one in customers
        ]
        of_old, of_new = threads.map(ask, (old, new))
    assert sum(by_old != by_new for by_old, by_new in chosen) > N_UNITS // 5  # or the test would show nothing
    assert of_old == of_new
    assert {one.recorded for one in of_old} == {True}
    with reading(engine) as session:
        stored = {id_.hex(): variant for id_, variant in session.exec(select(Decision.id, Decision.variant))}
    in_experiment = {one.decision_id: one.variant for one in of_old if one.source == "experiment"}
    assert in_experiment.items() <= stored.items()
    assert differences(engine) == []


def test_what_a_stale_worker_decides_after_the_end_is_marked_late_and_not_counted(
    engine: Engine, database_url: str
) -> None:
    open_shop(engine)
    with _workers(database_url) as (worker, _):
        in_time = [_decide(worker, f"early-{n}") for n in range(20)]
        with transaction(engine) as session:
            lifecycle.conclude(session, EXPERIMENT, actor=ACTOR)
            the_series(session).closes_at = database_now(session)
        time.sleep(FRESH_SECONDS + 0.1)
        too_late = [_decide(worker, f"late-{n}") for n in range(20)]
        again = [_decide(worker, one.customer_id) for one in in_time]
    assert {one.source for one in too_late} - {"holdout"} == {"experiment"}
    assert again == in_time
    with reading(engine) as session:
        of_the_series = select(Decision.customer_id).where(col(Decision.propensity) == 0.5)
        late = set(session.exec(of_the_series.where(col(Decision.late))).all())
        counted = set(session.exec(of_the_series.where(~col(Decision.late))).all())
    assert late == {one.customer_id for one in too_late if one.source == "experiment"}
    assert counted == {one.customer_id for one in in_time if one.source == "experiment"}
    assert differences(engine) == []


def _held_at(series: SeriesPlan, customer: str) -> DecisionRow:
    """A decision for variant b under the newest weights, whatever the hash says."""
    return DecisionRow(series.hash(customer)[0], customer, None, "everyone", "b", 2, 0.99, datetime.now(UTC))


def test_an_answer_in_haste_that_another_worker_contradicts_is_marked_even_while_the_process_ends(
    engine: Engine, database_url: str
) -> None:
    open_shop(engine)
    with _workers(database_url) as (hasty, other):
        answers = (_decide(hasty, f"c{n}", preview=True) for n in range(N_UNITS))
        given_a = [one.customer_id for one in answers if one.variant == "a"][:3]
        snapshot = other.snapshots.refresh()
        (series,) = snapshot.placements[PLACEMENT].experiments
        ending = threading.Thread(target=hasty.close)
        with transaction(engine) as session:  # holds the decisions' places until it ends
            write_decisions(session.connection(), [_held_at(series, one) for one in given_a], shard=2)
            told = [hasty.decider.decide_in_time(hasty.decider.ask(one), PLACEMENT) for one in given_a]
            ending.start()
            time.sleep(0.1)
        ending.join()
    assert [(one.variant, one.recorded) for one in told] == [("a", False)] * len(given_a)
    with reading(engine) as session:
        of_the_series = select(Decision.customer_id).where(col(Decision.allocation_version) == 2)
        stored = session.exec(of_the_series.where(col(Decision.contradicted), col(Decision.variant) == "b")).all()
    assert set(stored) == set(given_a)
    assert len(given_a) > 1
    assert differences(engine) == []
