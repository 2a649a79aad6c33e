"""``optimizer learn``: the background process alone, or one pass of it."""

from dataclasses import asdict

import click
import orjson
from sqlalchemy import Engine

from experiments.background import Pass, let_go, run, work_once
from experiments.commands.settings import opened, settings
from experiments.commands.stopping import stopping
from experiments.config import Config
from experiments.learning.lease import holder_name


@click.command()
@settings("learn_seconds", "webhooks_private")
@click.option("--once", is_flag=True, help="One pass, then say what changed.")
@click.option("--json", "as_json", is_flag=True, help="With --once: say it in JSON.")
@click.option("--until-parent-exits", is_flag=True, help="End when standard input closes.")
def learn(config: Config, *, once: bool, as_json: bool, until_parent_exits: bool) -> None:
    """Learn from outcomes, again and again.

    Sweeps up outcomes that came before their decisions, pauses variants that guardrails find harmful, and shifts the
    weights of running experiments. On one database one process at a time does this; more of them wait for it to go.
    Without --once, webhooks are delivered, too.
    """
    with opened(config) as engine:
        if once:
            _say(_once(engine), as_json=as_json)
        else:
            run(
                engine,
                learn_seconds=config.learn_seconds,
                stop=stopping(until_parent_exits=until_parent_exits),
                webhooks_private=config.webhooks_private,
            )


def _once(engine: Engine) -> Pass:
    holder = holder_name()
    done = work_once(engine, holder=holder)
    if done is None:
        raise click.ClickException("Another process is learning on this database; it needs no second one.")
    let_go(engine, holder=holder)
    return done


def _say(done: Pass, *, as_json: bool) -> None:
    if as_json:
        click.echo(orjson.dumps(asdict(done)).decode())
        return
    learned = done.learned
    click.echo(
        f"{learned.n_allocations} new allocations in {learned.n_series} series; "
        f"{done.guarded.n_pauses} pauses by guardrails; {done.n_swept} waiting outcomes looked at again."
    )
