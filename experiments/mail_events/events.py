"""One event of an email as every sender's report is read, and reading what they have in common."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from experiments.errors import FieldError, InvalidInput
from experiments.input.checks import check_id, parse_datetime, shown

KINDS: Final = ("delivered", "open", "click", "unsubscribe", "complaint", "bounce")
_DECISION: Final = re.compile("[0-9a-f]{32}")
_FIRST: Final = datetime(1980, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class MailEvent:
    """What happened to an email.

    Attributes:
        id: The sender's own, the same in every repeat.
        kind: One of ``KINDS``.
        occurred_at: When.
        decision_id: From the custom arguments that the email was sent with; None if they had none.
        customer_id: From there too (Customer.io: whom it was sent to).
        occasion_id: As that.
        message: What all events of one email to one person have in common; None if nothing.
        machine: Why it is taken for a machine's; None for people's.
    """

    id: str
    kind: str
    occurred_at: datetime
    decision_id: str | None
    customer_id: str | None
    occasion_id: str | None
    message: str | None
    machine: str | None

    @property
    def is_ours(self) -> bool:
        """Whether it says whose it is; other emails of the same account don't."""
        return self.decision_id is not None or self.customer_id is not None


@dataclass(frozen=True, slots=True)
class Labels:
    """Whose an event is."""

    decision_id: str | None
    customer_id: str | None
    occasion_id: str | None


def read_labels(arguments: Mapping[str, Any]) -> Labels:
    """Whose an event is, by the custom arguments of its email.

    Raises:
        InvalidInput: They can't be ids.
    """
    decision_id, customer_id, occasion_id = (
        read_id(arguments, name) for name in ("decision_id", "customer_id", "occasion_id")
    )
    if decision_id is not None and _DECISION.fullmatch(decision_id) is None:
        detail = f"must be 32 hexadecimal digits, not {shown(decision_id)}"
        raise InvalidInput([FieldError("/decision_id", detail)])
    return Labels(decision_id, customer_id, occasion_id)


def read_id(item: Mapping[str, Any], name: str) -> str | None:
    """A text or whole number that may be an id; None where there is none.

    Raises:
        InvalidInput: It is neither, or too long.
    """
    value = item.get(name)
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value) if value.bit_length() <= 64 else value
    return None if value is None or value == "" else check_id(value, f"/{name}")


def read_key(item: Mapping[str, Any], name: str) -> str:
    """An id that must be there.

    Raises:
        InvalidInput: It isn't.
    """
    value = read_id(item, name)
    if value is None:
        raise InvalidInput([FieldError(f"/{name}", "must be said")])
    return value


def read_seconds(item: Mapping[str, Any], name: str) -> datetime:
    """A time in seconds since 1970, as a number or as text.

    Raises:
        InvalidInput: It is none, or before 1980.
    """
    value = item.get(name)
    try:
        seconds = float(value) if isinstance(value, int | float | str) and not isinstance(value, bool) else math.nan
        moment = datetime.fromtimestamp(seconds, UTC)
    except (ValueError, OverflowError, OSError):
        moment = None
    return _checked(moment, value, name=name)


def read_moment(item: Mapping[str, Any], name: str) -> datetime:
    """A time in ISO 8601.

    Raises:
        InvalidInput: It is none, or before 1980.
    """
    value = item.get(name)
    return _checked(parse_datetime(value) if isinstance(value, str) else None, value, name=name)


def _checked(moment: datetime | None, value: object, *, name: str) -> datetime:
    if moment is None or moment < _FIRST:
        raise InvalidInput([FieldError(f"/{name}", f"must be a time since 1980, not {shown(value)}")])
    return moment


def member(item: Mapping[str, Any], *names: str) -> dict[str, Any]:
    """An object inside objects; empty where it isn't there or is none."""
    found: Any = item
    for name in names:
        found = found.get(name) if isinstance(found, dict) else None
    return found if isinstance(found, dict) else {}


def text_of(item: Mapping[str, Any], name: str) -> str | None:
    """A text; None where it isn't there or is none."""
    value = item.get(name)
    return value if isinstance(value, str) else None


def check_object(item: object) -> dict[str, Any]:
    """An item of a report.

    Raises:
        InvalidInput: It is no object.
    """
    if not isinstance(item, dict):
        raise InvalidInput([FieldError("", f"must be an object, not {shown(item)}")])
    return item
