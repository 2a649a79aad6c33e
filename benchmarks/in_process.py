"""What needs no server: choosing, lists, weights and reviews, each in a fresh process of its own."""

import resource
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np

from benchmarks import world
from experiments.catalog.lifecycle import EFFECT_SECONDS
from experiments.config import Config
from experiments.database import open_engine
from experiments.decide import Decider
from experiments.decisions.batch import SLICE
from experiments.decisions.choosing import Asked, Moment, choose
from experiments.errors import JournalBusy
from experiments.snapshot.holder import Snapshots
from experiments.worker import Worker
from optimizer.comparison import probability_best
from optimizer.posteriors import beta_posterior

_REPEATS: Final = 7
_N_CHOICES: Final = 20_000
_PROBE_SECONDS: Final = 0.02
_LIST_SECONDS: Final = 100.0  # a list that takes longer is cut short


@dataclass(frozen=True, slots=True)
class Listed:
    """A list decided: its wall time, peak memory in MB, and the p99 in seconds of single decisions meanwhile."""

    n_rows: int
    seconds: float
    memory: float
    single_p99: float
    n_refused: int


def choices_per_second(url: str, placement: str) -> float:
    """Segment rule of three conditions, hash, propensity: choices a second of one core's CPU time, best of 7."""
    snapshots = Snapshots(open_engine(url))
    snapshot = snapshots.refresh()
    plan, now = snapshot.placements[placement], snapshots.now()
    moment = Moment(now, now.timestamp() + EFFECT_SECONDS, is_stale=False, is_usable=True)
    asked = [Asked(f"customer-{i}", None, world.ATTRIBUTES, world.ATTRIBUTES) for i in range(_N_CHOICES)]

    def choose_all() -> None:
        for one in asked:
            choose(snapshot, plan, asked=one, moment=moment)

    return _N_CHOICES / min(_cpu_seconds(choose_all) for _ in range(_REPEATS))


def decide_a_list(url: str, n_rows: int) -> Listed:
    """Decide for a list of new customers, slice by slice as the batch door does, with single decisions in between.

    It ends after ``n_rows`` or 100 s, whichever comes first.
    """
    worker = Worker(Config(database_url=url, log_level="warning"), shard=1)
    worker.start()
    probe = _Probe(worker.decider)
    began = time.perf_counter()
    n_decided = 0
    while n_decided < n_rows and time.perf_counter() - began < _LIST_SECONDS:
        numbers = range(n_decided, min(n_decided + SLICE, n_rows))
        asked = [worker.decider.ask(f"listed-{n}", attributes=world.ATTRIBUTES) for n in numbers]
        n_decided += len(worker.decider.decide_list(asked, world.PLAIN))
    seconds = time.perf_counter() - began
    single_p99 = probe.stop()
    worker.close()
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6
    return Listed(n_decided, seconds, memory, single_p99, probe.n_refused)


def weights_seconds(n_segments: int, n_variants: int) -> float:
    """Wall time of the probabilities of being best for typical rates: 50 to 5,000 units a variant, 2 to 6 %."""
    rng = np.random.default_rng(20261121)
    n_units = rng.integers(50, 5_000, (n_segments, n_variants)).astype(np.float64)
    posterior = beta_posterior(rng.binomial(n_units.astype(np.int64), rng.uniform(0.02, 0.06, n_units.shape)), n_units)
    began = time.perf_counter()
    probability_best(posterior)
    return time.perf_counter() - began


class _Probe:
    """Asks for single decisions, one after the other with a pause, until it is stopped."""

    def __init__(self, decider: Decider) -> None:
        self.n_refused = 0
        self._decider = decider
        self._seconds: list[float] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def stop(self) -> float:
        """The 99th percentile of their times."""
        self._stop.set()
        self._thread.join()
        return float(np.percentile(self._seconds, 99))

    def _run(self) -> None:
        while not self._stop.wait(_PROBE_SECONDS):
            asked = self._decider.ask(f"single-{len(self._seconds)}", attributes=world.ATTRIBUTES)
            began = time.perf_counter()
            try:
                self._decider.decide(asked, [world.PLAIN])
            except JournalBusy:
                self.n_refused += 1
            self._seconds.append(time.perf_counter() - began)


def _cpu_seconds(work: Callable[[], None]) -> float:
    began = time.thread_time()
    work()
    return time.thread_time() - began
