"""Importing a past campaign: what was logged stands in the database, and its results are the published ones."""

import os
import shutil
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine
from sqlmodel import Session, col, select

from experiments.campaigns.load import DECIDED_AT, Imported, load
from experiments.campaigns.log import CampaignColumns, OutcomeColumn, read_campaign
from experiments.catalog import definition_store
from experiments.database import open_engine, reading, transaction
from experiments.errors import ExperimentExists, InvalidDefinition, UnreadableCampaign
from experiments.review import results
from experiments.tables import Allocation, Decision, Definition, Experiment, Outcome, Response, Series
from experiments.tallies.read import read_tallies
from experiments.tallies.recount import recount
from tests.repo.sources import ROOT

NOW = datetime(2026, 1, 1, tzinfo=UTC)
LOG = """offer,tier,age,opened,orders,spent,p
None,low,31,0,0,0,0.5
A gift,low,,1,2,19.90,0.5
A gift,,44,0,0,-5,0.75
None,low,18,1,1,7.05,0.25
"""
COLUMNS = CampaignColumns(
    "offer",
    "None",
    (OutcomeColumn("opened"), OutcomeColumn("orders", "count"), OutcomeColumn("spent", "mean")),
    segment="tier",
    attributes=("age",),
    propensity="p",
)


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "log.csv"
    path.write_text(LOG)
    return path


def import_log(session: Session, path: Path, *, columns: CampaignColumns = COLUMNS, key: str = "gifts") -> Imported:
    return load(session, read_campaign(path, columns, now=NOW), key=key, placement=key, actor="test")


def test_every_row_is_a_decision_as_it_was_logged(session: Session, log: Path) -> None:
    import_log(session, log)
    rows = session.exec(select(Decision).order_by(Decision.customer_id)).all()
    assert [(row.customer_id, row.variant, row.segment, row.propensity) for row in rows] == [
        ("row-1", "None", "low", 0.5),
        ("row-2", "A-gift", "low", 0.5),
        ("row-3", "A-gift", "everyone-else", 0.75),
        ("row-4", "None", "low", 0.25),
    ]
    assert [row.attributes for row in rows] == [
        {"age": 31, "tier": "low"},
        {"tier": "low"},
        {"age": 44},
        {"age": 18, "tier": "low"},
    ]
    assert {row.decided_at for row in rows} == {DECIDED_AT}
    assert [row.lacks_attribute for row in rows] == [False, False, True, False]


def test_every_outcome_that_is_not_zero_counts_on_its_metric(session: Session, log: Path) -> None:
    imported = import_log(session, log)
    rows = session.exec(select(Response).join(Decision, col(Decision.id) == Response.decision_id)).all()
    found = sorted((row.metric, row.n_outcomes, row.total) for row in rows)
    money = [("spent", 1, Decimal(-5)), ("spent", 1, Decimal("7.05")), ("spent", 1, Decimal("19.90"))]
    assert found == [("opened", 1, 0), ("opened", 1, 0), ("orders", 1, 0), ("orders", 2, 0), *money]
    assert imported.n_outcomes == 8
    assert {row.status for row in session.exec(select(Outcome))} == {"attributed"}


def test_tallies_equal_a_recount_of_the_imported_rows(session: Session, log: Path) -> None:
    import_log(session, log)
    number = session.get_one(Experiment, "gifts").series
    assert number is not None
    again = recount(session, number)
    assert (again.n_decisions, again.differences) == (4, [])


def test_rows_of_other_propensities_belong_to_another_allocation_version(session: Session, log: Path) -> None:
    imported = import_log(session, log)
    rows = session.exec(select(Allocation).where(Allocation.reason == "imported: given propensities"))
    found = {(row.segment, row.version): row.weights for row in rows}
    assert found == {
        ("low", 1): {"None": 0.25, "A-gift": 0.75},
        ("low", 2): {"None": 0.5, "A-gift": 0.5},
        ("everyone-else", 1): {"None": 0.25, "A-gift": 0.75},
    }
    assert (imported.basis, imported.design, imported.n_versions) == ("given propensities", None, 3)


def test_the_experiment_is_concluded_and_lies_in_the_past(session: Session, log: Path) -> None:
    import_log(session, log)
    experiment = session.get_one(Experiment, "gifts")
    series = session.get_one(Series, experiment.series)
    assert experiment.status == "concluded"
    assert series.closes_at is not None
    assert series.opens_at <= DECIDED_AT < series.closes_at < NOW
    assert [variant["description"] for variant in experiment.body["variants"]] == ["None", "A gift"]


