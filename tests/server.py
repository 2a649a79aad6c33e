"""The real server for tests: ``optimizer serve`` as a process group of its own, and a client for one thread."""

import http.client
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

READY_SECONDS = 30.0
ANSWER_SECONDS = 15.0
PAUSE_SECONDS = 0.02

Pids = dict[int, str]  # a process id and its command line


class ServerFailed(RuntimeError):
    """The server did not do in time what was expected; the end of its log says more."""


@dataclass(frozen=True)
class Answer:
    """What a request brought: ``body`` is the parsed JSON."""

    status: int
    headers: dict[str, str]
    body: dict[str, Any]
    seconds: float


class Client:
    """One kept-alive connection; for one thread."""

    def __init__(self, port: int, key: str) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=ANSWER_SECONDS)
        self._headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}

    def get(self, path: str) -> Answer:
        """GET; raises OSError or HTTPException where no answer comes, and connects anew the next time."""
        return self._ask("GET", path)

    def post(self, path: str, body: object) -> Answer:
        """POST as JSON; otherwise as ``get``."""
        return self._ask("POST", path, orjson.dumps(body))

    def close(self) -> None:
        """Let go of the connection."""
        self._connection.close()

    def _ask(self, method: str, path: str, body: bytes | None = None) -> Answer:
        began = time.monotonic()
        try:
            self._connection.request(method, path, body, self._headers)
            answer = self._connection.getresponse()
            read = answer.read()
        except (OSError, http.client.HTTPException):
            self._connection.close()
            raise
        headers = {name.lower(): value for name, value in answer.getheaders()}
        return Answer(answer.status, headers, orjson.loads(read), time.monotonic() - began)


@dataclass(frozen=True)
class Server:
    """A running ``optimizer serve``; its process is gunicorn's arbiter."""

    process: subprocess.Popen[bytes]
    port: int
    log: Path

    def workers(self) -> Pids:
        """The web processes."""
        return {pid: line for pid, line in self._children().items() if not _is_learner(line)}

    def learners(self) -> Pids:
        """The background process, by itself."""
        return {pid: line for pid, line in self._children().items() if _is_learner(line)}

    def terminate(self) -> float:
        """SIGTERM; how many seconds the server took to end."""
        began = time.monotonic()
        self.process.terminate()
        self.process.wait(timeout=READY_SECONDS)
        return time.monotonic() - began

    def kill_all(self) -> None:
        """SIGKILL to every process of the server at once."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(timeout=READY_SECONDS)

    def wait_until(self, happened: Callable[[], bool], *, what: str, seconds: float = READY_SECONDS) -> None:
        """Look again and again until something has happened.

        Raises:
            ServerFailed: It has not, in time.
        """
        give_up_at = time.monotonic() + seconds
        while not happened():
            if time.monotonic() > give_up_at:
                raise ServerFailed(f"After {seconds} s not yet: {what}. The log ends with\n{self.log_end()}")
            time.sleep(PAUSE_SECONDS)

    def is_ready(self) -> bool:
        """Whether /readyz says so."""
        if self.process.poll() is not None:
            raise ServerFailed(f"The server ended with {self.process.returncode}:\n{self.log_end()}")
        with closing(Client(self.port, "")) as client:
            try:
                return client.get("/readyz").status == 200
            except (OSError, http.client.HTTPException):
                return False

    def log_end(self) -> str:
        """The last lines of the log."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-30:])

    def _children(self) -> Pids:
        return processes(parent=self.process.pid)


@contextmanager
def serving(database_url: str, folder: Path, *, n_workers: int = 2) -> Iterator[Server]:
    """Start a server that is ready; whatever is left of it at the end is killed.

    Args:
        database_url: Of a migrated database.
        folder: Takes the server's log.
        n_workers: Web processes.
    """
    port = free_port()
    log = folder / f"server-{port}.log"
    command = [sys.executable, "-m", "experiments.cli", "serve", "--database-url", database_url]
    command += ["--port", str(port), "--workers", str(n_workers), "--learn-seconds", "0.5"]
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, start_new_session=True)
    server = Server(process, port, log)
    try:
        server.wait_until(server.is_ready, what="ready")
        yield server
    finally:
        _kill_group(process)


def processes(*, parent: int | None = None, group: int | None = None) -> Pids:
    """The living processes of a parent or of a process group (zombies are dead)."""
    listed = subprocess.run(
        ["ps", "-A", "-ww", "-o", "pid=,ppid=,pgid=,stat=,args="], capture_output=True, check=True
    ).stdout
    found: Pids = {}
    for line in listed.decode(errors="replace").splitlines():
        pid, ppid, pgid, state, *command = line.split(None, 4)
        if not state.startswith("Z") and (int(ppid) == parent or int(pgid) == group):
            found[int(pid)] = command[0] if command else ""
    return found


def _is_learner(command_line: str) -> bool:
    return "--until-parent-exits" in command_line


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    if processes(group=process.pid):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait(timeout=READY_SECONDS)


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port
