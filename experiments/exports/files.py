"""Rows as files, Parquet or CSV: one part at a time, so that memory does not grow with their number."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

if TYPE_CHECKING:  # polars is slow to import, and workers that only decide and record never need it
    import polars as pl

Format = Literal["parquet", "csv"]
Kind = Literal["text", "whole", "number", "flag", "time"]
Columns = Mapping[str, Kind]
Rows = Sequence[Sequence[Any]]  # each as long as there are columns; a time is aware UTC

FORMATS: Final[tuple[Format, ...]] = ("parquet", "csv")
_ROWS_IN_GROUP: Final = 25_000  # polars holds one or two groups in memory
_TIME: Final = "%Y-%m-%dT%H:%M:%S%.6fZ"


def write_file(path: Path, parts: Iterable[Rows], *, columns: Columns, form: Format) -> int:
    """Write rows to a file, whose columns are there even without a row; returns how many rows.

    Parquet keeps types: text, Int64, Float64, Boolean, Datetime in microseconds UTC. In CSV an absent value is empty,
    an empty text "", and times are ISO 8601.

    Raises:
        OSError: The file can't be written.
    """
    counted = _Counted(parts)
    if form == "csv":
        _write_csv(path, counted, columns=columns)
    else:
        _write_parquet(path, counted, columns=columns)
    return counted.n_rows


class _Counted:
    """Parts, counted as they pass, and the error that ended them: polars would put one of its own in its place."""

    def __init__(self, parts: Iterable[Rows]) -> None:
        self.n_rows = 0
        self.error: BaseException | None = None
        self._parts = parts

    def __iter__(self) -> Iterator[Rows]:
        try:
            for part in self._parts:
                self.n_rows += len(part)
                yield part
        except BaseException as error:
            self.error = error
            raise


def _write_csv(path: Path, parts: Iterable[Rows], *, columns: Columns) -> None:
    with path.open("wb") as file:
        _frame((), columns).write_csv(file)
        for part in parts:
            _frame(part, columns).write_csv(file, include_header=False, datetime_format=_TIME)


def _write_parquet(path: Path, parts: _Counted, *, columns: Columns) -> None:
    import polars as pl
    from polars.io.plugins import register_io_source

    def frames(
        _columns: list[str] | None, _predicate: pl.Expr | None, _n_rows: int | None, _size: int | None
    ) -> Iterator[pl.DataFrame]:
        return (_frame(part, columns) for part in parts)

    try:
        register_io_source(frames, schema=_schema(columns)).sink_parquet(path, row_group_size=_ROWS_IN_GROUP)
    except pl.exceptions.PolarsError:
        if parts.error is None:
            raise
        raise parts.error from None


def _frame(rows: Rows, columns: Columns) -> "pl.DataFrame":
    import polars as pl

    by_column = zip(*rows, strict=True) if rows else ((),) * len(columns)
    schema = _schema(columns)
    values = {name: pl.Series(name, one, schema[name]) for name, one in zip(columns, by_column, strict=True)}
    return pl.DataFrame(values)


def _schema(columns: Columns) -> "pl.Schema":
    import polars as pl

    types: Mapping[Kind, pl.DataType] = {
        "text": pl.String(),
        "whole": pl.Int64(),
        "number": pl.Float64(),
        "flag": pl.Boolean(),
        "time": pl.Datetime("us", "UTC"),
    }
    return pl.Schema({name: types[kind] for name, kind in columns.items()})
