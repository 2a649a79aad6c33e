"""Segment's tracking API by its specification: a bad message harms no other, bombs burst nothing."""

import gzip
import json
from typing import Any

import pytest
from flask import Flask
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlmodel import select

from experiments.access.keys import Pages, create_key
from experiments.database import reading, transaction
from experiments.tables import Customer, Outcome
from experiments.worker import Worker
from tests.api.conftest import Client

CLICK = {"type": "track", "userId": "anna", "event": "click", "messageId": "m1"}


def _batch(client: Client, *messages: object, **envelope: Any) -> dict[str, Any]:
    answer = client.post("/v1/batch", {"batch": list(messages)} | envelope)
    assert answer.status_code == 200, answer.text
    return dict(answer.get_json())


def test_a_bad_message_harms_no_other(running: Client) -> None:
    running.decide("anna")
    wrong: list[object] = [
        7,
        {},
        {"type": "tract", "userId": "a"},
        {"type": "track", "event": "click"},
        {"type": "track", "userId": "a"},
        CLICK | {"messageId": "x", "properties": {"revenue": "much"}},
        CLICK | {"messageId": "y", "timestamp": "yesterday"},
        CLICK | {"messageId": "z", "properties": {"decision_id": "7"}},
        CLICK | {"messageId": "w", "context": "x" * 40_000},
    ]
    done = _batch(running, *wrong, CLICK, CLICK, {"type": "page", "userId": "anna"})
    assert (done["accepted"], done["duplicates"], done["ignored"]) == (1, 1, 1)
    assert [one["index"] for one in done["rejected"]] == list(range(len(wrong)))
    said = [one["detail"] for one in done["rejected"]]
    assert "/type" in said[2]
    assert "/properties/revenue" in said[5]
    assert "/timestamp" in said[6]
    assert "32768 bytes" in said[8]


@pytest.mark.parametrize("path", ["/v1/t", "/v1/track"])
def test_a_page_sends_text_with_the_key_inside(app: Flask, running: Client, worker: Worker, path: str) -> None:
    with transaction(worker.engine) as session:
        pages = Pages(["https://shop.example"], ["click"])
        _, key = create_key(session, "page", scopes=["record"], actor="test", pages=pages)
    worker.snapshots.refresh()
    decision_id = running.decide("anna")["decision_id"]
    message = CLICK | {"writeKey": key, "properties": {"decision_id": decision_id}}
    answer = app.test_client().post(
        path,
        data=json.dumps(message),
        headers={"Content-Type": "text/plain", "Origin": "https://shop.example"},
    )
    assert answer.get_json()["accepted"] == 1
    assert answer.headers["Access-Control-Allow-Origin"] == "https://shop.example"


def test_a_page_tells_nothing_of_customers(app: Flask, running: Client, worker: Worker) -> None:
    """Anybody can read its key, and could move anybody into another segment."""
    running.put("/v1/attributes/plan", {"type": "string", "public": True})
    with transaction(worker.engine) as session:
        pages = Pages(["https://shop.example"], ["click"])
        _, key = create_key(session, "page", scopes=["record"], actor="test", pages=pages)
    worker.snapshots.refresh()
    message = {"type": "identify", "userId": "anna", "traits": {"plan": "gold"}, "writeKey": key}
    answer = app.test_client().post("/v1/i", json=message, headers={"Origin": "https://shop.example"}).get_json()
    assert (answer["accepted"], answer["ignored"], answer["n_dropped"]) == (0, 1, 1)
    with reading(worker.engine) as session:
        assert session.get(Customer, "anna") is None


def test_nulls_are_as_good_as_absent(running: Client) -> None:
    message = CLICK | {"anonymousId": None, "properties": {"revenue": None}, "timestamp": None, "integrations": None}
    assert _batch(running, message)["accepted"] == 1


