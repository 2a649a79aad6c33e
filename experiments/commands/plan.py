"""``optimizer plan``: how many units an experiment needs, how many weeks that takes, and what it can see."""

from collections.abc import Mapping
from typing import Any, get_args

import click
import orjson

from experiments.commands.settings import opened, settings
from experiments.config import Config
from experiments.database import reading
from experiments.planning.plan import plan
from experiments.planning.requests import Looks

_NUMBERS = ("variants", "units_per_week", "smallest_effect", "power", "level", "looks", "weeks", "n_units")


@click.command(name="plan")
@click.option("--experiment", help="Plan this experiment, as it is defined.")
@click.option("--placement", help="Or a metric of this placement, from its past tallies.")
@click.option("--metric", help="Of the placement.")
@click.option("--segment", "segments", multiple=True, help="Only this one of its segments; may be said more than once.")
@click.option("--baseline", type=float, help="Or from this mean outcome of a unit; a rate, unless --sd is said.")
@click.option("--sd", type=float, help="Standard deviation of a unit's outcome.")
@click.option("--units-per-week", type=float, help="In each segment.")
@click.option("--variants", type=int, help="With the control.  [default: 2]")
@click.option("--smallest-effect", type=float, help="Relative, the least worth having.  [default: 0.01]")
@click.option("--power", type=float, help="Chance to see it.  [default: 0.8]")
@click.option("--level", type=float, help="Of the interval.  [default: 0.95]")
@click.option("--looks", type=click.Choice(get_args(Looks)), help="always: at any time; once: at the end.")
@click.option("--weeks", type=float, help="Say what so many weeks can show.  [default: 4]")
@click.option("--n-units", type=int, help="Say what so many units of a segment can show.")
@click.option("--json", "as_json", is_flag=True, help="Say it in JSON.")
@settings()
def plan_experiment(config: Config, /, *, as_json: bool, **flags: Any) -> None:
    """Say how many units and weeks an experiment needs, and what given weeks can show."""
    with opened(config) as engine, reading(engine) as session:
        said = plan(session, _request(flags))
    if as_json:
        click.echo(orjson.dumps(said).decode())
        return
    for row in said["segments"]:
        click.echo(_line(row))
    if len(said["segments"]) > 1:
        click.echo(said["says"])


def _request(flags: Mapping[str, Any]) -> dict[str, Any]:
    """What was said, as the HTTP door takes it."""
    names = ("experiment", "placement", "metric", *_NUMBERS)
    request = {name: flags[name] for name in names if flags[name] is not None}
    if flags["segments"]:
        request["segments"] = list(flags["segments"])
    if flags["baseline"] is not None or flags["sd"] is not None:
        baseline = {"mean": flags["baseline"], "sd": flags["sd"]}
        request["baseline"] = {name: value for name, value in baseline.items() if value is not None}
    return request


def _line(row: Mapping[str, Any]) -> str:
    said = [str(row["says"])]
    if row["n_units"] is not None and row["weeks"] is not None:
        said.append(f"{row['n_per_variant']:,} units of each variant, {row['n_units']:,} in all.")
    if (within := row["within"]) is not None:
        time = f"{within['n_units']:,.0f} units" if within["weeks"] is None else f"{within['weeks']:g} weeks"
        seen = within["smallest_effect"]
        shown = "no effect at all" if seen is None else f"an effect of {seen:.3g} of the mean"
        said.append(f"{time} can show {shown}.")
    return " ".join(said)
