"""A receiver of webhooks on this machine, which answers as a test wants."""

import http.server
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import orjson

PATIENCE_SECONDS = 30.0


@dataclass(frozen=True)
class Received:
    """One request."""

    path: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def id(self) -> str:
        """The message's."""
        return self.headers["webhook-id"]

    @property
    def message(self) -> dict[str, Any]:
        """The body, parsed."""
        return dict(orjson.loads(self.body))


@dataclass
class Receiver:
    """What came, and how it is answered: by ``status`` and ``headers``, or by ``reply``, which writes what it wants."""

    port: int = 0
    status: int = 204
    headers: dict[str, str] = field(default_factory=dict)
    reply: Callable[[http.server.BaseHTTPRequestHandler], object] | None = None
    received: list[Received] = field(default_factory=list)
    released: threading.Event = field(default_factory=threading.Event)

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}/hook"

    def wait_for(self, n_requests: int, *, seconds: float = PATIENCE_SECONDS) -> list[Received]:
        """All that came, once there are so many."""
        give_up_at = time.monotonic() + seconds
        while len(self.received) < n_requests:
            assert time.monotonic() < give_up_at, f"only {len(self.received)} of {n_requests} messages came"
            time.sleep(0.02)
        return list(self.received)


@contextmanager
def receiving(**behaviour: Any) -> Iterator[Receiver]:
    """A receiver until the block ends; ``released`` is set then, so that a ``reply`` may wait for it."""
    receiver = Receiver(**behaviour)

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            headers = {name.lower(): value for name, value in self.headers.items()}
            receiver.received.append(Received(self.path, headers, body))
            if receiver.reply is not None:
                receiver.reply(self)
                return
            self.send_response(receiver.status)
            for name, value in receiver.headers.items():
                self.send_header(name, value)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Nothing on standard error."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", receiver.port), Handler)
    server.daemon_threads = True
    receiver.port = server.server_port
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield receiver
    finally:
        receiver.released.set()
        server.shutdown()
        server.server_close()
        thread.join()
