"""``optimizer export``: decisions, outcomes or tallies as a file for a warehouse."""

from datetime import datetime
from pathlib import Path

import click
import orjson

from experiments.commands.settings import opened, settings
from experiments.config import Config
from experiments.errors import FieldError, InvalidInput
from experiments.exports.export import KINDS, export
from experiments.exports.files import FORMATS, Format


@click.command("export")
@settings()
@click.argument("kind", type=click.Choice(KINDS))
@click.option("--since", help="Rows from then on, ISO 8601 with a time zone; by default from the beginning.")
@click.option("--until", help="Rows before then; by default, and at most, a minute before now.")
@click.option(
    "--output",
    required=True,
    type=click.Path(dir_okay=False, path_type=Path),
    help="The file, .parquet or .csv; it appears when it is whole, and replaces one that is there.",
)
@click.option("--json", "as_json", is_flag=True, help="Say it in JSON.")
def export_rows(
    config: Config, *, kind: str, since: str | None, until: str | None, output: Path, as_json: bool
) -> None:
    """Write decisions, outcomes or tallies to a file; what it prints as until is the --since of the next one.

    Decisions are chosen by when they were made, outcomes by when they were received, tallies by whole hours. Tallies of
    an hour go on changing until its units have matured: fetch them from that far back, and replace them by their key.
    """
    form, span = _form(output), {"since": _time("since", since), "until": _time("until", until)}
    with opened(config) as engine:
        exported = export(engine, kind, path=output, form=form, **span)
    if as_json:
        click.echo(orjson.dumps(exported, option=orjson.OPT_UTC_Z).decode())
    else:
        click.echo(f"{exported.n_rows:,} {kind} in {output}; until {exported.until.isoformat()}")


def _form(output: Path) -> Format:
    form = next((form for form in FORMATS if output.suffix.lower() == f".{form}"), None)
    if form is None:
        raise InvalidInput([FieldError("/output", f"must end in .parquet or .csv: {output.name}")])
    return form


def _time(name: str, said: str | None) -> datetime | None:
    if said is None:
        return None
    try:
        moment = datetime.fromisoformat(said)
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        raise InvalidInput(
            [FieldError(f"/{name}", f"must be a time with a zone, such as 2026-06-01T00:00:00Z: {said}")]
        )
    return moment
