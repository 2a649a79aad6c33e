"""Segment's tracking API, for its clients and RudderStack's: they point their host here, unmodified."""

from collections.abc import Callable
from datetime import datetime
from functools import wraps
from typing import Any, Final

from flask import Response
from flask.typing import ResponseReturnValue
from pydantic import BaseModel
from werkzeug.exceptions import RequestEntityTooLarge

from api.answers import json_answer
from api.auth import actor, authorise, events_allowed
from api.doors import Doors
from api.errors import ApiError, InvalidJson, problem, problem_of
from api.metrics import count_outcomes
from api.reading import parse_json, parse_leniently, read_any
from api.state import current_worker
from experiments.errors import ExperimentsError, FieldError, InvalidInput
from experiments.input.checks import shown
from experiments.tracking.messages import read_time
from experiments.tracking.track import Sender, Tracked, track

doors = Doors("tracking")

MAX_BYTES: Final = 500_000
_LETTERS: Final = {"t": "track", "i": "identify", "p": "page", "s": "screen", "g": "group", "a": "alias"}


class MessageIn(BaseModel):
    """One message as Segment's specification has it; more members may be there."""

    writeKey: str | None = None  # noqa: N815  # Segment's name
    type: str | None = None
    messageId: str | None = None  # noqa: N815  # as above
    userId: str | None = None  # noqa: N815  # as above
    anonymousId: str | None = None  # noqa: N815  # as above
    event: str | None = None
    properties: dict[str, Any] | None = None
    traits: dict[str, Any] | None = None
    timestamp: str | None = None
    sentAt: str | None = None  # noqa: N815  # as above


class MessagesIn(BaseModel):
    """Several messages; ``sentAt`` tells by how much the client's clock is wrong."""

    batch: list[MessageIn]
    writeKey: str | None = None  # noqa: N815  # as above
    sentAt: str | None = None  # noqa: N815  # as above


def _in_its_words(view: Callable[[], ResponseReturnValue]) -> Callable[[], ResponseReturnValue]:
    """Let a view's errors say what Segment's clients look for, beside what a problem says."""

    @wraps(view)
    def answer() -> ResponseReturnValue:
        try:
            return view()
        except (ExperimentsError, ApiError) as error:
            status = 400 if isinstance(error, InvalidInput) else None
            return problem_of(error, status=status, more={"success": False, "message": str(error)})
        except RequestEntityTooLarge as error:
            said = error.description or ""
            return problem(413, code="body_too_large", detail=said, more={"success": False, "message": said})

    return answer


def _open(path: str, kind: str | None, *, name: str) -> None:
    says = "Take several messages" if kind is None else f"Take one {kind} message"

    @doors.open(
        "POST",
        path,
        scope=None,
        name=name,
        says=f"{says} of Segment's tracking API. The write key is a key with the scope `record`.",
        takes=MessagesIn if kind is None else MessageIn,
        gives=Tracked,
        for_browsers=True,
    )
    @_in_its_words
    def take() -> Response:
        return _take(kind)


_open("/v1/batch", None, name="batch")
_open("/v1/b", None, name="batch_of_a_page")
for _letter, _kind in _LETTERS.items():
    _open(f"/v1/{_kind}", _kind, name=_kind)
    _open(f"/v1/{_letter}", _kind, name=f"{_kind}_of_a_page")


def _take(kind: str | None) -> Response:
    body = _read(read_any(max_bytes=MAX_BYTES))
    if not isinstance(body, dict):
        raise InvalidInput([FieldError("", f"must be an object, not {shown(body)}")])
    write_key = body.pop("writeKey", None)
    authorise("record", for_browsers=True, also=write_key if isinstance(write_key, str) else None)
    sender = Sender(actor(), events_allowed())
    items = [body] if kind is not None else _batch(body)
    done = track(current_worker(), items, kind=kind, sent_at=_sent_at(body), sender=sender)
    count_outcomes({"tracked": done.accepted, "duplicate": done.duplicates, "rejected": len(done.rejected)})
    return json_answer(done)


def _read(data: bytes) -> Any:  # JSON
    """A body; a message with what JSON can't hold (Python's clients send NaN) is left for its own check to reject."""
    try:
        return parse_json(data)
    except InvalidJson:
        body = parse_leniently(data)
        if not isinstance(body, dict):
            raise
        return body


def _batch(body: dict[str, Any]) -> list[Any]:
    batch = body.get("batch")
    if not isinstance(batch, list):
        raise InvalidInput([FieldError("/batch", f"must be an array, not {shown(batch)}")])
    return batch


def _sent_at(body: dict[str, Any]) -> datetime | None:
    """When it was sent; one that can't be read is as good as none, since a batch never fails for one member."""
    try:
        return read_time(body.get("sentAt"), "/sentAt")
    except InvalidInput:
        return None
