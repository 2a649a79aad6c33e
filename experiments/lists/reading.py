"""Rows of a list, one after the other, in memory that does not grow with them; a bad row is an error in its place."""

import csv
import gzip
import io
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from typing import IO, Any, Final, Literal, cast

import orjson
import zstandard

from experiments.errors import ListUnreadable
from experiments.input.checks import shown

Form = Literal["csv", "ndjson", "parquet"]
FORMS: Final[tuple[Form, ...]] = ("csv", "ndjson", "parquet")
Encoding = Literal["identity", "gzip", "zstd"]

_LONGEST_ROW: Final = 1_000_000  # characters, or bytes of NDJSON
_DELIMITERS: Final = (",", ";", "\t", "|")
_PARQUET_SLICE: Final = 10_000
_ZSTD_WINDOW: Final = 1 << 27  # 128 MB: what zstd itself takes without being told


@dataclass(frozen=True, slots=True)
class Row:
    """A row: its place from 1 on, what it says by column (text, in CSV), or why it can't be read."""

    number: int
    values: dict[str, Any]
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Table:
    """A list that is being read; ``columns`` are known beforehand (of NDJSON, those of the first row)."""

    columns: tuple[str, ...]
    rows: Iterator[Row]
    is_text: bool


def read_table(path: Path, form: Form, *, encoding: Encoding, max_bytes: int) -> Table:
    """Open a list.

    Args:
        path: The file.
        form: What it holds.
        encoding: How it is compressed.
        max_bytes: Of what it holds when inflated.
    Raises:
        ListUnreadable: Now, or while rows are read: it is not what it says, or too long.
    """
    if form == "parquet":
        return _read_parquet(path)
    stream = _Bounded(_inflated(path, encoding), max_bytes)
    return _read_csv(stream) if form == "csv" else _read_ndjson(stream)


class _Bounded(io.RawIOBase):
    """A stream that ends with an error where it becomes too long, and says in our words what is wrong with it."""

    def __init__(self, stream: IO[bytes], max_bytes: int) -> None:
        self._stream = stream
        self._left = max_bytes

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:  # a writable buffer
        try:
            data = self._stream.read(len(buffer))
        except (OSError, EOFError, zlib.error, zstandard.ZstdError):
            raise ListUnreadable("it is not compressed as it says, or cut short") from None
        self._left -= len(data)
        if self._left < 0:
            raise ListUnreadable("it is too long when it is inflated")
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        if not self.closed:
            self._stream.close()
        super().close()


def _inflated(path: Path, encoding: Encoding) -> IO[bytes]:
    if encoding == "gzip":
        return cast("IO[bytes]", gzip.open(path))
    raw = path.open("rb")
    if encoding == "zstd":
        reader = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW).stream_reader(
            raw, closefd=True, read_across_frames=True
        )
        return cast("IO[bytes]", reader)
    return raw


# CSV.


def _read_csv(stream: _Bounded) -> Table:
    text = io.TextIOWrapper(io.BufferedReader(stream, 1 << 16), encoding="utf-8-sig", newline="")
    lines = _Lines(text)
    first = lines.peek()
    rows = csv.reader(lines, delimiter=_delimiter(first), strict=True)
    header = next(_csv_rows(rows, lines), None)
    if header is None:
        raise ListUnreadable("it is empty")
    columns = tuple(name.strip() for name in header)
    twice = sorted({name for name in columns if columns.count(name) > 1})
    if twice:
        raise ListUnreadable(f"it has the column {shown(twice[0])} twice")
    return Table(columns, _rows_of_csv(rows, lines, columns=columns), is_text=True)


