"""What goes wrong, as RFC 9457 problems: one table says which status each error of the domain has."""

import inspect
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any, ClassVar, Final

import orjson
import structlog
from flask import Flask, Response
from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from werkzeug.exceptions import HTTPException, InternalServerError

from api.requests import current_request
from experiments import errors as domain
from experiments.access.rate_limits import Quota
from experiments.analyses import errors as of_analyses
from experiments.errors import ExperimentsError, FieldError
from experiments.lists import errors as of_lists
from experiments.mail_events import errors as of_mail
from experiments.promote.errors import TargetingRefused
from experiments.send_plans.errors import SendPlanDecided, WinnerOverdue
from experiments.uplift import errors as of_uplift
from experiments.webhooks import errors as of_webhooks

log = structlog.get_logger(__name__)

RETRY_AFTER_SECONDS: Final = 1
_LONGEST_DETAIL: Final = 1_000
_AGAIN_SOON: Final = {HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE}
_QUOTA_EXCEEDED: Final = "https://iana.org/assignments/http-problem-types#quota-exceeded"

STATUS: Final[Mapping[type[ExperimentsError], int]] = {
    ExperimentsError: 500,
    of_analyses.AnalysisEnded: 409,
    of_analyses.AnalysisNotFound: 404,
    of_analyses.AnalysisRefused: 422,
    of_analyses.NothingMatured: 422,
    of_analyses.TooFewSegments: 422,
    of_analyses.TooManyAnalyses: 429,
    of_analyses.TooManySegments: 422,
    of_uplift.BudgetWithoutCosts: 422,
    of_uplift.ConstantOutcome: 422,
    of_uplift.FewEffectiveUnits: 422,
    of_uplift.MarginMissing: 422,
    of_uplift.MeasuredAfterwards: 422,
    of_uplift.ModelNotFound: 404,
    of_uplift.ModelUnreadable: 500,
    of_uplift.NoAttributes: 422,
    of_uplift.NoControl: 422,
    of_uplift.PropensitiesUnknown: 422,
    of_uplift.TooFewUnits: 422,
    of_uplift.UndeclaredAttributes: 422,
    SendPlanDecided: 409,
    WinnerOverdue: 503,
    of_mail.BadSignature: 401,
    of_mail.IntakeNotFound: 404,
    of_mail.StaleSignature: 401,
    of_mail.TokenReplayed: 401,
    of_webhooks.WebhookDisabled: 409,
    of_webhooks.WebhookNotFound: 404,
    domain.ResultsImpossible: 500,
    domain.CorrectionNotFound: 404,
    domain.CorrectionReverted: 409,
    domain.DatabaseAway: 503,
    domain.DecisionNotFound: 404,
    domain.DemoFailed: 500,
    domain.DefinitionNotFound: 404,
    domain.ExperimentExists: 409,
    domain.ExperimentNotDraft: 409,
    domain.ExperimentNotFound: 404,
    domain.ExperimentVariantNotFound: 404,
    domain.ExportNotWritten: 507,
    domain.InvalidDefinition: 422,
    domain.InvalidInput: 422,
    domain.InvalidTemplate: 422,
    domain.JournalBusy: 503,
    domain.KeyNotFound: 404,
    domain.LeaseLost: 500,
    of_lists.ListUnreadable: 422,
    domain.MetricNotMeasured: 404,
    domain.NothingBefore: 409,
    domain.OutcomesMoved: 500,
    domain.OverrideNotFound: 404,
    domain.PlacementInUse: 409,
    domain.PlacementNotFound: 404,
    domain.PolicyNotFound: 404,
    domain.PolicyVersionNotFound: 404,
    domain.PreconditionFailed: 412,
    domain.PromotionRefused: 409,
    TargetingRefused: 409,
    domain.RowRefused: 422,
    domain.SegmentNotFound: 404,
    domain.SegmentTaken: 409,
    domain.SeriesNotFound: 404,
    domain.SnapshotMissing: 503,
    domain.TemplateFailed: 500,
    domain.TooManyKeys: 409,
    domain.UnreadableCampaign: 422,
    domain.UnusableConfig: 500,
    domain.UnusableDatabase: 500,
    domain.VariantNotFound: 404,
    domain.VariantNotPaused: 409,
    domain.VariantStays: 409,
    domain.WrongState: 409,
}


class ApiError(Exception):
    """What this floor itself refuses."""

    status: ClassVar[int]
    code: ClassVar[str]
    headers: Mapping[str, str] = {}
    more: Mapping[str, Any] = {}


class InvalidJson(ApiError):
    """The body is no JSON."""

    status, code = 400, "invalid_json"


class MissingParameter(ApiError):
    """A query parameter that must be there isn't."""

    status, code = 400, "missing_parameter"


class InvalidHeader(ApiError):
    """A header that can't be read."""

    status, code = 400, "invalid_header"


class Unauthenticated(ApiError):
    """No key, or one that doesn't work."""

    status, code = 401, "unauthenticated"
    headers: Mapping[str, str] = {"WWW-Authenticate": 'Bearer realm="optimizer", Basic realm="optimizer"'}


class MissingScope(ApiError):
    """A key that works, but not for this."""

    status, code = 403, "missing_scope"

    def __init__(self, scope: str, *, is_publishable: bool = False) -> None:
        also = ", and not a publishable one" if is_publishable else ""
        super().__init__(f"This needs a key with the scope {scope!r}{also}.")


