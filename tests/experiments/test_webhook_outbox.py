"""The outbox: what happened is told in its own transaction, to those who want to hear of it, within 20 KB."""

from datetime import timedelta
from typing import Any

import orjson
import pytest
from sqlalchemy import Engine
from sqlmodel import Session, col, select

from experiments.background import work_once
from experiments.catalog import lifecycle
from experiments.catalog.definition_store import put_segmentation
from experiments.catalog.experiment_store import put_experiment
from experiments.database import reading, transaction
from experiments.errors import WrongState
from experiments.promote.policies import rollback
from experiments.promote.promotion import promote
from experiments.tables import WebhookDelivery, WebhookMessage
from experiments.webhooks.define import put_webhook
from experiments.webhooks.outbox import fitted, shortened
from tests.experiments.review_world import ACTOR, KEY, PLACEMENT, observe, start_experiment

LINKS = {"experiment": f"/v1/experiments/{KEY}", "results": f"/v1/experiments/{KEY}/results"}


def _hook(session: Session, key: str = "hook", events: Any = "all") -> None:
    payload = {"url": "http://127.0.0.1:9/hook", "events": events}
    put_webhook(session, key, payload=payload, actor=ACTOR, allows_private=True)


def _told(session: Session) -> list[dict[str, Any]]:
    messages = session.exec(select(WebhookMessage).order_by(col(WebhookMessage.id)))
    return [orjson.loads(message.body) for message in messages]


def _last(session: Session) -> dict[str, Any]:
    told = _told(session)[-1]
    told["data"].pop("effective_at")
    return told


def test_the_life_of_an_experiment_is_told(session: Session) -> None:
    start_experiment(session, segments=("vip", "all"))
    head = {"experiment": KEY, "placement": PLACEMENT, "segments": ["vip", "all"], "n_segments": 2}
    head |= {"variants": ["a", "b"], "actor": ACTOR, "links": LINKS}
    first = _last(session)
    assert first["type"] == "experiment.started"
    assert first["data"] == head | {"version": 2, "status": "running", "reason": None}
    lifecycle.pause(session, KEY, actor=ACTOR, reason="sale")
    lifecycle.resume(session, KEY, actor=ACTOR)
    lifecycle.conclude(session, KEY, actor=ACTOR)
    said = [(told["type"], told["data"]["status"], told["data"]["reason"]) for told in _told(session)[1:]]
    assert said == [
        ("experiment.paused", "paused", "sale"),
        ("experiment.resumed", "running", None),
        ("experiment.concluded", "concluded", None),
    ]


def test_a_message_says_when_it_takes_effect_in_the_format_of_the_answers(session: Session) -> None:
    start_experiment(session)
    changed = lifecycle.pause(session, KEY, actor=ACTOR)
    told = _told(session)[-1]
    at = changed.effective_at.isoformat().replace("+00:00", "Z")
    assert told["data"]["effective_at"] == at
    assert told["timestamp"] < at


def test_a_guardrail_s_pause_is_told_with_the_segments_where_it_does_harm(engine: Engine) -> None:
    guardrail = {"metric": "complaint", "max_harm": 0.005}
    with transaction(engine) as session:
        series = start_experiment(session, segments=("vip", "all"), guardrails=[guardrail], burn_in=0)
        for variant, complaints in (("a", 50), ("b", 400)):
            at: dict[str, Any] = {"segment": "vip", "variant": variant, "n_units": 5_000}
            observe(session, series, visits=2_500, **at)
            observe(session, series, visits=complaints, metric="complaint", **at)
    work_once(engine, holder="test")
    work_once(engine, holder="test")
    with reading(engine) as session:
        told = [one for one in _told(session) if one["type"] == "variant.paused"]
    assert len(told) == 1
    told[0]["data"].pop("effective_at")
    assert told[0]["data"] == {
        "experiment": KEY,
        "placement": PLACEMENT,
        "version": 3,
        "variant": "b",
        "metric": "complaint",
        "segments": ["vip"],
        "n_segments": 1,
        "actor": "guardrail",
        "reason": None,
        "links": LINKS,
    }


def test_promotions_and_rollbacks_are_told(session: Session) -> None:
    start_experiment(session, segments=("vip", "all"))
    promote(session, KEY, request={"segments": {"vip": "b"}, "reason": "it won", "force": True}, actor=ACTOR)
    assert _last(session) == {
        "type": "policy.promoted",
        "timestamp": _told(session)[-1]["timestamp"],
        "data": {
            "placement": PLACEMENT,
            "version": 1,
            "segments": [{"segment": "vip", "variant": "b"}],
            "n_segments": 1,
            "experiment": KEY,
            "explore": 0.05,
            "forced": True,
            "concluded": False,
            "actor": ACTOR,
            "reason": "it won",
            "links": {"policy": f"/v1/policies/{PLACEMENT}", **LINKS},
        },
    }
    rollback(session, PLACEMENT, request={"reason": "it did not"}, actor=ACTOR)
    told = _last(session)
    assert told["type"] == "policy.rolled_back"
    assert told["data"] == {
        "placement": PLACEMENT,
        "version": 2,
        "segments": [{"segment": "vip", "variant": None}],
        "n_segments": 1,
        "to_version": 0,
        "experiments": [KEY],
        "actor": ACTOR,
        "reason": "it did not",
        "links": {"policy": f"/v1/policies/{PLACEMENT}"},
    }