class _Lines:
    """Lines of a text, none of which may be endless."""

    def __init__(self, text: io.TextIOWrapper) -> None:
        self._text = text
        self._peeked: str | None = None
        self.number = 0

    def __iter__(self) -> "_Lines":
        return self

    def __next__(self) -> str:
        line, self._peeked = (self._peeked, None) if self._peeked is not None else (self._read(), None)
        if not line:
            raise StopIteration
        self.number += 1
        return line

    def peek(self) -> str:
        """The first line, which is read again later."""
        self._peeked = self._read()
        return self._peeked

    def _read(self) -> str:
        try:
            line = self._text.readline(_LONGEST_ROW)
        except UnicodeDecodeError as error:
            raise ListUnreadable(f"line {self.number + 1} is no UTF-8 ({error.reason})") from None
        if len(line) >= _LONGEST_ROW and not line.endswith("\n"):
            raise ListUnreadable(f"line {self.number + 1} has {_LONGEST_ROW} characters or more")
        return line


def _delimiter(header: str) -> str:
    """What most often stands between the header's names: spreadsheets of some countries write semicolons."""
    outside = "".join(header.split('"')[::2])
    return max(_DELIMITERS, key=outside.count)


def _csv_rows(rows: Iterator[list[str]], lines: _Lines) -> Iterator[list[str]]:
    """Rows as the parser gives them; blank lines are none."""
    while True:
        try:
            row = next(rows)
        except StopIteration:
            return
        except csv.Error as error:
            raise ListUnreadable(f"line {lines.number} is no CSV ({error})") from None
        if row:
            yield row


def _rows_of_csv(rows: Iterator[list[str]], lines: _Lines, *, columns: Sequence[str]) -> Iterator[Row]:
    for number, values in enumerate(_csv_rows(rows, lines), start=1):
        said = dict(zip(columns, values, strict=False))
        wrong = None if len(values) == len(columns) else f"has {len(values)} values for {len(columns)} columns"
        yield Row(number, said, wrong)


# NDJSON.


def _read_ndjson(stream: _Bounded) -> Table:
    rows = _rows_of_ndjson(io.BufferedReader(stream, 1 << 16))
    first = next(rows, None)
    if first is None:
        return Table((), iter(()), is_text=False)
    return Table(tuple(first.values), _with_first(first, rows), is_text=False)


def _with_first(first: Row, rows: Iterator[Row]) -> Iterator[Row]:
    yield first
    yield from rows


def _rows_of_ndjson(lines: io.BufferedReader) -> Iterator[Row]:
    number = 0
    while line := lines.readline(_LONGEST_ROW):
        if len(line) >= _LONGEST_ROW and not line.endswith(b"\n"):
            raise ListUnreadable(f"row {number + 1} has {_LONGEST_ROW} bytes or more")
        if not line.strip():
            continue
        number += 1
        try:
            value = orjson.loads(line)
        except orjson.JSONDecodeError as error:
            yield Row(number, {}, f"is no JSON: {error.msg}")
            continue
        is_object = isinstance(value, dict)
        yield Row(number, value if is_object else {}, None if is_object else f"must be an object, not {shown(value)}")


# Parquet.


def _read_parquet(path: Path) -> Table:
    import polars as pl

    try:
        schema = pl.read_parquet_schema(path)
        n_rows = pl.scan_parquet(path).select(pl.len()).collect().item()
    except (pl.exceptions.PolarsError, OSError) as error:
        raise ListUnreadable(f"it is no Parquet ({type(error).__name__})") from None
    return Table(tuple(schema), _rows_of_parquet(path, n_rows), is_text=False)


def _rows_of_parquet(path: Path, n_rows: int) -> Iterator[Row]:
    import polars as pl

    for start in range(0, n_rows, _PARQUET_SLICE):
        try:
            part = pl.scan_parquet(path).slice(start, _PARQUET_SLICE).collect()
        except pl.exceptions.PolarsError as error:
            raise ListUnreadable(f"rows from {start + 1} on can't be read ({type(error).__name__})") from None
        for number, values in enumerate(part.iter_rows(named=True), start=start + 1):
            yield Row(number, {name: _json(value) for name, value in values.items()})


def _json(value: Any) -> Any:  # what Parquet holds, as JSON
    return value.isoformat() if isinstance(value, date | datetime) else value
