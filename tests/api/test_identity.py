"""One person, several ids: who was there first goes on deciding, and tallies agree whatever happens."""

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine
from sqlmodel import select

from experiments.customers.aliases import MAX_IDS, Link, write_links
from experiments.database import reading, transaction
from experiments.decisions.hashing import holdout_uniform
from experiments.tables import Alias, Decision, Workspace
from experiments.tallies.recount import all_series, recount
from experiments.worker import Worker
from tests.api.conftest import Client, assert_problem, pointers


def _pair(client: Client, *, alike: bool, n: int = 0) -> tuple[str, str]:
    """A visitor and a customer who are undecided yet and whose own hashes choose alike, or not."""
    for i in range(200):
        visitor, customer = f"v{n}-{i}", f"c{n}-{i}"
        variants = {client.decide(id_, preview=True)["variant"] for id_ in (visitor, customer)}
        if (len(variants) == 1) == alike:
            return visitor, customer
    raise AssertionError


def _aliases(worker: Worker) -> dict[str, str]:
    with reading(worker.engine) as session:
        return {row.id: row.customer_id for row in session.exec(select(Alias))}


def _agrees(worker: Worker) -> bool:
    with reading(worker.engine) as session:
        return not any(recount(session, number).differences for number in all_series(session))


def test_after_login_the_earliest_decision_wins(running: Client, worker: Worker) -> None:
    visitor, customer = _pair(running, alike=False)
    before = running.decide(visitor)
    after = running.decide(customer, anonymous_id=visitor)
    assert after["variant"] == before["variant"]
    assert after["decision_id"] == before["decision_id"]
    assert after["customer_id"] == customer
    alone = running.decide(customer)
    assert (alone["variant"], alone["decision_id"]) == (before["variant"], before["decision_id"])
    with reading(worker.engine) as session:
        assert len(session.exec(select(Decision)).all()) == 1
    assert _agrees(worker)


def test_an_anonymous_id_alone_is_who_is_asked_for(running: Client) -> None:
    answer = running.post("/v1/decisions", {"placement": "welcome", "anonymous_id": "v1"}).get_json()
    assert answer["decision_id"] == running.decide("v1")["decision_id"]


def test_a_request_that_is_refused_or_a_preview_joins_nobody(running: Client, worker: Worker) -> None:
    """A join can't be undone."""
    running.put("/v1/attributes/orders", {"type": "number"})
    both = {"placement": "welcome", "customer_id": "anna", "anonymous_id": "v1"}
    for wrong in ({"placement": "nowhere"}, {"attributes": {"orders": "x"}}, {"occasion_id": ""}):
        assert running.post("/v1/decisions", both | wrong).status_code in {404, 422}
    for preview in (True, "b"):
        assert running.post("/v1/decisions", both | {"preview": preview}).get_json()["source"] == "preview"
    assert _aliases(worker) == {}
    running.post("/v1/decisions", both)
    assert _aliases(worker) == {"v1": "anna"}


def test_two_devices_with_different_decisions_are_marked_and_stay_counted(running: Client, worker: Worker) -> None:
    phone, laptop = _pair(running, alike=False)
    first, second = running.decide(phone), running.decide(laptop)
    joined = running.decide(laptop, anonymous_id=phone)
    assert joined["variant"] == first["variant"]
    merged = {id_: running.get(f"/v1/decisions/{id_}").get_json()["merged"] for id_ in _ids(first, second)}
    assert merged == {first["decision_id"]: False, second["decision_id"]: True}
    overall = running.get("/v1/experiments/subject/results").get_json()
    assert sum(one["n_units"] for one in overall["overall"]["variants"]) == 2
    assert overall["checks"]["merged"]["n_units"] == 1
    assert _agrees(worker)


def _ids(*decisions: dict[str, Any]) -> list[str]:
    return [one["decision_id"] for one in decisions]


def test_outcomes_of_either_id_count_for_the_earliest_decision(running: Client, worker: Worker) -> None:
    phone, laptop = _pair(running, alike=False)
    first = running.decide(phone)
    running.decide(laptop)
    running.post("/v1/outcomes", {"customer_id": laptop, "anonymous_id": phone, "event": "click"})
    running.post("/v1/outcomes", {"customer_id": laptop, "event": "click"})
    running.post("/v1/outcomes", {"anonymous_id": phone, "event": "click"})
    (response,) = running.get(f"/v1/decisions/{first['decision_id']}").get_json()["responses"]
    assert response["n_outcomes"] == 3
    assert _agrees(worker)


