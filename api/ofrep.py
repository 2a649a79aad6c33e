"""The OpenFeature doors (OFREP 0.3.0): a flag is a placement, its value the content that a customer gets there.

One flag is decided and recorded, as by ``POST /v1/decisions``. All flags at once are no exposure: nothing is recorded,
and units that have a decision get the variant of that.
"""

from collections.abc import Mapping
from hashlib import blake2b
from http import HTTPStatus
from typing import Any, Final

import orjson
from flask import Flask, Response
from pydantic import BaseModel, ConfigDict

from api.answers import json_answer
from api.auth import is_from_page, is_usable
from api.doors import Doors
from api.errors import ApiError
from api.metrics import count_decisions
from api.reading import read_json
from api.requests import current_request
from api.state import current_worker
from experiments.decide import Decided, Decider
from experiments.decisions.choosing import Asked
from experiments.errors import FieldError, InvalidInput
from experiments.input.checks import check_id, shown

doors = Doors("openfeature")

_FLAGS: Final = "/ofrep/v1/evaluate/flags"
_KEY: Final = "targetingKey"
_OCCASION: Final = "occasion_id"
_NOT_ITSELF: Final = {"template_failed", "snapshot_stale", "snapshot_behind", "occasion_id_missing"}
_STOPPED: Final = {"variant_paused", "variant_retired"}
_MISSING: Final = "TARGETING_KEY_MISSING"
_NOBODY: Final = f"The context must have a {_KEY}: it names the customer."
_CODES: Final[Mapping[str, str]] = {
    "placement_not_found": "FLAG_NOT_FOUND",
    "not_found": "FLAG_NOT_FOUND",
    "targeting_key_missing": _MISSING,
    "invalid_json": "PARSE_ERROR",
    "invalid_input": "INVALID_CONTEXT",
}


class TargetingKeyMissing(ApiError):
    """An evaluation without a targeting key, which names the customer."""

    status, code = 400, "targeting_key_missing"


class ContextIn(BaseModel):
    """Who is asked for: ``targetingKey`` is the customer, ``occasion_id`` the occasion, the rest are attributes."""

    model_config = ConfigDict(extra="allow")

    targetingKey: str  # noqa: N815  # OFREP's name
    occasion_id: str | None = None


class EvaluationIn(BaseModel):
    """An OpenFeature evaluation context."""

    context: ContextIn


class FlagOut(BaseModel):
    """One flag's evaluation; ``metadata`` holds how the decision came about."""

    key: str
    value: Any
    variant: str
    reason: str
    metadata: dict[str, bool | str | float]


class FlagFailedOut(BaseModel):
    """Why a flag has no value."""

    key: str
    errorCode: str  # noqa: N815  # OFREP's name
    errorDetails: str  # noqa: N815  # as above


class FlagsOut(BaseModel):
    """All flags of a customer."""

    flags: list[FlagOut | FlagFailedOut]


def open_to_openfeature(app: Flask) -> None:
    """Let every error below the doors' address say what OpenFeature's clients look for, beside what a problem says."""
    app.after_request(_in_its_words)


def _in_its_words(answer: Response) -> Response:
    if answer.status_code < HTTPStatus.BAD_REQUEST or not (path := current_request().path).startswith(_FLAGS):
        return answer
    problem = orjson.loads(answer.get_data())
    code, key = _CODES.get(problem["code"], "GENERAL"), path.removeprefix(_FLAGS).strip("/")
    if code == "INVALID_CONTEXT":
        answer.status_code = problem["status"] = HTTPStatus.BAD_REQUEST.value
        problem["title"] = HTTPStatus.BAD_REQUEST.phrase
    said = {"key": key, "errorCode": code} if key else {"errorCode": code}
    answer.set_data(orjson.dumps({**said, "errorDetails": problem["detail"], **problem}))
    return answer


@doors.open("POST", f"{_FLAGS}/<path:key>", scope="decide", takes=EvaluationIn, gives=FlagOut, for_browsers=True)
def evaluate(key: str) -> Response:
    """Evaluate one flag: decide for its placement, durably."""
    asked = _ask(current_worker().decider, _context())
    if not asked.customer_id:
        raise TargetingKeyMissing(_NOBODY)
    (decided,) = current_worker().decider.decide(asked, [key.removesuffix("/")])
    count_decisions([decided])
    return json_answer(_evaluated(decided, is_recorded=True))


