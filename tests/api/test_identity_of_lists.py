"""A list of customers, some of them known by several ids or with attributes of their own: looked up together."""

from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import event

from experiments.worker import Worker
from tests.api.conftest import Client

N_CUSTOMERS = 300


@pytest.fixture
def known(running: Client, worker: Worker) -> Client:
    """A service where ``customer`` was ``visitor`` before and is called Anna."""
    running.put("/v1/attributes/first_name", {"type": "string"})
    visitor = {"type": "identify", "userId": "customer", "anonymousId": "visitor", "traits": {"first_name": "Anna"}}
    running.decide("visitor")
    assert running.post("/v1/identify", visitor).get_json()["accepted"] == 1
    worker.snapshots.refresh()
    return running


@pytest.fixture
def statements(worker: Worker) -> Iterator[list[str]]:
    """What the database is asked, but for a list's own transactions."""
    said: list[str] = []

    def note(*args: Any) -> None:
        said.append(args[2])

    event.listen(worker.engine, "before_cursor_execute", note)
    yield said
    event.remove(worker.engine, "before_cursor_execute", note)


def _ids() -> list[Any]:
    return ["customer", *(f"c{n}" for n in range(N_CUSTOMERS))]


def test_a_json_list_looks_its_customers_up_together(known: Client, statements: list[str]) -> None:
    items: list[object] = [{"customer_id": id_} for id_ in _ids()]
    wrong: list[object] = [7, {}, {"customer_id": 3}, {"customer_id": "\x00"}, {"customer_id": ""}]
    body = {"placement": "welcome", "items": items + wrong}
    answers = known.post("/v1/decisions/batch", body).get_json()["decisions"]
    assert len([sql for sql in statements if "alias" in sql]) < 10
    assert answers[0]["decision_id"] == known.decide("visitor")["decision_id"]
    assert answers[0]["customer_id"] == "customer"
    assert ("Anna" in answers[0]["content"]["text"]) == (answers[0]["variant"] == "a")
    assert all("error" in answer for answer in answers[len(items) :])


def test_a_csv_list_looks_its_customers_up_together(known: Client, statements: list[str]) -> None:
    data = "customer_id\n" + "\n".join([*_ids(), '""', "x" * 300]) + "\n"
    path = "/v1/decisions/batch?placement=welcome"
    answer = known.post(path, data=data, headers={"Content-Type": "text/csv", "Accept": "text/csv"})
    assert answer.status_code == 200, answer.text
    assert len([sql for sql in statements if "alias" in sql]) < 10
    assert known.decide("visitor")["decision_id"] in answer.text
