"""A file of rows as columns of text: CSV (plain, .gz or .zst) or Parquet. A row's number is 1 for the first of data."""

import csv
import gzip
import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from experiments.errors import UnreadableCampaign
from experiments.input.checks import shown

if TYPE_CHECKING:  # polars is slow to import, and only these commands need it
    import polars as pl

_PARQUET: Final = (".parquet", ".pq")


def read_columns(path: Path, names: Sequence[str]) -> "pl.DataFrame":
    """Columns of a file as text; an empty value is null.

    Args:
        path: The file; its name says which kind it is.
        names: Columns that must be there, each once.
    Raises:
        UnreadableCampaign: No such column, no row, or a row that can't be read.
    """
    import polars as pl

    try:
        frame = _read_parquet(path, names) if path.suffix.lower() in _PARQUET else _read_csv(path, names)
    except pl.exceptions.NoDataError:
        raise UnreadableCampaign(f"{path.name} is empty") from None
    except (pl.exceptions.PolarsError, OSError) as error:
        raise UnreadableCampaign(_why_unreadable(path, error)) from None
    if frame.height == 0:
        raise UnreadableCampaign(f"{path.name} has no rows")
    return frame.with_columns(pl.all().replace("", None))


def bad_value(column: str, *, row: int, value: str | None, must_be: str) -> UnreadableCampaign:
    """The error of one value; ``row`` counts from 0."""
    said = "is empty" if value is None else f"must be {must_be}, not {shown(value)}"
    return UnreadableCampaign(f"row {row + 1:,}: {column!r} {said}")


def refuse_first(column: "pl.Series", wrong: "pl.Series", *, must_be: str) -> None:
    """Raise for the first value of a column that is empty or marked as wrong; nothing if there is none."""
    found = (column.is_null() | wrong.fill_null(value=True)).arg_true()
    if len(found):
        row = int(found[0])
        raise bad_value(column.name, row=row, value=column[row], must_be=must_be)


def _read_csv(path: Path, names: Sequence[str]) -> "pl.DataFrame":
    import polars as pl

    _check_names(path, names, there=pl.read_csv(path, n_rows=0, infer_schema=False).columns)
    whole = pl.read_csv(path, infer_schema=False)  # reading some columns only, polars lets rows be too long
    return whole.select(names)


def _read_parquet(path: Path, names: Sequence[str]) -> "pl.DataFrame":
    import polars as pl

    schema = pl.read_parquet_schema(path)
    _check_names(path, names, there=list(schema))
    for name in names:
        if schema[name].is_nested():
            raise UnreadableCampaign(f"{name!r} holds {schema[name]}, not single values")
    moments = [name for name in names if isinstance(schema[name], pl.Datetime | pl.Date)]
    frame = pl.read_parquet(path, columns=list(names))
    return frame.with_columns(pl.col(moments).dt.to_string("iso:strict")).cast(pl.String)


def _check_names(path: Path, names: Sequence[str], *, there: Sequence[str]) -> None:
    for name in names:
        if name not in there:
            raise UnreadableCampaign(f"{path.name} has no column {name!r}; it has {', '.join(map(repr, there))}")


def _why_unreadable(path: Path, error: Exception) -> str:
    """The first row of a CSV that is no row of its table, or what the reader said of the file."""
    if path.suffix.lower() not in {*_PARQUET, ".zst"}:
        try:
            for row, n_fields, wanted in _ragged(path):
                return f"row {row:,} of {path.name} has {n_fields} values, not {wanted}"
        except (OSError, UnicodeDecodeError, csv.Error, EOFError) as reason:
            return f"{path.name} can't be read: {reason}"
    return f"{path.name} can't be read: {str(error).partition(chr(10))[0]}"


def _ragged(path: Path) -> Iterator[tuple[int, int, int]]:
    with path.open("rb") as raw:
        binary = gzip.GzipFile(fileobj=raw) if path.suffix.lower() == ".gz" else raw
        rows = csv.reader(io.TextIOWrapper(binary, encoding="utf-8", newline=""))
        wanted = len(next(rows, ()))
        for number, row in enumerate(rows, start=1):
            if len(row) > wanted:
                yield number, len(row), wanted
