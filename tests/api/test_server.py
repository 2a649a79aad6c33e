"""The real server: one command, several processes, a clean end."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.request import Request, urlopen

import pytest

from tests.repo.sources import ROOT

SECONDS_TO_START = 40
SECONDS_TO_END = 10


class Server:
    """A running ``optimizer serve`` and what it has said."""

    def __init__(self, database_url: str, said: Path) -> None:
        self.said = said
        command = [sys.executable, "-m", "experiments.cli", "serve", "--port", "0", "--workers", "2"]
        with said.open("w") as stderr:
            self.process = subprocess.Popen(
                command, cwd=ROOT, stderr=stderr, env=os.environ | {"OPTIMIZER_DATABASE_URL": database_url}
            )
        self.address = self.wait_for(r"Listening at: (http://[\d.:]+)")

    def wait_for(self, pattern: str) -> str:
        """What the server says, sooner or later."""
        give_up_at = time.monotonic() + SECONDS_TO_START
        while time.monotonic() < give_up_at:
            found = re.search(pattern, self.said.read_text())
            if found is not None:
                return found.group(1)
            assert self.process.poll() is None, self.said.read_text()
            time.sleep(0.05)
        raise TimeoutError(self.said.read_text())

    def ask(self, path: str, *, key: str = "", body: object = None) -> object:
        """A request and its JSON."""
        data = None if body is None else json.dumps(body).encode()
        headers = {"X-API-Key": key, "Content-Type": "application/json"}
        with urlopen(Request(self.address + path, data, headers), timeout=30) as answer:  # noqa: S310  # our own server
            return json.load(answer)

    def children(self) -> list[int]:
        """Processes whose parent is the server."""
        listed = subprocess.run(["ps", "-eo", "pid=,ppid="], capture_output=True, text=True, check=True).stdout
        pairs = (map(int, line.split()) for line in listed.splitlines())
        return [pid for pid, parent in pairs if parent == self.process.pid]


@pytest.fixture
def server(database_url: str, tmp_path: Path) -> Iterator[Server]:
    server = Server(database_url, tmp_path / "said")
    yield server
    if server.process.poll() is None:
        server.process.kill()
        server.process.wait()


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    state = subprocess.run(["ps", "-o", "state=", "-p", str(pid)], capture_output=True, text=True, check=False).stdout
    return state.strip() not in {"", "Z"}


def test_one_command_serves_prints_a_first_key_once_and_ends_cleanly(server: Server) -> None:
    key = server.wait_for(r"Bearer (opt_\w+)")
    assert server.ask("/v1/experiments", key=key) == {"items": [], "next_cursor": None}
    assert server.ask("/readyz") == {
        "status": "ok",
        "checks": {"database": "ok", "snapshot": "ok", "journal": "ok"},
    }
    children = server.children()
    assert len(children) == 3, "two web processes and the background process"
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(timeout=SECONDS_TO_END) == 0, server.said.read_text()
    assert [pid for pid in children if _is_alive(pid)] == []


def test_the_background_process_is_started_again_and_ends_with_a_killed_server(server: Server) -> None:
    (learner,) = [pid for pid in server.children() if "learn" in _command(pid)]
    os.kill(learner, signal.SIGKILL)
    server.wait_for(r"(background_process_ended)")
    give_up_at = time.monotonic() + SECONDS_TO_START
    while len(server.children()) < 3 and time.monotonic() < give_up_at:
        time.sleep(0.05)
    children = server.children()
    assert len(children) == 3
    server.process.kill()
    server.process.wait()
    while any(map(_is_alive, children)) and time.monotonic() < give_up_at:
        time.sleep(0.05)
    assert [pid for pid in children if _is_alive(pid)] == []


def _command(pid: int) -> str:
    return subprocess.run(["ps", "-o", "args=", "-p", str(pid)], capture_output=True, text=True, check=True).stdout
