"""A process that decides and records: engine, snapshot, journal and the two doors' insides, opened after the fork."""

from collections.abc import Collection, Mapping
from functools import partial

from experiments.access.rate_limits import RateLimits
from experiments.config import Config
from experiments.customers.aliases import write_links
from experiments.customers.moved import Moved, write_peoples_decisions
from experiments.customers.people import People, Person, read_people
from experiments.customers.traits import TRAITS, write_traits
from experiments.database import open_engine, reading
from experiments.decide import DECISIONS, LINKS, Decider
from experiments.decisions.rows import Stored, mark_contradicted, read_decisions, read_units
from experiments.journal import Entry, Journal
from experiments.mail_events.rows import write_mail
from experiments.mail_events.take import MAIL, Receiver
from experiments.outcomes.rows import write_outcomes
from experiments.record import OUTCOMES, Recorder
from experiments.snapshot.holder import Snapshots

_CONTRADICTED = "contradicted"
_SPARE_THREADS = 4  # kept for requests that don't wait for the journal


class Worker:
    """Everything a web process holds. ``shard`` spreads the writers over the tallies' rows."""

    def __init__(self, config: Config, *, shard: int) -> None:
        self.config = config
        self.engine = open_engine(config.database_url)
        self.snapshots = Snapshots(self.engine)
        self.rate_limits = RateLimits(n_processes=config.workers)
        self.journal = Journal(
            self.engine,
            writers={
                DECISIONS: partial(write_peoples_decisions, shard=shard, has_people=self._has_people),
                OUTCOMES: partial(write_outcomes, shard=shard, has_people=self._has_people),
                MAIL: partial(write_mail, shard=shard, has_people=self._has_people),
                _CONTRADICTED: mark_contradicted,
                LINKS: write_links,
                TRAITS: write_traits,
            },
            max_waiting=max(1, config.threads - _SPARE_THREADS),
            after_answered=_contradictions,
        )
        self.people = People(self._read_people)
        self.decider = Decider(self.snapshots, self.journal, read_stored=self._read_stored, people=self.people)
        self.recorder = Recorder(self.snapshots, self.journal, join=self.decider.join_all)
        self.receiver = Receiver(self.snapshots, self.journal)

    def _has_people(self) -> bool:
        snapshot = self.snapshots.current
        return snapshot is None or snapshot.has_people

    def _read_people(self, ids: Collection[str]) -> Mapping[str, Person]:
        with reading(self.engine) as session:
            return read_people(session, ids)

    def _read_stored(self, ids: Collection[bytes]) -> Mapping[bytes, Stored]:
        with reading(self.engine) as session:
            read = read_units if self._has_people() else read_decisions
            return read(session.connection(), ids)

    def start(self) -> None:
        """Read the first snapshot (if the database answers) and keep it fresh."""
        self.snapshots.start()

    def close(self) -> None:
        """Commit what is queued, then let go of everything."""
        self.journal.close()
        self.snapshots.stop()
        self.people.close()
        self.engine.dispose()


def _contradictions(entry: Entry) -> Entry | None:
    """Decisions that were answered in haste with another variant than the one stored for their unit."""
    if entry.kind != DECISIONS:
        return None
    stored: list[Stored | Moved] = list(entry.future.result())
    wrong = [
        known.decision_id or row.id
        for row, known in zip(entry.rows, stored, strict=True)
        if isinstance(known, Stored) and row.variant != known.variant
    ]
    return Entry(_CONTRADICTED, wrong) if wrong else None
