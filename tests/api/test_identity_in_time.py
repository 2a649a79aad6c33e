"""The email door with two ids: it joins them and answers in one call, and in time whatever the database does."""

from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic, sleep

from sqlalchemy import text
from sqlmodel import select

from experiments.database import reading, transaction
from experiments.tables import Alias
from experiments.worker import Worker
from tests.api.conftest import Client

DOOR = "/v1/placements/welcome/decision"
SLACK_SECONDS = 0.15  # a slow machine's


def _unlike(client: Client) -> tuple[str, str]:
    """Two ids whose own hashes choose differently."""
    by_variant = {client.decide(f"p{n}", preview=True)["variant"]: f"p{n}" for n in range(50)}
    return by_variant["a"], by_variant["b"]


@contextmanager
def _nothing_can_be_written(worker: Worker) -> Iterator[None]:
    with transaction(worker.engine) as session:
        if worker.engine.dialect.name == "postgresql":
            session.connection().execute(text("LOCK TABLE alias, decision, customer IN ACCESS EXCLUSIVE MODE"))
        else:
            session.connection()  # BEGIN IMMEDIATE
        yield


def test_a_recipient_with_two_ids_gets_the_earliest_decision(running: Client) -> None:
    visitor, customer = _unlike(running)
    first = running.decide(visitor)
    answer = running.get(f"{DOOR}?customer_id={customer}&anonymous_id={visitor}").get_json()
    assert (answer["decision_id"], answer["customer_id"], answer["recorded"]) == (
        first["decision_id"],
        customer,
        True,
    )
    assert running.get(f"{DOOR}?anonymous_id={visitor}").get_json()["decision_id"] == first["decision_id"]


def test_an_anonymous_id_that_cannot_be_holds_no_email_up(running: Client) -> None:
    answer = running.get(f"{DOOR}?customer_id=a&anonymous_id={'x' * 257}")
    assert (answer.status_code, answer.get_json()["recorded"]) == (200, True)
    assert answer.get_json()["decision_id"] == running.decide("a")["decision_id"]


def test_two_ids_hold_no_email_up_and_are_joined_later(running: Client, worker: Worker) -> None:
    running.decide("x", anonymous_id="y")  # so that persons are looked up at all
    with _nothing_can_be_written(worker):
        started_at = monotonic()
        answer = running.get(f"{DOOR}?customer_id=anna&anonymous_id=visitor")
        seconds = monotonic() - started_at
    assert (answer.status_code, answer.get_json()["recorded"]) == (200, False)
    assert seconds < 0.3 + SLACK_SECONDS
    give_up_at = monotonic() + 10
    while monotonic() < give_up_at and "anna" not in _people(worker):
        sleep(0.05)
    assert {"anna", "visitor"} <= _people(worker)


def _people(worker: Worker) -> set[str]:
    with reading(worker.engine) as session:
        return {id_ for row in session.exec(select(Alias)) for id_ in (row.id, row.customer_id)}
