"""What operators watch: counts and durations by placement and route, never by customer; over all web processes."""

import os
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from importlib.metadata import version
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

from experiments.decide import Decided
from experiments.worker import Worker

FOLDER: Final = "PROMETHEUS_MULTIPROC_DIR"  # the client library's own name for the folder that processes share

_registry = CollectorRegistry()
_decisions = Counter("decisions_total", "Decisions answered.", ["placement", "source"], registry=_registry)
_outcomes = Counter("outcomes_total", "Outcomes taken, by what became of them.", ["status"], registry=_registry)
_seconds = Histogram(
    "http_server_request_duration_seconds",
    "Time to answer a request.",
    ["method", "route", "status"],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0),
    registry=_registry,
)
_queued = Gauge("journal_rows", "Rows waiting to be committed.", registry=_registry, multiprocess_mode="livesum")
_age = Gauge("snapshot_age_seconds", "Age of the oldest snapshot.", registry=_registry, multiprocess_mode="livemax")
_build = Gauge("build_info", "The version that runs.", ["version"], registry=_registry, multiprocess_mode="max")
VERSION: Final = version("optimizer")
observers: Final[list[Callable[[Sequence[Decided]], None]]] = []  # who else wants to know of answers


@cache
def _decided(placement: str, source: str) -> Counter:
    return _decisions.labels(placement, source)


@cache
def _taking(method: str, route: str, *, status: int) -> Histogram:
    return _seconds.labels(method, route, str(status))


def count_decisions(decisions: Sequence[Decided]) -> None:
    """Count answers of the decision doors."""
    for decided in decisions:
        _decided(decided.placement, decided.source).inc()
    for observe in observers:
        observe(decisions)


def count_outcomes(statuses: Mapping[str, int]) -> None:
    """Count outcomes by what became of them."""
    for status, count in statuses.items():
        if count:
            _outcomes.labels(status).inc(count)


def observe_request(method: str, route: str, *, status: int, seconds: float) -> None:
    """Note how long a request took; ``route`` is the template, not the address."""
    _taking(method, route, status=status).observe(seconds)


def measure(worker: Worker) -> None:
    """Note the state of this process."""
    _queued.set(worker.journal.n_rows)
    _age.set(min(worker.snapshots.age_seconds, 1e9))
    _build.labels(VERSION).set(1)


def metrics_text(worker: Worker) -> bytes:
    """All of it in Prometheus' text format, over all processes if they share a folder."""
    measure(worker)
    if FOLDER not in os.environ:
        return generate_latest(_registry)
    merged = CollectorRegistry()
    MultiProcessCollector(merged)  # type: ignore[no-untyped-call]  # the library has none
    return generate_latest(merged)
