"""Holds the current snapshot of a process, and keeps it fresh."""

import threading
import time
from datetime import UTC, datetime

import structlog
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError
from sqlmodel import select

from experiments.database import database_now, reading
from experiments.errors import ExperimentsError, SnapshotMissing
from experiments.snapshot.load import load_snapshot
from experiments.snapshot.plans import Snapshot
from experiments.tables import Workspace

log = structlog.get_logger(__name__)

POLL_SECONDS = 1.0
FRESH_SECONDS = 1.5  # younger: has every change that is in effect, since those take effect 2 s after they are made
USABLE_SECONDS = 30.0  # older: no more experiments on it
LOOK_SECONDS = 0.1  # between looks for what is not known (5 times that after a failed one), and to wait for another's
_STOP_SECONDS = 2.0


class Snapshots:
    """Holds the current snapshot of a process; a thread asks once a second whether there is a newer one."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._lock = threading.Lock()
        self._looking = threading.Lock()
        self._next_look = 0.0
        self._stop = threading.Event()
        self._confirmed = 0.0
        self._clock_offset = 0.0
        self._current: Snapshot | None = None
        self._thread = threading.Thread(target=self._poll, name="snapshot", daemon=True)

    def start(self) -> None:
        """Load the first snapshot if the database answers, and keep asking for newer ones."""
        self.try_refresh()
        self._thread.start()

    def stop(self) -> None:
        """End the thread, so that it holds no connection when the engine is disposed of."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(timeout=_STOP_SECONDS)

    @property
    def current(self) -> Snapshot | None:
        """The newest snapshot known; None until there is one."""
        return self._current

    @property
    def age_seconds(self) -> float:
        """Since when the current snapshot was last known to be the newest."""
        return time.monotonic() - self._confirmed

    def now(self) -> datetime:
        """The time on the database's clock, without asking it."""
        return datetime.fromtimestamp(time.time() + self._clock_offset, tz=UTC)

    def refresh(self) -> Snapshot:
        """Ask the database now: a process that made a change, or is asked for what it doesn't know, needn't wait."""
        with self._lock:
            asked_at = time.monotonic()
            with reading(self._engine) as session:
                version = session.exec(select(Workspace.snapshot_version)).one()
                self._clock_offset = (database_now(session) - datetime.now(UTC)).total_seconds()
                if self._current is None or self._current.version != version:
                    self._current = load_snapshot(session)
            self._confirmed = asked_at
            return self._current

    def look_again(self, *, seconds: float | None = None) -> Snapshot:
        """A snapshot of now, for what isn't known; calls that meet share one look, and few looks follow each other.

        Args:
            seconds: How long to wait for it at most; after that it is the one that is there. None: until it is read.
        Raises:
            SnapshotMissing: There is none, and the database doesn't answer.
        """
        asked_at = time.monotonic()
        if seconds is None:
            self._look(asked_at)
        elif seconds > 0:
            looking = threading.Thread(target=self._look, args=(asked_at,), name="look", daemon=True)
            looking.start()
            looking.join(timeout=seconds)
        if self._current is None:
            raise SnapshotMissing
        return self._current

    def _look(self, asked_at: float) -> None:
        if self._looking.acquire(timeout=LOOK_SECONDS):
            try:
                time.sleep(min(max(self._next_look - asked_at, 0.0), LOOK_SECONDS))
                if self._confirmed < asked_at and time.monotonic() >= self._next_look:
                    self.try_refresh()
                    pause = LOOK_SECONDS if self._confirmed >= asked_at else 5 * LOOK_SECONDS
                    self._next_look = time.monotonic() + pause
            finally:
                self._looking.release()

    def try_refresh(self) -> None:
        """As ``refresh``, and never in the way of who has already changed something: a failure is only logged."""
        try:
            self.refresh()
        except (SQLAlchemyError, ExperimentsError, ValueError) as error:  # or a stored definition that can't be read
            log.warning("snapshot_refresh_failed", error=type(error).__name__)

    def _poll(self) -> None:
        while not self._stop.wait(POLL_SECONDS):
            self.try_refresh()
