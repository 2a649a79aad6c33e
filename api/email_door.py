"""The email door: a plain GET, answered in time and with 200 for every recipient of a placement that is there.

A tool that meets anything else skips the send or leaves a hole in the message. So whatever depends on the recipient's
data ends in the placement's default with a reason; only what is wrong for all recipients alike is an error.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from time import perf_counter
from typing import Any, Final, Literal

import orjson
from flask import Response
from pydantic import BaseModel

from api.answers import json_answer
from api.doors import Doors
from api.errors import MissingParameter
from api.metrics import count_decisions
from api.reading import unreadable_parameters
from api.requests import Request, current_request
from api.state import current_worker
from experiments.decide import EMAIL_SECONDS, Decided
from experiments.errors import FieldError, InvalidInput
from experiments.input.checks import check_id, shown

doors = Doors("decisions")

_JSON: Final = "application/json; charset=utf-8"
_TEXT: Final = "text/plain; charset=utf-8"
_ATTRIBUTE: Final = "attr."
_IDS: Final = ("customer_id", "anonymous_id", "occasion_id")
_PURPOSES: Final = ("HTTP_SEC_PURPOSE", "HTTP_PURPOSE", "HTTP_X_PURPOSE", "HTTP_X_MOZ")
_NOTHING: Final = object()


class DecisionQuery(BaseModel):
    """What an email tool says in the address; attributes as ``attr.<name>=…``. Other parameters are left alone."""

    customer_id: str | None = None
    anonymous_id: str | None = None
    occasion_id: str | None = None
    format: Literal["json", "text"] = "json"
    field: str | None = None


@dataclass(frozen=True, slots=True)
class _Recipient:
    """Who the message is for; an id that isn't there is ``missing`` or ``invalid``, as ``absent`` says.

    ``anonymous_id``: another id of theirs, to be joined.
    """

    customer_id: str | None
    anonymous_id: str | None
    occasion_id: str | None
    attributes: Mapping[str, str]
    absent: Mapping[str, str]


@doors.open(
    "GET",
    "/v1/placements/<key>/decision",
    scope="decide",
    query=DecisionQuery,
    gives=Decided,
    gives_text=True,
    is_for_email=True,
)
def fetch(key: str) -> Response:
    """Decide for one recipient at send time; ``recorded`` says whether it is durable. HEAD decides nothing."""
    request = current_request()
    if not request.args.keys() & {"customer_id", "anonymous_id"}:
        raise MissingParameter("customer_id must be said: …/decision?customer_id=…")
    as_text = _wants_text(request.args.get("format", "json"))
    current_worker().decider.placement(key, seconds=seconds_left(request))
    if request.method == "HEAD":
        return _private(Response(content_type=_TEXT if as_text else _JSON))
    decided, value = _decided(key, _recipient(request), field=request.args.get("field") or None, as_text=as_text)
    count_decisions([decided])
    return _private(_as_text(decided, value) if as_text else _as_json(decided, value))


def seconds_left(request: Request) -> float:
    """How long a request may still wait."""
    return max(0.0, EMAIL_SECONDS - (perf_counter() - request.started_at))


def _recipient(request: Request) -> _Recipient:
    query, unreadable = request.args.to_dict(), unreadable_parameters()
    given = {name: query.get(name, "") for name in _IDS}
    whose = "customer_id" if given["customer_id"] else "anonymous_id"  # alone it is who is asked for
    ids = {name: text for name, text in given.items() if name not in unreadable and _is_id(text)}
    return _Recipient(
        customer_id=ids.get(whose),
        anonymous_id=ids.get("anonymous_id"),
        occasion_id=ids.get("occasion_id"),
        attributes={
            name.removeprefix(_ATTRIBUTE): value
            for name, value in query.items()
            if name.startswith(_ATTRIBUTE) and name not in unreadable
        },
        absent={
            "customer_id": "invalid" if given[whose] else "missing",
            "occasion_id": "invalid" if given["occasion_id"] else "missing",
        },
    )


def _is_id(given: str) -> bool:
    try:
        check_id(given, "")
    except InvalidInput:
        return False
    return True


def _decided(key: str, recipient: _Recipient, *, field: str | None, as_text: bool) -> tuple[Decided, Any]:
    """The decision, and what of its content was asked for."""
    request, decider, customer_id = current_request(), current_worker().decider, recipient.customer_id
    if recipient.anonymous_id is not None and customer_id is not None and not _is_prefetch(request):
        decider.join_in_time(recipient.anonymous_id, customer_id, seconds=seconds_left(request))
    asked = decider.ask(
        customer_id or "",
        occasion_id=recipient.occasion_id,
        attributes=recipient.attributes,
        preview=True if _is_prefetch(request) else None,
        text=True,
    )
    if customer_id is None:
        reason = f"customer_id_{recipient.absent['customer_id']}"
        decided = decider.default(asked, key, reason=reason)
    else:
        decided = decider.decide_in_time(asked, key, seconds=seconds_left(request))
        if decided.reason == "occasion_id_missing":
            decided = replace(decided, reason=f"occasion_id_{recipient.absent['occasion_id']}")
    if field is None and not as_text:
        return decided, None
    value = _wanted(decided.content, field)
    if value is _NOTHING and decided.deliver:
        default = decider.default(asked, key, reason="field_missing")
        value = _wanted(default.content, field)
        decided = replace(decided, content=default.content, deliver=default.deliver, reason=default.reason)
    return decided, None if value is _NOTHING else value


def _is_prefetch(request: Request) -> bool:
    """Whether nobody may ever see the answer: it must not be recorded."""
    environ = request.environ
    said = [environ[name] for name in _PURPOSES if name in environ]
    return bool(said) and any(purpose in one.lower() for one in said for purpose in ("prefetch", "preview"))


def _wants_text(given: str) -> bool:
    if given not in {"json", "text"}:
        raise InvalidInput([FieldError("/format", f"must be json or text, not {shown(given)}")])
    return given == "text"


def _as_json(decided: Decided, value: Any) -> Response:  # JSON
    is_asked_for = current_request().args.get("field")
    answer = json_answer(asdict(decided) | {"value": value} if is_asked_for else decided)
    answer.content_type = _JSON
    return answer


def _as_text(decided: Decided, value: Any) -> Response:  # JSON
    """One member of the content, as it goes into the message; nothing if nothing is to be sent."""
    text = value if isinstance(value, str) else "" if value is None else orjson.dumps(value).decode()
    shows = decided.deliver or decided.decide_after is not None  # a tool that asks for text sends now, come what may
    answer = Response(text if shows else "", content_type=_TEXT)
    answer.headers["X-Decision-Id"] = decided.decision_id or ""
    answer.headers["X-Variant"] = decided.variant
    answer.headers["X-Reason"] = decided.reason
    answer.headers["X-Recorded"] = str(decided.recorded).lower()
    return answer


def _wanted(content: Any, field: str | None) -> Any:  # JSON
    """A member of the content by its dotted path, or its single text."""
    if field is not None:
        return _member(content, field)
    single = list(content.values()) if isinstance(content, dict) else [content]
    return single[0] if len(single) == 1 and isinstance(single[0], str) else _NOTHING


def _member(content: Any, path: str) -> Any:  # JSON
    value = content
    for step in path.split("."):
        if isinstance(value, dict) and step in value:
            value = value[step]
        elif isinstance(value, list) and step.isascii() and step.isdigit() and int(step[:9]) < len(value):
            value = value[int(step[:9])]
        else:
            return _NOTHING
    return value


def _private(answer: Response) -> Response:
    answer.headers["Cache-Control"] = "private, no-store"
    answer.headers["Vary"] = "Authorization"
    return answer
