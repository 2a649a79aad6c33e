"""What every door checks, whatever comes through it: ids, and JSON that both databases can hold."""

import math
import re
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from itertools import islice
from typing import Any

import orjson

from experiments.errors import FieldError, InvalidInput

KEY_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$"
MAX_ID_BYTES = 256
MAX_ERRORS = 100
MAX_SHOWN = 100
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")


def shown(value: object) -> str:
    """A value as error details name it: at most 100 characters of it, whatever its size.

    >>> shown("a" * 200) == repr("a" * 100) + "…"
    True
    >>> shown([1, 2, 3])
    'an array of 3'
    """
    if isinstance(value, dict):
        return f"an object of {len(value)}"
    if isinstance(value, list | tuple):
        return f"an array of {len(value)}"
    if isinstance(value, str) and len(value) > MAX_SHOWN:
        return repr(value[:MAX_SHOWN]) + "…"
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    if isinstance(value, int) and value.bit_length() > 64:
        return f"an integer of {value.bit_length()} bits"
    return repr(value)


def pointer_to(parent: str, token: str | int) -> str:
    """The RFC 6901 pointer of a member below ``parent``; a token over 128 characters is cut.

    >>> pointer_to("/variants", "a/b~c")
    '/variants/a~1b~0c'
    """
    text = str(token)[:128].replace("~", "~0").replace("/", "~1")
    return f"{parent}/{_UNSTORABLE.sub('?', text)}"


def check_id(value: object, pointer: str) -> str:
    """An id that a caller chose (customer, occasion, outcome), as it came.

    Raises:
        InvalidInput: Not a string of 1 to 256 bytes of UTF-8 without NUL and lone surrogates.
    """
    if not isinstance(value, str):
        detail = f"must be a string, not {shown(value)}"
    elif _UNSTORABLE.search(value):
        detail = f"must not hold NUL or a lone surrogate: {shown(value)}"
    elif not 1 <= len(value.encode()) <= MAX_ID_BYTES:
        detail = f"must have 1 to {MAX_ID_BYTES} bytes, not {len(value.encode())}"
    else:
        return value
    raise InvalidInput([FieldError(pointer, detail)])


def storable_ids(values: Iterable[object]) -> Iterator[str]:
    """Those values that ``check_id`` lets through."""
    for value in values:
        if isinstance(value, str) and _UNSTORABLE.search(value) is None and 1 <= len(value.encode()) <= MAX_ID_BYTES:
            yield value


def check_json(value: object, *, max_depth: int, max_bytes: int, pointer: str = "") -> None:
    """Let only storable JSON through.

    Args:
        value: What a JSON parser gave.
        max_depth: Arrays and objects inside one another, at most.
        max_bytes: Size as compact JSON in UTF-8, at most.
        pointer: Where the value stands in its document.
    Raises:
        InvalidInput: Too deep, too large, not JSON; NaN, infinities, NUL, lone surrogates, integers beyond 64 bits.
    """
    fields = json_errors(value, max_depth=max_depth, max_bytes=max_bytes, pointer=pointer)
    if fields:
        raise InvalidInput(fields)


def json_errors(value: object, *, max_depth: int, max_bytes: int, pointer: str = "") -> list[FieldError]:
    """All (at most 100) that ``check_json`` has against a value; empty if it may pass."""
    found = list(islice(_walk(value, max_depth=max_depth, pointer=pointer), MAX_ERRORS))
    if not found and (size := len(orjson.dumps(value))) > max_bytes:
        found.append(FieldError(pointer, f"must have at most {max_bytes} bytes as JSON, not {size}"))
    return found


def parse_datetime(text: str) -> datetime | None:
    """An ISO 8601 date or time as aware UTC (without an offset it is taken as UTC), or None if it is none.

    >>> parse_datetime("2026-01-02T01:00:00+01:00")
    datetime.datetime(2026, 1, 2, 0, 0, tzinfo=datetime.timezone.utc)
    """
    try:
        parsed = datetime.fromisoformat(text)
        return parsed.replace(tzinfo=UTC) if parsed.tzinfo is None else parsed.astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def _walk(root: object, *, max_depth: int, pointer: str) -> Iterator[FieldError]:
    """Depth first without recursion: input of any depth is an answer, not a crash."""
    pending: list[tuple[str, Any, int]] = [(pointer, root, 1)]
    while pending:
        place, value, depth = pending.pop()
        if not isinstance(value, dict | list | tuple):
            if (detail := _scalar_error(value)) is not None:
                yield FieldError(place, detail)
        elif depth > max_depth:
            yield FieldError(place, f"is nested more than {max_depth} deep")
        elif isinstance(value, dict):
            yield from (FieldError(place, detail) for key in value if (detail := _key_error(key)) is not None)
            pending += [(pointer_to(place, key), item, depth + 1) for key, item in reversed(value.items())]
        else:
            pending += [(pointer_to(place, i), value[i], depth + 1) for i in reversed(range(len(value)))]


def _key_error(key: object) -> str | None:
    if not isinstance(key, str):
        return f"has a name that is no string: {shown(key)}"
    return f"has a name with NUL or a lone surrogate: {shown(key)}" if _UNSTORABLE.search(key) else None


def _scalar_error(value: object) -> str | None:
    if isinstance(value, str):
        return f"must not hold NUL or a lone surrogate: {shown(value)}" if _UNSTORABLE.search(value) else None
    if isinstance(value, float):
        return None if math.isfinite(value) else f"must be finite, not {value}"
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        return f"must fit into 64 bits, not {shown(value)}"
    return None if value is None or isinstance(value, bool | int) else f"is no JSON value: {type(value).__name__}"
