"""Deliveries against a receiver on this machine: what is taken, tried again, given up, and never sent twice at once."""

import asyncio
import http.server
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest
from sqlalchemy import Engine
from sqlmodel import Session, select
from standardwebhooks.webhooks import Webhook as Verifier

from experiments.database import database_now, reading, transaction
from experiments.tables import Webhook, WebhookDelivery, WebhookMessage
from experiments.webhooks import post as posting
from experiments.webhooks.backoff import MAX_ATTEMPTS, PAUSES, next_attempt
from experiments.webhooks.courier import Courier
from experiments.webhooks.define import enable_webhook, put_webhook, rotate_secret
from experiments.webhooks.deliver import CLAIM, Answer, Parcel, claim, find_due, prune, settle
from experiments.webhooks.errors import WebhookDisabled
from experiments.webhooks.outbox import tell
from experiments.webhooks.post import http_client, post
from experiments.webhooks.replay import list_deliveries, replay, send_test
from tests.receiver import Receiver, receiving

ACTOR = "key/ann"
HOOK = "hook"


def _hook(engine: Engine, url: str, key: str = HOOK) -> str:
    """Define a webhook; its secret."""
    with transaction(engine) as session:
        return put_webhook(session, key, payload={"url": url}, actor=ACTOR, allows_private=True)[0].secret


def _tell(engine: Engine, n: int = 1) -> list[str]:
    with transaction(engine) as session:
        return [tell(session, "experiment.started", data={"experiment": f"e{at}"}) for at in range(n)]


@contextmanager
def _couriers(engine: Engine, n: int = 1, **settings: Any) -> Iterator[None]:
    couriers = [Courier(engine, **({"allows_private": True} | settings)) for _ in range(n)]
    for courier in couriers:
        courier.look()
    try:
        yield
    finally:
        for courier in couriers:
            courier.close()


def _row(engine: Engine, message: str, key: str = HOOK) -> WebhookDelivery:
    with reading(engine) as session:
        return session.get_one(WebhookDelivery, (key, message))


def _until(engine: Engine, message: str, *, key: str = HOOK, seconds: float = 20.0, **wanted: Any) -> WebhookDelivery:
    give_up_at = time.monotonic() + seconds
    while True:
        row = _row(engine, message, key)
        if all(getattr(row, name) == value for name, value in wanted.items()):
            return row
        assert time.monotonic() < give_up_at, f"{row!r} never had {wanted}"
        time.sleep(0.02)


def _hurry(engine: Engine, message: str) -> None:
    """Let what waits for its next attempt be due now."""
    with transaction(engine) as session:
        row = session.get_one(WebhookDelivery, (HOOK, message))
        row.next_attempt_at = database_now(session)


def test_a_message_is_sent_signed_and_counted_as_delivered(engine: Engine) -> None:
    with receiving() as receiver:
        secret = _hook(engine, receiver.url)
        (message,) = _tell(engine)
        with _couriers(engine):
            (got,) = receiver.wait_for(1)
            row = _until(engine, message, status="delivered")
    assert (row.n_attempts, row.answered, row.error, row.next_attempt_at) == (1, 204, None, None)
    assert got.id == message
    assert Verifier(secret).verify(got.body, dict(got.headers)) == got.message
    assert got.message["type"] == "experiment.started"
    assert got.headers["content-type"] == "application/json"


def test_what_is_refused_is_sent_again_under_the_same_id(engine: Engine) -> None:
    with receiving(status=500) as receiver:
        _hook(engine, receiver.url)
        (message,) = _tell(engine)
        with _couriers(engine):
            receiver.wait_for(1)
            row = _until(engine, message, status="pending", n_attempts=1, answered=500)
            assert row.error == "refused"
            receiver.status = 200
            _hurry(engine, message)
            first, second = receiver.wait_for(2)
            _until(engine, message, status="delivered", n_attempts=2)
    assert first.id == second.id
    assert first.body == second.body


