"""Threads of a web process, given back where a client doesn't send its request in time.

gunicorn's threads wait for a request's head and body as long as it takes; a few dozen clients that stall would stop the
service. Here the receiving half of such a connection is shut, as if its client had hung up.
"""

import contextlib
import math
import socket
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from gunicorn.workers.gthread import ThreadWorker  # type: ignore[import-untyped]  # gunicorn has no types

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

REQUEST_SECONDS: Final = 10.0  # for all of an ordinary request


@dataclass(slots=True)
class _Receiving:
    """A connection whose request is being received until then, at the latest."""

    connection: Any  # gunicorn's
    until: float


_by_thread: Final[dict[int, _Receiving]] = {}  # of this process


class Threads(ThreadWorker):  # type: ignore[misc]  # as above
    """gunicorn's threaded worker, with a limit to the time in which a request arrives."""

    def handle(self, conn: Any) -> Any:
        """Handle a request of a connection, in one of the threads."""
        thread = threading.get_ident()
        _by_thread[thread] = _Receiving(conn, time.monotonic() + REQUEST_SECONDS)
        try:
            return super().handle(conn)
        finally:
            del _by_thread[thread]

    def murder_pending(self) -> None:
        """Let go of clients that are too slow; gunicorn calls this every second."""
        super().murder_pending()
        now = time.monotonic()
        for one in list(_by_thread.values()):
            if one.until < now:
                with contextlib.suppress(OSError):  # it has ended meanwhile
                    one.connection.sock.shutdown(socket.SHUT_RD)


def receive_for(seconds: float) -> None:
    """Let the rest of this thread's request take so long from now."""
    if (one := _by_thread.get(threading.get_ident())) is not None:
        one.until = time.monotonic() + seconds


def has_body(environ: "WSGIEnvironment") -> bool:
    """Whether more than its head belongs to a request."""
    return environ.get("CONTENT_LENGTH", "0") not in {"", "0"} or "HTTP_TRANSFER_ENCODING" in environ


def received() -> None:
    """This thread's request is there: answering it may take as long as it takes."""
    receive_for(math.inf)
