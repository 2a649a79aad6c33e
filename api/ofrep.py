"""The OpenFeature doors (OFREP 0.3.0): a flag is a placement, its value the content that a customer gets there.

One flag is decided and recorded, as by ``POST /v1/decisions``. All flags at once are no exposure: nothing is recorded,
and units that have a decision get the variant of that.
"""

from collections.abc import Callable, Sequence
from functools import wraps
from hashlib import blake2b
from typing import Any, Final

from flask import Response
from flask.typing import ResponseReturnValue
from pydantic import BaseModel, ConfigDict

from api.answers import json_answer
from api.auth import is_usable
from api.doors import Doors
from api.errors import ApiError, InvalidJson, problem_of
from api.metrics import count_decisions
from api.reading import read_json
from api.requests import current_request
from api.state import current_worker
from experiments.decide import Decided, Decider
from experiments.decisions.choosing import Asked
from experiments.errors import ExperimentsError, FieldError, InvalidInput, PlacementNotFound
from experiments.input.checks import check_id, shown

doors = Doors("openfeature")

_KEY: Final = "targetingKey"
_OCCASION: Final = "occasion_id"
_NOT_ITSELF: Final = {"template_failed", "snapshot_stale", "snapshot_behind", "occasion_id_missing"}
_STOPPED: Final = {"variant_paused", "variant_retired"}


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


def _in_its_words(view: Callable[..., ResponseReturnValue]) -> Callable[..., ResponseReturnValue]:
    """Let a view's errors say what OpenFeature's clients look for, beside what a problem says."""

    @wraps(view)
    def answer(key: str = "") -> ResponseReturnValue:
        try:
            return view(key) if key else view()
        except (ExperimentsError, ApiError) as error:
            said = {"errorCode": _code_of(error), "errorDetails": str(error)}
            status = 400 if isinstance(error, InvalidInput) else None
            return problem_of(error, status=status, more={"key": key} | said if key else said)

    return answer


@doors.open(
    "POST", "/ofrep/v1/evaluate/flags/<path:key>", scope="decide", takes=EvaluationIn, gives=FlagOut, for_browsers=True
)
@_in_its_words
def evaluate(key: str) -> Response:
    """Evaluate one flag: decide for its placement, durably."""
    asked = _ask(current_worker().decider, _context())
    if not asked.customer_id:
        raise TargetingKeyMissing(f"The context must have a {_KEY}: it names the customer.")
    (decided,) = current_worker().decider.decide(asked, [key])
    count_decisions([decided])
    return json_answer(_evaluated(decided, is_recorded=True))


@doors.open(
    "POST",
    "/ofrep/v1/evaluate/flags",
    scope="decide",
    takes=EvaluationIn,
    gives=FlagsOut,
    statuses=(200, 304),
    for_browsers=True,
)
@_in_its_words
def evaluate_all() -> Response:
    """Evaluate every flag without recording; the ETag is of the answer, so that what did not change is not sent."""
    decider = current_worker().decider
    asked = _ask(decider, _context())
    keys = sorted(decider.placements())
    static = keys if asked.customer_id else [key for key in keys if decider.placement(key).is_static]
    found = {one.placement: _evaluated(one, is_recorded=False) for one in decider.look(asked, static)}
    answer = json_answer({"flags": [found.get(key) or _keyless(key) for key in keys]})
    etag = blake2b(answer.get_data(), digest_size=16).hexdigest()
    if current_request().if_none_match.contains_weak(etag):
        answer = Response(status=304)
    answer.set_etag(etag)
    answer.headers["Cache-Control"] = "private, no-cache"
    return answer


def _context() -> dict[str, Any]:
    body = read_json()
    context = body.get("context") if isinstance(body, dict) else None
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
        return decider.ask(customer_id or "", occasion_id=occasion_id, attributes=attributes)
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


def _keyless(key: str) -> dict[str, str]:
    return {"key": key, "errorCode": "TARGETING_KEY_MISSING", "errorDetails": f"{key} depends on the {_KEY}."}


def _code_of(error: ExperimentsError | ApiError) -> str:
    codes: Sequence[tuple[type[Exception], str]] = (
        (PlacementNotFound, "FLAG_NOT_FOUND"),
        (TargetingKeyMissing, "TARGETING_KEY_MISSING"),
        (InvalidJson, "PARSE_ERROR"),
        (InvalidInput, "INVALID_CONTEXT"),
    )
    return next((code for kind, code in codes if isinstance(error, kind)), "GENERAL")
