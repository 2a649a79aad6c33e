"""Clients that stall, through the real server: they hold its threads for a while, not for ever."""

import http.client
import socket
import time
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from api.threads import REQUEST_SECONDS
from experiments.database import open_engine
from tests.faults.shop import PLACEMENT, open_shop
from tests.server import Client, Server, serving

pytestmark = pytest.mark.xdist_group("faults")

N_THREADS = 8  # the fewest that there may be
_HEAD = b"POST /v1/batch HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
STALLED = {"head": b"POST /v1/ba", "body": _HEAD + b"Content-Length: 1000\r\n\r\n["}


@pytest.mark.parametrize("part", STALLED)
def test_clients_that_stall_give_their_threads_back(
    sqlite_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    url, key = _shop(sqlite_file)
    monkeypatch.setenv("OPTIMIZER_THREADS", str(N_THREADS))
    with serving(url, tmp_path, n_workers=1) as server, ExitStack() as stalled:
        for _ in range(2 * N_THREADS):
            stalled.enter_context(closing(_connected(server))).sendall(STALLED[part])
        time.sleep(1.0)
        began = time.monotonic()
        _wait_for_an_answer(server, key, seconds=2 * (REQUEST_SECONDS + 5.0) + 15.0)
        assert time.monotonic() - began > REQUEST_SECONDS / 2, "the threads were not held, so this shows nothing"
        assert "Socket error" not in server.log.read_text()


def test_a_slow_but_honest_client_is_answered(sqlite_file: Path, tmp_path: Path) -> None:
    url, key = _shop(sqlite_file)
    body = f'{{"placement": "{PLACEMENT}", "customer_id": "slow"}}'.encode()
    with serving(url, tmp_path, n_workers=1) as server, closing(_connected(server)) as connection:
        head = f"POST /v1/decisions HTTP/1.1\r\nHost: x\r\nX-API-Key: {key}\r\nContent-Type: application/json\r\n"
        connection.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode())
        for at in range(0, len(body), 20):
            time.sleep(0.5)
            connection.sendall(body[at : at + 20])
        assert connection.recv(100).startswith(b"HTTP/1.1 200 ")


def test_a_body_in_chunks_is_bounded(sqlite_file: Path, tmp_path: Path) -> None:
    url, key = _shop(sqlite_file)
    parts = [b'{"batch": []}', b" " * 400_000, b" " * 400_000]
    with (
        serving(url, tmp_path, n_workers=1) as server,
        closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=15)) as connection,
    ):
        headers = {"X-API-Key": key, "Content-Type": "application/json"}
        connection.request("POST", "/v1/batch", iter(parts), headers, encode_chunked=True)
        assert connection.getresponse().status == 413


def _shop(path: Path) -> tuple[str, str]:
    url = f"sqlite:///{path}"
    engine = open_engine(url)
    key = open_shop(engine)
    engine.dispose()
    return url, key


def _connected(server: Server) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.port), timeout=15)


def _wait_for_an_answer(server: Server, key: str, *, seconds: float) -> None:
    def is_answered() -> bool:
        try:
            with closing(Client(server.port, key)) as client:
                return client.get(f"/v1/placements/{PLACEMENT}/decision?customer_id=anna").status == 200
        except (OSError, http.client.HTTPException):
            return False

    server.wait_until(is_answered, what="an answer", seconds=seconds)
