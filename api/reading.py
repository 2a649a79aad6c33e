"""Reading what a request says: JSON bodies and query parameters, as checked models."""

import json
import zlib
from typing import TYPE_CHECKING, Any, Final, TypeVar
from urllib.parse import unquote, unquote_to_bytes

import orjson
from pydantic import BaseModel, ValidationError
from werkzeug.exceptions import RequestEntityTooLarge

from api.errors import InvalidJson, UnsupportedMediaType
from api.requests import current_request
from api.threads import REQUEST_SECONDS, receive_for, received
from experiments.errors import FieldError, InvalidInput
from experiments.input.checks import MAX_ERRORS, pointer_to
from experiments.input.parsing import parse

if TYPE_CHECKING:
    from werkzeug.datastructures import MultiDict

Model = TypeVar("Model", bound=BaseModel)
_JSON: Final = "application/json"
_SLOWEST: Final = 100_000.0  # bytes a second


def read_data(*, max_bytes: int | None = None) -> bytes:
    """The body of the request, which says that it is JSON, or nothing.

    Raises:
        UnsupportedMediaType: It says that it is something else, or is compressed.
        RequestEntityTooLarge: It is longer than ``max_bytes``, or than the app allows.
    """
    request = current_request()
    kind = request.environ.get("CONTENT_TYPE") or _JSON
    if kind != _JSON and not _is_json(request.mimetype):
        raise UnsupportedMediaType(f"Send JSON (Content-Type: {_JSON}), not {kind[:100]!r}.")
    if content_encoding() != "identity":
        raise UnsupportedMediaType("Send the body without a Content-Encoding.")
    if max_bytes is not None:
        request.max_content_length = max_bytes
        receive_for(REQUEST_SECONDS + max_bytes / _SLOWEST)
    return _whole()


def read_any(*, max_bytes: int) -> bytes:
    """The body of the request, whatever it says that it is, and gzip undone: for clients that can't be told.

    Raises:
        UnsupportedMediaType: It is compressed in another way.
        InvalidJson: It says that it is gzip, and isn't.
        RequestEntityTooLarge: It is longer than ``max_bytes``, or would be.
    """
    request = current_request()
    request.max_content_length = max_bytes
    data, encoding = _whole(), content_encoding()
    if encoding == "identity":
        return data
    if encoding != "gzip":
        raise UnsupportedMediaType(f"Send the body as it is or as gzip, not as {encoding[:100]!r}.")
    inflating = zlib.decompressobj(wbits=31)
    try:
        inflated = inflating.decompress(data, max_bytes + 1)
    except zlib.error:
        raise InvalidJson("The body is no gzip.") from None
    if len(inflated) > max_bytes:
        raise RequestEntityTooLarge(f"The body has more than {max_bytes} bytes when it is inflated.")
    if not inflating.eof:
        raise InvalidJson("The body's gzip is cut short.")
    return inflated


def content_encoding() -> str:
    """How the body is compressed; ``identity`` if it isn't."""
    return current_request().environ.get("HTTP_CONTENT_ENCODING", "").lower() or "identity"


def _whole() -> bytes:
    """The body; one that is sent in chunks says its length only by ending."""
    request = current_request()
    data = request.get_data(cache=False)
    is_cut = request.content_length is None and len(data) == request.max_content_length
    if is_cut and request.environ["wsgi.input"].read(1):
        raise RequestEntityTooLarge
    received()
    return data


def read_json(*, max_bytes: int | None = None, or_nothing: bool = False) -> Any:  # JSON
    """The body of the request, parsed; with ``or_nothing`` no body at all is an empty object.

    Raises:
        InvalidJson: As ``parse_json`` says; beside what ``read_data`` raises.
    """
    data = read_data(max_bytes=max_bytes)
    return {} if or_nothing and not data else parse_json(data)


def parse_json(data: bytes) -> Any:  # JSON
    """A body, parsed.

    Raises:
        InvalidJson: It is none (NaN, infinities and lone surrogates are none), or no UTF-8.
    """
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise InvalidJson(f"The body is no JSON: {error.msg} at line {error.lineno}, column {error.colno}.") from None


def parse_leniently(data: bytes) -> Any:  # JSON, with NaN, infinities and lone surrogates
    """What the standard library makes of it, whole numbers that are too long as floats; None if nothing."""
    try:
        return json.loads(data.decode(), parse_int=lambda digits: int(digits) if len(digits) < 20 else float(digits))
    except (ValueError, RecursionError):
        return None


def read_body(model: type[Model], *, max_bytes: int | None = None, or_nothing: bool = False) -> Model:
    """The body of the request as a model.

    Raises:
        InvalidInput: With all that is wrong, by JSON pointer; beside what ``read_json`` raises.
    """
    return _validated(model, read_json(max_bytes=max_bytes, or_nothing=or_nothing))


def read_query(model: type[Model]) -> Model:
    """The query parameters as a model whose fields take text.

    Raises:
        InvalidInput: With all that is wrong; a pointer's first part is the parameter's name. A parameter may be given
            twice, but not with two values.
    """
    given = query_parameters()
    if names := [name for name, values in given.lists() if len(set(values)) > 1]:
        raise InvalidInput([FieldError(pointer_to("", name), "has several values") for name in names[:MAX_ERRORS]])
    return _validated(model, given.to_dict())


def query_parameters() -> "MultiDict[str, str]":
    """The query parameters, as text.

    Raises:
        InvalidInput: One whose bytes are no UTF-8 (Flask would take them for the text of their escapes).
    """
    if names := unreadable_parameters():
        raise InvalidInput([FieldError(pointer_to("", name), "must be UTF-8") for name in names[:MAX_ERRORS]])
    return current_request().args


def unreadable_parameters() -> list[str]:
    """The names of query parameters that are no UTF-8."""
    query = current_request().query_string
    if b"%" not in query and query.isascii():
        return []
    wrong = (part.partition(b"=")[0] for part in query.split(b"&") if not _is_utf8(part))
    return [unquote(name.decode("latin-1"), errors="replace") for name in wrong]


def _is_utf8(escaped: bytes) -> bool:
    try:
        unquote_to_bytes(escaped).decode()
    except UnicodeDecodeError:
        return False
    return True


def _validated(model: type[Model], payload: object) -> Model:
    try:
        return model.model_validate(payload)
    except ValidationError:
        pass
    return parse(model, payload)  # once more, slowly, to say what is wrong


def _is_json(mimetype: str) -> bool:
    return mimetype == _JSON or (mimetype.startswith("application/") and mimetype.endswith("+json"))
