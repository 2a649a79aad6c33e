"""Small builders of rows for tests of the write path: a series with metrics, decisions, outcomes."""

import os
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from sqlalchemy import Engine

from experiments.database import transaction
from experiments.decisions.hashing import UnitHash
from experiments.decisions.rows import DecisionRow
from experiments.outcomes.attribution import OutcomeRow
from experiments.series import PinnedMetric
from experiments.tables import Series

NOW = datetime(2026, 6, 1, 12, 30, 15, tzinfo=UTC)
DAY = timedelta(days=1)
SECRET = bytes(32)


def metric(key: str, **changes: Any) -> PinnedMetric:
    """A binary metric of the event of its own name, three days' window, a day's grace."""
    values = {
        "key": key,
        "version": 1,
        "event": key,
        "kind": "binary",
        "window": 3 * DAY,
        "grace": DAY,
        "higher_is_better": True,
        "cap": None,
        "currency": None,
    }
    return PinnedMetric(**(values | changes))  # type: ignore[arg-type]  # a test's shorthand


CLICK = metric("click")
REVENUE = metric("revenue", event="purchase", kind="mean", cap=Decimal(100), currency="EUR")
VISITS = metric("visits", event="visit", kind="count")


def add_series(engine: Engine, number: int, **changes: Any) -> int:
    """A customer series of placement ``hero`` with the three metrics above."""
    values: dict[str, Any] = {
        "kind": "experiment",
        "placement": "hero",
        "experiment": f"experiment-{number}",
        "unit": "customer",
        "segmentation": "everyone",
        "segmentation_version": 0,
        "segments": ["everyone"],
        "metrics": [one.to_json() for one in changes.pop("metrics", (CLICK, REVENUE, VISITS))],
        "opens_at": NOW - 30 * DAY,
        "created_at": NOW - 30 * DAY,
    }
    with transaction(engine) as session:
        session.add(Series(number=number, **(values | changes)))
    return number


def decision(series: int, customer: str, *, occasion: str | None = None, **changes: Any) -> DecisionRow:
    """A decision of a customer, by default for variant a, now."""
    unit = (customer,) if occasion is None else (customer, occasion)
    values: dict[str, Any] = {
        "id": UnitHash(SECRET, series)(*unit)[0],
        "customer_id": customer,
        "occasion_id": occasion,
        "segment": "everyone",
        "variant": "a",
        "allocation_version": 1,
        "propensity": 0.5,
        "decided_at": NOW,
    }
    return DecisionRow(**(values | changes))


def outcome(event: str, customer: str | None = None, *, value: str | None = None, **changes: Any) -> OutcomeRow:
    """An outcome an hour after the decision above, reported at once."""
    at = changes.pop("at", NOW + timedelta(hours=1))
    values: dict[str, Any] = {
        "id": os.urandom(16),
        "source": "test",
        "outcome_id": None,
        "decision_id": None,
        "customer_id": customer,
        "occasion_id": None,
        "event": event,
        "value": None if value is None else Decimal(value),
        "occurred_at": at,
        "received_at": at,
    }
    return OutcomeRow(**(values | changes))
