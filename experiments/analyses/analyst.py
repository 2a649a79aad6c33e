"""Having analyses run: one process at a time, started and looked after by one that never waits for it."""

import contextlib
import math
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import structlog
from sqlalchemy import Engine

from experiments.analyses import queue
from experiments.analyses.kinds import KINDS
from experiments.database import AWAY, reading, transaction
from experiments.learning.lease import holder_name

log = structlog.get_logger(__name__)

LOST: Final = 3  # exit status of a process whose analysis is no longer its own, or whose parent is gone
MAX_SECONDS: Final = 3_600.0
TOO_LONG: Final = "took_too_long"
COMMAND: Final = (sys.executable, "-m", "experiments.analyses")
_ONE_THREAD: Final = dict.fromkeys(
    ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"), "1"
)
_PAUSE_SECONDS: Final = 30.0  # after a process that ended badly before it had claimed anything


@dataclass(frozen=True, slots=True)
class _Child:
    holder: str
    process: subprocess.Popen[bytes]
    started_at: float


class Analyst:
    """Starts a process for an analysis that is queued, and tries again what ends badly.

    Args:
        engine: Of the database.
        command: Starts the process; the holder's name is added to it.
        max_seconds: An analysis that takes longer is ended for good.
        clock: In seconds.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        command: tuple[str, ...] = COMMAND,
        max_seconds: float = MAX_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._engine = engine
        self._command = command
        self._max_seconds = max_seconds
        self._clock = clock
        self._child: _Child | None = None
        self._not_before = -math.inf

    def look(self) -> str | None:
        """Start a process if work waits and none runs; look after the one that runs. Waits for neither.

        Returns:
            The holder's name of the process at work; None if there is none.
        """
        if self._child is not None and not self._has_ended(self._child):
            return self._child.holder
        self._child = None
        if self._clock() < self._not_before or not self._is_work():
            return None
        self._child = self._started()
        return self._child.holder

    def close(self) -> None:
        """End the process at work; its analysis is queued again, and the attempt does not count."""
        if self._child is None:
            return
        child, self._child = self._child, None
        _end(child.process)
        with transaction(self._engine) as session:
            queue.give_back(session, holder=child.holder)

    def _is_work(self) -> bool:
        with reading(self._engine) as session:
            silent, queued = queue.is_silent(session), queue.is_queued(session, kinds=KINDS)
        if silent:
            with transaction(self._engine) as session:
                queue.retry_silent(session)
                return queue.is_queued(session, kinds=KINDS)
        return queued

    def _started(self) -> _Child:
        holder = holder_name()
        url = self._engine.url.render_as_string(hide_password=False)
        process = subprocess.Popen(  # noqa: S603  # a constant, and a name of our own making
            [*self._command, holder],
            stdin=subprocess.PIPE,  # closes when this process is gone, however it went
            env=_ONE_THREAD | os.environ | {"OPTIMIZER_DATABASE_URL": url},
        )
        return _Child(holder, process, self._clock())

    def _has_ended(self, child: _Child) -> bool:
        status = child.process.poll()
        if status is None and self._clock() - child.started_at < self._max_seconds:
            return False
        if status is None:
            self._stop(child)
            return True
        _end(child.process)
        with transaction(self._engine) as session:
            had_one = queue.retry_ended(session, holder=child.holder, detail=f"Its process ended with {status}.")
        if status not in {0, LOST}:
            log.error("analysis_process_ended", status=status, had_one=had_one)
            self._not_before = -math.inf if had_one else self._clock() + _PAUSE_SECONDS
        return True

    def _stop(self, child: _Child) -> None:
        """End for good what takes too long."""
        _end(child.process)
        detail = f"It was not done after {self._max_seconds:g} s."
        with transaction(self._engine) as session:
            queue.fail(session, holder=child.holder, code=TOO_LONG, detail=detail)


def run(engine: Engine, *, every_seconds: float, stop: threading.Event) -> None:
    """Look for work again and again until ``stop`` is set; what is then at work is queued again."""
    analyst = Analyst(engine)
    while not stop.is_set():
        try:
            analyst.look()
        except AWAY as error:
            log.warning("database_away", error=type(error).__name__)
        stop.wait(every_seconds)
    with contextlib.suppress(*AWAY):
        analyst.close()


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.kill()
    process.wait()
    if process.stdin is not None:
        process.stdin.close()
