"""``optimizer decide``: a list of customers, decided from a file into a file."""

import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import click
import orjson

from experiments.commands.files import beside, check_output, kind_of, pairs_of
from experiments.commands.progress import progress_bar
from experiments.commands.settings import opened, settings
from experiments.config import Config
from experiments.decide import Decided
from experiments.errors import SnapshotMissing
from experiments.lists.columns import Layout, Sources, sources_of
from experiments.lists.deciding import FIELDS, Answered, Summary, ask_row, content_members, decide_rows
from experiments.lists.reading import Row, Table, read_table
from experiments.lists.writing import Writer, streamed, write_parquet
from experiments.send_plans.passes import Surroundings, Waiting, decide_with_winner
from experiments.worker import Worker

_SHARD = 0  # of the tallies, beside those of web processes


@click.command("decide")
@settings("max_list_bytes")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--placement", required=True, help="Where, for all rows.")
@click.option("--occasion", help="The occasion_id of all rows, such as the send's name.")
@click.option("--attribute", "attributes", multiple=True, help="NAME=VALUE for all rows. Repeatable.")
@click.option("--map", "mapped", multiple=True, help="FIELD=COLUMN, such as customer_id=Email or attr.orders=Orders.")
@click.option(
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    help="The file to write: .csv, .ndjson or .parquet; by default FILE with .decided before its ending.",
)
@click.option(
    "--wait", is_flag=True, help="Of a send plan: sleep until the winner is there, and decide those who wait."
)
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON.")
def decide(  # one for each option
    config: Config,
    file: Path,
    *,
    placement: str,
    occasion: str | None,
    attributes: tuple[str, ...],
    mapped: tuple[str, ...],
    output: Path | None,
    wait: bool,
    as_json: bool,
) -> None:
    """Decide for every row of FILE (.csv, .ndjson, .parquet; .gz, .zst), durably, and write rows with decisions.

    It needs no server. Rows keep their order and columns; a bad row has its error in it. Started again, it gives the
    same decisions. It exits with 1 if it did not reach the end.

    With --wait the output is written twice: at once, for the tested to be sent, and in the end for everyone. The
    background process has to run meanwhile, and what the tested do has to be reported.
    """
    constants = {f"attr.{name}": value for name, value in pairs_of("attribute", attributes).items()}
    if occasion is not None:
        constants["occasion_id"] = occasion
    target = output or beside(file, "decided")
    check_output(target, file=file)
    with opened(config):
        worker = Worker(config, shard=_SHARD)
        worker.start()
        try:
            job = _Job(worker, file, placement, Layout(pairs_of("map", mapped), constants), target)
            if wait:
                decide_with_winner(job.run, ask_again=job.ask_again, around=_AROUND)
            else:
                job.run()
        finally:
            worker.close()
    _say(job.summary, target, as_json=as_json)


@dataclass(slots=True)
class _Job:
    """A list to decide, once or again; ``summary`` is of the last time."""

    worker: Worker
    file: Path
    placement: str
    layout: Layout
    target: Path
    summary: Summary = field(default_factory=Summary)

    def run(self) -> Waiting:
        """Decide all of it and write all of the output."""
        form, encoding = kind_of(self.file)
        if self.worker.snapshots.current is None:
            raise SnapshotMissing
        declared, waiting = self.worker.snapshots.current.attributes, Waiting()
        most = self.worker.config.max_list_bytes
        with closing(read_table(self.file, form, encoding=encoding, max_bytes=most)) as table:
            sources = sources_of(table, self.layout, fields=FIELDS, declared=declared, needed=("customer_id",))
            self.summary = _decide(self, table, sources=sources, waiting=waiting)
        return waiting if self.summary.is_complete else Waiting()

    def ask_again(self, one: tuple[Row, Sources, bool]) -> Decided:
        """Decide for a row that waits."""
        row, sources, is_text = one
        decider = self.worker.decider
        asked = ask_row(decider, row, sources=sources, is_text=is_text)
        return decider.decide(asked, [self.placement])[0]


def _decide(job: _Job, table: Table, *, sources: Sources, waiting: Waiting) -> Summary:
    decider, is_text = job.worker.decider, table.is_text
    plan = decider.placement(job.placement)
    parts = decide_rows(decider, table.rows, placement=job.placement, sources=sources, is_text=is_text)
    writer, summary = Writer(table.columns, content_members(plan)), Summary()
    out, _ = kind_of(job.target)
    unfinished = job.target.with_name(f".{job.target.name}.unfinished")
    with progress_bar("Deciding", total=None) as advance:
        shown = _shown(parts, advance, see=lambda one: waiting.see(one.decided, (one.row, sources, is_text)))
        if out == "parquet":
            write_parquet(unfinished, shown, summary=summary, writer=writer)
        else:
            with unfinished.open("wb") as stream:
                stream.writelines(streamed(out, writer)(shown, summary))
    unfinished.replace(job.target)
    return summary


def _shown(
    parts: Iterator[list[Answered]], advance: Callable[[int], None], *, see: Callable[[Answered], None]
) -> Iterator[list[Answered]]:
    for answers in parts:
        for one in answers:
            see(one)
        yield answers
        advance(len(answers))


def _say(summary: Summary, target: Path, *, as_json: bool) -> None:
    if as_json:
        click.echo(orjson.dumps(summary.to_json() | {"output": str(target)}).decode())
    else:
        variants = ", ".join(f"{name}: {n:,}" for name, n in sorted(summary.by_variant.items()))
        waiting = f"; {summary.n_waiting:,} wait for the winner" if summary.n_waiting else ""
        failed = f"; {summary.n_failed:,} rows have an error" if summary.n_failed else ""
        click.echo(f"{summary.n_decided:,} decided ({variants}) in {target}{waiting}{failed}")
    if not summary.is_complete:
        said = (summary.error or {}).get("detail", "it ended early")
        raise click.ClickException(f"Not all rows were decided: {said} Run it again.")


def _tell(n_waiting: int, due: datetime) -> None:
    click.echo(f"The tested are written. {n_waiting:,} wait for the winner, due {due:%Y-%m-%d %H:%M:%S} UTC.", err=True)


_AROUND = Surroundings(now=lambda: datetime.now(UTC), sleep=time.sleep, tell=_tell)