@pytest.mark.parametrize(("window_hours", "matured"), [(0.01, 1.0), (1.0, 0.0)])
def test_the_last_hour_of_a_closed_series_matures_a_window_after_its_end(
    session: Session, tmp_path: Path, window_hours: float, matured: float
) -> None:
    decided_at = datetime.now(UTC) - timedelta(minutes=3)
    path = tmp_path / "recent.csv"
    path.write_text(f"offer,opened,at\na,0,{decided_at.isoformat()}\nb,1,{decided_at.isoformat()}\n")
    metric = {"event": "opened", "kind": "binary", "window_hours": window_hours, "grace_hours": 0.0}
    definition_store.put_metric(session, "opened", payload=metric, actor="test")
    columns = CampaignColumns("offer", "a", (OutcomeColumn("opened"),), decided="at")
    load(session, read_campaign(path, columns, now=datetime.now(UTC)), key="recent", placement="recent", actor="test")
    assert results(session, "recent")["matured_share"] == matured


def test_a_column_may_be_the_covariate(session: Session, log: Path) -> None:
    """By hand: ages 31, none, 44 and 18, with 30 for none; 19.90 spent at no age, -5 at 44, 7.05 at 18."""
    columns = replace(COLUMNS, attributes=(), covariate="age", covariate_missing=30.0)
    import_log(session, log, columns=columns)
    series = session.exec(select(Series).where(Series.kind == "experiment")).one()
    assert series.covariate == {"attribute": "age", "missing": 30.0}
    decided = session.exec(select(Decision).order_by(Decision.customer_id)).all()
    assert [row.covariate for row in decided] == [31.0, None, 44.0, 18.0]
    tallies = read_tallies(session, series.number or 0, metric="spent")
    assert tallies.has_covariate
    assert [float(values.sum()) for values in (tallies.covariate_missing, tallies.covariate)] == [1.0, 123.0]
    assert float(tallies.covariate_squares.sum()) == 31**2 + 30**2 + 44**2 + 18**2
    assert float(tallies.covariate_total.sum()) == pytest.approx(30 * 19.9 - 44 * 5 + 18 * 7.05)
    assert recount(session, series.number or 0).differences == []


