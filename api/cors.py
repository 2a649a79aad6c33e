"""Pages of other origins: which may ask, what they may send, and which headers they may read.

A preflight needs no key. Origins are those of publishable keys; cookies are never used.
"""

from collections.abc import Sequence
from typing import Final

from flask import Flask, Response

from api.doors import Doors
from api.requests import current_request
from api.state import current_worker

_ALLOWED: Final = (
    "authorization, content-type, if-none-match, x-api-key, x-request-id, x-retry-count, idempotency-key, traceparent,"
    " tracestate"
)
_EXPOSED: Final = "ETag, Retry-After, RateLimit, RateLimit-Policy, X-Request-Id, Idempotent-Replayed"
_REMEMBERED_SECONDS: Final = "7200"  # browsers keep it no longer


def open_to_browsers(app: Flask, resources: Sequence[Doors]) -> None:
    """Let pages of allowed origins use the doors that are for browsers."""
    paths = {door.path for resource in resources for door in resource.all if door.for_browsers}

    def add_headers(answer: Response) -> Response:
        request = current_request()
        if request.url_rule is None or request.url_rule.rule not in paths:
            return answer
        answer.headers["Vary"] = "Origin"  # it has no other: these doors answer nothing by Accept
        origin, snapshot = request.environ.get("HTTP_ORIGIN"), current_worker().snapshots.current
        if origin is None or snapshot is None or origin not in snapshot.origins:
            return answer
        answer.headers["Access-Control-Allow-Origin"] = origin
        if request.method == "OPTIONS":
            answer.headers["Access-Control-Allow-Methods"] = answer.headers.get("Allow", "POST")
            answer.headers["Access-Control-Allow-Headers"] = _ALLOWED
            answer.headers["Access-Control-Max-Age"] = _REMEMBERED_SECONDS
        else:
            answer.headers["Access-Control-Expose-Headers"] = _EXPOSED
        return answer

    app.after_request(add_headers)
