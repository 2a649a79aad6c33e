"""``optimizer import``: a past randomised campaign, as logged."""

from dataclasses import asdict, replace
from typing import Final

import click
import orjson

from experiments.campaigns.load import Imported, load
from experiments.campaigns.log import Campaign
from experiments.commands.campaign_options import CampaignFile, campaign_options
from experiments.commands.progress import progress_bar
from experiments.commands.settings import opened, settings
from experiments.config import Config
from experiments.database import migrate, transaction

_ACTOR = "import"
_DESIGNS: Final = {
    "equal": "The counts agree with equal shares; the sample ratio is checked against those.",
    "the same in every segment": "Shares were not equal, but alike in all segments. They are taken as meant: without a"
    " propensity column nothing can check them.",
    "by segment": "Shares differ between segments. They are taken as meant: without a propensity column nothing can"
    " check them.",
}


@click.command("import")
@settings()
@campaign_options
@click.option("--experiment", "key", required=True, help="Key of the experiment to make.")
@click.option("--placement", help="Its placement, made if it isn't there; else one of the experiment's key.")
@click.option(
    "--covariate",
    metavar="COLUMN",
    help="Column of numbers, or of true and false, known before the variant was chosen: it narrows intervals (CUPED).",
)
@click.option("--covariate-missing", type=float, help="What rows without a covariate count with; else 0.")
@click.option("--json", "as_json", is_flag=True, help="Say what was imported in JSON.")
def import_campaign(
    file: CampaignFile,
    config: Config,
    *,
    key: str,
    placement: str | None,
    covariate: str | None,
    covariate_missing: float | None,
    as_json: bool,
) -> None:
    """Import a past randomised campaign, as logged, from a CSV (plain, .gz, .zst) or Parquet file.

    It becomes a concluded experiment with decisions, outcomes and tallies, whose results can be read at once. All or
    nothing is imported. On SQLite other writers wait for it.
    """
    file = _with_covariate(file, covariate, missing=covariate_missing)
    imported = _load(config, file.read(), key=key, placement=placement or key)
    if as_json:
        click.echo(orjson.dumps(asdict(imported)).decode())
    else:
        _say(imported)


def _with_covariate(file: CampaignFile, covariate: str | None, *, missing: float | None) -> CampaignFile:
    if covariate is None and missing is not None:
        raise click.UsageError("--covariate-missing is said without --covariate")
    columns = replace(file.columns, covariate=covariate, covariate_missing=0.0 if missing is None else missing)
    return replace(file, columns=columns)


def _load(config: Config, campaign: Campaign, *, key: str, placement: str) -> Imported:
    with opened(config) as engine:
        migrate(engine)
        with (
            progress_bar("Importing", campaign.n_rows + campaign.n_outcomes) as progress,
            transaction(engine) as session,
        ):
            return load(session, campaign, key=key, placement=placement, actor=_ACTOR, progress=progress)


def _say(imported: Imported) -> None:
    click.echo(
        f"Imported {imported.n_rows:,} decisions and {imported.n_outcomes:,} outcomes as experiment"
        f" {imported.experiment!r} on placement {imported.placement!r}; propensities: {imported.basis}."
    )
    if imported.design is not None:
        click.echo(_DESIGNS[imported.design])
    for what, mapping in (("Variants", imported.variants), ("Segments", imported.segments)):
        renamed = [f"{value!r} is {key}" for value, key in mapping.items() if value != key]
        if renamed:
            click.echo(f"{what}: {'; '.join(renamed)}.")
    click.echo(f"Results: GET /v1/experiments/{imported.experiment}/results")
