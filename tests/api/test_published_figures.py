"""Real campaigns, imported and read through the HTTP door: every figure of the data sets' own description."""

import os
from pathlib import Path
from typing import Any

import pytest
from statsmodels.stats.proportion import proportions_ztest

from experiments.campaigns.load import load
from experiments.campaigns.log import CampaignColumns, OutcomeColumn, read_campaign
from experiments.database import database_now, transaction
from experiments.worker import Worker
from tests.api.conftest import Client
from tests.repo.sources import ROOT

DATA = Path(os.environ.get("OPTIMIZER_TEST_DATA", ROOT.parent / "shared" / "data"))
MENS, WOMENS, NOBODY = "Mens-E-Mail", "Womens-E-Mail", "No-E-Mail"


def _imported(worker: Worker, name: str, *, columns: CampaignColumns, key: str) -> None:
    if not (DATA / name).exists():
        pytest.skip(f"{name} isn't in ../shared/data: public data is no part of this repository")
    with transaction(worker.engine) as session:
        campaign = read_campaign(DATA / name, columns, now=database_now(session))
        load(session, campaign, key=key, placement=key, actor="test")


def _results(client: Client, key: str, metric: str) -> dict[str, Any]:
    answer = client.get(f"/v1/experiments/{key}/results?metric={metric}")
    assert answer.status_code == 200, answer.text
    return dict(answer.get_json())


def _variants(review: dict[str, Any], segment: str | None = None) -> dict[str, dict[str, Any]]:
    rows = {row["segment"]: row for row in review["segments"]}
    row = review["overall"] if segment is None else rows[segment]
    return {variant["variant"]: variant for variant in row["variants"]}


def test_hillstroms_campaign_gives_its_published_figures(client: Client, worker: Worker) -> None:
    """64,000 customers in three groups; the segment's counts are from zcat and awk."""
    columns = CampaignColumns(
        "segment",
        "No E-Mail",
        (OutcomeColumn("visit"), OutcomeColumn("conversion"), OutcomeColumn("spend", "mean")),
        segment="history_segment",
        attributes=("recency", "mens", "womens", "zip_code", "newbie", "channel"),
        covariate="history",
    )
    _imported(worker, "hillstrom.csv.gz", columns=columns, key="hillstrom")
    reviews = {metric: _results(client, "hillstrom", metric) for metric in ("visit", "conversion", "spend")}
    visit, conversion, spend = (_variants(reviews[metric]) for metric in ("visit", "conversion", "spend"))
    assert [visit[key]["n_units"] for key in (MENS, WOMENS, NOBODY)] == [21_307, 21_387, 21_306]
    assert [f"{visit[key]['mean']:.3%}" for key in (MENS, WOMENS, NOBODY)] == ["18.276%", "15.140%", "10.617%"]
    assert [f"{visit[key]['uplift']['absolute']:.3%}" for key in (MENS, WOMENS)] == ["7.659%", "4.523%"]
    assert [f"{conversion[key]['uplift']['absolute']:.3%}" for key in (MENS, WOMENS)] == ["0.681%", "0.311%"]
    gained = [(spend[key]["uplift"]["absolute"], *spend[key]["uplift"]["interval"]) for key in (MENS, WOMENS)]
    assert [[f"{value:.3f}" for value in values] for values in gained] == [
        ["0.770", "0.485", "1.055"],
        ["0.424", "0.169", "0.680"],
    ]
    assert sum(variant["n_responders"] for variant in conversion.values()) == 578
    spent = sum(variant["mean"] * variant["n_units"] for variant in spend.values())
    assert f"{spent:.2f}" == "67258.13"
    assert f"{reviews['visit']['checks']['sample_ratio']['p_value']:.3f}" == "0.904"
    segment = _variants(reviews["visit"], "2-100-200")
    counted = {MENS: (751, 4_691), WOMENS: (631, 4_727), NOBODY: (440, 4_836)}
    assert {key: (one["n_responders"], one["n_units"]) for key, one in segment.items()} == counted
    assert {key: f"{one['mean']:.3%}" for key, one in segment.items()} == {
        key: f"{visits / n:.3%}" for key, (visits, n) in counted.items()
    }
    _history_foretells_nothing(reviews["spend"])


def _history_foretells_nothing(review: dict[str, Any]) -> None:
    """The description says corr(history, spend) = 0.022, so less than 0.05 % of the variance."""
    covariate = review["covariate"]
    assert covariate["variance_removed"] < 0.0006
    assert not covariate["is_used"]
    assert "less than 1%" in covariate["reason"]


@pytest.mark.timeout(300)
def test_cookie_cats_gives_its_published_figures(client: Client, worker: Worker) -> None:
    """90,189 players; a sample ratio of p = 0.0086 is a warning, no alarm."""
    if worker.engine.dialect.name == "postgresql":
        pytest.skip("170,000 outcomes are imported once, on SQLite: Hillstrom's are read from both")
    outcomes = (OutcomeColumn("retention_1"), OutcomeColumn("retention_7"), OutcomeColumn("sum_gamerounds", "mean"))
    columns = CampaignColumns("test_version", "gate_30", outcomes, customer="userid")
    _imported(worker, "cookie_cats.csv.gz", columns=columns, key="cats")
    reviews = {metric: _results(client, "cats", metric) for metric in ("retention_1", "retention_7", "sum_gamerounds")}
    gates = {metric: _variants(review) for metric, review in reviews.items()}
    assert [gates["retention_1"][key]["n_units"] for key in ("gate_30", "gate_40")] == [44_700, 45_489]
    for metric, shares in (("retention_1", ["44.82%", "44.23%"]), ("retention_7", ["19.02%", "18.20%"])):
        assert [f"{gates[metric][key]['mean']:.2%}" for key in ("gate_30", "gate_40")] == shares
    for metric, p_value in (("retention_1", "0.0744"), ("retention_7", "0.00155")):
        counts = [[gates[metric][key][name] for key in ("gate_30", "gate_40")] for name in ("n_responders", "n_units")]
        assert f"{proportions_ztest(*counts)[1]:.{len(p_value) - 2}f}" == p_value
        once = gates[metric]["gate_40"]["estimates"]["naive"]["p_value"]  # variances not pooled
        assert once == pytest.approx(float(p_value), rel=0.01)
    ratio = reviews["retention_7"]["checks"]["sample_ratio"]
    assert (f"{ratio['p_value']:.4f}", ratio["status"]) == ("0.0086", "warning")
    assert reviews["retention_7"]["overall"]["verdict"] != "broken"
    rounds = gates["sum_gamerounds"]["gate_30"]  # one player had 49,854 rounds, and is in gate_30
    assert rounds["interval"][0] < rounds["mean"] < rounds["interval"][1]
