"""``optimizer decide``: a list of customers, decided from a file into a file."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import orjson

from experiments.commands.progress import progress_bar
from experiments.commands.settings import opened, settings
from experiments.config import Config
from experiments.errors import FieldError, InvalidInput, SnapshotMissing
from experiments.lists.columns import Layout, sources_of
from experiments.lists.deciding import FIELDS, Answered, Summary, content_members, decide_rows
from experiments.lists.reading import Encoding, Form, Table, read_table
from experiments.lists.writing import Writer, streamed, write_parquet
from experiments.worker import Worker

_SHARD = 0  # of the tallies, beside those of web processes
_ENDINGS: dict[str, Form] = {".csv": "csv", ".ndjson": "ndjson", ".jsonl": "ndjson", ".parquet": "parquet"}
_PACKED: dict[str, Encoding] = {".gz": "gzip", ".zst": "zstd"}


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
    as_json: bool,
) -> None:
    """Decide for every row of FILE (.csv, .ndjson, .parquet; .gz, .zst), durably, and write rows with decisions.

    It needs no server. Rows keep their order and columns; a bad row has its error in it. Started again, it gives the
    same decisions. It exits with 1 if it did not reach the end.
    """
    constants = {f"attr.{name}": value for name, value in _pairs("attribute", attributes).items()}
    if occasion is not None:
        constants["occasion_id"] = occasion
    target, form, encoding = output or _beside(file), *_kind(file)
    table = read_table(file, form, encoding=encoding, max_bytes=config.max_list_bytes)
    with opened(config):
        worker = Worker(config, shard=_SHARD)
        worker.start()
        try:
            layout = Layout(_pairs("map", mapped), constants)
            summary = _decide(worker, table, placement=placement, layout=layout, target=target)
        finally:
            worker.close()
    _say(summary, target, as_json=as_json)


def _decide(worker: Worker, table: Table, *, placement: str, layout: Layout, target: Path) -> Summary:
    if worker.snapshots.current is None:
        raise SnapshotMissing
    declared = worker.snapshots.current.attributes
    plan = worker.decider.placement(placement)
    sources = sources_of(table, layout, fields=FIELDS, declared=declared, needed=("customer_id",))
    parts = decide_rows(worker.decider, table.rows, placement=placement, sources=sources, is_text=table.is_text)
    writer, summary = Writer(table.columns, content_members(plan)), Summary()
    out, _ = _kind(target)
    unfinished = target.with_name(f".{target.name}.unfinished")
    with progress_bar("Deciding", total=None) as advance:
        shown = _shown(parts, advance)
        if out == "parquet":
            write_parquet(unfinished, shown, summary=summary, writer=writer)
        else:
            with unfinished.open("wb") as stream:
                stream.writelines(streamed(out, writer)(shown, summary))
    unfinished.replace(target)
    return summary


def _shown(parts: Iterator[list[Answered]], advance: Any) -> Iterator[list[Answered]]:
    for answers in parts:
        yield answers
        advance(len(answers))


def _say(summary: Summary, target: Path, *, as_json: bool) -> None:
    if as_json:
        click.echo(orjson.dumps(summary.to_json() | {"output": str(target)}).decode())
    else:
        variants = ", ".join(f"{name}: {n:,}" for name, n in sorted(summary.by_variant.items()))
        failed = f"; {summary.n_failed:,} rows have an error" if summary.n_failed else ""
        click.echo(f"{summary.n_decided:,} decided ({variants}) in {target}{failed}")
    if not summary.is_complete:
        said = (summary.error or {}).get("detail", "it ended early")
        raise click.ClickException(f"Not all rows were decided: {said} Run it again.")


def _kind(path: Path) -> tuple[Form, Encoding]:
    endings = [ending.lower() for ending in path.suffixes[-2:]]
    encoding = _PACKED.get(endings[-1] if endings else "", "identity")
    if encoding != "identity":
        endings = endings[:-1]
    form = _ENDINGS.get(endings[-1] if endings else "")
    if form is None or (form == "parquet" and encoding != "identity"):
        raise InvalidInput([FieldError("/file", f"must end in {', '.join(_ENDINGS)}, not as {path.name}")])
    return form, encoding


def _beside(file: Path) -> Path:
    _, encoding = _kind(file)
    whole = file.with_suffix("") if encoding != "identity" else file
    return whole.with_suffix(f".decided{whole.suffix}")


def _pairs(name: str, given: tuple[str, ...]) -> dict[str, str]:
    pairs = [one.partition("=") for one in given]
    wrong = [FieldError(f"/{name}", f"must be NAME=VALUE, not {left}") for left, sign, _ in pairs if not sign]
    if wrong:
        raise InvalidInput(wrong)
    return {left: right for left, _, right in pairs}