class WrongOrigin(ApiError):
    """A publishable key that is used from elsewhere than the pages it was made for."""

    status, code = 403, "wrong_origin"

    def __init__(self, origin: str | None) -> None:
        said = "a request without an Origin" if origin is None else f"the origin {origin[:100]!r}"
        super().__init__(f"This key is for pages of other origins, not for {said}.")


class KeyInAddress(ApiError):
    """A key that can do more than decide, in an address, which others may log."""

    status, code = 403, "key_in_address"


class NotFound(ApiError):
    """Nothing is there."""

    status, code = 404, "not_found"


class UnsupportedMediaType(ApiError):
    """A body of another kind than the door takes."""

    status, code = 415, "unsupported_media_type"


class RequestRunning(ApiError):
    """The same request, by its Idempotency-Key, is being answered now."""

    status, code = 409, "request_running"
    headers: Mapping[str, str] = {"Retry-After": str(RETRY_AFTER_SECONDS)}

    def __init__(self, key: str) -> None:
        super().__init__(f"The request with the Idempotency-Key {key!r} is being answered; ask again in a moment.")


class IdempotencyKeyReused(ApiError):
    """The Idempotency-Key came with another request before."""

    status, code = 422, "idempotency_key_reused"

    def __init__(self, key: str) -> None:
        super().__init__(f"The Idempotency-Key {key!r} came with another request in the last 24 hours; take a new one.")


class RateLimited(ApiError):
    """The key's quota is used up until its window ends."""

    status, code = 429, "rate_limited"

    def __init__(self, seconds: int, *, quota: Quota) -> None:
        super().__init__(f"This key may ask {quota.n_requests} times in {quota.seconds} s; ask again in {seconds} s.")
        self.headers = {"Retry-After": str(seconds)}
        self.more = {"type": _QUOTA_EXCEEDED, "violated-policies": ["default"]}


def problem(
    status: int,
    *,
    code: str,
    detail: str,
    errors: Sequence[FieldError] = (),
    headers: Mapping[str, str] | None = None,
    more: Mapping[str, Any] | None = None,
) -> Response:
    """An RFC 9457 answer; ``instance`` is the request's id, which its log line carries too."""
    body: dict[str, Any] = {
        "type": f"/problems/{code}",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail[:_LONGEST_DETAIL],
        "instance": f"urn:request:{current_request().id}",
        "code": code,
        **(more or {}),
    }
    if errors:
        body["errors"] = [{"pointer": error.pointer, "detail": error.detail} for error in errors]
    answer = Response(orjson.dumps(body), status=status, content_type="application/problem+json")
    answer.headers["Cache-Control"] = "private, no-store"
    answer.headers.extend(headers or {})
    if status in _AGAIN_SOON:
        answer.headers.setdefault("Retry-After", str(RETRY_AFTER_SECONDS))
    return answer


def status_of(error: type[ExperimentsError]) -> int:
    """The status of an error of the domain: its own, or that of the kind of error that it is."""
    return next(STATUS[kind] for kind in error.__mro__ if kind in STATUS)


def handle_errors(app: Flask) -> None:
    """Make every error of an app's views a problem."""
    app.register_error_handler(ExperimentsError, problem_of)
    app.register_error_handler(ApiError, problem_of)
    app.register_error_handler(HTTPException, _of_http)
    for kind in (OperationalError, InterfaceError, PoolTimeout):
        app.register_error_handler(kind, _of_database)


def problem_of(
    error: ExperimentsError | ApiError, *, status: int | None = None, more: Mapping[str, Any] | None = None
) -> Response:
    """The answer that an error gets; a protocol may want another ``status``, or ``more`` members in it."""
    if isinstance(error, ApiError):
        said_too = {**(more or {}), **error.more}
        return problem(error.status, code=error.code, detail=str(error), headers=error.headers, more=said_too)
    status = status or status_of(type(error))
    if status == HTTPStatus.INTERNAL_SERVER_ERROR:
        log.error("request_failed", error=error.code)
        said = "Something went wrong; the log has this request's id."
        return problem(status, code="internal_error", detail=said, more=more)
    return problem(status, code=error.code, detail=_storable(str(error)), errors=error.fields, more=more)


def _of_database(error: Exception) -> Response:
    log.warning("database_away", error=type(error).__name__)
    away = domain.DatabaseAway()
    return problem(status_of(domain.DatabaseAway), code=away.code, detail=str(away))


def _of_http(error: HTTPException) -> Response:
    """Errors of Flask's own, with the headers that they carry (Allow)."""
    if isinstance(error, InternalServerError):
        return problem(500, code="internal_error", detail="Something went wrong; the log has this request's id.")
    status = error.code or 500
    headers = {name: value for name, value in error.get_headers() if name not in {"Content-Type", "Content-Length"}}
    code = HTTPStatus(status).phrase.lower().replace(" ", "_")
    return problem(status, code=_CODES.get(status, code), detail=error.description or "", headers=headers)


def _storable(text: str) -> str:
    return text.encode(errors="replace").decode()


_CODES: Final = {404: "not_found", 405: "method_not_allowed", 413: "body_too_large"}


def meanings() -> dict[str, tuple[int, str]]:
    """What each code means, with its status."""
    own = {kind.code: (kind.status, inspect.getdoc(kind) or "") for kind in ApiError.__subclasses__()}
    theirs = {kind.code: (status, inspect.getdoc(kind) or "") for kind, status in STATUS.items()}
    return own | theirs
