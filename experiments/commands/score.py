"""``optimizer score``: what a stored model of uplift says of a list of customers."""

from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, cast

import click
import orjson

from experiments.catalog.definition_store import declared_attributes
from experiments.commands.files import beside, check_output, kind_of, pairs_of
from experiments.commands.progress import progress_bar
from experiments.commands.settings import opened, settings
from experiments.config import Config
from experiments.database import reading
from experiments.exports.files import Format, write_file
from experiments.lists.columns import Layout, sources_of
from experiments.lists.reading import read_table
from experiments.tables import Analysis
from experiments.uplift.score import Scoring, score_rows
from experiments.uplift.stored import load_scorer


@click.command("score")
@settings("max_list_bytes")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--analysis", "id_", required=True, help="The id of a finished study of uplift.")
@click.option("--map", "mapped", multiple=True, help="attr.NAME=COLUMN, such as attr.orders=Orders. Repeatable.")
@click.option("--attribute", "attributes", multiple=True, help="NAME=VALUE for all rows. Repeatable.")
@click.option(
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    help="The file to write, .csv or .parquet; by default FILE with .scored before its ending.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON.")
def score(
    config: Config,
    file: Path,
    *,
    id_: str,
    mapped: tuple[str, ...],
    attributes: tuple[str, ...],
    output: Path | None,
    as_json: bool,
) -> None:
    """Score every row of FILE (.csv, .ndjson, .parquet; .gz, .zst) with the model of a study of uplift.

    Rows keep their order and columns, and get the outcome predicted under control, each other variant's uplift, the
    variant with the highest net value and what it gains, and the leaf of the policy tree. Nothing is recorded. It needs
    no server. A bad row has its error in it.
    """
    target = output or _target(file)
    form = cast("Format", check_output(target, file=file, forms=("csv", "parquet")))
    layout = Layout(pairs_of("map", mapped), {f"attr.{k}": v for k, v in pairs_of("attribute", attributes).items()})
    with opened(config) as engine, reading(engine) as session:
        scorer = load_scorer(session, id_)
        result = session.get_one(Analysis, id_).result
        scoring = Scoring(scorer, result["leaves"], declared_attributes(session))
    kind, encoding = kind_of(file)
    counts = {"n_rows": 0, "n_failed": 0}
    unfinished = target.with_name(f".{target.name}.unfinished")
    with (
        closing(read_table(file, kind, encoding=encoding, max_bytes=config.max_list_bytes)) as table,
        progress_bar("Scoring", total=None) as advance,
    ):
        sources = sources_of(table, layout, fields=(), declared=scoring.declared, needed=())
        parts = _counted(score_rows(scoring, table, sources=sources), counts, advance=advance)
        write_file(unfinished, parts, columns=scoring.columns(table), form=form)
    unfinished.replace(target)
    if as_json:
        click.echo(orjson.dumps(counts | {"output": str(target)}).decode())
    else:
        failed = f"; {counts['n_failed']:,} rows have an error" if counts["n_failed"] else ""
        click.echo(f"{counts['n_rows']:,} rows scored in {target}{failed}")


def _counted(
    parts: Iterator[list[list[Any]]], counts: dict[str, int], *, advance: Callable[[int], None]
) -> Iterator[list[list[Any]]]:
    for part in parts:
        counts["n_rows"] += len(part)
        counts["n_failed"] += sum(row[-1] is not None for row in part)
        yield part
        advance(len(part))


def _target(file: Path) -> Path:
    target = beside(file, "scored")
    return target if kind_of(target)[0] == "parquet" else target.with_suffix(".csv")
