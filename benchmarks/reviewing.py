"""How long reviews take: with few and with many decisions, with many segments, and the hierarchy of the same size."""

import time
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Final

import numpy as np
from sqlmodel import Session

from benchmarks import world
from experiments.catalog.definition_store import put_attribute, put_placement, put_segmentation
from experiments.catalog.experiment_store import put_experiment
from experiments.catalog.lifecycle import start
from experiments.database import database_now, migrate, open_engine, reading, transaction
from experiments.review import reading as reviewing
from experiments.review import results
from experiments.review.results import reviewed
from experiments.review.verdict import Rules
from experiments.tables import Experiment, Series
from experiments.tallies.moves import ResponseKey, Responses, TallyKey, Units, add_responses, add_units
from experiments.tallies.summing import sum_days

_N_HOURS: Final = 240
_VARIANTS: Final = ("a", "b", "c")
_REPEATS: Final = 9
_WIDE: Final = "wide"
_WIDE_SEGMENTS: Final = 50
_WIDE_VARIANTS: Final = ("a", "b", "c", "d", "e")
_WIDE_HOURS: Final = 1_000


def review_seconds(url: str, n_decisions: int) -> float:
    """CPU time of one experiment's results (best of 9) over ten days of hourly tallies that hold ``n_decisions``."""
    engine = open_engine(url)
    with transaction(engine) as session:
        _add_tallies(session, n_decisions)
    seconds = []
    for _ in range(_REPEATS):
        began = time.process_time()
        with reading(engine) as session:
            results(session, world.PLAIN)
        seconds.append(time.process_time() - began)
    engine.dispose()
    return min(seconds)


@dataclass(frozen=True, slots=True)
class Wide:
    """CPU time of a review of 50 segments x 5 variants x 1,000 hourly tallies: reading them, and all the rest."""

    read_seconds: float
    review_seconds: float


def wide_review(folder: Path) -> Wide:
    """Best of 9, on a SQLite file of its own, with days that are over summed."""
    engine = open_engine(f"sqlite:///{folder / 'wide.db'}")
    migrate(engine)
    with transaction(engine) as session:
        _start_wide(session)
        _add_hours(session, _WIDE, variants=_WIDE_VARIANTS, n_hours=_WIDE_HOURS, n_units=100)
        number = session.get_one(Experiment, _WIDE).series or 0
    sum_days(engine, number)  # as the background process has done by then
    can_win = np.ones(len(_WIDE_VARIANTS), dtype=np.bool_)
    reads, reviews = [], []
    for _ in range(_REPEATS):
        with reading(engine) as session:
            series = session.get_one(Series, session.get_one(Experiment, _WIDE).series)
            began = time.process_time()
            found = reviewing.read(session, series, metric=None, as_of=database_now(session))
            reads.append(time.process_time() - began)
        began = time.process_time()
        reviewed(found, rules=Rules(), available=can_win, depth="full")
        reviews.append(time.process_time() - began)
    engine.dispose()
    return Wide(min(reads), min(reviews))


def hierarchy_seconds() -> float:
    """Wall time of the hierarchy of 50 segments x 5 variants by Markov chains, imports and compiling included."""
    began = time.monotonic()
    from optimizer.partial_pooling import Responders, partial_pooling

    rng = np.random.default_rng(1)
    n_units = np.full((_WIDE_SEGMENTS, len(_WIDE_VARIANTS)), 2_000.0)
    rates = rng.beta(20, 180, (_WIDE_SEGMENTS, 1)) * (1.0 + rng.normal(0.0, 0.08, n_units.shape))
    seen = Responders(n_units=n_units, n_responders=rng.binomial(n_units.astype(np.int64), rates).astype(np.float64))
    partial_pooling(seen, control_index=0, seed=1)
    return time.monotonic() - began


def _start_wide(session: Session) -> None:
    put_attribute(session, "tier", payload={"type": "number"}, actor="bench")
    rules = [{"key": f"s{i}", "rule": {"attribute": "tier", "eq": i}} for i in range(1, _WIDE_SEGMENTS)]
    put_segmentation(session, _WIDE, payload={"segments": rules, "otherwise": "rest"}, actor="bench")
    default = {"key": "plain", "content": {"text": "Welcome!"}}
    placement = {"segmentation": _WIDE, "holdout": {"share": 0.0}, "default": default}
    put_placement(session, _WIDE, payload=placement, actor="bench")
    variants = [{"key": key, "content": {"text": key}, "is_control": key == "a"} for key in _WIDE_VARIANTS]
    put_experiment(session, _WIDE, payload={"placement": _WIDE, "goal": "click", "variants": variants}, actor="bench")
    start(session, _WIDE, actor="bench")


def _add_tallies(session: Session, n_decisions: int) -> None:
    number = session.get_one(Experiment, world.PLAIN).series or 0
    n_keys = len(session.get_one(Series, number).segments) * len(_VARIANTS) * _N_HOURS
    n_units = max(1, n_decisions // n_keys)
    _add_hours(session, world.PLAIN, variants=_VARIANTS, n_hours=_N_HOURS, n_units=n_units)


def _add_hours(session: Session, key: str, *, variants: tuple[str, ...], n_hours: int, n_units: int) -> None:
    """The same number of units, 4 % of them responding, in every hour, segment and variant."""
    connection = session.connection()
    number = session.get_one(Experiment, key).series or 0
    last_hour = int(database_now(session).timestamp() // 3_600)
    keys: list[TallyKey] = [
        (number, segment, 1, variant, last_hour - age)
        for segment in session.get_one(Series, number).segments
        for variant in variants
        for age in range(n_hours)
    ]
    add_units(connection, {key: Units(n_units, 0, n_units * 1_800) for key in keys}, shard=1)
    clicks = Decimal(round(0.04 * n_units))
    responses = Responses(int(clicks), clicks, clicks, clicks, clicks)
    clicked: dict[ResponseKey, Responses] = {(*key, "click"): responses for key in keys}
    add_responses(connection, clicked, shard=1)
