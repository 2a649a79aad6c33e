"""All that a worker needs to decide, in memory, immutable, swapped whole: compiled rules, weights, policies, keys."""

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

import structlog
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError
from sqlmodel import select

from experiments.catalog.content import Content
from experiments.catalog.definitions import AttributeDefinition, PlacementDefinition
from experiments.database import database_now, reading
from experiments.decisions.hashing import UnitHash, Wheel
from experiments.errors import SnapshotMissing
from experiments.segments.rules import Segmentation
from experiments.tables import Workspace

log = structlog.get_logger(__name__)

POLL_SECONDS = 1.0
FRESH_SECONDS = 1.5  # younger: has every change that is in effect, since those take effect 2 s after they are made
USABLE_SECONDS = 30.0  # older: no more experiments on it
FOREVER = float("inf")
_STOP_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class VariantPlan:
    """A variant ready to be served."""

    key: str
    content: Content
    deliver: bool
    is_retired: bool = False


@dataclass(frozen=True, slots=True)
class SeriesPlan:
    """A series ready to decide. Times are seconds since 1970 on the database's clock."""

    number: int
    kind: str
    experiment: str | None
    unit: str
    hash: UnitHash
    opens_at: float
    closes_at: float
    closed_segments: Mapping[str, float]
    segmentation: Segmentation
    segments: frozenset[str]
    wheels: Mapping[str, tuple[int, Wheel]]
    variants: Mapping[str, VariantPlan]
    control: str

    def is_open(self, segment: str, now: float) -> bool:
        """Whether the series decides for a segment at a moment."""
        left = self.closed_segments.get(segment, FOREVER)
        return segment in self.segments and self.opens_at <= now < self.closes_at and now < left


@dataclass(frozen=True, slots=True)
class Policy:
    """One version of a placement's policy: by the segmentation it was promoted under, each segment's series."""

    version: int
    effective_at: float
    entries: tuple[tuple[Segmentation, Mapping[str, SeriesPlan]], ...]


@dataclass(frozen=True, slots=True)
class PlacementPlan:
    """A placement ready to decide. ``policies``: the newest first; the first in effect counts."""

    key: str
    definition: PlacementDefinition
    segmentation: Segmentation
    default: VariantPlan
    experiments: tuple[SeriesPlan, ...]
    policies: tuple[Policy, ...]
    programme: SeriesPlan

    def policy_at(self, now: float) -> Policy | None:
        """The policy in effect at a moment."""
        return next((policy for policy in self.policies if policy.effective_at <= now), None)


@dataclass(frozen=True, slots=True)
class KeyPlan:
    """An API key: its name, the SHA-256 of its secret, its scopes, and until when it works."""

    id: str
    name: str
    secret_hash: bytes
    scopes: frozenset[str]
    expires_at: float


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All of it, as of one version of the workspace."""

    version: int
    holdout_secret: bytes
    attributes: Mapping[str, AttributeDefinition]
    placements: Mapping[str, PlacementPlan]
    overrides: Mapping[tuple[str, str], str]
    keys: Mapping[str, KeyPlan]


class Snapshots:
    """Holds the current snapshot of a process; a thread asks once a second whether there is a newer one."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._lock = threading.Lock()
        self._looking = threading.Lock()
        self._stop = threading.Event()
        self._confirmed = 0.0
        self._clock_offset = 0.0
        self._current: Snapshot | None = None
        self._thread = threading.Thread(target=self._poll, name="snapshot", daemon=True)

    def start(self) -> None:
        """Load the first snapshot if the database answers, and keep asking for newer ones."""
        self._try_refresh()
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
        from experiments.snapshot_load import load_snapshot  # it imports this module's plans

        with self._lock:
            asked_at = time.monotonic()
            with reading(self._engine) as session:
                version = session.exec(select(Workspace.snapshot_version)).one()
                self._clock_offset = (database_now(session) - datetime.now(UTC)).total_seconds()
                if self._current is None or self._current.version != version:
                    self._current = load_snapshot(session)
            self._confirmed = asked_at
            return self._current

    def look_again(self) -> Snapshot:
        """A snapshot no older than this call, for what isn't known; calls that meet share one look.

        Raises:
            SnapshotMissing: There is none, and the database doesn't answer.
        """
        asked_at = time.monotonic()
        with self._looking:
            if self._confirmed < asked_at:
                self._try_refresh()
        if self._current is None:
            raise SnapshotMissing
        return self._current

    def _try_refresh(self) -> None:
        try:
            self.refresh()
        except SQLAlchemyError as error:
            log.warning("snapshot_refresh_failed", error=type(error).__name__)

    def _poll(self) -> None:
        while not self._stop.wait(POLL_SECONDS):
            self._try_refresh()