def test_the_holdout_follows_whoever_was_there_first(running: Client, worker: Worker) -> None:
    running.put("/v1/placements/half", {"holdout": {"share": 0.5}, "default": {"key": "d", "content": {"text": "x"}}})
    with reading(worker.engine) as session:
        secret = session.exec(select(Workspace)).one().holdout_secret
    held, treated = (
        next(f"{name}{i}" for i in range(99) if (holdout_uniform(secret, f"{name}{i}") < 0.5) == is_held)
        for name, is_held in (("v", True), ("c", False))
    )

    def source(**ids: str) -> str:
        return str(running.post("/v1/decisions", {"placement": "half"} | ids).get_json()["source"])

    assert source(anonymous_id=held) == "holdout"
    assert source(customer_id=treated, anonymous_id=held) == "holdout"
    assert source(customer_id=treated) == "holdout"


def test_a_device_belongs_to_the_first_customer_who_signs_in(running: Client, worker: Worker) -> None:
    running.decide("anna", anonymous_id="tablet")
    running.decide("bert", anonymous_id="tablet")
    with reading(worker.engine) as session:
        assert {row.id: row.customer_id for row in session.exec(select(Alias))} == {"tablet": "anna"}
    assert running.decide("anna")["decision_id"] != running.decide("bert")["decision_id"]


def test_a_person_gets_no_more_ids_than_a_person_may_have(engine: Engine) -> None:
    with transaction(engine) as session:
        write_links(session.connection(), [Link(f"device-{n}", "guest") for n in range(MAX_IDS + 5)])
        write_links(session.connection(), [Link("device-0", "guest")])
    with reading(engine) as session:
        assert len(session.exec(select(Alias)).all()) == MAX_IDS - 1


def test_joining_again_or_round_about_changes_nothing(running: Client, worker: Worker) -> None:
    running.decide("a")
    for anonymous_id, customer_id in (("a", "b"), ("b", "c"), ("a", "c"), ("c", "a"), ("b", "b"), ("c", "b")):
        running.decide(customer_id, anonymous_id=anonymous_id)
    with reading(worker.engine) as session:
        assert {row.id: row.customer_id for row in session.exec(select(Alias))} == {"b": "a", "c": "a"}
        assert len(session.exec(select(Decision)).all()) == 1


@pytest.mark.parametrize(
    ("ids", "pointer"),
    [
        ({}, "/customer_id"),
        ({"customer_id": "a", "anonymous_id": ""}, "/anonymous_id"),
        ({"customer_id": "", "anonymous_id": "a"}, "/customer_id"),
        ({"customer_id": "a", "anonymous_id": "x" * 257}, "/anonymous_id"),
        ({"anonymous_id": "a\x00"}, "/anonymous_id"),
    ],
)
def test_ids_that_cannot_be_are_refused_by_name(running: Client, ids: dict[str, str], pointer: str) -> None:
    answer = running.post("/v1/decisions", {"placement": "welcome"} | ids)
    assert pointers(assert_problem(answer, 422, "invalid_input")) == {pointer}


STEPS = st.lists(
    st.tuples(st.sampled_from(["decide", "join", "click"]), st.integers(0, 3), st.integers(0, 3)),
    min_size=1,
    max_size=12,
)


@given(steps=STEPS)
@settings(max_examples=15, deadline=None, database=None, suppress_health_check=list(HealthCheck))
def test_whatever_the_order_a_person_gets_one_answer_and_tallies_agree(
    running: Client, worker: Worker, steps: list[tuple[str, int, int]]
) -> None:
    n = _count()
    person = {i: {i} for i in range(4)}
    taken: set[int] = set()  # as another's device
    for step, i, j in steps:
        one, other = f"p{n}-{i}", f"p{n}-{j}"
        if step == "decide":
            running.decide(one)
        elif step == "click":
            running.post("/v1/outcomes", {"customer_id": one, "event": "click"})
        else:
            running.decide(one, anonymous_id=other)
            if j not in taken and j not in person[i]:
                taken.add(j)
                joined = person[i] | person[j]
                person |= dict.fromkeys(joined, joined)
    worker.people.forget(*(f"p{n}-{i}" for i in range(4)))
    for ids in person.values():
        answers = [running.decide(f"p{n}-{i}") for i in sorted(ids)]
        assert len({(one["variant"], one["decision_id"]) for one in answers}) == 1
    assert _agrees(worker)


_numbers = iter(range(1_000_000))


def _count() -> int:
    return next(_numbers)


def test_links_that_meet_agree(running: Client, worker: Worker) -> None:
    running.decide("m")
    with transaction(worker.engine) as session:
        kept = write_links(session.connection(), [Link("m", "n"), Link("o", "n"), Link("o", "m")])
    assert kept == ["m", "m", "m"]
