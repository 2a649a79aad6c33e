"""The background process beside the web processes: started again when it ends, and ended when its parent is gone."""

import os
import subprocess
import sys
import threading
import time
from typing import Final

import structlog

log = structlog.get_logger(__name__)

COMMAND: Final = (sys.executable, "-m", "experiments.cli", "learn", "--until-parent-exits")
_STOP_SECONDS: Final = 2.0
_FIRST_PAUSE_SECONDS: Final = 0.5
_LONGEST_PAUSE_SECONDS: Final = 30.0
_HEALTHY_SECONDS: Final = 60.0


class Background:
    """Keeps one ``optimizer learn`` running. The process holds the reading end of a pipe: when that closes, it ends."""

    def __init__(self) -> None:
        self._stop = threading.Event()
        self._forking = threading.Lock()  # a web process forked amid a start would inherit, and keep open, its pipes
        self._process: subprocess.Popen[bytes] | None = None
        self._pipe: tuple[int, ...] = ()
        self._thread = threading.Thread(target=self._run, name="background", daemon=True)

    def start(self) -> None:
        """Start the process, and watch it."""
        self._pipe = os.pipe()  # before any web process is forked, so that each knows what it has inherited
        release = self._forking.release
        os.register_at_fork(before=self._forking.acquire, after_in_parent=release, after_in_child=release)
        self._thread.start()

    def close(self) -> None:
        """Ask the process to end, and wait for it a moment."""
        self._stop.set()
        os.close(self._pipe[1])
        self._thread.join(timeout=_STOP_SECONDS)
        if self._process is not None and self._process.poll() is None:
            self._process.kill()

    def let_go(self) -> None:
        """Close both ends of the pipe: a web process has inherited them, and must not keep them open."""
        for end in self._pipe:
            os.close(end)

    def _run(self) -> None:
        pause = _FIRST_PAUSE_SECONDS
        while not self._stop.is_set():
            began = time.monotonic()
            with self._forking:
                self._process = subprocess.Popen(COMMAND, stdin=self._pipe[0])  # noqa: S603  # a constant
            status = self._process.wait()
            if self._stop.is_set():
                return
            pause = _FIRST_PAUSE_SECONDS if time.monotonic() - began > _HEALTHY_SECONDS else pause
            log.error("background_process_ended", status=status, restart_after_seconds=pause)
            self._stop.wait(pause)
            pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)
