"""Signatures as the Standard Webhooks specification has them: HMAC-SHA256 over id, time and body."""

import base64
import hashlib
import hmac
import secrets
from collections.abc import Sequence
from datetime import datetime
from typing import Final

_PREFIX: Final = "whsec_"
_SECRET_BYTES: Final = 32  # the specification asks for 24 to 64


def new_secret() -> str:
    """A secret, as receivers' libraries take it."""
    return _PREFIX + base64.b64encode(secrets.token_bytes(_SECRET_BYTES)).decode()


def signed_headers(message: str, body: bytes, *, sent_at: datetime, keys: Sequence[str]) -> dict[str, str]:
    """The three headers of a message; one signature for each secret, so that receivers can change over.

    Args:
        message: The message's id, the same at every attempt.
        body: Exactly what is sent.
        sent_at: Of this attempt: receivers refuse what is older than five minutes.
        keys: Secrets, the newest first.
    """
    seconds = int(sent_at.timestamp())
    text = f"{message}.{seconds}.".encode() + body
    return {
        "webhook-id": message,
        "webhook-timestamp": str(seconds),
        "webhook-signature": " ".join(_signature(text, key) for key in keys),
    }


def _signature(text: bytes, key: str) -> str:
    secret = base64.b64decode(key.removeprefix(_PREFIX))
    return "v1," + base64.b64encode(hmac.new(secret, text, hashlib.sha256).digest()).decode()
