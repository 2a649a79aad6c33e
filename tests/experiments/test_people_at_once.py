"""Processes that join ids and decide at the same moment: one unit a person, and every conflict is marked."""

import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import Engine
from sqlmodel import col, select

from experiments.catalog import definition_store, experiment_store, lifecycle
from experiments.config import Config
from experiments.database import reading, transaction
from experiments.decide import Decided
from experiments.errors import JournalBusy
from experiments.tables import Alias, Decision, Series
from experiments.tallies.recount import all_series, recount
from experiments.worker import Worker

N_PEOPLE = 25
VARIANTS = [{"key": "a", "content": {"text": "A"}, "is_control": True}, {"key": "b", "content": {"text": "B"}}]


@pytest.fixture
def workers(engine: Engine) -> Iterator[tuple[Worker, Worker]]:
    """Two processes' workers; an experiment runs on each of the placements ``hero`` and ``news``."""
    with transaction(engine) as session:
        for key in ("hero", "news"):
            placement = {"holdout": {"share": 0.0}, "default": {"key": "plain", "content": {}}}
            definition_store.put_placement(session, key, payload=placement, actor="test")
            experiment = {"placement": key, "goal": "click", "variants": VARIANTS}
            experiment_store.put_experiment(session, f"exp-{key}", payload=experiment, actor="test")
            lifecycle.start(session, f"exp-{key}", actor="test")
        for series in session.exec(select(Series).where(Series.kind == "experiment")):
            series.opens_at -= timedelta(seconds=lifecycle.EFFECT_SECONDS)
    url = engine.url.render_as_string(hide_password=False)
    one, other = (Worker(Config(database_url=url), shard=shard) for shard in (1, 2))
    one.start()
    one.decider.join("some-visitor", "some-customer")  # so that both know that there are such people
    other.start()
    yield one, other
    one.close()
    other.close()
    with reading(engine) as session:
        assert not any(recount(session, number).differences for number in all_series(session))


def _decide(worker: Worker, customer: str, *, at: str = "hero") -> Decided:
    return worker.decider.decide(worker.decider.ask(customer), [at])[0]


def _retried(call: Callable[[], Any]) -> Any:
    for _ in range(50):
        try:
            return call()
        except JournalBusy:
            threading.Event().wait(0.05)
    return call()


def _units(engine: Engine) -> tuple[dict[Any, list[Decision]], dict[str, str]]:
    """Decisions by series and person, the earliest first."""
    with reading(engine) as session:
        canonical = dict(session.exec(select(Alias.id, Alias.customer_id)).all())
        units: dict[Any, list[Decision]] = {}
        for row in session.exec(select(Decision).order_by(col(Decision.decided_at), col(Decision.id))):
            session.expunge(row)
            units.setdefault((row.id[:4], canonical.get(row.customer_id, row.customer_id)), []).append(row)
    return units, canonical


def test_a_process_that_has_not_heard_of_a_join_makes_no_unit_of_its_own(workers: tuple[Worker, Worker]) -> None:
    one, other = workers
    first = _decide(one, "visitor")
    _decide(other, "customer", at="news")  # so that this process remembers somebody of a single id
    one.decider.join("visitor", "customer")
    assert _decide(other, "customer").decision_id == first.decision_id
    units, _ = _units(one.engine)
    assert {len(rows) for rows in units.values()} == {1}


def test_neither_do_emails_and_lists(workers: tuple[Worker, Worker]) -> None:
    one, other = workers
    first = {at: _decide(one, "visitor", at=at).decision_id for at in ("hero", "news")}
    asked = other.decider.ask("customer")  # before the join
    one.decider.join("visitor", "customer")
    email = other.decider.decide_in_time(asked, "hero", seconds=5.0)
    (listed,) = other.decider.decide_list([asked], "news")
    for decided, at in ((email, "hero"), (listed, "news")):
        assert (decided.decision_id, decided.customer_id, decided.recorded) == (first[at], "customer", True)


def test_looking_without_deciding_shows_what_stands(workers: tuple[Worker, Worker]) -> None:
    """The customer was first on one placement, the visitor on the other."""
    one, other = workers
    first = {"news": _decide(one, "customer", at="news"), "hero": _decide(one, "visitor")}
    one.decider.join("visitor", "customer")
    for worker in workers:
        for id_ in ("visitor", "customer"):
            seen = worker.decider.look(worker.decider.ask(id_), ["hero", "news"])
            assert [one.decision_id for one in seen] == [first[at].decision_id for at in ("hero", "news")]
    units, _ = _units(other.engine)
    assert {len(rows) for rows in units.values()} == {1}


def test_processes_that_join_and_decide_at_once_agree(workers: tuple[Worker, Worker]) -> None:
    start = threading.Barrier(2)

    def join(worker: Worker) -> None:
        start.wait()
        for n in range(N_PEOPLE):
            _retried(lambda: worker.decider.join(f"visitor-{n}", f"customer-{n}"))  # noqa: B023  # called at once

    def ask(worker: Worker) -> None:
        start.wait()
        for n in range(N_PEOPLE):
            for who in ("customer", "visitor"):
                _retried(lambda: _decide(worker, f"{who}-{n}"))  # noqa: B023

    threads = [threading.Thread(target=run, args=(one,)) for run, one in zip((join, ask), workers, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    units, _ = _units(workers[0].engine)
    for rows in units.values():
        assert [row.merged for row in rows] == [row.variant != rows[0].variant for row in rows]
    for n in range(N_PEOPLE):
        assert len({answer for who in ("customer", "visitor") for answer in _answers(workers, f"{who}-{n}")}) == 1


def _answers(workers: tuple[Worker, Worker], customer: str) -> Iterator[str | None]:
    """What each process decides once it looks who the customer is."""
    for worker in workers:
        worker.people.forget(customer)
        yield _decide(worker, customer).decision_id
