"""An experiment that is concluded under load: from `effective_at` on, nothing more of it is counted."""

import os
import signal
import threading
from contextlib import closing
from datetime import datetime
from pathlib import Path

import pytest
from sqlalchemy import Engine
from sqlmodel import col, select

from experiments.database import reading
from experiments.decisions.hashing import series_range
from experiments.tables import Decision
from tests.faults.load import Load, assert_nothing_was_lost
from tests.faults.shop import EXPERIMENT, open_shop, the_series
from tests.server import Client, serving

pytestmark = pytest.mark.xdist_group("faults")

ASLEEP_SECONDS = 3.0  # from before the change until after it is in effect


def test_after_the_end_of_an_experiment_nothing_of_it_is_counted(
    engine: Engine, database_url: str, tmp_path: Path
) -> None:
    key = open_shop(engine)
    with serving(database_url, tmp_path) as server, closing(Client(server.port, key)) as client:
        load = Load(server.port, key)
        with load.run(name="load"):
            load.wait_for(100)
            asleep = max(server.workers())
            os.kill(asleep, signal.SIGSTOP)
            waker = threading.Timer(ASLEEP_SECONDS, os.kill, (asleep, signal.SIGCONT))
            waker.start()
            answer = client.post(f"/v1/experiments/{EXPERIMENT}/conclude", {"reason": "test"})
            waker.join()
            load.sources.clear()
            load.wait_for(20)
    assert answer.status == 200
    ends_at = datetime.fromisoformat(answer.body["effective_at"])
    with reading(engine) as session:
        low, high = series_range(the_series(session).number or 0)
        of_it = select(Decision.decided_at, Decision.late).where(col(Decision.id).between(low, high))
        decisions = session.exec(of_it).all()
    assert [at for at, late in decisions if late != (at >= ends_at)] == []
    assert load.sources["default"] > 0
    assert_nothing_was_lost(engine, load)
