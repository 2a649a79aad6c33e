"""A past campaign for studies of uplift: who gains by which mail is known, and the log says it all."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from sqlalchemy import Engine
from sqlmodel import Session

from experiments.analyses.ask import ask_for
from experiments.analyses.runner import run_one
from experiments.campaigns.load import load
from experiments.campaigns.log import CampaignColumns, OutcomeColumn, read_campaign
from experiments.database import database_now, reading, transaction
from experiments.tables import Analysis

KEY = "mail"
START = datetime(2026, 1, 1, tzinfo=UTC)
COLUMNS = CampaignColumns(
    "mail",
    "none",
    (OutcomeColumn("visit"), OutcomeColumn("spend", "mean")),
    segment="channel",
    attributes=("age", "country", "member"),
    customer="customer",
    decided="decided",
)


def campaign_log(path: Path, *, n: int = 3_000, strength: float = 0.2, seed: int = 1) -> pl.DataFrame:
    """Three mails. Customers above 50 visit more often by mail a and less by mail b, the others the other way round.

    ``age`` is missing for a tenth, who do not care; spend is 10 for whoever visits.
    """
    rng = np.random.default_rng(seed)
    age, mail = rng.integers(18, 90, n), rng.integers(0, 3, n)
    known = rng.random(n) > 0.1
    side = np.where(known, np.where(age >= 50, 1.0, -1.0), 0.0)
    visit = rng.random(n) < 0.4 + strength * side * np.array([0.0, 1.0, -1.0])[mail]
    table = pl.DataFrame(
        {
            "customer": [f"c{at}" for at in range(n)],
            "decided": [(START + at * timedelta(minutes=1)).isoformat() for at in range(n)],
            "mail": np.array(["none", "a", "b"])[mail],
            "age": pl.Series(age).set(pl.Series(~known), None),
            "country": np.array(["DE", "AT", "CH"])[rng.integers(0, 3, n)],
            "member": rng.random(n) < 0.5,
            "channel": np.array(["web", "phone"])[rng.integers(0, 2, n)],
            "visit": visit.astype(int),
            "spend": 10 * visit.astype(int),
        }
    )
    table.write_csv(path)
    return table


def import_campaign(session: Session, path: Path) -> None:
    """Load a log as a concluded experiment."""
    load(session, read_campaign(path, COLUMNS, now=database_now(session)), key=KEY, placement=KEY, actor="test")


def analysed(engine: Engine, **request: Any) -> Analysis:
    """A study of uplift, asked for and run in this process."""
    with transaction(engine) as session:
        id_ = ask_for(session, KEY, request={"kind": "uplift", "seed": 1, "rounds": 10} | request, actor="test").id
    run_one(engine, holder=f"test {id_}", on_lost=lambda: None)
    with reading(engine) as session:
        return session.get_one(Analysis, id_)


def policies_of(result: Mapping[str, Any]) -> dict[str, Any]:
    """Policies by name."""
    return {one["policy"]: one for one in result["policies"]}
