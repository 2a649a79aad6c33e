"""A small keep-alive client over plain sockets: some connections, each with one request under way, for some seconds."""

import re
import socket
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count
from selectors import EVENT_READ, DefaultSelector
from time import perf_counter
from typing import Final

_HOST: Final = "127.0.0.1"
_GRACE_SECONDS: Final = 10.0  # for answers that are still under way at the end
_LENGTH: Final = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_OK: Final = b"HTTP/1.1 200 "


@dataclass(frozen=True, slots=True)
class Load:
    """What to send: POSTs of JSON, each for a new customer. ``expects`` must stand in every answer."""

    port: int
    path: str
    placement: str
    customers: str
    seconds: float
    key: str = ""
    expects: str = ""
    n_connections: int = 32


@dataclass(frozen=True, slots=True)
class Answered:
    """What came back: the time it took, the seconds that each good answer took, and how often what went wrong."""

    seconds: float
    latencies: list[float]
    errors: dict[str, int]


def put_under_load(load: Load) -> Answered:
    """Send requests for ``load.seconds``, then wait for the last answers."""
    return _Client(load).run()


@dataclass(slots=True)
class _Connection:
    socket: socket.socket
    sent_at: float = 0.0
    received: bytes = b""


@dataclass(slots=True)
class _Client:
    load: Load
    selector: DefaultSelector = field(default_factory=DefaultSelector)
    numbers: Iterator[int] = field(default_factory=count)
    latencies: list[float] = field(default_factory=list)
    errors: Counter[str] = field(default_factory=Counter)
    until: float = 0.0

    def run(self) -> Answered:
        began = perf_counter()
        self.until = began + self.load.seconds
        for _ in range(self.load.n_connections):
            self._connect()
        while self.selector.get_map() and perf_counter() < self.until + _GRACE_SECONDS:
            for key, _ in self.selector.select(timeout=0.2):
                self._read(key.data)
        self.errors["unanswered"] += len(self.selector.get_map())
        seconds = perf_counter() - began
        for key in list(self.selector.get_map().values()):
            self._close(key.data)
        self.selector.close()
        return Answered(seconds, self.latencies, dict(+self.errors))

    def _connect(self) -> None:
        try:
            connection = _Connection(socket.create_connection((_HOST, self.load.port), timeout=_GRACE_SECONDS))
        except OSError:
            self.errors["refused"] += 1
            return
        connection.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.selector.register(connection.socket, EVENT_READ, connection)
        self._send(connection)

    def _send(self, connection: _Connection) -> None:
        connection.received = b""
        connection.sent_at = perf_counter()
        connection.socket.sendall(self._request(next(self.numbers)))

    def _request(self, number: int) -> bytes:
        load = self.load
        body = (
            f'{{"placement":"{load.placement}","customer_id":"{load.customers}-{number}",'
            '"attributes":{"lifetime_value":800,"country":"DE","orders":0,"first_name":"Ann"}}'
        )
        return (
            f"POST {load.path} HTTP/1.1\r\nHost: {_HOST}\r\nContent-Type: application/json\r\n"
            f"Authorization: Bearer {load.key}\r\nContent-Length: {len(body)}\r\n\r\n{body}"
        ).encode()

    def _read(self, connection: _Connection) -> None:
        try:
            chunk = connection.socket.recv(65_536)
            if not chunk:
                raise ConnectionResetError
            connection.received += chunk
            if self._is_complete(connection):
                self._next(connection)
        except OSError:
            self.errors["closed"] += 1
            self._close(connection)
            if perf_counter() < self.until:
                self._connect()

    def _is_complete(self, connection: _Connection) -> bool:
        head, end, body = connection.received.partition(b"\r\n\r\n")
        if not end:
            return False
        length = _LENGTH.search(head)
        return length is not None and len(body) >= int(length[1])

    def _next(self, connection: _Connection) -> None:
        now = perf_counter()
        if connection.received.startswith(_OK) and self.load.expects.encode() in connection.received:
            self.latencies.append(now - connection.sent_at)
        else:
            self.errors[connection.received[9:12].decode(errors="replace")] += 1
        if now < self.until:
            self._send(connection)
        else:
            self._close(connection)

    def _close(self, connection: _Connection) -> None:
        self.selector.unregister(connection.socket)
        connection.socket.close()
