"""Rows of a list, one after the other, in memory that does not grow with them; a bad row is an error in its place."""

import codecs
import csv
import gzip
import io
import re
import sys
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, time
from itertools import chain
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final, Literal, cast

import orjson

from experiments.input.checks import shown
from experiments.lists.errors import ListUnreadable

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

if TYPE_CHECKING:  # slow to import
    import polars as pl

Form = Literal["csv", "ndjson", "parquet"]
FORMS: Final[tuple[Form, ...]] = ("csv", "ndjson", "parquet")
Encoding = Literal["identity", "gzip", "zstd"]

_LONGEST_ROW: Final = 1_000_000  # characters, or bytes of NDJSON
_TOO_LONG_SECONDS: Final = 0.2  # single requests wait for 0.25 s at most
_FEWEST: Final = 100
_MOST_COLUMNS: Final = 1_000
_MOST_AT_ONCE: Final = 4_000_000  # characters of the rows that are in memory together
_DELIMITERS: Final = (",", ";", "\t", "|")
_PARQUET_SLICE: Final = 10_000
_PARQUET_TEXT: Final = 64_000_000  # bytes of text in so many rows
_LOOKED_AT: Final = 100  # rows of NDJSON, for the first that can be read
_NOT_UTF8: Final = re.compile("[\ud800-\udfff]")  # what stands for a byte that is none
_ZSTD_WINDOW_LOG: Final = 27  # 128 MB: what zstd itself takes without being told


@dataclass(frozen=True, slots=True)
class Row:
    """A row: its place from 1 on, what it says by column (text, in CSV), or why it can't be read; its rough size."""

    number: int
    values: dict[str, Any]
    error: str | None = None
    size: int = 0


@dataclass(frozen=True, slots=True)
class Table:
    """A list that is being read; ``columns`` are known beforehand (of NDJSON, those of the first row).

    ``is_text``: values are text; ``is_fixed``: all rows have these columns and no others; ``close``: lets the file go.
    """

    columns: tuple[str, ...]
    rows: Iterator[Row]
    is_text: bool
    is_fixed: bool = False
    close: Callable[[], None] = lambda: None


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
        return _read_parquet(path, max_bytes=max_bytes)
    stream = _Bounded(_inflated(path, encoding), max_bytes)
    try:
        table = _read_csv(stream) if form == "csv" else _read_ndjson(stream)
    except ListUnreadable:
        stream.close()
        raise
    return replace(table, close=stream.close)


