"""What every signature needs: a delivery as it came, its age, comparisons that tell nothing by how long they take."""

import hashlib
import hmac
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from experiments.errors import FieldError, InvalidDefinition
from experiments.mail_events.errors import BadSignature, StaleSignature

MIN_SECRET: Final = 16


@dataclass(frozen=True, slots=True)
class Delivery:
    """One request of a sender: its body to the byte, its headers by their names in lower case, when it came."""

    body: bytes
    headers: Mapping[str, str]
    received_at: datetime


@dataclass(frozen=True, slots=True)
class Trust:
    """What a delivery is checked against: any of the secrets will do; it may be so many seconds old."""

    secrets: tuple[str, ...]
    tolerance_seconds: int


def check_hmac(trust: Trust, message: bytes, *, given: str) -> None:
    """Check a hexadecimal HMAC-SHA256.

    Raises:
        BadSignature: No secret makes it.
    """
    right = [hmac.new(secret.encode(), message, hashlib.sha256).hexdigest() for secret in trust.secrets]
    if not any_equal(right, given.lower()):
        raise BadSignature("it is not the body's under any secret of this intake")


def any_equal(known: Iterable[str], given: str) -> bool:
    """Whether a text is one of some, in the same time whichever it is."""
    matches = [hmac.compare_digest(one.encode(), given.encode(errors="replace")) for one in known]
    return any(matches)


def check_age(trust: Trust, timestamp: str, *, received_at: datetime) -> None:
    """Check that a timestamp is about now.

    Raises:
        BadSignature: It is none.
        StaleSignature: It is too old, or in the future.
    """
    if not (timestamp.isascii() and timestamp.isdigit() and len(timestamp) <= 12):
        raise BadSignature("its timestamp is no number of seconds")
    age = received_at.timestamp() - int(timestamp)
    if abs(age) > trust.tolerance_seconds:
        raise StaleSignature(age, tolerance_seconds=trust.tolerance_seconds)


def check_signing_key(text: str, *, pointer: str) -> str:
    """A secret for HMAC, kept as it is.

    Raises:
        InvalidDefinition: It is too short to be one.
    """
    if not (len(text) >= MIN_SECRET and text.isascii() and text.isprintable() and text.strip() == text):
        detail = f"must be the signing key: {MIN_SECRET} or more printable characters, without blanks round it"
        raise InvalidDefinition([FieldError(pointer, detail)])
    return text
