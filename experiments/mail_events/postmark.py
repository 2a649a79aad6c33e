"""Postmark's webhooks: one event a request, not signed; the address holds a user and a password."""

import base64
import binascii
import hashlib
from typing import Any, Final

from experiments.errors import FieldError, InvalidDefinition
from experiments.mail_events.agents import machine_of
from experiments.mail_events.errors import BadSignature
from experiments.mail_events.events import MailEvent, check_object, member, read_key, read_labels, read_moment, text_of
from experiments.mail_events.signatures import MIN_SECRET, Delivery, Trust, any_equal

_TIMES: Final = {
    "Delivery": ("delivered", "DeliveredAt"),
    "Open": ("open", "ReceivedAt"),
    "Click": ("click", "ReceivedAt"),
    "SpamComplaint": ("complaint", "BouncedAt"),
    "Bounce": ("bounce", "BouncedAt"),
    "SubscriptionChange": ("unsubscribe", "ChangedAt"),
}
_BOUNCES: Final = {"HardBounce", "SoftBounce", "Blocked", "BadEmailAddress"}


def check(trust: Trust, delivery: Delivery) -> None:
    """Check the user and the password that a delivery comes with.

    Raises:
        BadSignature: Missing, or others.
    """
    kind, _, rest = delivery.headers.get("authorization", "").partition(" ")
    try:
        given = base64.b64decode(rest, validate=True) if kind.lower() == "basic" else b""
    except (binascii.Error, ValueError):
        given = b""
    if not any_equal(trust.secrets, hashlib.sha256(given).hexdigest()):
        raise BadSignature("it has no user and password that this intake knows")


def check_secret(text: str, *, pointer: str) -> str:
    """The SHA-256 of ``user:password``.

    Raises:
        InvalidDefinition: The text isn't that, or the password is short.
    """
    user, _, password = text.partition(":")
    if not user or len(password) < MIN_SECRET or not text.isprintable():
        detail = f"must be user:password, as in the webhook's address, the password of {MIN_SECRET} characters or more"
        raise InvalidDefinition([FieldError(pointer, detail)])
    return hashlib.sha256(text.encode()).hexdigest()


def items(body: Any) -> list[Any]:  # JSON
    """The events of a body."""
    return [body]


def read(item: object) -> MailEvent | None:
    """An event; None of a kind that says nothing here. Custom arguments are ``Metadata``.

    Raises:
        InvalidInput: What is needed of it isn't there.
    """
    event = check_object(item)
    record = text_of(event, "RecordType") or ""
    if record not in _TIMES or not _matters(event, record):
        return None
    kind, time_field = _TIMES[record]
    labels, message = read_labels(member(event, "Metadata")), read_key(event, "MessageID")
    recipient = text_of(event, "Recipient") or text_of(event, "Email")
    occurred_at = read_moment(event, time_field)
    parts = (record, message, recipient, event[time_field], text_of(event, "OriginalLink"))
    return MailEvent(
        id=hashlib.sha256(repr(parts).encode(errors="replace")).hexdigest(),  # Postmark has no id of an event
        kind=kind,
        occurred_at=occurred_at,
        decision_id=labels.decision_id,
        customer_id=labels.customer_id,
        occasion_id=labels.occasion_id,
        message=f"{message} {recipient}",
        machine=machine_of(kind, text_of(event, "UserAgent")),
    )


def _matters(event: dict[str, Any], record: str) -> bool:
    if record == "Bounce":
        return text_of(event, "Type") in _BOUNCES
    if record == "SubscriptionChange":  # bounces and complaints suppress too, and are reported by themselves
        return event.get("SuppressSending") is True and event.get("SuppressionReason") == "ManualSuppression"
    return True
