"""From JSON to a checked model, with every fault named by its JSON pointer."""

import re
from collections.abc import Iterable, Sequence
from typing import TypeVar, cast

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails, PydanticCustomError

from experiments.errors import FieldError, InvalidInput
from experiments.input.checks import MAX_ERRORS, json_errors, pointer_to, shown

Model = TypeVar("Model", bound=BaseModel)
MAX_DEPTH = 100
MAX_BYTES = 8_000_000
_FIELDS = "fields"
_DEMAND = re.compile(r"^\w+ should")
_KINDS = {"model_type": "an object", "dict_type": "an object", "tuple_type": "an array"}


def parse(model: type[Model], payload: object) -> Model:
    """A model from the JSON of a request.

    Raises:
        InvalidInput: With all (at most 100) that is wrong: RFC 6901 pointer, and what, naming the value, cut.
    """
    fields = json_errors(payload, max_depth=MAX_DEPTH, max_bytes=MAX_BYTES)
    try:
        parsed = model.model_validate(payload)
    except ValidationError as error:
        named = {field.pointer for field in fields}
        said = [field for detail in error.errors(include_url=False) for field in _said(detail)]
        fields += [field for field in said if field.pointer not in named]
    if fields:
        raise InvalidInput(fields[:MAX_ERRORS])
    return parsed


def refuse(fields: Sequence[FieldError]) -> None:
    """Inside a validator: hand faults, with pointers below the validated value, to ``parse``; nothing if none."""
    if fields:
        raise PydanticCustomError(_FIELDS, "is invalid", {_FIELDS: list(fields)})


def _said(error: ErrorDetails) -> list[FieldError]:
    place = _pointer(error["loc"])
    if error["type"] == _FIELDS:
        nested = cast("list[FieldError]", error["ctx"][_FIELDS])
        return [FieldError(place + pointer, detail) for pointer, detail in nested]
    if error["type"] == "missing":
        return [FieldError(place, f"{error['loc'][-1]} must be said")]
    if error["type"] == "extra_forbidden":
        return [FieldError(place, "is not a field here")]
    if error["type"] in _KINDS:
        return [FieldError(place, f"must be {_KINDS[error['type']]}, not {shown(error['input'])}")]
    demand = _DEMAND.sub("must", error["msg"].partition(" after validation")[0])
    return [FieldError(place, f"{demand}, not {shown(error['input'])}")]


def _pointer(location: Iterable[str | int]) -> str:
    place = ""
    for step in location:
        place = place if step == "[key]" else pointer_to(place, step)
    return place
