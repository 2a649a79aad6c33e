"""A whole list in one go, through a real worker: the tested first, everyone once the winner is there."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import Engine

from experiments.config import Config
from experiments.database import transaction
from experiments.decide import Decided
from experiments.send_plans.errors import WinnerOverdue
from experiments.send_plans.passes import Surroundings, Waiting, decide_with_winner
from experiments.worker import Worker
from tests.experiments.sending import PLAN, click, decide, learn, let_pass, put_placement, start

CUSTOMERS = [f"c{i}" for i in range(300)]


@pytest.fixture
def worker(engine: Engine) -> Iterator[Worker]:
    with transaction(engine) as session:
        put_placement(session)
    worker = Worker(Config(database_url=engine.url.render_as_string(hide_password=False)), shard=1)
    worker.start()
    yield worker
    worker.close()


class _Send:
    """Passes over the list, what each wrote, and a clock of which sleeping lets time pass."""

    def __init__(self, worker: Worker) -> None:
        self.worker = worker
        self.outputs: list[list[Decided]] = []
        self.now = datetime.now(UTC)
        self.slept: list[float] = []
        self.told: list[int] = []

    def run(self) -> Waiting:
        waiting = Waiting()
        self.outputs.append(list(decide(self.worker, CUSTOMERS).values()))
        for one in self.outputs[-1]:
            waiting.see(one, one.customer_id)
        return waiting

    def ask_again(self, customer: str) -> Decided:
        return decide(self.worker, [customer])[customer]

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += timedelta(seconds=seconds)

    def all(self) -> Waiting:
        around = Surroundings(lambda: self.now, self.sleep, lambda n_waiting, _: self.told.append(n_waiting))
        return decide_with_winner(self.run, ask_again=self.ask_again, around=around)


class _AttendedSend(_Send):
    """A send beside which the background process runs, and whose tested click on b."""

    def sleep(self, seconds: float) -> None:
        if not self.slept:
            click(self.worker, [one for one in self.outputs[0] if one.source == "experiment" and one.variant == "b"])
            learn(self.worker)
        self.slept.append(seconds)
        let_pass(self.worker, hours=seconds / 3_600)
        learn(self.worker)


class _Late(_Send):
    """A send of which the worker's clock goes on as well."""

    def ask_again(self, customer: str) -> Decided:
        again = super().ask_again(customer)
        assert again.decide_after is not None
        return replace(again, decide_after=again.decide_after + timedelta(seconds=sum(self.slept)))


def test_the_first_output_has_the_tested_and_the_last_everyone_in_the_order_of_the_list(worker: Worker) -> None:
    start(worker, send_plan=PLAN | {"winner_after_hours": 0.1})
    send = _AttendedSend(worker)
    assert send.all() == Waiting()
    first, last = send.outputs
    assert {one.source for one in first} == {"experiment", "waiting"}
    assert [one.customer_id for one in last] == CUSTOMERS
    for before, after in zip(first, last, strict=True):
        assert after.source == "experiment"
        assert after.variant == ("b" if before.source == "waiting" else before.variant)
    assert set(send.told) == {sum(one.source == "waiting" for one in first)}
    assert sum(send.slept) == pytest.approx(360, abs=30)


def test_a_list_in_which_nobody_waits_is_decided_once(worker: Worker) -> None:
    start(worker, send_plan=None)
    send = _Send(worker)
    assert send.all().n_waiting == 0
    assert (len(send.outputs), send.slept) == (1, [])


def test_without_a_background_process_waiting_ends_with_an_error(worker: Worker) -> None:
    """The clock of the test was started, and then nobody wrote the winner."""
    start(worker, send_plan=PLAN | {"winner_after_hours": 0.1})
    decide(worker, CUSTOMERS)
    learn(worker)
    send = _Send(worker)
    with pytest.raises(WinnerOverdue, match="background process"):
        send.all()
    assert len(send.outputs) == 1
    assert sum(send.slept) > 600


def test_a_test_that_nobody_has_seen_begin_ends_with_an_error_soon(worker: Worker) -> None:
    """Five minutes, not four hours: the time that is said moves on with the clock."""
    start(worker)
    send = _Late(worker)
    with pytest.raises(WinnerOverdue):
        send.all()
    assert 300 <= sum(send.slept) <= 400
