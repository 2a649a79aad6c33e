"""Answers: JSON, ETags, and the shapes that several doors share."""

from typing import Any

import orjson
from flask import Response
from pydantic import BaseModel

from api.errors import InvalidHeader
from api.requests import current_request

_OPTIONS = orjson.OPT_UTC_Z | orjson.OPT_SERIALIZE_NUMPY


class Problem(BaseModel):
    """RFC 9457: what went wrong, by its stable ``code``; ``errors`` names the places of a body."""

    type: str
    title: str
    status: int
    detail: str
    instance: str
    code: str
    errors: list[dict[str, str]] = []


def json_answer(body: Any, *, status: int = 200) -> Response:  # noqa: ANN401  # dataclasses and JSON
    """JSON, whatever orjson can write (dataclasses, times)."""
    return Response(orjson.dumps(body, option=_OPTIONS), status=status, content_type="application/json")


def with_etag(answer: Response, version: int) -> Response:
    """An answer that carries the version of what it shows."""
    answer.headers["ETag"] = f'"{version}"'
    return answer


def if_match() -> int | None:
    """The version that the caller means to change; None if any.

    Raises:
        InvalidHeader: An ``If-Match`` that is none of our ETags.
    """
    text = current_request().headers.get("If-Match")
    if text is None or text.strip() == "*":
        return None
    version = text.strip().removeprefix("W/").strip('"')
    if not version.isascii() or not version.isdigit() or len(version) > 18:
        raise InvalidHeader(f'If-Match must be an ETag such as "3", not {text[:100]!r}.')
    return int(version)
