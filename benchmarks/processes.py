"""Processes on chosen cores, and what they cost: CPU seconds and resident memory, read from /proc (Linux)."""

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_TICKS: Final = os.sysconf("SC_CLK_TCK")
_PAGE: Final = os.sysconf("SC_PAGE_SIZE")
_STOP_SECONDS: Final = 30


@contextmanager
def on_core(core: int | None) -> Iterator[None]:
    """What is started in the block runs on one core; None: on any."""
    before = os.sched_getaffinity(0)
    if core is not None:
        os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def cores() -> tuple[int | None, int | None]:
    """The server's core and the client's, two different ones; None for both where there is only one."""
    available = sorted(os.sched_getaffinity(0))
    return (available[0], available[-1]) if len(available) > 1 else (None, None)


@dataclass(frozen=True, slots=True)
class Group:
    """Processes that end together: their guards read from one pipe, which closes with the block, or with us."""

    stdin: int
    guards: list[subprocess.Popen[bytes]]

    def start(self, command: Sequence[str], *, environment: Mapping[str, str], log: Path) -> int:
        """Start a command; returns the id of its guard."""
        guarded = [sys.executable, "-m", "benchmarks.guard", *command]
        with log.open("wb") as out:
            guard = subprocess.Popen(
                guarded,
                stdin=self.stdin,
                stdout=out,
                stderr=subprocess.STDOUT,
                env={**os.environ, **environment},
                start_new_session=True,
            )
        self.guards.append(guard)
        return guard.pid


@contextmanager
def group() -> Iterator[Group]:
    """Processes for the time of the block; they end even if we are killed."""
    stdin, held = os.pipe()
    started = Group(stdin, guards=[])
    try:
        yield started
    finally:
        os.close(held)
        os.close(stdin)
        for guard in started.guards:
            guard.wait(timeout=_STOP_SECONDS)


def web_workers(guard: int) -> list[int]:
    """The web processes of the gunicorn that a guard runs: the forks of its master, which have its command line."""
    (master,) = _children(guard)
    said = _command(master)
    return [child for child in _children(master) if _command(child) == said]


def cpu_seconds(pids: Sequence[int]) -> float:
    """User and system time of processes so far."""
    return sum(_cpu_ticks(pid) for pid in pids) / _TICKS


def resident_megabytes(pid: int) -> float:
    """Resident memory of a process, shared pages included, in MB of 10**6 bytes."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE / 1e6


def peak_megabytes(pid: int) -> float:
    """The most resident memory that a process has had, in MB of 10**6 bytes."""
    (line,) = (line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024 / 1e6


def _cpu_ticks(pid: int) -> int:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def _children(pid: int) -> list[int]:
    return [
        int(child) for task in Path(f"/proc/{pid}/task").iterdir() for child in (task / "children").read_text().split()
    ]


def _command(pid: int) -> bytes:
    return Path(f"/proc/{pid}/cmdline").read_bytes()