@doors.open(
    "POST",
    _FLAGS,
    scope="decide",
    takes=EvaluationIn,
    gives=FlagsOut,
    statuses=(200, 304),
    for_browsers=True,
)
def evaluate_all() -> Response:
    """Evaluate every flag without recording; the ETag is of the answer, so that what did not change is not sent.

    A context that can't be used fails the flags that need one, each for itself: were the whole answer an error, a page
    would go on with the flags of its customer before.
    """
    decider, context = current_worker().decider, _context()
    try:
        asked, code, details = _ask(decider, context), _MISSING, _NOBODY
    except InvalidInput as error:
        asked, code, details = decider.ask(""), "INVALID_CONTEXT", str(error)
    keys = sorted(decider.placements())
    usable = keys if asked.customer_id else [key for key in keys if decider.placement(key).is_static]
    found = {one.placement: _evaluated(one, is_recorded=False) for one in decider.look(asked, usable)}
    answer = json_answer({"flags": [found.get(key) or _failed(key, code=code, details=details) for key in keys]})
    etag = blake2b(answer.get_data(), digest_size=16).hexdigest()
    if current_request().if_none_match.contains_weak(etag):
        answer = Response(status=304)
    answer.set_etag(etag)
    answer.headers["Cache-Control"] = "private, no-cache"
    return answer


def _context() -> dict[str, Any]:
    body = read_json()
    if not isinstance(body, dict):
        raise InvalidInput([FieldError("", f"must be an object with a context, not {shown(body)}")])
    context = body.get("context")
    if not isinstance(context, dict):
        raise InvalidInput([FieldError("/context", f"must be an object, not {shown(context)}")])
    return dict(context)


def _ask(decider: Decider, context: dict[str, Any]) -> Asked:
    """Who is asked for; without a key, nobody (an empty id). A page's context may hold more than its key may use."""
    customer_id, occasion_id = context.pop(_KEY, None), context.pop(_OCCASION, None)
    if occasion_id is not None:
        check_id(occasion_id, f"/context/{_OCCASION}")
    if customer_id is not None and customer_id != "":
        check_id(customer_id, f"/context/{_KEY}")
    attributes = {name: value for name, value in context.items() if is_usable(name)}
    try:
        return decider.ask(
            customer_id or "", occasion_id=occasion_id, attributes=attributes, public_only=is_from_page()
        )
    except InvalidInput as error:
        fields = [field._replace(pointer=field.pointer.replace("/attributes", "/context", 1)) for field in error.fields]
        raise InvalidInput(fields) from None


def _evaluated(decided: Decided, *, is_recorded: bool) -> dict[str, Any]:
    """A decision as OpenFeature's clients read it, with nothing in it that differs from call to call."""
    metadata: dict[str, Any] = {
        "decision_id": decided.decision_id if is_recorded else None,
        "recorded": decided.recorded if is_recorded else None,
        "source": decided.source,
        "explanation": decided.reason,
        "segment": decided.segment,
        "experiment": decided.experiment,
        "propensity": decided.propensity,
        "allocation_version": decided.allocation_version,
        "version": None if decided.allocation_version is None else str(decided.allocation_version),
        "deliver": decided.deliver,
    }
    return {
        "key": decided.placement,
        "value": _value(decided.content),
        "variant": decided.variant,
        "reason": _reason(decided),
        "metadata": {name: value for name, value in metadata.items() if value is not None},
    }


def _value(content: Any) -> Any:  # JSON
    """The content, or its single member if that is a scalar; never null, for which clients have no type."""
    if content is None:
        return {}
    if isinstance(content, dict) and len(content) == 1:
        (member,) = content.values()
        if isinstance(member, bool | str | int | float):
            return member
    return content


def _reason(decided: Decided) -> str:
    if decided.reason in _NOT_ITSELF:
        return "UNKNOWN"
    if decided.reason in _STOPPED:
        return "DISABLED"
    if decided.source in {"override", "preview", "holdout"}:
        return "TARGETING_MATCH"
    return "STATIC" if decided.source == "default" else "SPLIT"


def _failed(key: str, *, code: str, details: str) -> dict[str, str]:
    return {"key": key, "errorCode": code, "errorDetails": details}
