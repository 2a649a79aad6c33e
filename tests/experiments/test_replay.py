"""The bandit against a past campaign's log: what it would have earned, and that it is told honestly."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import orjson
import pytest

from experiments.campaigns.log import Campaign, CampaignColumns, OutcomeColumn, read_campaign
from experiments.campaigns.replay import Replayed, replay_campaign
from experiments.errors import UnreadableCampaign
from optimizer.allocation import Method
from tests.experiments.test_campaign_log import NOW
from tests.repo.sources import ROOT

RATES = {"new": {"a": 0.1, "b": 0.2, "c": 0.4}, "old": {"a": 0.4, "b": 0.2, "c": 0.1}}
COLUMNS = CampaignColumns(
    "offer", "a", (OutcomeColumn("bought"), OutcomeColumn("spent", "mean")), segment="tier", propensity="p"
)


def write_log(folder: Path, *, shares: tuple[float, float, float], n_rows: int = 9_000) -> Path:
    """A campaign whose truth is ``RATES``, randomised with ``shares``; whoever buys spends 10 to 30."""
    rng = np.random.default_rng(11)
    lines = ["offer,tier,bought,spent,p"]
    for _ in range(n_rows):
        tier = "new" if rng.random() < 0.5 else "old"
        k = int(rng.choice(3, p=shares))
        bought = rng.random() < RATES[tier]["abc"[k]]
        lines.append(f"{'abc'[k]},{tier},{int(bought)},{rng.uniform(10, 30) if bought else 0:.2f},{shares[k]}")
    path = folder / "log.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


def campaign(folder: Path, *, shares: tuple[float, float, float] = (1 / 3, 1 / 3, 1 / 3)) -> Campaign:
    return read_campaign(write_log(folder, shares=shares), COLUMNS, now=NOW)


def replayed(log: Campaign, *, method: Method = "thompson", metric: str | None = None, seed: int = 5) -> Replayed:
    return replay_campaign(log, metric=metric, method=method, rng=np.random.default_rng(seed))


@pytest.mark.parametrize(("method", "least_share"), [("thompson", 0.9), ("top_two", 0.4)])
def test_the_bandit_finds_the_best_of_each_segment(tmp_path: Path, method: Method, least_share: float) -> None:
    found = replayed(campaign(tmp_path), method=method)
    best = [found.variants.index(max(RATES[segment], key=RATES[segment].__getitem__)) for segment in found.segments]
    assert all(found.replay.final_weights[i, k] > least_share for i, k in enumerate(best))
    assert found.replay.difference.low > 0.0


def test_the_equal_split_is_worth_the_mean_of_all_variants(tmp_path: Path) -> None:
    """False alarm: 1 in 10**4 (four standard errors)."""
    truth = np.mean([rate for rates in RATES.values() for rate in rates.values()])
    equal = replayed(campaign(tmp_path)).replay.equal_split
    assert abs(equal.mean - truth) < 4 * equal.standard_error


def test_a_log_that_is_not_uniform_is_thinned_out_until_it_is(tmp_path: Path) -> None:
    """False alarm: 1 in 10**4 (four standard errors)."""
    truth = np.mean([rate for rates in RATES.values() for rate in rates.values()])
    found = replayed(campaign(tmp_path, shares=(0.6, 0.2, 0.2))).replay
    assert found.n_accepted == pytest.approx(3 * 0.2 * found.n_rows, rel=0.05)
    assert abs(found.equal_split.mean - truth) < 4 * found.equal_split.standard_error


def test_money_is_learnt_from_as_well(tmp_path: Path) -> None:
    """The best variants sell to 40 % at 20 a piece on average: 8 each, against 14 / 3 by equal shares."""
    found = replayed(campaign(tmp_path), metric="spent")
    assert found.metric == "spent"
    assert found.replay.equal_split.low < 14 / 3 < found.replay.equal_split.high
    assert 14 / 3 < found.replay.value.mean < 8


def test_the_same_seed_gives_the_same_replay(tmp_path: Path) -> None:
    log = read_campaign(write_log(tmp_path, shares=(1 / 3, 1 / 3, 1 / 3), n_rows=2_000), COLUMNS, now=NOW)
    first, again, other = (replayed(log, seed=seed).replay.value for seed in (3, 3, 4))
    assert first == again
    assert first != other


def test_an_unknown_metric_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnreadableCampaign, match="there is no outcome 'clicks'"):
        replayed(campaign(tmp_path), metric="clicks")


def test_the_command_says_it_in_json(tmp_path: Path) -> None:
    path = write_log(tmp_path, shares=(1 / 3, 1 / 3, 1 / 3), n_rows=2_000)
    flags = ["--variant-column", "offer", "--control", "a", "--outcome", "bought", "--segment-column", "tier"]
    command = [sys.executable, "-m", "experiments.cli", "replay", str(path), *flags, "--seed", "1", "--json"]
    said = orjson.loads(subprocess.run(command, capture_output=True, check=True, cwd=ROOT).stdout)
    assert (said["metric"], said["n_rows"]) == ("bought", 2_000)
    assert said["policy"]["interval"][0] < said["policy"]["mean"] < said["policy"]["interval"][1]
    assert [row["segment"] for row in said["segments"]] == ["new", "old"]
    assert sum(one["weight"] for one in said["segments"][0]["variants"]) == pytest.approx(1.0)
