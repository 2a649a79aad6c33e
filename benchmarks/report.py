"""The tables: what was measured, as ratios to the empty endpoint of the same run, with the targets beside them."""

import os
import platform
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import numpy as np

from benchmarks.databases import POSTGRESQL, SQLITE
from benchmarks.in_process import Listed
from benchmarks.listing import ListedOverHttp, Singles
from benchmarks.reviewing import Wide
from benchmarks.serving import COMMIT, EMPTY, OURS, Measured, Round

_BEGIN: Final = "<!-- measured: begin -->"
_END: Final = "<!-- measured: end -->"
_LEAST_SAVED: Final = {SQLITE: 4.0, POSTGRESQL: 2.0}
_SERVING_HEAD: Final = (
    "server",
    "database",
    "workers",
    "requests/s",
    "p50 ms",
    "p99 ms",
    "CPU us/request",
    "CPU / empty",
    "commit CPU / this",
    "memory MB",
    "errors",
)


@dataclass(frozen=True, slots=True)
class Alone:
    """What was measured without a server; by database where that matters."""

    choices: float
    choices_held_out: float
    lists: dict[str, Listed]
    lists_over_http: dict[str, ListedOverHttp]
    weights_seconds: float
    review_seconds: dict[int, float]
    wide: Wide
    hierarchy_seconds: float


@dataclass(frozen=True, slots=True)
class Conditions:
    """How it was measured."""

    n_rounds: int
    seconds: float
    n_preloaded: int
    load_average: float

    def lines(self) -> Iterator[str]:
        """The conditions as sentences."""
        at = datetime.now(UTC).date().isoformat()
        n_cores = len(os.sched_getaffinity(0))
        python = f"Python {platform.python_version()}"
        yield f"Measured on {at}: {n_cores} cores, {python}, load average {self.load_average:.1f} before the start;"
        yield f"{self.n_rounds} rounds of {self.seconds:g} s for each server, 32 connections, every customer new;"
        yield f"{self.n_preloaded:,} decisions were in our databases before."


def document(turns: Sequence[Measured], alone: Alone, *, conditions: Conditions) -> str:
    """All of it in Markdown."""
    parts = ["\n".join(conditions.lines())]
    parts.append("Over HTTP: medians over the rounds (lowest-highest).\n\n" + _table(_SERVING_HEAD, _serving(turns)))
    rows = [*_alone(alone)]
    parts.append("In process, each in a fresh process.\n\n" + _table(("what", "measured"), rows))
    targets = [*_serving_targets(turns, n_preloaded=conditions.n_preloaded), *_alone_targets(alone)]
    parts.append("Targets.\n\n" + _table(("target", "measured", "met"), targets))
    return "\n\n".join(parts)


def store(path: Path, text: str) -> None:
    """Put the tables between the markers of a document."""
    before, _, rest = path.read_text(encoding="utf-8").partition(_BEGIN)
    after = rest.partition(_END)[2]
    path.write_text(f"{before}{_BEGIN}\n\n{text}\n\n{_END}{after}", encoding="utf-8")


def _serving(turns: Sequence[Measured]) -> Iterator[tuple[str, ...]]:
    for one in turns:
        errors = _errors(one)
        commit = _find(turns, COMMIT, database=one.contender.database, n_workers=one.contender.n_workers)
        is_ours = one.contender.name.startswith(OURS)
        yield (
            one.contender.name,
            one.contender.database or "-",
            str(one.contender.n_workers),
            _spread(one, lambda turn: turn.per_second),
            _spread(one, lambda turn: 1e3 * turn.p50, digits=1),
            _spread(one, lambda turn: 1e3 * turn.p99, digits=1),
            _spread(one, lambda turn: 1e6 * turn.cpu),
            f"{_to_empty(turns, one):.2f}",
            f"{_ratio(commit, one):.1f}" if is_ours and commit is not None else "-",
            f"{one.memory[0]:.0f}",
            errors or "0",
        )


def _alone(alone: Alone) -> Iterator[tuple[str, str]]:
    rule = "choices a second, one core (rule of 3 conditions, hash, propensity)"
    yield rule, f"{alone.choices:,.0f}"
    yield f"{rule}, with a holdout (a second hash and row)", f"{alone.choices_held_out:,.0f}"
    for kind, listed in alone.lists.items():
        rate, million = listed.n_rows / listed.seconds, 1e6 * listed.seconds / listed.n_rows
        yield f"list of {listed.n_rows:,}, {kind}: rows a second", f"{rate:,.0f} ({million:.0f} s a million)"
        yield "the same: peak memory of the process", f"{listed.memory:.0f} MB"
        single = f"{1e3 * listed.single_p99:.0f} ms, {listed.n_refused} refused"
        yield "the same: p99 of single decisions meanwhile", single
    for kind, sent in alone.lists_over_http.items():
        yield f"list of {sent.n_rows:,} as CSV over HTTP, {kind}: to the answer's end", f"{sent.seconds:.0f} s"
        memory = f"{sent.memory_before:.0f} MB, {sent.memory_peak:.0f} MB"
        yield "the same: memory of the web process before, and at most", memory
        yield "the same: single decisions over HTTP before", _singles(sent.alone)
        yield "the same: single decisions over HTTP meanwhile", _singles(sent.meanwhile)
    yield "weights of 10,000 segments of 5 variants", f"{alone.weights_seconds:.2f} s"
    for n_decisions, seconds in alone.review_seconds.items():
        yield f"a review at {n_decisions:,} decisions, SQLite: CPU time", f"{1e3 * seconds:.0f} ms"
    wide = "a review of 50 segments x 5 variants x 1,000 hourly tallies, SQLite: CPU time"
    yield f"{wide} of reading", f"{1e3 * alone.wide.read_seconds:.0f} ms"
    yield f"{wide} of all the rest", f"{1e3 * alone.wide.review_seconds:.0f} ms"
    yield "the hierarchy of 50 x 5 by Markov chains: wall time, imports included", f"{alone.hierarchy_seconds:.1f} s"


