"""The email door answers within 300 ms whatever the database does: locks, a full journal, unknown placements."""

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest
from flask.testing import FlaskClient
from sqlalchemy import Engine, text
from sqlmodel import select

from api.app import create_app
from experiments import journal
from experiments.config import Config
from experiments.database import reading, transaction
from experiments.tables import Decision
from experiments.worker import Worker
from tests.faults.shop import PLACEMENT, differences, open_shop

pytestmark = pytest.mark.xdist_group("faults")

IN_TIME_SECONDS = 0.3
NOISE_SECONDS = 0.2  # of a busy machine; without its limits the door would wait for seconds
N_CALLS = 12


@pytest.fixture
def shop(engine: Engine, database_url: str) -> Iterator[tuple[FlaskClient, Worker, dict[str, str]]]:
    """The service in this process, with a key that it knows."""
    key = open_shop(engine)
    config = Config(database_url=database_url)
    worker = Worker(config, shard=1)
    worker.start()
    yield create_app(config, worker).test_client(), worker, {"X-API-Key": key}
    worker.close()


@contextmanager
def _locked(engine: Engine) -> Iterator[None]:
    """Nobody can write; on PostgreSQL nobody can even read."""
    with ExitStack() as locked:
        session = locked.enter_context(transaction(engine))
        if engine.dialect.name == "postgresql":
            session.connection().execute(text("LOCK TABLE decision, workspace IN ACCESS EXCLUSIVE MODE"))
        yield


def _ask(client: FlaskClient, headers: dict[str, str], *, customer: str, placement: str = PLACEMENT) -> tuple[int, Any]:
    began = time.monotonic()
    answer = client.get(f"/v1/placements/{placement}/decision?customer_id={customer}", headers=headers)
    assert time.monotonic() - began < IN_TIME_SECONDS + NOISE_SECONDS
    return answer.status_code, answer.get_json()


def test_a_locked_database_holds_up_no_email_and_gets_all_of_it_later(
    engine: Engine, shop: tuple[FlaskClient, Worker, dict[str, str]]
) -> None:
    client, worker, headers = shop
    with _locked(engine):
        began = time.monotonic()
        told = [_ask(client, headers, customer=f"c{n}") for n in range(N_CALLS)]
        assert time.monotonic() - began < N_CALLS * IN_TIME_SECONDS / 2  # only the first ones wait
        again = [_ask(client, headers, customer=f"c{n}") for n in range(N_CALLS)]
    assert told == again
    assert {(status, said["recorded"]) for status, said in told} == {(200, False)}
    ids = {bytes.fromhex(said["decision_id"]) for _, said in told}
    give_up_at = time.monotonic() + 10
    while worker.journal.n_rows and time.monotonic() < give_up_at:
        time.sleep(0.02)
    worker.close()
    with reading(engine) as session:
        assert ids <= set(session.exec(select(Decision.id)).all())
    assert differences(engine) == []


def test_a_full_journal_holds_up_no_email(
    engine: Engine, shop: tuple[FlaskClient, Worker, dict[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    client, _, headers = shop
    monkeypatch.setattr(journal, "MAX_ROWS_QUEUED", 2)
    with _locked(engine):
        told = [_ask(client, headers, customer=f"c{n}") for n in range(N_CALLS)]
    assert {(status, said["recorded"]) for status, said in told} == {(200, False)}


def test_an_unknown_placement_or_key_is_not_looked_for_at_length(
    engine: Engine, shop: tuple[FlaskClient, Worker, dict[str, str]]
) -> None:
    client, _, headers = shop
    with _locked(engine):
        for n in range(4):
            assert _ask(client, headers, customer="c", placement=f"nowhere-{n}")[0] == 404
            assert _ask(client, {"X-API-Key": headers["X-API-Key"][:-1]}, customer="c")[0] == 401
