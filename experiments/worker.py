"""A process that decides and records: engine, snapshot, journal and the two doors' insides, opened after the fork."""

from functools import partial

from experiments.access.rate_limits import RateLimits
from experiments.config import Config
from experiments.database import open_engine
from experiments.decide import DECISIONS, Decider
from experiments.decisions.rows import Stored, mark_contradicted, write_decisions
from experiments.journal import Entry, Journal
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
                DECISIONS: partial(write_decisions, shard=shard),
                OUTCOMES: partial(write_outcomes, shard=shard),
                _CONTRADICTED: mark_contradicted,
            },
            max_waiting=max(1, config.threads - _SPARE_THREADS),
            after_answered=_contradictions,
        )
        self.decider = Decider(self.snapshots, self.journal)
        self.recorder = Recorder(self.snapshots, self.journal)

    def start(self) -> None:
        """Read the first snapshot (if the database answers) and keep it fresh."""
        self.snapshots.start()

    def close(self) -> None:
        """Commit what is queued, then let go of everything."""
        self.journal.close()
        self.snapshots.stop()
        self.engine.dispose()


def _contradictions(entry: Entry) -> Entry | None:
    """Decisions that were answered in haste with another variant than the one stored for their unit."""
    if entry.kind != DECISIONS:
        return None
    stored: list[Stored] = list(entry.future.result())
    wrong = [row.id for row, known in zip(entry.rows, stored, strict=True) if row.variant != known.variant]
    return Entry(_CONTRADICTED, wrong) if wrong else None
