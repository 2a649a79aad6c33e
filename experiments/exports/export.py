"""export: what was decided, received or counted in a span of time, as a file that a warehouse loads."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from sqlalchemy import Engine
from sqlmodel import Session

from experiments.database import database_now, reading
from experiments.errors import ExportNotWritten, FieldError, InvalidInput
from experiments.exports.files import Columns, Format, Rows, write_file
from experiments.exports.rows import DECISION_COLUMNS, OUTCOME_COLUMNS, Span, decision_rows, outcome_rows
from experiments.exports.tallies import TALLY_COLUMNS, tally_rows

SETTLED: Final = timedelta(minutes=1)

_Read = Callable[[Session, Span], Iterator[Rows]]
_KINDS: Final[Mapping[str, tuple[Columns, _Read]]] = {
    "decisions": (DECISION_COLUMNS, decision_rows),
    "outcomes": (OUTCOME_COLUMNS, outcome_rows),
    "tallies": (TALLY_COLUMNS, tally_rows),
}
KINDS: Final = tuple(_KINDS)


@dataclass(frozen=True, slots=True)
class Exported:
    """What a file holds; ``until`` is the ``since`` of the next one, without a gap and without a row twice."""

    n_rows: int
    since: datetime | None
    until: datetime


def export(
    engine: Engine,
    kind: str,
    *,
    path: Path,
    form: Format,
    since: datetime | None = None,
    until: datetime | None = None,
) -> Exported:
    """Write a file of decisions (by ``decided_at``), outcomes (by ``received_at``) or tallies (by whole hour).

    Rows are read from one state of the database, up to a minute before now: what is younger may still wait in a
    worker's journal. The file appears under its name only when it is whole.

    Args:
        engine: Of the database.
        kind: One of ``KINDS``.
        path: Of the file; one that is there is replaced.
        form: Parquet or CSV.
        since: Rows from then on; by default from the beginning.
        until: Rows before then; by default, and at most, a minute before now.
    Raises:
        InvalidInput: ``since`` is in the future or after ``until``.
        ExportNotWritten: The file can't be written.
    """
    columns, rows = _KINDS[kind]
    with reading(engine) as session:
        span = _span(since, until, now=database_now(session))
        try:
            with TemporaryDirectory(prefix=".export-", dir=path.parent) as folder:
                unfinished = Path(folder) / path.name
                n_rows = write_file(unfinished, rows(session, span), columns=columns, form=form)
                unfinished.replace(path)
        except OSError as error:
            raise ExportNotWritten(error.strerror or type(error).__name__) from None
    return Exported(n_rows, span.since, span.until)


def _span(since: datetime | None, until: datetime | None, *, now: datetime) -> Span:
    if since is not None and since > now:
        raise InvalidInput([FieldError("/since", f"must not be in the future: {since.isoformat()}")])
    if since is not None and until is not None and since > until:
        raise InvalidInput([FieldError("/until", f"must not be before since: {until.isoformat()}")])
    settled = now - SETTLED
    end = settled if until is None else min(until, settled)
    return Span(since, end if since is None else max(end, since))  # a since of moments ago: nothing yet
