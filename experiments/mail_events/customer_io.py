"""Customer.io's reporting webhooks: one event a request, signed by HMAC over version, timestamp and raw body."""

from typing import Any, Final

from experiments.mail_events.agents import machine_of
from experiments.mail_events.errors import BadSignature
from experiments.mail_events.events import (
    MailEvent,
    check_object,
    member,
    read_id,
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
    "spammed": "complaint",
    "bounced": "bounce",
}

check_secret = check_signing_key


def check(trust: Trust, delivery: Delivery) -> None:
    """Check a delivery's signature.

    Raises:
        BadSignature: Missing, or not made with any of the secrets.
        StaleSignature: Too old.
    """
    timestamp, given = delivery.headers.get("x-cio-timestamp", ""), delivery.headers.get("x-cio-signature", "")
    if not timestamp or not given:
        raise BadSignature("the headers X-CIO-Timestamp and X-CIO-Signature must be there")
    check_hmac(trust, b"v0:" + timestamp.encode(errors="replace") + b":" + delivery.body, given=given)
    check_age(trust, timestamp, received_at=delivery.received_at)


def items(body: Any) -> list[Any]:  # JSON
    """The events of a body."""
    return [body]


def read(item: object) -> MailEvent | None:
    """An event of an email; None of a kind that says nothing here. It names the customer, by Customer.io's ``id``.

    Raises:
        InvalidInput: What is needed of it isn't there.
    """
    event = check_object(item)
    kind = _KINDS.get(text_of(event, "metric") or "")
    if kind is None or event.get("object_type") != "email":
        return None
    data = member(event, "data")
    labels, delivery = read_labels(data), text_of(data, "delivery_id")
    is_machine = data.get("prefetched") is True  # ``proxied`` alone is Gmail's proxy: see ``agents``
    return MailEvent(
        id=read_key(event, "event_id"),
        kind=kind,
        occurred_at=read_seconds(event, "timestamp"),
        decision_id=labels.decision_id,
        customer_id=labels.customer_id or read_id(member(data, "identifiers"), "id"),
        occasion_id=labels.occasion_id,
        message=delivery,
        machine="sender_says_machine" if is_machine else machine_of(kind, text_of(data, "user_agent")),
    )
