"""Deliveries of email senders, signed by each one's documented recipe, written out by hand with other people's code."""

import base64
import hashlib
import hmac
import json
import secrets
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

MAILGUN_KEY = "key-0123456789abcdef0123456789abcdef"
CUSTOMERIO_KEY = "3b7e1c9d5f0a4e2b8c6d7f1a9e3b5c7d"
POSTMARK_USER = "postmark:a-password-of-some-length"
SENDGRID_KEY = ec.generate_private_key(ec.SECP256R1())

Signed = tuple[bytes, dict[str, str]]


def public_key(key: ec.EllipticCurvePrivateKey = SENDGRID_KEY) -> str:
    """The verification key as SendGrid's settings show it."""
    spki = serialization.PublicFormat.SubjectPublicKeyInfo
    return base64.b64encode(key.public_key().public_bytes(serialization.Encoding.DER, spki)).decode()


def sendgrid(events: Any, *, at: float, key: ec.EllipticCurvePrivateKey = SENDGRID_KEY) -> Signed:
    """ECDSA with SHA-256 over the timestamp and the raw body, base64 of its DER form."""
    body, timestamp = json.dumps(events).encode(), str(int(at))
    signature = key.sign(timestamp.encode() + body, ec.ECDSA(hashes.SHA256()))
    return body, {
        "X-Twilio-Email-Event-Webhook-Signature": base64.b64encode(signature).decode(),
        "X-Twilio-Email-Event-Webhook-Timestamp": timestamp,
    }


def mailgun(event: Any, *, at: float, key: str = MAILGUN_KEY, token: str | None = None) -> Signed:
    """Hexadecimal HMAC-SHA256 over timestamp and token, beside the event."""
    timestamp, token = str(int(at)), token or secrets.token_hex(25)
    signature = hmac.new(key.encode(), (timestamp + token).encode(), hashlib.sha256).hexdigest()
    said = {"timestamp": timestamp, "token": token, "signature": signature}
    return json.dumps({"signature": said, "event-data": event}).encode(), {}


def postmark(event: Any, *, at: float, key: str = POSTMARK_USER) -> Signed:
    """User and password of the address, as Basic authentication."""
    del at
    return json.dumps(event).encode(), {"Authorization": "Basic " + base64.b64encode(key.encode()).decode()}


def customerio(event: Any, *, at: float, key: str = CUSTOMERIO_KEY) -> Signed:
    """Hexadecimal HMAC-SHA256 over v0, timestamp and raw body, with colons between."""
    body, timestamp = json.dumps(event).encode(), str(int(at))
    signature = hmac.new(key.encode(), f"v0:{timestamp}:".encode() + body, hashlib.sha256).hexdigest()
    return body, {"X-CIO-Signature": signature, "X-CIO-Timestamp": timestamp}


@dataclass(frozen=True)
class Happened:
    """Something that happens to an email, whoever sent it."""

    kind: str
    at: float
    id: str = field(default_factory=lambda: secrets.token_hex(8))
    decision_id: str | None = None
    customer_id: str | None = None
    agent: str = "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko)"
    message: str = "m-1"
    more: dict[str, Any] = field(default_factory=dict)

    @property
    def labels(self) -> dict[str, str]:
        """The custom arguments that the email was sent with."""
        said = {"decision_id": self.decision_id, "customer_id": self.customer_id}
        return {name: value for name, value in said.items() if value is not None}


def as_sendgrid(what: Happened) -> Any:
    """An event in SendGrid's words."""
    names = {"complaint": "spamreport"}
    return {
        "email": "anna@shop.example",
        "timestamp": int(what.at),
        "event": names.get(what.kind, what.kind),
        "sg_event_id": what.id,
        "sg_message_id": what.message,
        "useragent": what.agent,
        "ip": "192.0.2.7",
        **what.labels,
        **what.more,
    }


def as_mailgun(what: Happened) -> Any:
    """An event in Mailgun's words."""
    names = {
        "open": "opened",
        "click": "clicked",
        "unsubscribe": "unsubscribed",
        "complaint": "complained",
        "bounce": "failed",
    }
    return {
        "event": names.get(what.kind, what.kind),
        "id": what.id,
        "timestamp": what.at,
        "recipient": "anna@shop.example",
        "severity": "permanent",
        "message": {"headers": {"message-id": what.message}},
        "user-variables": what.labels,
        "client-info": {"client-type": "browser", "user-agent": what.agent},
        **what.more,
    }


def as_postmark(what: Happened) -> Any:
    """An event in Postmark's words."""
    record, time_field = {
        "delivered": ("Delivery", "DeliveredAt"),
        "open": ("Open", "ReceivedAt"),
        "click": ("Click", "ReceivedAt"),
        "complaint": ("SpamComplaint", "BouncedAt"),
        "bounce": ("Bounce", "BouncedAt"),
        "unsubscribe": ("SubscriptionChange", "ChangedAt"),
    }[what.kind]
    return {
        "RecordType": record,
        "MessageID": what.message,
        "Recipient": "anna@shop.example",
        time_field: datetime.fromtimestamp(what.at, UTC).isoformat(),
        "Type": "HardBounce",
        "SuppressSending": True,
        "SuppressionReason": "ManualSuppression",
        "Metadata": what.labels,
        "UserAgent": what.agent,
        **what.more,
    }


def as_customerio(what: Happened) -> Any:
    """An event in Customer.io's words."""
    names = {
        "open": "opened",
        "click": "clicked",
        "unsubscribe": "unsubscribed",
        "complaint": "spammed",
        "bounce": "bounced",
    }
    return {
        "event_id": what.id,
        "object_type": "email",
        "metric": names.get(what.kind, what.kind),
        "timestamp": int(what.at),
        "data": {
            "delivery_id": what.message,
            "customer_id": what.customer_id,
            "identifiers": {"id": what.customer_id},
            "recipient": "anna@shop.example",
            "decision_id": what.decision_id,
            **what.more,
        },
    }


SENDERS: dict[str, tuple[Any, Any, str]] = {
    "sendgrid": (lambda what: [as_sendgrid(what)], sendgrid, public_key()),
    "mailgun": (as_mailgun, mailgun, MAILGUN_KEY),
    "postmark": (as_postmark, postmark, POSTMARK_USER),
    "customerio": (as_customerio, customerio, CUSTOMERIO_KEY),
}
