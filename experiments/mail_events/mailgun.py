"""Mailgun's webhooks: one event a request, beside a signature over timestamp and token only; so a token works once."""

from typing import Any, Final

import orjson

from experiments.mail_events.agents import machine_of
from experiments.mail_events.errors import BadSignature
from experiments.mail_events.events import (
    MailEvent,
    check_object,
    member,
    read_key,
    read_labels,
    read_seconds,
    text_of,
)
from experiments.mail_events.signatures import Delivery, Trust, check_age, check_hmac, check_signing_key

_KINDS: Final = {
    "delivered": "delivered",
    "opened": "open",
    "clicked": "click",
    "unsubscribed": "unsubscribe",
    "complained": "complaint",
    "failed": "bounce",
}
_MACHINE_TYPES: Final = {"robot", "library"}
_PEOPLES_PROXIES: Final = {"gmail", "yahoo"}  # see ``agents``
_MAX_TOKEN: Final = 256

check_secret = check_signing_key


def check(trust: Trust, delivery: Delivery) -> str:
    """Check a delivery's signature; returns its token, which may come again with this very body only.

    Raises:
        BadSignature: Missing, or not made with any of the secrets.
        StaleSignature: Too old.
    """
    try:
        body = orjson.loads(delivery.body)
    except orjson.JSONDecodeError:
        raise BadSignature("the body, which should hold it, is no JSON") from None
    said = member(body, "signature") if isinstance(body, dict) else {}
    timestamp, token, given = (text_of(said, name) for name in ("timestamp", "token", "signature"))
    if timestamp is None and isinstance(said.get("timestamp"), int):
        timestamp = str(said["timestamp"])
    if timestamp is None or token is None or given is None or not 1 <= len(token) <= _MAX_TOKEN:
        raise BadSignature("the body has none")
    check_hmac(trust, timestamp.encode() + token.encode(), given=given)
    check_age(trust, timestamp, received_at=delivery.received_at)
    return token


def items(body: Any) -> list[Any]:  # JSON
    """The events of a body."""
    return [body]


def read(item: object) -> MailEvent | None:
    """An event; None of a kind that says nothing here. Custom arguments are ``user-variables``.

    Raises:
        InvalidInput: What is needed of it isn't there.
    """
    event = check_object(check_object(item).get("event-data"))
    kind = _KINDS.get(text_of(event, "event") or "")
    if kind is None or (kind == "bounce" and event.get("severity") != "permanent"):
        return None
    labels, client = read_labels(member(event, "user-variables")), member(event, "client-info")
    message = text_of(member(event, "message", "headers"), "message-id")
    return MailEvent(
        id=read_key(event, "id"),
        kind=kind,
        occurred_at=read_seconds(event, "timestamp"),
        decision_id=labels.decision_id,
        customer_id=labels.customer_id,
        occasion_id=labels.occasion_id,
        message=None if message is None else f"{message} {text_of(event, 'recipient')}",
        machine=_flag(client) or machine_of(kind, text_of(client, "user-agent")),
    )


def _flag(client: dict[str, Any]) -> str | None:
    bot = text_of(client, "bot") or ""
    is_machine = text_of(client, "client-type") in _MACHINE_TYPES or (bot != "" and bot.lower() not in _PEOPLES_PROXIES)
    return "sender_says_machine" if is_machine else None
