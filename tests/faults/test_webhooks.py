"""The process that delivers webhooks is killed while it sends: nothing that was told of is lost."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import Engine
from sqlmodel import select

from experiments.catalog import lifecycle
from experiments.database import database_now, reading, transaction
from experiments.tables import WebhookDelivery
from experiments.webhooks.define import put_webhook
from tests.experiments.review_world import ACTOR, KEY, start_experiment
from tests.receiver import Receiver, receiving

pytestmark = pytest.mark.xdist_group("faults")

LEARN = (sys.executable, "-m", "experiments.cli", "learn", "--until-parent-exits")


@contextmanager
def _background(engine: Engine, folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    url = engine.url.render_as_string(hide_password=False)
    settings = {"OPTIMIZER_DATABASE_URL": url, "OPTIMIZER_LEARN_SECONDS": "0.2"}
    with (
        (folder / "background.log").open("ab") as log,
        subprocess.Popen(LEARN, env=os.environ | settings, stdin=subprocess.PIPE, stderr=log) as process,
    ):
        yield process
        process.kill()


def _wait_for(condition: Callable[[], bool]) -> None:
    give_up_at = time.monotonic() + 60.0
    while not condition():
        assert time.monotonic() < give_up_at
        time.sleep(0.1)


def _deliveries(engine: Engine) -> list[tuple[str, int]]:
    with reading(engine) as session:
        return sorted((row.status, row.n_attempts) for row in session.exec(select(WebhookDelivery)))


def _let_claims_end(engine: Engine) -> None:
    """As if a minute had passed."""
    with transaction(engine) as session:
        for row in session.exec(select(WebhookDelivery).where(WebhookDelivery.status == "pending")):
            row.next_attempt_at = database_now(session)


def test_kill_9_while_sending_loses_nothing(engine: Engine, tmp_path: Path) -> None:
    """Two messages hang at the receiver when the process dies; both come again, with what happened meanwhile."""
    with receiving() as receiver:
        _tell_two(engine, receiver)
        receiver.reply = lambda _handler: receiver.released.wait(60)
        with _background(engine, tmp_path) as background:
            receiver.wait_for(2, seconds=60.0)
            background.send_signal(signal.SIGKILL)
            background.wait()
        assert _deliveries(engine) == [("pending", 1), ("pending", 1)]
        with transaction(engine) as session:
            lifecycle.resume(session, KEY, actor=ACTOR)
        receiver.reply = None
        _let_claims_end(engine)
        with _background(engine, tmp_path):
            _wait_for(lambda: _deliveries(engine) == [("delivered", 1), ("delivered", 2), ("delivered", 2)])
        told = [got.message["type"] for got in receiver.received]
        ids = {got.id for got in receiver.received}
    assert sorted(told) == sorted(
        ["experiment.started", "experiment.paused"] * 2 + ["experiment.resumed"],
    )
    assert len(ids) == 3


def _tell_two(engine: Engine, receiver: Receiver) -> None:
    with transaction(engine) as session:
        put_webhook(session, "hook", payload={"url": receiver.url}, actor=ACTOR, allows_private=True)
        start_experiment(session)
        lifecycle.pause(session, KEY, actor=ACTOR)


def test_told_to_stop_the_process_ends_soon_though_a_receiver_is_silent(engine: Engine, tmp_path: Path) -> None:
    with receiving() as receiver:
        _tell_two(engine, receiver)
        receiver.reply = lambda _handler: receiver.released.wait(60)
        with _background(engine, tmp_path) as background:
            receiver.wait_for(1, seconds=60.0)
            began = time.monotonic()
            background.terminate()
            assert background.wait(timeout=20) == 0
            assert time.monotonic() - began < 10.0
    log = (tmp_path / "background.log").read_text()
    assert "Traceback" not in log
    assert "whsec_" not in log
