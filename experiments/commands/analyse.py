"""``optimizer analyse``: run queued analyses, where no background process does."""

import sys
import time
from collections.abc import Sequence
from contextlib import closing
from typing import Any, Final

import click
import orjson
from sqlalchemy import Engine

from experiments.analyses.analyst import Analyst, run
from experiments.analyses.kinds import KINDS
from experiments.analyses.queue import is_queued
from experiments.analyses.show import ended_by
from experiments.commands.settings import opened, settings
from experiments.commands.stopping import stopping
from experiments.config import Config
from experiments.database import reading

_LOOK_SECONDS: Final = 0.1


@click.command()
@settings("learn_seconds")
@click.option("--once", is_flag=True, help="All that is queued, then say what became of it.")
@click.option("--json", "as_json", is_flag=True, help="With --once: say it in JSON, without the results.")
def analyse(config: Config, *, once: bool, as_json: bool) -> None:
    """Run queued analyses, one after the other, each in a process of its own.

    The background process of serve and learn does this too; any number of processes may, also on other machines. With
    --once it exits with 1 where an analysis failed.
    """
    with opened(config) as engine:
        if not once:
            run(engine, every_seconds=config.learn_seconds, stop=stopping())
            return
        ended = _work_off(engine)
        with reading(engine) as session:
            is_left = is_queued(session, kinds=KINDS)
    _say(ended, as_json=as_json)
    if is_left:
        raise click.ClickException("An analysis is still queued: no process could be started for it.")
    if any(one["status"] == "failed" for one in ended):
        sys.exit(1)


def _work_off(engine: Engine) -> list[dict[str, Any]]:
    holders = set()
    with closing(Analyst(engine)) as analyst:
        while (holder := analyst.look()) is not None:
            holders.add(holder)
            time.sleep(_LOOK_SECONDS)
    with reading(engine) as session:
        return ended_by(session, holders)


def _say(ended: Sequence[dict[str, Any]], *, as_json: bool) -> None:
    if as_json:
        click.echo(orjson.dumps(ended, option=orjson.OPT_UTC_Z).decode())
        return
    for one in ended:
        outcome = "done" if one["error"] is None else f"failed ({one['error']['code']}): {one['error']['detail']}"
        click.echo(f"{one['id']} {one['kind']} of {one['experiment']}: {outcome}")
    if not ended:
        click.echo("Nothing was queued.")
