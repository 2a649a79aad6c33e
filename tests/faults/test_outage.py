"""PostgreSQL is away for 5 seconds: websites are refused, email tools answered; then all is well by itself."""

import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pytest

from experiments.database import migrate, open_engine, reading
from experiments.tables import Decision
from tests import postgres
from tests.faults.load import (
    Load,
    assert_nothing_was_lost,
    assert_sending_again_changes_nothing,
    decide,
    decide_by_email,
)
from tests.faults.shop import open_shop
from tests.server import Client, serving

pytestmark = pytest.mark.xdist_group("faults")

AWAY_SECONDS = 5.0
SAME_AS_STORED = ("decision_id", "variant", "propensity", "allocation_version", "segment")
EMAIL_SECONDS = 1.0  # 300 ms and the noise of a busy machine


@pytest.fixture
def own_postgres() -> Iterator[postgres.PostgresServer]:
    """A PostgreSQL that may be stopped, with an empty database ``shop``."""
    folder = Path(tempfile.mkdtemp(prefix="optimizer-faults-"))
    guard = postgres.guard(folder)
    server = postgres.start(folder / "data")
    host = str(server.socket_folder)
    with closing(psycopg.connect(host=host, user="postgres", dbname="postgres", autocommit=True)) as connection:
        connection.execute("CREATE DATABASE shop")
    yield server
    guard.communicate()


def _ask_while_away(client: Client) -> dict[str, dict[str, Any]]:
    """Both doors for 5 seconds; returns what email tools were told about each customer."""
    told: dict[str, dict[str, Any]] = {}
    come_back_at = time.monotonic() + AWAY_SECONDS
    while time.monotonic() < come_back_at:
        customer = f"away-{len(told)}"
        preview = decide(client, customer, preview=True).body
        refused = decide(client, f"{customer}-web")
        assert (refused.status, refused.body["code"]) == (503, "busy")
        assert int(refused.headers["retry-after"]) >= 1
        late = client.post("/v1/outcomes", {"customer_id": customer, "event": "click"})
        assert (late.status, int(late.headers["retry-after"]) >= 1) == (503, True)
        answer = decide_by_email(client, customer)
        assert (answer.status, answer.body["recorded"], answer.seconds < EMAIL_SECONDS) == (200, False, True)
        assert answer.body["variant"] == preview["variant"]
        told[customer] = {name: answer.body[name] for name in SAME_AS_STORED}
        assert client.get("/readyz").status == 503
        assert client.get("/healthz").status == 200
    return told


def test_postgresql_away_for_5_seconds_needs_no_restart(own_postgres: postgres.PostgresServer, tmp_path: Path) -> None:
    url = own_postgres.url("shop")
    engine = open_engine(url)
    migrate(engine)
    key = open_shop(engine)
    with serving(url, tmp_path) as server, closing(Client(server.port, key)) as client:
        load = Load(server.port, key)
        with load.run(name="before", n_threads=2):
            load.wait_for(40)
        postgres.stop(own_postgres.data_folder)
        told = _ask_while_away(client)
        postgres.start(own_postgres.data_folder)
        engine.dispose()
        server.wait_until(lambda: decide(client, "back").status == 200, what="decisions are recorded", seconds=10)

        ids = [bytes.fromhex(answer["decision_id"]) for answer in told.values()]

        def all_stored() -> bool:
            with reading(engine) as session:
                return all(session.get(Decision, id_) is not None for id_ in ids)

        server.wait_until(all_stored, what="what email tools were told is stored", seconds=10)
        server.wait_until(server.is_ready, what="ready again", seconds=10)
        for customer, answer in told.items():
            now = decide(client, customer)
            assert (now.status, now.body["recorded"]) == (200, True)
            assert {name: now.body[name] for name in SAME_AS_STORED} == answer
        with load.run(name="after", n_threads=2):
            load.wait_for(40)
        assert_sending_again_changes_nothing(engine, load)
    assert_nothing_was_lost(engine, load)
    assert len(told) > 5
    engine.dispose()
