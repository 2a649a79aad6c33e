"""Reading what a request says: JSON bodies and query parameters, as checked models."""

from typing import Any, Final, TypeVar

import orjson
from pydantic import BaseModel, ValidationError

from api.errors import InvalidJson, UnsupportedMediaType
from api.requests import current_request
from experiments.errors import InvalidDefinition, InvalidInput
from experiments.input.parsing import parse

Model = TypeVar("Model", bound=BaseModel)
_JSON: Final = "application/json"


def read_json(*, max_bytes: int | None = None, or_nothing: bool = False) -> Any:  # JSON
    """The body of the request, parsed; with ``or_nothing`` no body at all is an empty object.

    Raises:
        UnsupportedMediaType: It says that it is something else, or is compressed.
        InvalidJson: It is none (NaN and infinities are none), or no UTF-8.
        RequestEntityTooLarge: It is longer than ``max_bytes``, or than the app allows.
    """
    request = current_request()
    kind = request.environ.get("CONTENT_TYPE") or _JSON
    if kind != _JSON and not _is_json(request.mimetype):
        raise UnsupportedMediaType(f"Send JSON (Content-Type: {_JSON}), not {kind[:100]!r}.")
    if request.environ.get("HTTP_CONTENT_ENCODING", "identity") != "identity":
        raise UnsupportedMediaType("Send the body without a Content-Encoding.")
    if max_bytes is not None:
        request.max_content_length = max_bytes
    data = request.get_data(cache=False)
    if or_nothing and not data:
        return {}
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise InvalidJson(f"The body is no JSON: {error.msg} at line {error.lineno}, column {error.colno}.") from None


def read_body(model: type[Model], *, max_bytes: int | None = None, or_nothing: bool = False) -> Model:
    """The body of the request as a model.

    Raises:
        InvalidInput: With all that is wrong, by JSON pointer; beside what ``read_json`` raises.
    """
    return _validated(model, read_json(max_bytes=max_bytes, or_nothing=or_nothing))


def read_query(model: type[Model]) -> Model:
    """The query parameters as a model whose fields take text; those given twice count once.

    Raises:
        InvalidInput: With all that is wrong; a pointer's first part is the parameter's name.
    """
    return _validated(model, current_request().args.to_dict())


def _validated(model: type[Model], payload: object) -> Model:
    try:
        return model.model_validate(payload)
    except ValidationError:
        pass
    try:
        return parse(model, payload)  # once more, slowly, to say what is wrong
    except InvalidDefinition as error:
        raise InvalidInput(error.fields) from None


def _is_json(mimetype: str) -> bool:
    return mimetype == _JSON or (mimetype.startswith("application/") and mimetype.endswith("+json"))
