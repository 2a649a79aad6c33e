"""A process is killed while it answers a request with an Idempotency-Key: the repeat waits, then learns the truth."""

import http.client
import os
import signal
import threading
import time
from contextlib import closing, suppress
from pathlib import Path

import orjson
import pytest
from sqlalchemy import Engine
from sqlmodel import select

from experiments.database import database_now, reading, transaction
from experiments.tables import Experiment, Idempotency
from tests.faults.shop import EXPERIMENT, open_shop
from tests.server import ANSWER_SECONDS, Server, serving

pytestmark = pytest.mark.xdist_group("faults")


def _pause(server: Server, key: str) -> tuple[int, dict[str, object]]:
    headers = {"X-API-Key": key, "Content-Type": "application/json", "Idempotency-Key": '"once"'}
    with closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=ANSWER_SECONDS)) as connection:
        connection.request("POST", f"/v1/experiments/{EXPERIMENT}/pause", b"{}", headers)
        answer = connection.getresponse()
        return answer.status, orjson.loads(answer.read())


def _status(engine: Engine) -> str:
    with reading(engine) as session:
        return session.exec(select(Experiment.status).where(Experiment.key == EXPERIMENT)).one()


def test_the_claim_of_a_killed_process_holds_until_it_expires(
    engine: Engine, database_url: str, tmp_path: Path
) -> None:
    key = open_shop(engine)
    with serving(database_url, tmp_path, n_workers=1) as server:

        def pause_and_be_cut_off() -> None:
            with suppress(OSError, http.client.HTTPException):
                _pause(server, key)

        first = threading.Thread(target=pause_and_be_cut_off)
        first.start()
        server.wait_until(lambda: _status(engine) == "paused", what="the work is done")  # it answers two seconds later
        (victim,) = server.workers()
        os.kill(victim, signal.SIGKILL)
        first.join()
        server.wait_until(lambda: bool(server.workers().keys() - {victim}), what="a new worker")
        server.wait_until(server.is_ready, what="ready again")
        status, said = _pause(server, key)
        assert (status, said["code"]) == (409, "request_running")
        with transaction(engine) as session:  # a minute later
            (row,) = session.exec(select(Idempotency)).all()
            row.expires_at = database_now(session)
        time.sleep(0.01)
        status, said = _pause(server, key)
        assert (status, said["code"]) == (409, "wrong_state")
        assert _pause(server, key) == (status, said)