@pytest.mark.parametrize("said", ["7200", "date"])
def test_a_receiver_says_how_long_it_wants_to_be_left_alone(engine: Engine, said: str) -> None:
    wish = said if said == "7200" else format_datetime(datetime.now(UTC) + timedelta(seconds=7_200), usegmt=True)
    with receiving(status=503, headers={"Retry-After": wish}) as receiver:
        _hook(engine, receiver.url)
        (message,) = _tell(engine)
        with _couriers(engine):
            receiver.wait_for(1)
            row = _until(engine, message, answered=503)
    assert row.next_attempt_at is not None
    assert row.attempted_at is not None
    assert timedelta(seconds=7_195) < row.next_attempt_at - row.attempted_at < timedelta(seconds=7_215)


def test_too_many_requests_slow_the_whole_webhook_down(engine: Engine) -> None:
    with receiving(status=429) as receiver:
        _hook(engine, receiver.url)
        (message,) = _tell(engine)
        with _couriers(engine):
            receiver.wait_for(1)
            _until(engine, message, answered=429)
            (later,) = _tell(engine)
            time.sleep(1.5)
    assert len(receiver.received) == 1
    assert _row(engine, later).n_attempts == 0


def test_gone_disables_the_webhook_and_what_waits_can_be_replayed(engine: Engine) -> None:
    with receiving(status=410) as receiver:
        _hook(engine, receiver.url)
        first, second = _tell(engine, 2)
        with _couriers(engine):
            receiver.wait_for(1)
            _until(engine, first, status="failed")
            _until(engine, second, status="failed")
            with transaction(engine) as session, pytest.raises(WebhookDisabled):
                replay(session, HOOK, request={}, actor=ACTOR)
            (missed,) = _tell(engine)
            with reading(engine) as session:
                row = session.get_one(Webhook, HOOK)
                assert (row.status, row.disabled_reason) == (
                    "disabled",
                    "The receiver answered 410: it is gone for good.",
                )
                assert session.get(WebhookDelivery, (HOOK, missed)) is None
            receiver.status, since = 200, row.created_at
            with transaction(engine) as session:
                enable_webhook(session, HOOK, actor=ACTOR)
                assert replay(session, HOOK, request={"since": since.isoformat()}, actor=ACTOR) == 3
            for message in (first, second, missed):
                _until(engine, message, status="delivered")


def test_a_redirect_is_not_followed(engine: Engine) -> None:
    with receiving() as elsewhere, receiving(status=302, headers={"Location": elsewhere.url}) as receiver:
        _hook(engine, receiver.url)
        (message,) = _tell(engine)
        with _couriers(engine):
            row = _until(engine, message, answered=302)
    assert row.error == "redirected"
    assert elsewhere.received == []


