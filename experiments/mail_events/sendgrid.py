"""SendGrid's event webhook: an array of events, signed by ECDSA over the timestamp and the raw body."""

import base64
import binascii
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

from experiments.errors import FieldError, InvalidDefinition, InvalidInput
from experiments.input.checks import shown
from experiments.mail_events.agents import machine_of
from experiments.mail_events.errors import BadSignature
from experiments.mail_events.events import MailEvent, check_object, read_key, read_labels, read_seconds, text_of
from experiments.mail_events.signatures import Delivery, Trust, check_age

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey

_SIGNATURE: Final = "x-twilio-email-event-webhook-signature"
_TIMESTAMP: Final = "x-twilio-email-event-webhook-timestamp"
_KINDS: Final = {
    "delivered": "delivered",
    "open": "open",
    "click": "click",
    "unsubscribe": "unsubscribe",
    "group_unsubscribe": "unsubscribe",
    "spamreport": "complaint",
    "bounce": "bounce",
}


def check(trust: Trust, delivery: Delivery) -> None:
    """Check a delivery's signature.

    Raises:
        BadSignature: Missing, or not made with any of the keys.
        StaleSignature: Too old.
    """
    from cryptography.exceptions import InvalidSignature  # who has no such intake never needs it
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.hashes import SHA256

    timestamp, given = delivery.headers.get(_TIMESTAMP, ""), delivery.headers.get(_SIGNATURE, "")
    try:
        signature = base64.b64decode(given, validate=True)
    except (binascii.Error, ValueError):
        raise BadSignature("it is no base64") from None
    for secret in trust.secrets:
        try:
            _key(secret).verify(signature, timestamp.encode() + delivery.body, ec.ECDSA(SHA256()))
        except InvalidSignature:
            continue
        check_age(trust, timestamp, received_at=delivery.received_at)
        return
    raise BadSignature("it is not the body's under any key of this intake")


def check_secret(text: str, *, pointer: str) -> str:
    """The public key that SendGrid shows.

    Raises:
        InvalidDefinition: It is none.
    """
    try:
        _key(text)
    except ValueError:
        detail = "must be the verification key as SendGrid shows it: a public key of P-256, in base64"
        raise InvalidDefinition([FieldError(pointer, detail)]) from None
    return text


@lru_cache(maxsize=16)
def _key(text: str) -> "EllipticCurvePublicKey":
    from cryptography.exceptions import UnsupportedAlgorithm  # as above
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import load_der_public_key

    try:
        key = load_der_public_key(base64.b64decode(text, validate=True))
    except UnsupportedAlgorithm:
        raise ValueError from None
    if isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP256R1):
        return key
    raise ValueError


def items(body: Any) -> list[Any]:  # JSON
    """The events of a body.

    Raises:
        InvalidInput: It is no array.
    """
    if not isinstance(body, list):
        raise InvalidInput([FieldError("", f"must be an array, not {shown(body)}")])
    return body


def read(item: object) -> MailEvent | None:
    """An event; None of a kind that says nothing here. Custom arguments stand beside SendGrid's own fields.

    Raises:
        InvalidInput: What is needed of it isn't there.
    """
    event = check_object(item)
    kind = _KINDS.get(text_of(event, "event") or "")
    if kind is None:
        return None
    labels, message = read_labels(event), text_of(event, "sg_message_id")
    flag = "sender_says_machine" if event.get("sg_machine_open") is True else None
    return MailEvent(
        id=read_key(event, "sg_event_id"),
        kind=kind,
        occurred_at=read_seconds(event, "timestamp"),
        decision_id=labels.decision_id,
        customer_id=labels.customer_id,
        occasion_id=labels.occasion_id,
        message=None if message is None else f"{message} {text_of(event, 'email')}",
        machine=flag or machine_of(kind, text_of(event, "useragent")),
    )
