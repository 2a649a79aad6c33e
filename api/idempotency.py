"""Idempotency-Key: a POST that is sent again gets the answer that it got, and does nothing twice."""

import hashlib
import io
import math
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Final

import structlog
from flask import Response, current_app
from flask.typing import ResponseReturnValue
from werkzeug.exceptions import HTTPException

from api.auth import actor
from api.errors import ApiError, IdempotencyKeyReused, InvalidHeader, RequestRunning
from api.requests import Request, current_request
from api.state import current_worker
from experiments.access.idempotency import CLAIM_SECONDS, Claim, Kept, claim, keep, release, renew
from experiments.database import AWAY, transaction
from experiments.errors import ExperimentsError

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

log = structlog.get_logger(__name__)

HEADER: Final = "HTTP_IDEMPOTENCY_KEY"
_QUOTED: Final = re.compile(r'"((?:[\x20-\x21\x23-\x5b\x5d-\x7e]|\\["\\]){1,255})"')  # a string of RFC 9651
_BARE: Final = re.compile(r"[\x21\x23-\x7e][\x21-\x7e]{0,254}")
_KEPT_HEADERS: Final = ("Content-Type", "Cache-Control", "ETag", "Location")
_AGAIN_LATER: Final = {400, 401, 403, 406, 408, 412, 413, 415, 429}  # and 5xx: time, or another header, may mend it
RENEW_SECONDS: Final = CLAIM_SECONDS / 4
_CHUNK_BYTES: Final = 65_536


def answer_once(answer: Callable[[], ResponseReturnValue]) -> ResponseReturnValue:
    """Answer a request that bears an Idempotency-Key, or say again what it was answered.

    Raises:
        InvalidHeader: The key is none.
        RequestRunning: The same request is being answered now.
        IdempotencyKeyReused: The key came with another request before.
    """
    request, engine = current_request(), current_worker().engine
    key = _key(request.environ[HEADER])
    with transaction(engine) as session:
        found = claim(session, actor(), key=key)
    if found is None:
        raise RequestRunning(key)
    body = _Body(request)
    if isinstance(found, Claim):
        return _first(answer, found, body=body)
    if body.fingerprint() != found.fingerprint:
        raise IdempotencyKeyReused(key)
    return Response(found.body, status=found.status, headers=found.headers | {"Idempotent-Replayed": "true"})


def key_of_request() -> str | None:
    """The current request's key; None without one.

    Raises:
        InvalidHeader: It is none.
    """
    header = current_request().environ.get(HEADER)
    return None if header is None else _key(header)


def _key(header: str) -> str:
    text = header.strip()
    if (quoted := _QUOTED.fullmatch(text)) is not None:
        return re.sub(r"\\(.)", r"\1", quoted[1])
    if _BARE.fullmatch(text) is None:
        raise InvalidHeader("Idempotency-Key must be 1 to 255 ASCII characters, best a UUID in double quotes.")
    return text


def _first(answer: Callable[[], ResponseReturnValue], claimed: Claim, *, body: "_Body") -> Response:
    """Do the work, and keep its answer; a claim that comes to nothing is let go."""
    is_kept = False
    try:
        with _renewing(claimed):
            given = _responded(answer)
        is_kept = _kept(given, claimed, body=body)
    finally:
        if not is_kept:
            with suppress(*AWAY), transaction(current_worker().engine) as session:
                release(session, claimed)
    return given


@contextmanager
def _renewing(claimed: Claim) -> Iterator[None]:
    """Hold a claim while the work lasts: a list may take longer than a claim does."""
    engine, done = current_worker().engine, threading.Event()

    def renew_until_done() -> None:
        while not done.wait(RENEW_SECONDS):
            with suppress(*AWAY), transaction(engine) as session:
                renew(session, claimed)

    thread = threading.Thread(target=renew_until_done, name="renew", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def _responded(answer: Callable[[], ResponseReturnValue]) -> Response:
    """The answer, errors included, as the app would give it."""
    try:
        return current_app.make_response(answer())
    except (ExperimentsError, ApiError, HTTPException) as error:
        return current_app.make_response(current_app.handle_user_exception(error))


def _kept(given: Response, claimed: Claim, *, body: "_Body") -> bool:
    if given.status_code >= 500 or given.status_code in _AGAIN_LATER or given.is_streamed:
        return False
    if not body.ends_within(current_worker().config.max_batch_bytes):
        return False
    headers = {name: given.headers[name] for name in _KEPT_HEADERS if name in given.headers}
    answer = Kept(body.fingerprint(), given.status_code, headers, given.get_data())
    try:
        with transaction(current_worker().engine) as session:
            return keep(session, claimed, answer=answer)
    except AWAY as error:
        log.warning("answer_not_kept", error=type(error).__name__)
        return False


class _Body(io.RawIOBase):
    """Stands before the request's body and hashes what the view reads of it, however large: nothing is kept."""

    def __init__(self, request: Request) -> None:
        environ = request.environ
        self._stream: Any = environ["wsgi.input"]
        ends_by_itself = math.inf if environ.get("wsgi.input_terminated") else 0  # sent in chunks
        self._n_left = ends_by_itself if request.content_length is None else request.content_length
        asked = (request.method, request.path, request.query_string.decode("latin-1"))
        self._hash = hashlib.sha256("\0".join((*asked, "")).encode())
        environ["wsgi.input"] = self

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: "WriteableBuffer") -> int:
        view = memoryview(buffer)
        data: bytes = self._stream.read(len(view))
        view[: len(data)] = data
        self._hash.update(data)
        if len(view) > 0:
            self._n_left = self._n_left - len(data) if data else 0
        return len(data)

    def ends_within(self, n_bytes: int) -> bool:
        """Whether no more than this is left of the body, by reading it if need be."""
        while self._n_left > 0 and n_bytes > 0 and (self._n_left == math.inf or self._n_left <= n_bytes):
            n_bytes -= len(self.read(_CHUNK_BYTES))
        return self._n_left == 0

    def fingerprint(self) -> bytes:
        """Of what was asked, with all of the body."""
        while self._n_left > 0:
            self.read(_CHUNK_BYTES)
        return self._hash.digest()
