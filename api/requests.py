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
    from werkzeug.local import LocalProxy

_KEY = re.compile(r"(?:^|&)key=([^&]*)")
_SANE_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")


class Request(flask.Request):
    """A request that knows when it began, its id, and the key that it came with."""

    key: KeyPlan | None = None
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