def test_an_experiment_that_a_promotion_concludes_is_told_as_concluded_once(session: Session) -> None:
    start_experiment(session)
    wanted = {"segments": {"all": "b"}, "reason": "it won", "force": True}
    promote(session, KEY, request=wanted, actor=ACTOR)
    promote(session, KEY, request=wanted, actor=ACTOR)
    types = [told["type"] for told in _told(session)]
    assert types == ["experiment.started", "policy.promoted", "experiment.concluded", "policy.promoted"]


def test_each_webhook_hears_of_what_it_wants(session: Session) -> None:
    _hook(session, "everything")
    _hook(session, "pauses", ["experiment.paused", "variant.paused"])
    start_experiment(session)
    lifecycle.pause(session, KEY, actor=ACTOR)
    query = select(WebhookDelivery.webhook, WebhookMessage.type, WebhookDelivery.status, WebhookDelivery.n_attempts)
    query = query.join(WebhookMessage, col(WebhookMessage.id) == WebhookDelivery.message)
    assert sorted(session.exec(query)) == [
        ("everything", "experiment.paused", "pending", 0),
        ("everything", "experiment.started", "pending", 0),
        ("pauses", "experiment.paused", "pending", 0),
    ]


def test_what_is_refused_or_rolled_back_is_not_told(engine: Engine) -> None:
    with transaction(engine) as session:
        _hook(session)
        start_experiment(session)
    with pytest.raises(WrongState), transaction(engine) as session:
        _pause_twice(session)
    with reading(engine) as session:
        assert [told["type"] for told in _told(session)] == ["experiment.started"]
        assert len(session.exec(select(WebhookDelivery)).all()) == 1


def _pause_twice(session: Session) -> None:
    lifecycle.pause(session, KEY, actor=ACTOR)
    lifecycle.pause(session, KEY, actor=ACTOR)


def test_ids_grow_with_time(session: Session) -> None:
    start_experiment(session)
    for _ in range(5):
        lifecycle.pause(session, KEY, actor=ACTOR)
        lifecycle.resume(session, KEY, actor=ACTOR)
    messages = session.exec(select(WebhookMessage).order_by(col(WebhookMessage.created_at))).all()
    assert [message.id for message in messages] == sorted(message.id for message in messages)
    assert all(one.created_at - messages[0].created_at < timedelta(minutes=1) for one in messages)


def test_a_hundred_segments_and_a_long_reason_stay_under_20_kb(session: Session) -> None:
    start_experiment(session)
    lifecycle.conclude(session, KEY, actor=ACTOR)
    keys = [f"{i:03d}-" + "s" * 120 for i in range(100)]
    rules = [{"key": key, "rule": {"attribute": "tier", "eq": key}} for key in keys[:-1]]
    put_segmentation(session, "tiers", payload={"segments": rules, "otherwise": keys[-1]}, actor=ACTOR)
    variants = [{"key": f"{i:02d}-" + "v" * 120, "content": {}, "is_control": i == 0} for i in range(45)]
    definition = {"placement": PLACEMENT, "goal": "visit", "variants": variants, "floor": 0.0}
    put_experiment(session, "wide", payload=definition, actor=ACTOR)
    lifecycle.start(session, "wide", actor=ACTOR, reason="\x01" * 1_300)
    winners = dict.fromkeys(keys, variants[1]["key"])
    promote(session, "wide", request={"segments": winners, "reason": "ü" * 2_000, "force": True}, actor=ACTOR)
    rollback(session, PLACEMENT, request={"reason": "🎁" * 2_000}, actor=ACTOR)
    messages = session.exec(select(WebhookMessage)).all()
    assert max(len(message.body.encode()) for message in messages) < 20_000
    wide = [told["data"] for told in _told(session) if told["data"].get("n_segments") == 100]
    assert len(wide) == 3
    assert all(10 < len(data["segments"]) < 100 for data in wide)


def test_lists_are_cut_at_whole_items_and_reasons_at_their_end() -> None:
    assert fitted(["abc"] * 10, max_bytes=18) == ["abc"] * 3
    assert fitted([], max_bytes=1) == []
    assert shortened(None) is None
    assert shortened("x" * 600) == "x" * 600
    assert shortened("x" * 601) == "x" * 600 + "…"