@dataclass(slots=True)
class Pace:
    """How many rows go together: fewer while so many take longer than single requests should wait for them."""

    most: int
    n_rows: int = 0

    def __post_init__(self) -> None:
        self.n_rows = self.most

    def took(self, seconds: float) -> None:
        """How long the last rows took."""
        if seconds > _TOO_LONG_SECONDS:
            self.n_rows = max(self.n_rows // 2, min(_FEWEST, self.most))
        elif seconds < _TOO_LONG_SECONDS / 3:
            self.n_rows = min(self.n_rows * 2, self.most)


def in_parts(rows: Iterator[Row], pace: Pace) -> Iterator[list[Row]]:
    """Rows together, as many as the pace says, and fewer where they are long.

    Raises:
        ListUnreadable: The rest can't be read; what came before has been yielded.
    """
    part: list[Row] = []
    size = 0
    try:
        for row in rows:
            part.append(row)
            size += row.size
            if len(part) >= pace.n_rows or size >= _MOST_AT_ONCE:
                yield part
                part, size = [], 0
    except ListUnreadable:
        if part:
            yield part
        raise
    if part:
        yield part


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
        except (OSError, EOFError, zlib.error, zstd.ZstdError):
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
    if encoding == "zstd":
        options = {int(zstd.DecompressionParameter.window_log_max): _ZSTD_WINDOW_LOG}
        return cast("IO[bytes]", zstd.open(path, options=options))
    return path.open("rb")


# CSV.


def _read_csv(stream: _Bounded) -> Table:
    buffered = io.BufferedReader(stream, 1 << 16)
    if buffered.peek(2)[:2] in {b"\xff\xfe", b"\xfe\xff"}:
        raise ListUnreadable("it is UTF-16; save it as CSV in UTF-8")
    lines = _Lines(io.TextIOWrapper(buffered, encoding="utf-8-sig", errors="surrogateescape", newline=""))
    rows = csv.reader(lines, delimiter=_delimiter(lines.peek()), strict=True)
    header = next(_csv_rows(rows, lines), None)
    if header is None:
        raise ListUnreadable("it is empty")
    if header.error is not None:
        raise ListUnreadable(f"its header: {header.error}")
    columns = tuple(name.strip() or f"column_{number}" for number, name in enumerate(header.values, start=1))
    _check_columns(columns)
    return Table(columns, _rows_of_csv(rows, lines, columns=columns), is_text=True, is_fixed=True)


def _check_columns(columns: Sequence[str]) -> None:
    if len(columns) > _MOST_COLUMNS:
        raise ListUnreadable(f"it has {len(columns)} columns, {_MOST_COLUMNS} at most can be read")
    name, n_times = Counter(columns).most_common(1)[0] if columns else ("", 1)
    if n_times > 1:
        raise ListUnreadable(f"it has the column {shown(name)} twice")


class _Lines:
    """Lines of a text, of which a row's may not be endless; ``fault`` says what is wrong with one of its lines."""

    def __init__(self, text: io.TextIOWrapper) -> None:
        self._text = text
        self._peeked: str | None = None
        self.number = 0
        self.size = 0
        self.fault: str | None = None

    def __iter__(self) -> "_Lines":
        return self

    def __next__(self) -> str:
        line, self._peeked = (self._peeked, None) if self._peeked is not None else (self._read(), None)
        if not line:
            raise StopIteration
        self.number += 1
        self.size += len(line)
        if self.size >= _LONGEST_ROW:
            raise ListUnreadable(f"the row that ends in line {self.number} has {_LONGEST_ROW} characters or more")
        if not line.isascii() and _NOT_UTF8.search(line):
            self.fault = f"line {self.number} is no UTF-8"
            return line.encode(errors="surrogateescape").decode(errors="replace")
        return line

    def begin_row(self) -> None:
        """What is read now belongs to another row."""
        self.size, self.fault = 0, None

    def peek(self) -> str:
        """The first line, which is read again later."""
        self._peeked = self._read()
        return self._peeked

    def _read(self) -> str:
        return self._text.readline(_LONGEST_ROW)


def _delimiter(header: str) -> str:
    """What most often stands between the header's names: spreadsheets of some countries write semicolons."""
    outside = "".join(header.split('"')[::2])
    return max(_DELIMITERS, key=outside.count)


@dataclass(frozen=True, slots=True)
class _CsvRow:
    values: list[str]
    error: str | None = None


def _csv_rows(rows: Iterator[list[str]], lines: _Lines) -> Iterator[_CsvRow]:
    """Rows as the parser gives them; blank lines are none, and what is no CSV harms its row alone."""
    while True:
        began = lines.number + 1
        lines.begin_row()
        try:
            values = next(rows)
        except StopIteration:
            return
        except csv.Error as error:
            where = f"line {began}" if lines.number == began else f"lines {began} to {lines.number}"
            if "unexpected end" in str(error) or "field limit" in str(error):
                raise ListUnreadable(f"{where}: a quote does not end") from None
            yield _CsvRow([], f"{where}: no CSV ({error})")
            continue
        if values or lines.fault:
            yield _CsvRow(values, lines.fault)


def _rows_of_csv(rows: Iterator[list[str]], lines: _Lines, *, columns: Sequence[str]) -> Iterator[Row]:
    n_columns = len(columns)
    for number, row in enumerate(_csv_rows(rows, lines), start=1):
        n_values, wrong = len(row.values), row.error
        if wrong is None and n_values != n_columns:
            wrong = f"has {n_values} values for {n_columns} columns (line {lines.number})"
        yield Row(number, dict(zip(columns, row.values, strict=False)), wrong, lines.size)


# NDJSON.


def _read_ndjson(stream: _Bounded) -> Table:
    rows = _rows_of_ndjson(io.BufferedReader(stream, 1 << 16))
    first: list[Row] = []
    for row in rows:  # the first that can be read says what columns there are
        first.append(row)
        if row.error is None or len(first) == _LOOKED_AT:
            break
    columns = tuple(first[-1].values)[:_MOST_COLUMNS] if first else ()
    return Table(columns, chain(first, rows), is_text=False)


def _rows_of_ndjson(lines: io.BufferedReader) -> Iterator[Row]:
    number = 0
    while line := lines.readline(_LONGEST_ROW):
        if len(line) >= _LONGEST_ROW and not line.endswith(b"\n"):
            raise ListUnreadable(f"row {number + 1} has {_LONGEST_ROW} bytes or more")
        if not line.strip():
            continue
        number += 1
        yield _row_of_line(number, line.removeprefix(codecs.BOM_UTF8) if number == 1 else line)


def _row_of_line(number: int, line: bytes) -> Row:
    try:
        value = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        return Row(number, {}, f"is no JSON: {error.msg}", len(line))
    return row_of_json(number, value, size=len(line))


def row_of_json(number: int, value: Any, *, size: int = 0) -> Row:  # JSON
    """A row of what JSON held; one that can't be written again is an error, as is what is no object."""
    if not isinstance(value, dict):
        return Row(number, {}, f"must be an object, not {shown(value)}", size)
    try:
        orjson.dumps(value)  # it writes less deep than it reads
    except orjson.JSONEncodeError:
        return Row(number, {}, "is nested too deep", size)
    return Row(number, value, None, size)


# Parquet.


def _read_parquet(path: Path, *, max_bytes: int) -> Table:
    import polars as pl

    try:
        schema = pl.Schema(pl.read_parquet_schema(path))
        n_rows = pl.scan_parquet(path).select(pl.len()).collect().item()
    except (pl.exceptions.PolarsError, OSError) as error:
        raise ListUnreadable(f"it is no Parquet ({type(error).__name__})") from None
    _check_columns(tuple(schema))
    if n_rows * len(schema) > max_bytes:  # such a file may be tiny
        raise ListUnreadable(f"it has {n_rows} rows, which is too long")
    return Table(tuple(schema), _rows_of_parquet(path, schema, n_rows=n_rows), is_text=False, is_fixed=True)


def _rows_of_parquet(path: Path, schema: "pl.Schema", *, n_rows: int) -> Iterator[Row]:
    import polars as pl

    kept = {pl.String, pl.Boolean, pl.Float32, pl.Float64, pl.Categorical, pl.Enum}
    kept |= {pl.Int8, pl.Int16, pl.Int32, pl.Int64, pl.UInt8, pl.UInt16, pl.UInt32, pl.UInt64}  # what JSON can hold
    others = [name for name, kind in schema.items() if kind.base_type() not in kept]
    text = pl.sum_horizontal(pl.lit(0), pl.col(pl.String).str.len_bytes().sum(), pl.col(pl.Binary).bin.size().sum())
    for start in range(0, n_rows, _PARQUET_SLICE):
        try:
            part = pl.scan_parquet(path).slice(start, _PARQUET_SLICE).collect()
            size = part.select(text).item()
        except pl.exceptions.PolarsError as error:
            raise ListUnreadable(f"rows from {start + 1} on can't be read ({type(error).__name__})") from None
        if size > _PARQUET_TEXT:
            raise ListUnreadable(f"the {_PARQUET_SLICE} rows from {start + 1} on hold {size} bytes, which is too much")
        for number, values in enumerate(part.iter_rows(named=True), start=start + 1):
            yield Row(number, values | {name: _json_of(values[name]) for name in others})


def _json_of(value: Any) -> Any:  # what Parquet holds, as JSON
    """What JSON has no type for as text: times in ISO 8601, decimals and integers of 128 bits as written."""
    if isinstance(value, list | dict):
        try:
            return orjson.loads(orjson.dumps(value, default=_text_of))
        except orjson.JSONEncodeError:  # such an integer inside, or nested too deep
            return _text_of(value)
    return None if value is None else _text_of(value)


def _text_of(value: Any) -> str:
    if isinstance(value, date | datetime | time):
        return value.isoformat()
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)
