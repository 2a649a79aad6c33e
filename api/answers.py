"""Answers: JSON, ETags, pages of lists, and the shapes that several doors share."""

from collections.abc import Callable, Sequence
from typing import Annotated, Any, Final

import orjson
from flask import Response
from pydantic import BaseModel, ConfigDict, Field

from api.errors import InvalidHeader
from api.requests import current_request

_OPTIONS: Final = orjson.OPT_UTC_Z | orjson.OPT_SERIALIZE_NUMPY

Text = Annotated[str, Field(max_length=300, pattern=r"^[^\x00]*$")]
Reason = Annotated[str, Field(max_length=2_000, pattern=r"^[^\x00]*$")]


class Problem(BaseModel):
    """RFC 9457: what went wrong, by its stable ``code``; ``errors`` names the places of a body."""

    type: str
    title: str
    status: int
    detail: str
    instance: str
    code: str
    errors: list[dict[str, str]] = []


class ListQuery(BaseModel):
    """Which page of a list: what comes after ``cursor`` (the ``next_cursor`` of the page before)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    cursor: Text | None = None
    limit: Annotated[int, Field(ge=1, le=1_000)] = 100


def json_answer(body: Any, *, status: int = 200) -> Response:  # dataclasses and JSON
    """JSON, whatever orjson can write (dataclasses, times)."""
    return Response(orjson.dumps(body, option=_OPTIONS), status=status, content_type="application/json")


def page(items: Sequence[Any], *, limit: int, cursor: Callable[[Any], str]) -> Response:
    """A page of a list; ``next_cursor`` is null on the last."""
    following = cursor(items[-1]) if len(items) == limit else None
    return json_answer({"items": items, "next_cursor": following})


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
