"""Worlds for tests of learning: a running experiment, and units that were decided and have answered."""

import itertools
import os
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from sqlalchemy import Connection
from sqlmodel import Session

from experiments.catalog.definition_store import put_attribute, put_placement, put_segmentation
from experiments.catalog.experiment_store import put_experiment
from experiments.catalog.lifecycle import start
from experiments.decisions.rows import DecisionRow, write_decisions
from experiments.outcomes.attribution import OutcomeRow
from experiments.outcomes.rows import write_outcomes
from experiments.tables import Experiment

KEY = "subject-1"
SEGMENTS = ("vip", "everyone-else")
ACTOR = "test"


def start_experiment(session: Session, *, variants: Sequence[str] = ("a", "b"), **settings: Any) -> int:
    """Start an experiment over two segments; the first variant is the control. Returns its series' number."""
    put_attribute(session, "tier", payload={"type": "string"}, actor=ACTOR)
    vip = {"key": SEGMENTS[0], "rule": {"attribute": "tier", "eq": "vip"}}
    put_segmentation(session, "value", payload={"segments": [vip], "otherwise": SEGMENTS[1]}, actor=ACTOR)
    default = {"key": "plain", "content": {"text": "Welcome!"}}
    placement = {"segmentation": "value", "holdout": {"share": 0.0}, "default": default}
    put_placement(session, "hero", payload=placement, actor=ACTOR)
    definition = {
        "placement": "hero",
        "goal": "click",
        "burn_in": 0,
        "variants": [{"key": key, "content": {}, "is_control": key == variants[0]} for key in variants],
    }
    put_experiment(session, KEY, payload=definition | settings, actor=ACTOR)
    start(session, KEY, actor=ACTOR)
    number = session.get_one(Experiment, KEY).series
    assert number is not None
    return number


def observe(
    connection: Connection,
    series: int,
    *,
    variant: str,
    n_units: int,
    values: Sequence[str | None] = (),
    segment: str = SEGMENTS[0],
    version: int = 1,
    event: str = "click",
    at: datetime | None = None,
    after: timedelta = timedelta(minutes=1),
    shard: int = 1,
) -> None:
    """Let units of a variant be decided at a moment (now), the first of them answering with one value each."""
    decided_at = at or datetime.now(UTC)
    ids = [series.to_bytes(4, "big") + os.urandom(12) for _ in range(n_units)]
    write_decisions(
        connection,
        [DecisionRow(id_, id_.hex(), None, segment, variant, version, 0.5, decided_at) for id_ in ids],
        shard=shard,
    )
    answered = [
        OutcomeRow(
            id=os.urandom(16),
            source="test",
            outcome_id=None,
            decision_id=id_,
            customer_id=None,
            occasion_id=None,
            event=event,
            value=None if value is None else Decimal(value),
            occurred_at=decided_at + after,
            received_at=decided_at + after,
        )
        for id_, value in zip(ids, values, strict=False)
    ]
    if answered:
        assert set(write_outcomes(connection, answered, shard=shard)) == {"attributed"}


def clicks(n_responders: int) -> list[str | None]:
    """Values of as many clicks."""
    return list(itertools.repeat(None, n_responders))
