"""One message of Segment's tracking API: who, what, when, by the rules of its specification.

``track`` is an outcome; ``identify`` and ``alias`` join ids, ``identify`` also tells attributes; ``page``, ``screen``
and ``group`` are taken and left aside. A null is as good as absent.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final

import orjson

from experiments.errors import FieldError, InvalidInput
from experiments.input.checks import check_id, parse_datetime, shown

TYPES: Final = ("track", "identify", "alias", "page", "screen", "group")
MAX_BYTES: Final = 32_768
EVENTS: Final[Mapping[str, str]] = {  # Segment's own names for what metrics are built in for
    "Order Completed": "purchase",
    "Email Opened": "open",
    "Email Link Clicked": "click",
    "Email Delivered": "delivered",
    "Unsubscribed": "unsubscribe",
}
_OLDEST: Final = timedelta(days=20 * 366)  # a greater age says that one of the clocks is none
_VALUES: Final = ("revenue", "value", "total")
_DECISIONS: Final = ("decision_id", "decisionId")


@dataclass(frozen=True, slots=True)
class Message:
    """A message. ``outcome`` is as ``POST /v1/outcomes`` takes it; ``joins``: an anonymous id and the customer's."""

    customer_id: str
    outcome: dict[str, Any] | None = None
    joins: tuple[str, str] | None = None
    traits: Mapping[str, Any] = field(default_factory=dict)


def read_message(item: object, *, kind: str | None, sent_at: datetime | None, received_at: datetime) -> Message:
    """A message from JSON.

    Args:
        item: One message.
        kind: What the address says that it is; None: the message says so.
        sent_at: When its batch was sent, on the client's clock; None if nobody said.
        received_at: When it arrived.
    Raises:
        InvalidInput: With what is wrong.
    """
    if not isinstance(item, dict):
        raise InvalidInput([FieldError("", f"must be an object, not {shown(item)}")])
    message = {name: value for name, value in item.items() if value is not None}
    if (size := _size(message)) > MAX_BYTES:
        raise InvalidInput([FieldError("", f"must have at most {MAX_BYTES} bytes as JSON, not {size}")])
    kind = kind or message.get("type")
    if kind not in TYPES:
        raise InvalidInput([FieldError("/type", f"must be one of {', '.join(TYPES)}, not {shown(kind)}")])
    user_id, anonymous_id = _id(message, "userId"), _id(message, "anonymousId")
    if kind == "alias":
        anonymous_id = _id(message, "previousId") or anonymous_id
    customer_id = user_id or anonymous_id
    if customer_id is None:
        raise InvalidInput([FieldError("", "userId or anonymousId must be said")])
    joins = (anonymous_id, user_id) if kind in {"identify", "alias"} and anonymous_id and user_id else None
    if kind == "track":
        at = _moment(message, sent_at=sent_at, received_at=received_at)
        return Message(customer_id, outcome=_outcome(message, customer_id=customer_id, at=at))
    traits = _object(message, "traits") if kind == "identify" else {}
    return Message(customer_id, joins=joins, traits=traits)


def _size(message: Mapping[str, Any]) -> int:
    """Its bytes as JSON; a NaN that no metric reads does no harm.

    Raises:
        InvalidInput: It can't be JSON: a lone surrogate, an integer beyond 64 bits, too deep.
    """
    try:
        return len(orjson.dumps(message))
    except TypeError as error:
        raise InvalidInput([FieldError("", f"is no JSON: {error}")]) from None


def read_time(value: object, pointer: str) -> datetime | None:
    """A time of a message or a batch; None if none is said.

    Raises:
        InvalidInput: It is none.
    """
    if value is None:
        return None
    moment = parse_datetime(value) if isinstance(value, str) else None
    if moment is None:
        raise InvalidInput([FieldError(pointer, f"must be a time in ISO 8601, not {shown(value)}")])
    return moment


def _id(message: Mapping[str, Any], name: str) -> str | None:
    value = message.get(name)
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    return None if value is None or value == "" else check_id(value, f"/{name}")


def _object(message: Mapping[str, Any], name: str) -> dict[str, Any]:
    value = message.get(name, {})
    if not isinstance(value, dict):
        raise InvalidInput([FieldError(f"/{name}", f"must be an object, not {shown(value)}")])
    return value


def _moment(message: Mapping[str, Any], *, sent_at: datetime | None, received_at: datetime) -> datetime:
    """When it happened on our clock: as long before it arrived as it was before it was sent, and never later."""
    happened = read_time(message.get("originalTimestamp") or message.get("timestamp"), "/timestamp")
    sent = read_time(message.get("sentAt"), "/sentAt") or sent_at
    if happened is None:
        return received_at
    if sent is None:
        return happened
    age = max(sent - happened, timedelta(0))
    return received_at - age if age < _OLDEST else happened


def _outcome(message: Mapping[str, Any], *, customer_id: str, at: datetime) -> dict[str, Any]:
    event, properties = message.get("event"), _object(message, "properties")
    if not isinstance(event, str):
        raise InvalidInput([FieldError("/event", f"must be a string, not {shown(event)}")])
    decision_id = next((properties[name] for name in _DECISIONS if properties.get(name) is not None), None)
    said = {
        "outcome_id": _id(message, "messageId"),
        "decision_id": decision_id,
        "customer_id": customer_id,
        "event": EVENTS.get(event, event),
        "value": _value(properties),
        "occurred_at": at.isoformat(),
    }
    return {name: value for name, value in said.items() if value is not None}


def _value(properties: Mapping[str, Any]) -> float | None:
    for name in _VALUES:
        value = properties.get(name)
        if value is None or value == "" or isinstance(value, bool):
            continue
        try:
            return float(value)
        except (TypeError, ValueError, OverflowError):
            detail = f"must be a number, not {shown(value)}"
            raise InvalidInput([FieldError(f"/properties/{name}", detail)]) from None
    return None
