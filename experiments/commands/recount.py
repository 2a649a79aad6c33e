"""``optimizer recount``: prove that the tallies equal what the raw rows give."""

import sys
from dataclasses import asdict
from functools import partial

import click
import orjson
from rich.console import Console
from rich.progress import Progress
from sqlalchemy import Engine

from experiments.commands.settings import opened, settings
from experiments.config import Config
from experiments.database import on_one_state, reading, transaction
from experiments.errors import SeriesNotFound
from experiments.tallies.recount import Recount, all_series, recount

_SHOWN = 20


@click.command(name="recount")
@settings()
@click.option("--series", type=int, multiple=True, help="Only this series; may be said more than once.")
@click.option("--mend", is_flag=True, help="Write what is right where something is wrong.")
@click.option("--json", "as_json", is_flag=True, help="Say it in JSON.")
def recount_tallies(config: Config, *, series: tuple[int, ...], mend: bool, as_json: bool) -> None:
    """Recount responses and tallies from raw rows, a series at a time; exits with 1 where they differ."""
    with opened(config) as engine:
        results = _recount(engine, series=series, mend=mend)
    _say(results, mend=mend, as_json=as_json)
    if any(result.differences for result in results) and not mend:
        sys.exit(1)


def _recount(engine: Engine, *, series: tuple[int, ...], mend: bool) -> list[Recount]:
    with reading(engine) as session:
        known = all_series(session)
    for number in series:
        if number not in known:
            raise SeriesNotFound(number)
    results = []
    with Progress(console=Console(stderr=True), disable=not sys.stderr.isatty()) as progress:
        for number in series or known:
            task = progress.add_task(f"series {number}", total=None)
            with transaction(on_one_state(engine)) if mend else reading(engine) as session:
                results.append(recount(session, number, mend=mend, progress=partial(progress.advance, task)))
    return results


def _say(results: list[Recount], *, mend: bool, as_json: bool) -> None:
    if as_json:
        said = [
            {
                "series": result.series,
                "n_decisions": result.n_decisions,
                "differences": [asdict(difference) for difference in result.differences],
            }
            for result in results
        ]
        click.echo(orjson.dumps({"series": said, "mended": mend}))
        return
    for result in results:
        n = len(result.differences)
        outcome = "tallies agree" if n == 0 else f"{n} rows {'mended' if mend else 'differ'}"
        click.echo(f"series {result.series}: {result.n_decisions} decisions, {outcome}")
        for one in result.differences[:_SHOWN]:
            click.echo(f"  {one.where}: stored {one.stored}, recounted {one.recounted}")
        if n > _SHOWN:
            click.echo(f"  and {n - _SHOWN} more (--json lists all)")
