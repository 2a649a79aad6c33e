"""The request as this app knows it: when it began, its id, and the key that it came with."""

import re
from functools import cached_property
from random import getrandbits
from time import perf_counter
from typing import TYPE_CHECKING, Any, cast

import flask

from experiments.snapshot.plans import KeyPlan

if TYPE_CHECKING:
    from werkzeug.local import LocalProxy

_SANE_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")


class Request(flask.Request):
    """A request that knows when it began, its id, and the key that it came with."""

    key: KeyPlan | None = None

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.started_at = perf_counter()

    @cached_property
    def id(self) -> str:
        """The caller's ``X-Request-Id`` if it is sane, else one of our own."""
        given = self.environ.get("HTTP_X_REQUEST_ID", "")
        return given if _SANE_ID.fullmatch(given) else f"{getrandbits(64):016x}"


def current_request() -> Request:
    """The request that is being answered."""
    proxy = cast("LocalProxy[Request]", flask.request)
    return proxy._get_current_object()  # noqa: SLF001  # through the proxy each look would cost 1 us
