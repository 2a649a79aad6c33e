"""Verdicts told: once, when they have held for two looks, and only while somebody listens."""

from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
from sqlalchemy import Engine
from sqlmodel import Session, col, select

from experiments.background import work_once
from experiments.catalog import lifecycle
from experiments.database import reading, transaction
from experiments.tables import VerdictsTold, WebhookMessage
from experiments.webhooks.define import put_webhook
from experiments.webhooks.outbox import VERDICT
from experiments.webhooks.verdicts import LOOK_EVERY, Look, Verdicts, next_experiment, note, review
from tests.experiments.review_world import ACTOR, KEY, start_experiment, two_weeks

NOW = datetime.now(UTC)


def _listen(session: Session, events: Any = "all") -> None:
    payload = {"url": "http://127.0.0.1:9/hook", "events": events}
    put_webhook(session, "hook", payload=payload, actor=ACTOR, allows_private=True)


def _told(session: Session) -> list[dict[str, Any]]:
    query = select(WebhookMessage.body).where(WebhookMessage.type == VERDICT).order_by(col(WebhookMessage.id))
    return [orjson.loads(body)["data"] for body in session.exec(query)]


def _look(verdict: str, winner: str | None = None, *, segment: str = "") -> Look:
    one = {"verdict": verdict, "winner": winner, "reason": "because"}
    return Look(KEY, "visit", NOW.isoformat(), {segment: one})


def test_a_winner_is_told_after_two_looks_and_once(engine: Engine) -> None:
    with transaction(engine) as session:
        _listen(session)
        series = start_experiment(session)
        two_weeks(session, series, rates={"a": 0.1, "b": 0.2}, n_units=500)
    for _ in range(4):
        assert work_once(engine, holder="test") is not None
        assert Verdicts(engine).look(holder="test", lease_seconds=30.0) == KEY
        with transaction(engine) as session:
            session.get_one(VerdictsTold, KEY).looked_at -= LOOK_EVERY
    with reading(engine) as session:
        (told,) = _told(session)
    assert (told["experiment"], told["metric"]) == (KEY, "visit")
    said = {one["segment"]: (one["verdict"], one["winner"], one["previous"]) for one in told["verdicts"]}
    assert said == {None: ("ship", "b", "keep_running"), "all": ("ship", "b", "keep_running")}


def test_nothing_is_looked_at_while_nobody_listens_or_too_early_or_when_it_is_over(session: Session) -> None:
    start_experiment(session)
    assert next_experiment(session, now=NOW) is None
    _listen(session, ["experiment.started"])
    assert next_experiment(session, now=NOW) is None
    _listen(session, [VERDICT])
    assert next_experiment(session, now=NOW) == KEY
    note(session, KEY, look=None, now=NOW)
    assert next_experiment(session, now=NOW + LOOK_EVERY / 2) is None
    assert next_experiment(session, now=NOW + LOOK_EVERY) == KEY
    lifecycle.conclude(session, KEY, actor=ACTOR)
    assert next_experiment(session, now=NOW + LOOK_EVERY) is None


def test_what_wavers_is_told_once_and_another_verdict_a_day_later(session: Session) -> None:
    start_experiment(session)
    ships, runs, alike = _look("ship", "b"), _look("keep_running"), _look("no_difference")
    looks = [ships, ships, runs, ships, ships, alike, alike]
    said = [bool(note(session, KEY, look=one, now=NOW + at * LOOK_EVERY)) for at, one in enumerate(looks)]
    assert said == [False, True, False, False, False, False, False]
    later = NOW + timedelta(days=1, hours=2)
    (told,) = note(session, KEY, look=alike, now=later)
    assert (told["verdict"], told["previous"], told["segment"]) == ("no_difference", "ship", None)
    assert len(_told(session)) == 2


def test_a_segment_that_has_left_is_not_looked_at_any_more(session: Session) -> None:
    series = start_experiment(session, segments=("vip", "all"))
    for segment in ("vip", "all"):
        two_weeks(session, series, rates={"a": 0.1, "b": 0.2}, n_units=500, segment=segment)
    from experiments.promote.promotion import promote

    promote(session, KEY, request={"segments": {"vip": "b"}, "reason": "it won", "force": True}, actor=ACTOR)
    found = review(session, KEY)
    assert found is not None
    assert set(found.rows) == {"", "all"}


def test_looks_take_a_tenth_of_the_time(engine: Engine) -> None:
    with transaction(engine) as session:
        _listen(session)
        start_experiment(session)
    moments = iter([100.0, 103.0, 103.0, 129.0, 131.0, 131.0, 131.0])
    verdicts = Verdicts(engine, clock=lambda: next(moments))
    assert work_once(engine, holder="test") is not None
    looked = []
    for _ in range(3):  # the first takes three seconds, so the next is due after 27 more
        looked.append(verdicts.look(holder="test", lease_seconds=30.0))
        with transaction(engine) as session:
            session.get_one(VerdictsTold, KEY).looked_at -= LOOK_EVERY
    assert looked == [KEY, None, KEY]
