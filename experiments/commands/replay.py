"""``optimizer replay``: the bandit run against a past campaign's log."""

from typing import Any, Literal

import click
import numpy as np
import orjson
from rich.console import Console
from rich.table import Table

from experiments.campaigns.log import Campaign
from experiments.campaigns.replay import Replayed, replay_campaign
from experiments.commands.campaign_options import CampaignFile, campaign_options
from experiments.commands.progress import progress_bar
from optimizer.replay import Estimate


@click.command("replay")
@campaign_options
@click.option("--experiment", help="What to call the replay.")
@click.option("--placement", hidden=True, help="Only import needs it; here it changes nothing.")
@click.option("--method", type=click.Choice(["thompson", "top_two"]), default="thompson", show_default=True)
@click.option("--seed", type=click.IntRange(min=0), required=True, help="Of the order of rows and of all choices.")
@click.option("--metric", help="The outcome to learn from; else the first.")
@click.option("--json", "as_json", is_flag=True, help="Say it in JSON.")
def replay_log(
    file: CampaignFile,
    *,
    experiment: str | None,
    placement: str | None,
    method: Literal["thompson", "top_two"],
    seed: int,
    metric: str | None,
    as_json: bool,
) -> None:
    """Run the bandit against the log of a past randomised campaign.

    It decides anew for each row, and only rows where it chooses what was logged count (Li, Chu, Langford and Wang 2011;
    rows of a log that is not uniform are first thinned out until it is). Nothing is stored.
    """
    del placement  # the options are those of import
    found = _replay(file.read(), method=method, seed=seed, metric=metric)
    if as_json:
        click.echo(orjson.dumps({"experiment": experiment, "method": method, "seed": seed} | _as_json(found)).decode())
    else:
        _say(found, title=" ".join(filter(None, (experiment, method))))


def _replay(campaign: Campaign, *, method: Literal["thompson", "top_two"], seed: int, metric: str | None) -> Replayed:
    with progress_bar("Replaying", campaign.n_rows) as advance:
        done = 0

        def progress(consumed: int) -> None:
            nonlocal done
            advance(consumed - done)
            done = consumed

        rng = np.random.default_rng(seed)
        found = replay_campaign(campaign, metric=metric, method=method, rng=rng, progress=progress)
        progress(campaign.n_rows)
    return found


def _as_json(found: Replayed) -> dict[str, Any]:
    replay = found.replay
    segments = [
        {
            "segment": segment,
            "variants": [
                {"variant": variant, "n_units": int(n), "weight": float(weight)}
                for variant, n, weight in zip(found.variants, chosen, weights, strict=True)
            ],
        }
        for segment, chosen, weights in zip(found.segments, replay.n_chosen, replay.final_weights, strict=True)
    ]
    return {
        "metric": found.metric,
        "n_rows": replay.n_rows,
        "n_accepted": replay.n_accepted,
        "n_matched": replay.n_matched,
        "policy": _estimate(replay.value),
        "equal_split": _estimate(replay.equal_split),
        "difference": _estimate(replay.difference),
        "segments": segments,
    }


def _estimate(estimate: Estimate) -> dict[str, Any]:
    return {
        "mean": estimate.mean,
        "standard_error": estimate.standard_error,
        "interval": [estimate.low, estimate.high],
    }


def _say(found: Replayed, *, title: str) -> None:
    replay = found.replay
    console = Console()
    console.print(
        f"{title}: {replay.n_rows:,} rows, {replay.n_accepted:,} left by rejection, {replay.n_matched:,} matched.",
        soft_wrap=True,
    )
    value = Table("", "mean", "95 % confidence interval", title=f"{found.metric} per unit")
    for name, estimate in (
        ("policy, its learning included", replay.value),
        ("equal split", replay.equal_split),
        ("difference", replay.difference),
    ):
        value.add_row(name, f"{estimate.mean:.5g}", f"{estimate.low:.5g} .. {estimate.high:.5g}")
    console.print(value)
    weights = Table("segment", *found.variants, title="final weights (matched units)")
    for segment, shares, n_units in zip(found.segments, replay.final_weights, replay.n_chosen, strict=True):
        cells = [f"{share:.3f} ({int(n):,})" for share, n in zip(shares, n_units, strict=True)]
        weights.add_row(segment, *cells)
    console.print(weights)