def _drip(receiver: Receiver) -> Any:
    def reply(handler: http.server.BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.end_headers()
        while not receiver.released.is_set():
            try:
                handler.wfile.write(b"x" * 1_000_000)
            except OSError:
                return

    return reply


def test_an_endless_answer_is_read_for_a_moment_only(engine: Engine) -> None:
    with receiving() as receiver:
        receiver.reply = _drip(receiver)
        _hook(engine, receiver.url)
        (message,) = _tell(engine)
        with _couriers(engine):
            _until(engine, message, status="delivered", seconds=10.0)


def test_a_silent_receiver_times_out_and_the_others_are_served(engine: Engine) -> None:
    with receiving() as silent, receiving() as quick:
        silent.reply = lambda _handler: silent.released.wait(20)
        _hook(engine, silent.url)
        _hook(engine, quick.url, "quick")
        messages = _tell(engine, 4)
        with _couriers(engine, max_seconds=1.0):
            for message in messages:
                _until(engine, message, key="quick", status="delivered")
            row = _until(engine, messages[0], n_attempts=1, error="timed_out")
    assert row.answered is None
    assert row.status == "pending"


def test_nobody_at_the_address_is_an_error_that_is_tried_again(engine: Engine) -> None:
    _hook(engine, "http://127.0.0.1:9/hook")
    (message,) = _tell(engine)
    with _couriers(engine):
        row = _until(engine, message, n_attempts=1, error="connection_failed")
    assert row.status == "pending"


def test_private_addresses_are_refused_where_they_are_forbidden_also_behind_names(engine: Engine) -> None:
    """``localhost`` is a name, so it can be put; what it leads to is checked when something is sent."""
    with receiving() as receiver:
        _hook(engine, f"http://localhost:{receiver.port}/hook")
        (message,) = _tell(engine)
        with _couriers(engine, allows_private=False):
            _until(engine, message, n_attempts=1, error="private_address")
    assert receiver.received == []


def test_a_name_that_leads_elsewhere_when_asked_again_is_not_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The connection goes to the very address that was checked, with the name in Host."""
    with receiving() as receiver:

        async def public(_url: object) -> list[str]:
            return ["127.0.0.1"]

        monkeypatch.setattr(posting, "_public_addresses", public)
        parcel = Parcel(
            webhook=HOOK,
            message="msg_1",
            n_attempts=1,
            url=f"http://no.such.host.invalid:{receiver.port}/hook",
            keys=("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",),
            body=b"{}",
            sent_at=datetime.now(UTC),
        )

        async def send() -> Answer:
            async with http_client() as client:
                return await post(client, parcel, allows_private=False)

        assert asyncio.run(send()).is_good
    assert receiver.received[0].headers["host"] == f"no.such.host.invalid:{receiver.port}"


def test_two_couriers_send_nothing_twice(engine: Engine) -> None:
    with receiving() as receiver:
        _hook(engine, receiver.url)
        messages = _tell(engine, 60)
        with _couriers(engine, 2):
            receiver.wait_for(60, seconds=60.0)
            for message in messages:
                _until(engine, message, status="delivered", n_attempts=1)
    assert sorted(got.id for got in receiver.received) == sorted(messages)


def test_what_is_being_sent_when_its_sender_is_lost_is_sent_again(engine: Engine) -> None:
    """A claim that nobody settles ends by itself, and the next sender takes it; after ten it has failed."""
    _hook(engine, "http://127.0.0.1:9/hook")
    (message,) = _tell(engine)
    now = datetime.now(UTC) + timedelta(seconds=1)
    for attempt in range(1, MAX_ATTEMPTS + 1):
        with transaction(engine) as session:
            (due,) = find_due(session, now=now, limit=8)
            assert claim(session, due, now=now) is not None
        with transaction(engine) as session:
            assert find_due(session, now=now + CLAIM / 2, limit=8) == []
            assert claim(session, due, now=now) is None  # another that had found it too
        assert _row(engine, message).n_attempts == attempt
        now += CLAIM
    with transaction(engine) as session:
        (due,) = find_due(session, now=now, limit=8)
        assert claim(session, due, now=now) is None
    assert (_row(engine, message).status, _row(engine, message).error) == ("failed", "sender_lost")


def test_an_answer_that_comes_too_late_changes_nothing(engine: Engine) -> None:
    _hook(engine, "http://127.0.0.1:9/hook")
    (message,) = _tell(engine)
    now = datetime.now(UTC) + timedelta(seconds=1)
    parcels = []
    for moment in (now, now + CLAIM):
        with transaction(engine) as session:
            parcels.append(claim(session, find_due(session, now=moment, limit=8)[0], now=moment))
    assert parcels[0] is not None
    with transaction(engine) as session:
        settle(session, parcels[0], answer=Answer(status=500, error="refused"), now=now, chance=0.0)
    row = _row(engine, message)
    assert (row.answered, row.n_attempts) == (None, 2)


def test_pauses_grow_to_over_three_days_and_then_the_delivery_has_failed() -> None:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    pauses = [next_attempt(n, now=now, chance=0.0) for n in range(1, MAX_ATTEMPTS + 1)]
    assert pauses[-1] is None
    assert [one - now for one in pauses[:-1] if one is not None] == list(PAUSES)
    assert list(PAUSES) == sorted(PAUSES)
    assert timedelta(days=3) < sum(PAUSES, timedelta()) < timedelta(days=4)
    assert next_attempt(1, now=now, chance=0.999, wish=None) < now + timedelta(seconds=6)  # type: ignore[operator]
    assert next_attempt(1, now=now, chance=0.0, wish=timedelta(days=9)) == now + timedelta(days=1)


def test_five_days_without_a_success_disable_the_webhook(engine: Engine) -> None:
    _hook(engine, "http://127.0.0.1:9/hook")
    (message,) = _tell(engine)
    now = datetime.now(UTC) + timedelta(seconds=1)
    with transaction(engine) as session:
        session.get_one(Webhook, HOOK).failing_since = now - timedelta(days=5)
    with transaction(engine) as session:
        parcel = claim(session, find_due(session, now=now, limit=8)[0], now=now)
    assert parcel is not None
    with transaction(engine) as session:
        settle(session, parcel, answer=Answer(error="timed_out"), now=now, chance=0.0)
    with reading(engine) as session:
        row = session.get_one(Webhook, HOOK)
    assert row.status == "disabled"
    assert (row.disabled_reason or "").startswith("Nothing has been delivered since")
    assert _row(engine, message).status == "failed"


def test_while_a_secret_changes_both_sign(engine: Engine) -> None:
    with receiving() as receiver:
        old = _hook(engine, receiver.url)
        with transaction(engine) as session:
            new = rotate_secret(session, HOOK, actor=ACTOR).secret
        _tell(engine)
        with _couriers(engine):
            (got,) = receiver.wait_for(1)
    assert old != new
    for secret in (old, new):
        assert Verifier(secret).verify(got.body, dict(got.headers))


def test_a_test_message_and_a_replay_go_to_one_webhook_only(engine: Engine) -> None:
    with receiving() as receiver, receiving() as other:
        _hook(engine, receiver.url)
        _hook(engine, other.url, "other")
        with transaction(engine) as session:
            message = send_test(session, HOOK, actor=ACTOR)
        with _couriers(engine):
            _until(engine, message, status="delivered")
            with transaction(engine) as session:
                assert replay(session, HOOK, request={"message_ids": [message]}, actor=ACTOR) == 1
            first, again = receiver.wait_for(2)
            _until(engine, message, status="delivered", n_attempts=1)
    assert first.id == again.id == message
    assert first.message["type"] == "webhook.test"
    assert other.received == []
    with reading(engine) as session:
        (sent,) = list_deliveries(session, HOOK)
    assert (sent.type, sent.last_answer) == ("webhook.test", {"status": 204, "error": None})


def test_old_messages_are_forgotten_but_for_those_that_wait(engine: Engine) -> None:
    _hook(engine, "http://127.0.0.1:9/hook")
    done, waits = _tell(engine, 2)
    with transaction(engine) as session:
        row = session.get_one(WebhookDelivery, (HOOK, done))
        row.status, row.next_attempt_at = "delivered", None
    with transaction(engine) as session:
        assert prune(session, now=datetime.now(UTC) + timedelta(days=31)) == 1
        assert session.exec(select(WebhookMessage.id)).all() == [waits]
        assert session.exec(select(WebhookDelivery.message)).all() == [waits]


def test_a_courier_that_ends_by_itself_is_started_again(engine: Engine) -> None:
    with receiving() as receiver:
        _hook(engine, receiver.url)
        courier = Courier(engine, allows_private=True)
        ended = threading.Thread(target=lambda: None)
        ended.start()
        ended.join()
        courier._thread = ended  # noqa: SLF001  # as one that has fallen over
        courier.look()
        try:
            _tell(engine)
            receiver.wait_for(1)
        finally:
            courier.close()


def test_writing_is_not_held_up_by_a_receiver_that_is_silent(engine: Engine) -> None:
    """While something is being sent, no transaction is open: changes go on at once."""
    with receiving() as silent:
        silent.reply = lambda _handler: silent.released.wait(20)
        _hook(engine, silent.url)
        _tell(engine)
        with _couriers(engine):
            silent.wait_for(1)
            began = time.monotonic()
            with transaction(engine) as session:
                _touch(session)
            assert time.monotonic() - began < 2.0


def _touch(session: Session) -> None:
    session.get_one(Webhook, HOOK).description = "touched"
