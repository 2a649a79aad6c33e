"""Customers' attributes at the doors: typed by their declaration, whether they come as JSON or as text (GET, CSV)."""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import orjson

from experiments.catalog.definitions import AttributeDefinition
from experiments.errors import FieldError
from experiments.input.checks import json_errors, parse_datetime, pointer_to, shown

MAX_KEYS: Final = 64
MAX_BYTES: Final = 16_384
MAX_DEPTH: Final = 20
_NUMBER: Final = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_INTEGER: Final = re.compile(r"[+-]?[0-9]{1,19}")
_BOOLEANS: Final = {"true": True, "1": True, "false": False, "0": False}


@dataclass(frozen=True, slots=True)
class Coerced:
    """Attributes as the rest of the service uses them.

    typed: For rules and templates: declared ones in their type (datetimes as aware UTC), undeclared ones as they came.
    stored: For the decision's row, as JSON: declared ones whose declaration says ``stored``.
    invalid: What was dropped and why; pointers are relative to the attributes, "" all of them.
    """

    typed: dict[str, Any]
    stored: dict[str, Any]
    invalid: list[FieldError]


def coerce(values: Mapping[str, object], declared: Mapping[str, AttributeDefinition], *, text: bool) -> Coerced:
    """Type attributes by their declaration; what does not fit is dropped and listed, never raised.

    Args:
        values: As they came. A null, and in text an empty string, is a missing attribute.
        declared: All declared attributes by key.
        text: Whether every value is text: ``12``, ``true``, ``2026-01-02T10:00``, ``a,b``.

    >>> coerce({"age": "12"}, {"age": AttributeDefinition(type="number")}, text=True).typed
    {'age': 12}
    """
    errors: list[FieldError] = []
    if not _is_ordinary(values):
        values, errors = _storable(values)
    typed: dict[str, Any] = {}
    stored: dict[str, Any] = {}
    read = _FROM_TEXT if text else _FROM_JSON
    for key, value in values.items():
        if value is None or (text and value == ""):
            continue
        definition = declared.get(key)
        if definition is None:
            typed[key] = value
        elif (known := read[definition.type](value)) is None:
            errors.append(FieldError(pointer_to("", key), f"must be {_SAID[definition.type]}, not {shown(value)}"))
        else:
            typed[key] = known
            if definition.stored:
                stored[key] = known.isoformat() if isinstance(known, datetime) else known
    return Coerced(typed, stored, errors)


def _is_ordinary(values: Mapping[str, object]) -> bool:
    """A quick look that clears nearly all calls: single values, few and small, without NUL and lone surrogates."""
    if len(values) > MAX_KEYS or not all(map(_is_single, values.values())):
        return False
    try:
        encoded = orjson.dumps(values)
    except TypeError:  # a lone surrogate
        return False
    return len(encoded) <= MAX_BYTES and b"\\u0000" not in encoded


def _is_single(value: object) -> bool:
    kind = type(value)
    if kind is int:
        return -(2**63) <= value < 2**63  # type: ignore[operator]
    return kind is str or kind is bool or value is None or (kind is float and math.isfinite(value))  # type: ignore[arg-type]


def _storable(values: Mapping[str, object]) -> tuple[dict[str, object], list[FieldError]]:
    """The attributes that may be stored, and what is wrong with the others; too many or too large together: none."""
    if len(values) > MAX_KEYS:
        return {}, [FieldError("", f"must be at most {MAX_KEYS} attributes, not {len(values)}")]
    usable: dict[str, object] = {}
    errors: list[FieldError] = []
    for key, value in values.items():
        wrong = json_errors({key: value}, max_depth=MAX_DEPTH, max_bytes=MAX_BYTES)
        errors += wrong
        if not wrong:
            usable[key] = value
    if (size := len(orjson.dumps(usable))) > MAX_BYTES:
        return {}, [*errors, FieldError("", f"must have at most {MAX_BYTES} bytes as JSON, not {size}")]
    return usable, errors


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return value if math.isfinite(value) else None


def _boolean(value: object) -> bool | None:
    return value if isinstance(value, bool) else None


def _moment(value: object) -> datetime | None:
    return parse_datetime(value) if isinstance(value, str) else None


def _strings(value: object) -> list[str] | None:
    return value if isinstance(value, list) and all(isinstance(item, str) for item in value) else None


def number_of_text(value: object) -> float | None:
    """Plain decimal numbers only: Python's float would also read ``nan``, ``1_000`` and other scripts' digits."""
    if not isinstance(value, str) or len(value) > 100 or _NUMBER.fullmatch(value) is None:
        return None
    if _INTEGER.fullmatch(value) and -(2**63) <= int(value) < 2**63:
        return int(value)
    return _number(float(value))


def _boolean_of_text(value: object) -> bool | None:
    return _BOOLEANS.get(value.lower()) if isinstance(value, str) else None


def _strings_of_text(value: object) -> list[str] | None:
    return [part for item in value.split(",") if (part := item.strip())] if isinstance(value, str) else None


_FROM_JSON: Final[Mapping[str, Callable[[object], Any]]] = {
    "string": _text,
    "number": _number,
    "boolean": _boolean,
    "datetime": _moment,
    "strings": _strings,
}
_FROM_TEXT: Final[Mapping[str, Callable[[object], Any]]] = {
    "string": _text,
    "number": number_of_text,
    "boolean": _boolean_of_text,
    "datetime": _moment,
    "strings": _strings_of_text,
}
_SAID: Final = {
    "string": "a string",
    "number": "a number",
    "boolean": "true or false",
    "datetime": "a date or time in ISO 8601",
    "strings": "an array of strings",
}
