"""The Flask app: doors, problems, one line in the log and one observation for each request."""

from collections.abc import Iterable
from time import perf_counter
from traceback import format_tb
from types import TracebackType
from typing import TYPE_CHECKING, Final

import structlog
from flask import Flask, Response, has_request_context
from structlog.typing import EventDict, WrappedLogger
from werkzeug.routing import BaseConverter

from api import (
    analyses,
    browser,
    corrections,
    decisions,
    definitions,
    email_door,
    exports,
    intakes,
    ofrep,
    outcomes,
    placements,
    plans,
    reviews,
    system,
    tracking,
    webhooks,
)
from api import experiments as experiment_doors
from api.cors import open_to_browsers
from api.doors import register
from api.errors import handle_errors
from api.metrics import observe_request
from api.ofrep import open_to_openfeature
from api.openapi import describe
from api.requests import Request, current_request
from api.state import current_worker, give_worker
from experiments.config import Config
from experiments.worker import Worker

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

log = structlog.get_logger(__name__)

RESOURCES: Final = (
    decisions.doors,
    email_door.doors,
    outcomes.doors,
    ofrep.doors,
    corrections.doors,
    definitions.doors,
    experiment_doors.doors,
    placements.doors,
    plans.doors,
    reviews.doors,
    analyses.doors,
    exports.doors,
    tracking.doors,
    intakes.doors,
    webhooks.doors,
    browser.doors,
    system.doors,
)
_QUIET: Final = {  # with log_level debug only, when all is well
    "/v1/decisions",
    "/v1/decisions/batch",
    "/v1/placements/<key>/decision",
    "/v1/outcomes",
    "/ofrep/v1/evaluate/flags",
    "/ofrep/v1/evaluate/flags/<path:key>",
    "/v1/batch",
    "/v1/track",
    "/v1/t",
    "/v1/intakes/<key>/events",
    "/healthz",
    "/readyz",
    "/metrics",
}
_SLOW_SECONDS: Final = 1.0


class _Key(BaseConverter):
    """A part of a path; one with a NUL is nothing's key, and PostgreSQL can't even be asked for it."""

    regex = r"[^/\x00]{1,300}"
    part_isolating = True


ErrorInfo = tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None]


class App(Flask):
    """Flask with our request, and errors logged without the text of the exception, which may hold a customer's data."""

    request_class = Request

    def wsgi_app(self, environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        """Answer; a path that begins with ``//`` (a base address that ends with a slash) is meant with one."""
        if environ.get("PATH_INFO", "").startswith("//"):
            environ["PATH_INFO"] = "/" + environ["PATH_INFO"].lstrip("/")
        return super().wsgi_app(environ, start_response)

    def log_exception(self, exc_info: ErrorInfo) -> None:
        """Log where an unexpected error came from."""
        kind, _, trace = exc_info
        log.error("unexpected_error", error=kind.__name__ if kind else None, trace=format_tb(trace))


def create_app(config: Config, worker: Worker) -> Flask:
    """The service as a WSGI app, on a worker that has been started."""
    app = App("api", static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = config.max_body_bytes
    app.url_map.converters["default"] = _Key
    app.url_map.strict_slashes = False  # with or without a slash at the end: a redirect loses some clients
    app.url_map.merge_slashes = False  # it would redirect
    give_worker(app, worker)
    handle_errors(app)
    register(app, RESOURCES)
    describe(app, RESOURCES)
    open_to_browsers(app, RESOURCES)
    app.after_request(_finish)
    open_to_openfeature(app)
    return app


def add_request_id(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Put the ids of the request and its trace into a log line that is written while one is answered."""
    if has_request_context():
        request = current_request()
        event["request_id"] = request.id
        if request.trace_id is not None:
            event["trace_id"] = request.trace_id
    return event


def _finish(answer: Response) -> Response:
    request = current_request()
    method, route = (request.method, request.url_rule.rule) if request.url_rule is not None else ("-", "-")
    seconds = perf_counter() - request.started_at
    status = answer.status_code
    observe_request(method, route, status=status, seconds=seconds)
    answer.headers["X-Request-Id"] = request.id
    if request.answer_headers is not None:
        answer.headers.extend(request.answer_headers)
    if status >= 400 or seconds >= _SLOW_SECONDS or route not in _QUIET or _logs_all():
        log.info("request", method=method, route=route, status=status, seconds=round(seconds, 6))
    return answer


def _logs_all() -> bool:
    return current_worker().config.log_level == "debug"
