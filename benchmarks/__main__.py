"""``make bench``: one run, one document of tables."""

import os
import shutil
import signal
import sys
import tempfile
import warnings
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path
from types import FrameType
from typing import Final, TypeVar

import click

from benchmarks import databases, in_process, listing, reviewing, serving, world
from benchmarks.databases import POSTGRESQL, SQLITE, Databases
from benchmarks.processes import cores, on_core
from benchmarks.report import Alone, Conditions, document, store

Result = TypeVar("Result")
ROOT: Final = Path(__file__).parents[1]
DOCUMENT: Final = ROOT / "docs" / "benchmarks.md"
_SPAWN: Final = get_context("spawn")


@click.command()
@click.option(
    "--quick", is_flag=True, help="Under two minutes: fewer, shorter rounds and a list of 20,000; not stored."
)
@click.option("--preload", default=0.1, show_default=True, help="Millions of decisions that are there beforehand.")
def bench(*, quick: bool, preload: float) -> None:
    """Measure the service beside simpler ones, print the tables and (unless --quick) store them in docs/benchmarks.md.

    Needs Linux. Everything runs on this machine, in a new folder that is removed at the end.
    """
    if not sys.platform.startswith("linux"):
        raise click.ClickException("The benchmarks read CPU times from /proc, which only Linux has.")
    signal.signal(signal.SIGTERM, _exit)
    warnings.filterwarnings("ignore", message=".*XDG_RUNTIME_DIR")  # PostgreSQL's wheel asks for it
    n_rounds, seconds, n_listed = (2, 1.0, 20_000) if quick else (5, 3.0, 1_000_000)
    conditions = Conditions(n_rounds, seconds, int(preload * 1_000_000), os.getloadavg()[0])
    folder = Path(tempfile.mkdtemp(prefix=".bench-", dir=ROOT))  # not in memory, as a temporary folder may be
    try:
        with databases.databases(folder, n_preloaded=conditions.n_preloaded) as built:
            alone = _alone(built, n_listed=n_listed)
            turns = _serve(built, n_rounds=n_rounds, seconds=seconds)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    text = document(turns, alone, conditions=conditions)
    print(f"\n{text}")
    if not quick:
        store(DOCUMENT, text)


def _serve(built: Databases, *, n_rounds: int, seconds: float) -> list[serving.Measured]:
    print("Decisions over HTTP: starting the servers", flush=True)
    with on_core(cores()[1]):
        client = _SPAWN.Pool(1)
    with client:
        return serving.measure(built, client, n_rounds=n_rounds, seconds=seconds)


def _alone(built: Databases, *, n_listed: int) -> Alone:
    print("In process: choosing, weights, reviews", flush=True)
    sqlite = built.copy(SQLITE, "alone")
    choices, choices_held_out = (
        _fresh(in_process.choices_per_second, sqlite, placement) for placement in (world.PLAIN, world.HELD_OUT)
    )
    weights_seconds = _fresh(in_process.weights_seconds, 10_000, 5)
    review_seconds = {
        n: _fresh(reviewing.review_seconds, built.copy(SQLITE, f"reviewed_{n}"), n) for n in (10_000, 1_000_000)
    }
    wide = _fresh(reviewing.wide_review, built.folder)
    print("In process: the hierarchy", flush=True)
    hierarchy_seconds = _fresh(reviewing.hierarchy_seconds)
    lists = {}
    for kind in (SQLITE, POSTGRESQL):
        print(f"In process: a list of {n_listed:,} on {kind}", flush=True)
        lists[kind] = _fresh(in_process.decide_a_list, built.copy(kind, "listed"), n_listed)
    over_http = {}
    for kind in (SQLITE, POSTGRESQL):
        print(f"Over HTTP: a list of {n_listed:,} on {kind}", flush=True)
        over_http[kind] = listing.decide_over_http(built, kind, n_rows=n_listed)
    return Alone(choices, choices_held_out, lists, over_http, weights_seconds, review_seconds, wide, hierarchy_seconds)


def _fresh(work: Callable[..., Result], *arguments: object) -> Result:
    """The result of some work in a process of its own."""
    with _SPAWN.Pool(1) as pool:
        return pool.apply(work, arguments)


def _exit(_signal: int, _frame: FrameType | None) -> None:
    raise SystemExit(1)


if __name__ == "__main__":
    bench()
