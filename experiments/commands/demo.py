"""``optimizer demo``: the whole loop on simulated customers, through the real server."""

import sys
from itertools import count
from pathlib import Path
from typing import Final

import click
import numpy as np
from rich.console import Console

from experiments.commands.progress import progress_bar
from experiments.config import read_config
from experiments.database import open_engine
from experiments.demo.client import Client
from experiments.demo.loop import Finished, define_and_start, review_and_promote, run_waves
from experiments.demo.report import show
from experiments.demo.server import is_ready, make_database, running_server
from experiments.demo.shop import Customer, customers
from experiments.errors import DemoFailed
from experiments.logs import configure_logs

N_CUSTOMERS: Final = 20_000
N_WAVES: Final = 10
_N_SPARE: Final = 50  # so many more, of whom the first of each segment come after the promotion


@click.command()
@click.option("--database", type=click.Path(path_type=Path), help="SQLite file to make; else demo-1.db, demo-2.db, ...")
@click.option("--seed", type=click.IntRange(min=0), default=2011, show_default=True, help="Of customers and choices.")
def demo(*, database: Path | None, seed: int) -> None:
    """Run the whole loop on a simulated shop whose truth is known.

    20,000 customers of 3 segments get one of 4 subject lines, decided and recorded over HTTP by the real server on a
    new database, in 10 waves with learning between them. What is proven then becomes policy.
    """
    configure_logs(read_config(log_level="warning"))
    path = _new_file(database)
    console = Console()
    console.print(
        f"A new database: {path}. The experiment's gates are set to min_days 0, so that a demo of a minute can end; the"
        " service's default is 7 days.",
        soft_wrap=True,
    )
    url = f"sqlite:///{path}"
    rng = np.random.default_rng(seed)
    key = make_database(url, secret=rng.bytes(32))
    shoppers = customers(N_CUSTOMERS + _N_SPARE, rng=rng)
    log = path.with_suffix(".log")
    try:
        with running_server(url, log=log) as port:
            show(console, _run(url, shoppers, port=port, key=key))
    except DemoFailed as error:
        raise click.ClickException(f"{error}\nThe server's log is {log}.") from None
    log.unlink()
    click.echo(f"\nIts key, which may do all: {key}\nTo open it again:\n\n  {_program()} serve --database-url {url}")


def _run(url: str, shoppers: list[Customer], *, port: int, key: str) -> Finished:
    known = shoppers[:N_CUSTOMERS]
    newcomers = {customer.segment: customer for customer in reversed(shoppers[N_CUSTOMERS:])}
    size = N_CUSTOMERS // N_WAVES
    waves = [known[start : start + size] for start in range(0, N_CUSTOMERS, size)]
    engine = open_engine(url)
    try:
        with Client(port, key=key) as client, progress_bar("Customers served", N_CUSTOMERS) as progress:
            define_and_start(client)
            n_decided = run_waves(client, engine, waves=waves, refresh=lambda: is_ready(port), progress=progress)
            return review_and_promote(client, n_decided=n_decided, newcomers=[newcomers[i] for i in sorted(newcomers)])
    finally:
        engine.dispose()


def _new_file(wanted: Path | None) -> Path:
    if wanted is not None:
        if wanted.exists():
            raise click.ClickException(f"{wanted} is there already; the demo makes a new file.")
        return wanted
    return next(path for n in count(1) if not (path := Path(f"demo-{n}.db")).exists())


def _program() -> str:
    """How this program is called from here."""
    program = Path(sys.executable).with_name("optimizer")
    return str(program.relative_to(Path.cwd()) if program.is_relative_to(Path.cwd()) else program)
