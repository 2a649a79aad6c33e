"""Worlds for tests of reviewing and promoting: a started experiment, its tallies written as sums, not unit by unit."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from sqlmodel import Session

from experiments.catalog.definition_store import put_attribute, put_metric, put_placement, put_segmentation
from experiments.catalog.experiment_store import put_experiment
from experiments.catalog.lifecycle import start
from experiments.learning.allocations import add_allocations
from experiments.tables import Experiment, Tally, TallyResponse
from experiments.tallies.moves import hour_of

KEY = "offer-1"
PLACEMENT = "hero"
ACTOR = "key/ann"
NOW = datetime.now(UTC)
LONG_AGO = NOW - timedelta(days=40)  # everything decided then has matured


def start_experiment(session: Session, *, segments: tuple[str, ...] = ("all",), **settings: Any) -> int:
    """Start an experiment of variants a (the control) and b over segments; returns its series' number.

    Metrics: visit (binary, the goal), spend (mean, EUR).
    """
    put_attribute(session, "tier", payload={"type": "string"}, actor=ACTOR)
    rules = [{"key": key, "rule": {"attribute": "tier", "eq": key}} for key in segments[:-1]]
    put_segmentation(session, "tiers", payload={"segments": rules, "otherwise": segments[-1]}, actor=ACTOR)
    default = {"key": "plain", "content": {"text": "Welcome!"}}
    placement = {"segmentation": "tiers", "holdout": {"share": 0.1}, "default": default}
    put_placement(session, PLACEMENT, payload=placement, actor=ACTOR)
    put_metric(session, "visit", payload={"event": "visit", "kind": "binary"}, actor=ACTOR)
    put_metric(session, "spend", payload={"event": "buy", "kind": "mean", "currency": "EUR"}, actor=ACTOR)
    put_metric(session, "complaint", payload={"event": "moan", "kind": "binary", "direction": "decrease"}, actor=ACTOR)
    keys = settings.pop("variants", ("a", "b"))
    costs = settings.pop("costs", {})
    definition = {
        "placement": PLACEMENT,
        "goal": "visit",
        "metrics": ["spend", "complaint"],
        "variants": [
            {"key": key, "content": {"text": key}, "is_control": key == keys[0], "cost": costs.get(key)} for key in keys
        ],
    }
    put_experiment(session, settings.pop("key", KEY), payload=definition | settings, actor=ACTOR)
    start(session, KEY, actor=ACTOR)
    number = session.get_one(Experiment, KEY).series
    assert number is not None
    return number


def observe(
    session: Session,
    series: int,
    *,
    variant: str,
    n_units: int,
    visits: int = 0,
    segment: str = "all",
    version: int = 1,
    day: int = 0,
    metric: str = "visit",
    total: str | None = None,
    squares: str | None = None,
    since: datetime = LONG_AGO,
) -> None:
    """Count units of a variant on a day since long ago, of whom so many responded (with totals, for money)."""
    hour, _ = hour_of(since + timedelta(days=day))
    key: dict[str, Any] = {
        "series": series,
        "segment": segment,
        "allocation_version": version,
        "variant": variant,
        "hour": hour,
    }
    if session.get(Tally, key | {"shard": 1}) is None:
        session.add(Tally(**key, shard=1, n_units=n_units, n_lacking=0, decided_seconds=0))
    sums = Decimal(total or visits), Decimal(squares or visits)
    session.add(
        TallyResponse(
            **key,
            metric=metric,
            shard=1,
            n_responders=visits,
            total=sums[0],
            total_squares=sums[1],
            capped_total=sums[0],
            capped_squares=sums[1],
        )
    )
    session.flush()


def two_weeks(session: Session, series: int, *, rates: Mapping[str, float], n_units: int, segment: str = "all") -> None:
    """Fourteen days of equal weights, every day alike: ``n_units`` of each variant a day."""
    for day in range(14):
        for variant, rate in rates.items():
            visits = round(rate * n_units)
            observe(session, series, variant=variant, n_units=n_units, visits=visits, segment=segment, day=day)


def reweigh(session: Session, series: int, *, weights: Mapping[str, float], segment: str = "all") -> None:
    """Write the next allocation version of a segment."""
    add_allocations(session, series, weights={segment: weights}, reason="test", now=NOW)


def row_of(answer: Mapping[str, Any], segment: str) -> dict[str, Any]:
    """The row of a segment of results."""
    found: dict[str, Any] = next(row for row in answer["segments"] if row["segment"] == segment)
    return found


def variant_of(row: Mapping[str, Any], key: str) -> dict[str, Any]:
    """A variant of a row of results."""
    found: dict[str, Any] = next(variant for variant in row["variants"] if variant["variant"] == key)
    return found
