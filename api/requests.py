"""The request as this app knows it: when it began, its id, and the key that it came with."""

import re
from functools import cached_property
from random import getrandbits
from time import perf_counter
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import unquote_plus

import flask

from experiments.snapshot.plans import KeyPlan

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment
    from opentelemetry.trace import Span
    from werkzeug.local import LocalProxy

_KEY = re.compile(r"(?:^|&)key=([^&]*)")
_IDS = r"-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}"
_TRACEPARENT = re.compile(rf"00{_IDS}|(?!00|ff)[0-9a-f]{{2}}{_IDS}(?:-.*)?")  # later versions may say more
_SANE_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")


class Request(flask.Request):
    """A request that knows when it began, its id, and the key that it came with."""

    key: KeyPlan | None = None
    span: "Span | None" = None  # of OpenTelemetry, where that is configured
    answer_headers: dict[str, str] | None = None  # what the answer must carry, whichever it is

    def __init__(self, environ: "WSGIEnvironment", *args: Any, **options: Any) -> None:
        self.key_in_address = _take_key(environ)  # before anything that could log the address sees it
        super().__init__(environ, *args, **options)
        self.started_at = perf_counter()

    @cached_property
    def id(self) -> str:
        """The caller's ``X-Request-Id`` if it is sane, else one of our own."""
        given = self.environ.get("HTTP_X_REQUEST_ID", "")
        return given if _SANE_ID.fullmatch(given) else f"{getrandbits(64):016x}"

    @cached_property
    def trace_id(self) -> str | None:
        """The trace that this request is part of, by its own span or by W3C's ``traceparent``; None if by neither."""
        if self.span is not None:
            return f"{self.span.get_span_context().trace_id:032x}"
        given: str = self.environ.get("HTTP_TRACEPARENT", "")
        return given[3:35] if _TRACEPARENT.fullmatch(given) else None


def _take_key(environ: "WSGIEnvironment") -> str | None:
    """Take ``key=…`` out of the address, in all of its forms; an address is what servers write into their logs."""
    query = environ.get("QUERY_STRING", "")
    if "key=" not in query or (found := _KEY.search(query)) is None:
        return None
    environ["QUERY_STRING"] = _KEY.sub("", query).lstrip("&")
    for name in ("RAW_URI", "REQUEST_URI"):
        if name in environ:
            environ[name] = environ[name].replace(f"?{query}", f"?{environ['QUERY_STRING']}")
    return unquote_plus(found[1])


def current_request() -> Request:
    """The request that is being answered."""
    proxy = cast("LocalProxy[Request]", flask.request)
    return proxy._get_current_object()  # noqa: SLF001  # through the proxy each look would cost 1 us
