"""The real server in a process of its own, on a free port and a new database."""

import http.client
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import orjson

from experiments.access.keys import create_key
from experiments.database import bump_snapshot, migrate, open_engine, transaction
from experiments.errors import DemoFailed

_START_SECONDS: Final = 60.0
_STOP_SECONDS: Final = 15.0


def make_database(url: str, *, secret: bytes) -> str:
    """Migrate a new database and give it known secrets, so that every choice can be repeated; returns an admin key."""
    engine = open_engine(url)
    try:
        migrate(engine)
        with transaction(engine) as session:
            workspace = bump_snapshot(session)
            workspace.secret = workspace.holdout_secret = secret
            _, key = create_key(session, "demo", scopes=["admin"], actor="demo")
            return key
    finally:
        engine.dispose()


@contextmanager
def running_server(url: str, *, log: Path) -> Iterator[int]:
    """Serve a database with one web process and without the background process; gives the port.

    Raises:
        DemoFailed: It ended, or did not get ready in time; what it said is in the log.
    """
    port = _free_port()
    settings = ["--database-url", url, "--port", str(port), "--workers", "1", "--no-learn"]
    command = [sys.executable, "-m", "experiments.cli", "serve", *settings]
    with log.open("wb") as said:
        process = subprocess.Popen(command, stdout=said, stderr=said)  # noqa: S603  # ours
    try:
        _wait(process, port, log=log)
        yield port
    finally:
        process.terminate()
        try:
            process.wait(timeout=_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def is_ready(port: int) -> bool:
    """Whether the server decides; asking also makes it read what has changed in the database."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", "/readyz")
        response = connection.getresponse()
        return response.status == 200 and orjson.loads(response.read())["status"] == "ok"
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _wait(process: subprocess.Popen[bytes], port: int, *, log: Path) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while not is_ready(port):
        if process.poll() is not None or time.monotonic() > deadline:
            raise DemoFailed("the server did not start", said=log.read_text(errors="replace"))
        time.sleep(0.1)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