def test_traits_are_kept_if_they_are_declared_and_used_where_a_request_has_none(
    running: Client, worker: Worker
) -> None:
    running.put("/v1/attributes/orders", {"type": "number"})
    running.put("/v1/attributes/plan", {"type": "string"})
    rules = [{"key": "loyal", "rule": {"attribute": "orders", "gte": 3}}]
    running.put("/v1/segmentations/value", {"segments": rules, "otherwise": "rest"})
    default = {"key": "d", "content": {"text": "{{ plan | default('none') }}"}}
    placement = {"segmentation": "value", "format": "text", "holdout": {"share": 0.0}, "default": default}
    running.put("/v1/placements/p", placement)
    traits = {"orders": 5, "plan": "gold", "email": "a@b.example", "age": 3}
    done = _batch(running, {"type": "identify", "userId": "anna", "traits": traits})
    assert (done["accepted"], done["n_dropped"]) == (1, 2)
    with reading(worker.engine) as session:
        assert session.get_one(Customer, "anna").attributes == {"orders": 5, "plan": "gold"}
    worker.snapshots.refresh()

    def decided(**more: Any) -> tuple[str, str]:
        answer = running.post("/v1/decisions", {"placement": "p", "customer_id": "anna"} | more).get_json()
        return answer["segment"], answer["content"]["text"]

    assert decided() == ("loyal", "gold")
    _batch(running, {"type": "identify", "userId": "anna", "traits": {"plan": None}})
    assert decided() == ("loyal", "none")
    with reading(worker.engine) as session:
        assert session.get_one(Customer, "anna").attributes == {"orders": 5}


def test_a_bomb_is_not_inflated(running: Client) -> None:
    bomb = gzip.compress(b" " * 50_000_000)
    assert len(bomb) < 100_000
    answer = running.post("/v1/batch", data=bomb, headers={"Content-Encoding": "gzip"})
    assert answer.status_code == 413


@pytest.mark.parametrize(
    ("data", "headers", "status"),
    [
        (b"{", {}, 400),
        (b"[]", {}, 400),
        (b'{"batch": 3}', {}, 400),
        (b"\x1f\x8bnonsense", {"Content-Encoding": "gzip"}, 400),
        (gzip.compress(b'{"batch": []}', mtime=0)[:-9], {"Content-Encoding": "gzip"}, 400),
        (b"{}", {"Content-Encoding": "br"}, 415),
    ],
)
def test_what_is_no_batch_is_refused_in_segments_words(
    running: Client, data: bytes, headers: dict[str, str], status: int
) -> None:
    answer = running.post("/v1/batch", data=data, headers=headers)
    said = answer.get_json(force=True)
    assert answer.status_code == status
    assert said["success"] is False
    assert {"code", "message"} <= said.keys()


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=8,
)
NAMES = ("type", "userId", "anonymousId", "previousId", "event", "properties", "traits", "timestamp", "sentAt")
MESSAGES = st.fixed_dictionaries({}, optional=dict.fromkeys(NAMES, JSON) | {"messageId": st.text(max_size=10)})
TRACKED = MESSAGES.map(lambda one: one | {"type": "track", "userId": "a", "event": "x"})


@given(messages=st.lists(MESSAGES | TRACKED | JSON))
@settings(max_examples=60, deadline=None, database=None, suppress_health_check=list(HealthCheck))
def test_every_message_is_accounted_for_whatever_it_is(running: Client, messages: list[Any]) -> None:
    answer = running.post("/v1/batch", data=json.dumps({"batch": messages}), content_type="application/json")
    assert answer.status_code in {200, 400}, answer.text
    if answer.status_code == 200:
        done = answer.get_json()
        told = done["accepted"] + done["duplicates"] + done["ignored"] + len(done["rejected"])
        assert told == len(messages)


def test_nothing_of_a_refused_batch_is_kept(running: Client, worker: Worker) -> None:
    answer = running.post("/v1/batch", {"batch": [CLICK] * 2_501})
    assert answer.status_code == 400
    with reading(worker.engine) as session:
        assert session.exec(select(Outcome)).first() is None