def _singles(singles: Singles) -> str:
    p50, p99 = (f"{1e3 * seconds:.0f} ms" for seconds in (singles.p50, singles.p99))
    return f"p50 {p50}, p99 {p99}, {singles.n_refused} of {singles.n_asked} refused"


def _serving_targets(turns: Sequence[Measured], *, n_preloaded: int) -> Iterator[tuple[str, str, str]]:
    where = "" if n_preloaded >= 10_000_000 else f" at {n_preloaded:,} rows, not at 10 million"
    for kind, least in _LEAST_SAVED.items():
        ours, commit = _find(turns, OURS, database=kind, n_workers=1), _find(turns, COMMIT, database=kind, n_workers=1)
        if ours is None or commit is None:
            continue
        times, saved = _to_empty(turns, ours), _ratio(commit, ours)
        p99 = _median(ours, lambda turn: turn.p99)
        yield f"{kind}: at most 1.35 times the empty endpoint's CPU", f"{times:.2f}", _met(times <= 1.35) + where
        yield (
            f"{kind}: one SQLModel commit costs at least {least:g} times our CPU",
            f"{saved:.1f}",
            _met(saved >= least),
        )
        yield f"{kind}: p99 under 60 ms at 32 connections", f"{1e3 * p99:.0f} ms", _met(p99 < 0.06) + where
    memory = max(max(one.memory) for one in turns if one.contender.name.startswith(OURS))
    yield "a web worker under 150 MB", f"{memory:.0f} MB", _met(memory < 150.0)


def _alone_targets(alone: Alone) -> Iterator[tuple[str, str, str]]:
    yield "200,000 choices a second", f"{alone.choices:,.0f}", _met(alone.choices >= 200_000)
    for kind, listed in alone.lists.items():
        million = 1e6 * listed.seconds / listed.n_rows
        where = "" if listed.n_rows >= 1_000_000 else f", from {listed.n_rows:,} rows"
        yield f"{kind}: a list of a million in under 30 s", f"{million:.0f} s", _met(million < 30.0) + where
    yield "weights in under 5 s", f"{alone.weights_seconds:.2f} s", _met(alone.weights_seconds < 5.0)
    few, many = (alone.review_seconds[n] for n in sorted(alone.review_seconds))
    grown = many / few
    yield (
        "a review takes as long at 1,000,000 decisions as at 10,000 (1.5 times at most)",
        f"{grown:.2f}",
        _met(grown <= 1.5),
    )
    wide = alone.wide.read_seconds + alone.wide.review_seconds
    yield "a review of 50 x 5 x 1,000 tallies in under 100 ms", f"{1e3 * wide:.0f} ms", _met(wide < 0.1)
    took = alone.hierarchy_seconds
    yield "the hierarchy of 50 x 5 in under 20 s on two cores", f"{took:.1f} s", _met(took < 20.0)


def _find(turns: Sequence[Measured], name: str, *, database: str, n_workers: int) -> Measured | None:
    wanted = (name, database, n_workers)
    known = ((one.contender.name, one.contender.database, one.contender.n_workers) for one in turns)
    return next((one for one, key in zip(turns, known, strict=True) if key == wanted), None)


def _to_empty(turns: Sequence[Measured], one: Measured) -> float:
    empty = _find(turns, EMPTY, database="", n_workers=one.contender.n_workers)
    return float("nan") if empty is None else _ratio(one, empty)


def _ratio(top: Measured, bottom: Measured) -> float:
    """CPU a request over CPU a request: the median of the rounds' ratios, so that what slows a round slows both."""
    return float(np.median([a.cpu / b.cpu for a, b in zip(top.rounds, bottom.rounds, strict=True)]))


def _median(one: Measured, value: Callable[[Round], float]) -> float:
    return float(np.median([value(turn) for turn in one.rounds]))


def _spread(one: Measured, value: Callable[[Round], float], *, digits: int = 0) -> str:
    values = [value(turn) for turn in one.rounds]
    return f"{np.median(values):,.{digits}f} ({min(values):,.{digits}f}-{max(values):,.{digits}f})"


def _errors(one: Measured) -> str:
    kinds = sorted({kind for turn in one.rounds for kind in turn.errors})
    return ", ".join(f"{sum(turn.errors.get(kind, 0) for turn in one.rounds)} x {kind}" for kind in kinds)


def _met(is_met: bool) -> str:  # noqa: FBT001  # a word for a truth value
    return "met" if is_met else "NOT met"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]] | Iterator[tuple[str, ...]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