def test_true_and_false_may_be_the_covariate(session: Session, tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text("offer,member,opened\na,true,1\nb,false,0\na,,1\n")
    columns = CampaignColumns("offer", "a", (OutcomeColumn("opened"),), covariate="member")
    import_log(session, path, columns=columns)
    rows = session.exec(select(Decision).order_by(Decision.customer_id)).all()
    assert [row.covariate for row in rows] == [1.0, 0.0, None]
    assert [row.attributes for row in rows] == [{"member": True}, {"member": False}, None]


def test_a_covariate_without_numbers_is_refused(session: Session, log: Path) -> None:
    columns = replace(COLUMNS, segment=None, covariate="tier")
    with pytest.raises(UnreadableCampaign, match="the covariate 'tier' must hold numbers"):
        import_log(session, log, columns=columns)


@pytest.mark.parametrize("missing", [1e13, float("nan")])
def test_a_constant_that_cannot_be_is_refused(session: Session, log: Path, missing: float) -> None:
    with pytest.raises(InvalidDefinition) as refused:
        import_log(session, log, columns=replace(COLUMNS, covariate="age", covariate_missing=missing))
    assert [one.pointer for one in refused.value.fields] == ["/covariate/missing"]


def test_an_experiment_that_is_there_is_never_imported_over(session: Session, log: Path) -> None:
    import_log(session, log)
    with pytest.raises(ExperimentExists):
        import_log(session, log)


def test_attributes_that_are_declared_keep_their_type(session: Session, log: Path) -> None:
    definition_store.put_attribute(session, "age", payload={"type": "string"}, actor="test")
    import_log(session, log)
    row = session.exec(select(Decision).where(Decision.customer_id == "row-1")).one()
    assert row.attributes == {"age": "31", "tier": "low"}


def test_what_fails_on_its_way_leaves_nothing_behind(engine: Engine, log: Path) -> None:
    with transaction(engine) as session:
        definition_store.put_metric(session, "spent", payload={"event": "spent", "kind": "binary"}, actor="test")
    with (
        pytest.raises(UnreadableCampaign, match="there is a metric 'spent' already, a binary"),
        transaction(engine) as session,
    ):
        import_log(session, log)
    with reading(engine) as session:
        assert [row.key for row in session.exec(select(Definition))] == ["spent"]
        assert session.exec(select(Experiment)).all() == []


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"--segment-column": "teir"}, "Error: log.csv has no column 'teir'"),
        ({"--control": "Nobody"}, "Error: 'offer' has no value 'Nobody' for the control"),
        ({"--outcome": "spent"}, "Error: row 2: 'spent' must be 0 or 1, not '19.90'"),
        ({"--covariate": "agee"}, "Error: log.csv has no column 'agee'"),
    ],
)
def test_the_command_says_what_is_wrong_and_imports_nothing(
    sqlite_template: Path, tmp_path: Path, log: Path, changed: dict[str, str], said: str
) -> None:
    database = tmp_path / "empty.db"
    database.write_bytes(sqlite_template.read_bytes())
    options = {"--variant-column": "offer", "--control": "None", "--outcome": "opened", "--experiment": "gifts"}
    flags = [text for option in (options | changed).items() for text in option]
    command = [sys.executable, "-m", "experiments.cli", "import", str(log), *flags]
    found = subprocess.run(
        [*command, "--database-url", f"sqlite:///{database}"], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert found.returncode == 1
    assert found.stderr.startswith(said)
    assert found.stderr.count("\n") == 1
    assert database.read_bytes() == sqlite_template.read_bytes()


# Real campaigns: the figures are those of the data sets' own description.

DATA = Path(os.environ.get("OPTIMIZER_TEST_DATA", ROOT.parent / "shared" / "data"))


def data_file(name: str) -> Path:
    if not (DATA / name).exists():
        pytest.skip(f"{name} isn't in ../shared/data: public data is no part of this repository")
    return DATA / name


HILLSTROM = CampaignColumns(
    "segment",
    "No E-Mail",
    (OutcomeColumn("visit"), OutcomeColumn("conversion"), OutcomeColumn("spend", "mean")),
    segment="history_segment",
    attributes=("recency", "history", "mens", "womens", "zip_code", "newbie", "channel"),
)


def variants_of(review: dict[str, Any], segment: str | None = None) -> dict[str, dict[str, Any]]:
    rows = {row["segment"]: row for row in review["segments"]}
    row = review["overall"] if segment is None else rows[segment]
    return {variant["variant"]: variant for variant in row["variants"]}


def test_hillstroms_campaign_gives_its_published_figures_overall_and_by_segment(engine: Engine) -> None:
    """The segment's counts are from zcat and awk."""
    path = data_file("hillstrom.csv.gz")
    with transaction(engine) as session:
        imported = import_log(session, path, columns=HILLSTROM, key="hillstrom")
        shown = {metric: results(session, "hillstrom", metric=metric) for metric in ("visit", "conversion", "spend")}
    assert imported.n_rows == 64_000
    visit, conversion, spend = (variants_of(shown[metric]) for metric in ("visit", "conversion", "spend"))
    mens, womens, nobody = "Mens-E-Mail", "Womens-E-Mail", "No-E-Mail"
    assert [visit[key]["n_units"] for key in (mens, womens, nobody)] == [21_307, 21_387, 21_306]
    assert [f"{visit[key]['mean']:.3%}" for key in (mens, womens, nobody)] == ["18.276%", "15.140%", "10.617%"]
    assert [f"{visit[key]['uplift']['absolute']:.3%}" for key in (mens, womens)] == ["7.659%", "4.523%"]
    assert [f"{conversion[key]['uplift']['absolute']:.3%}" for key in (mens, womens)] == ["0.681%", "0.311%"]
    gained = [(spend[key]["uplift"]["absolute"], *spend[key]["uplift"]["interval"]) for key in (mens, womens)]
    assert [[f"{value:.3f}" for value in values] for values in gained] == [
        ["0.770", "0.485", "1.055"],
        ["0.424", "0.169", "0.680"],
    ]
    assert sum(variant["n_responders"] for variant in conversion.values()) == 578
    spent = sum(variant["mean"] * variant["n_units"] for variant in spend.values())
    assert f"{spent:.2f}" == "67258.13"
    assert f"{shown['visit']['checks']['sample_ratio']['p_value']:.3f}" == "0.904"
    segment = variants_of(shown["visit"], "2-100-200")
    counted = {mens: (751, 4_691), womens: (631, 4_727), nobody: (440, 4_836)}
    assert {key: (one["n_responders"], one["n_units"]) for key, one in segment.items()} == counted
    assert {key: f"{one['mean']:.3%}" for key, one in segment.items()} == {
        key: f"{visits / n:.3%}" for key, (visits, n) in counted.items()
    }


def test_cookie_cats_gives_its_published_figures(sqlite_template: Path, tmp_path: Path) -> None:
    path = data_file("cookie_cats.csv.gz")
    engine = open_engine(f"sqlite:///{shutil.copy(sqlite_template, tmp_path / 'cats.db')}")
    columns = CampaignColumns("test_version", "gate_30", (OutcomeColumn("retention_7"),), customer="userid")
    with transaction(engine) as session:
        import_log(session, path, columns=columns, key="cats")
        shown = results(session, "cats")
    engine.dispose()
    gates = variants_of(shown)
    assert [gates[key]["n_units"] for key in ("gate_30", "gate_40")] == [44_700, 45_489]
    assert [f"{gates[key]['mean']:.2%}" for key in ("gate_30", "gate_40")] == ["19.02%", "18.20%"]
    assert f"{shown['checks']['sample_ratio']['p_value']:.4f}" == "0.0086"
