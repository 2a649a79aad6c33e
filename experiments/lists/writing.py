"""Answers to a list: NDJSON or CSV as it goes, Parquet as a whole; the input's columns first, the summary last.

In CSV the summary is a last row whose ``error_code`` is ``summary``; in NDJSON the last object has it alone; of Parquet
it is told beside the file.
"""

import csv
import io
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, Literal

import orjson

from experiments.errors import ExperimentsError
from experiments.exports.files import Columns, write_file
from experiments.lists.deciding import Answered, Summary, cell
from experiments.lists.reading import Form

SUMMARY: Final = "summary"
_ANSWER: Final[Columns] = {
    "decision_id": "text",
    "segment": "text",
    "variant": "text",
    "deliver": "flag",
    "source": "text",
    "reason": "text",
    "propensity": "number",
    "allocation_version": "whole",
    "recorded": "flag",
    "decide_after": "time",
}
_ERROR: Final[Columns] = {"error_code": "text", "error_detail": "text"}
_MEMBERS: Final = (*_ANSWER, "experiment", "content")
_PREFIX: Final = "decided_"


class Writer:
    """Lays answers out as rows of a table.

    Attributes:
        columns: Those of the table: the input's, then ours; one of ours whose name is taken begins with ``decided_``.
    """

    def __init__(self, given: Sequence[str], members: Sequence[str]) -> None:
        self._given = tuple(given)
        self._members = tuple(members)
        content = [f"content.{name}" for name in members] or ["content"]
        ours: dict[str, Any] = {**_ANSWER, **dict.fromkeys(content, "text"), **_ERROR}
        named = {name: free_name(name, given) for name in ours}
        self.columns: Columns = {**dict.fromkeys(given, "text"), **{named[name]: kind for name, kind in ours.items()}}
        self._code = list(self.columns).index(named["error_code"])

    def row(self, answer: Answered) -> list[Any]:
        """One answer's cells."""
        decided, values = answer.decided, answer.row.values
        given = [as_text(values.get(name)) for name in self._given]
        if decided is None:
            nothing = [None] * (len(self.columns) - len(given) - 2)
            return [*given, *nothing, answer.code, answer.detail]
        content = decided.content
        shown = [cell(content.get(name)) for name in self._members] if self._members else [cell(content)]
        said = [getattr(decided, name) for name in _ANSWER]
        return [*given, *said, *map(as_text, shown), None, None]

    def summary(self, summary: Summary) -> list[Any]:
        """The last row of a CSV."""
        row: list[Any] = [None] * len(self.columns)
        row[self._code], row[self._code + 1] = SUMMARY, orjson.dumps(summary.to_json()).decode()
        return row


def free_name(name: str, given: Collection[str], *, prefix: str = _PREFIX) -> str:
    """A column's name that the list has not, with prefixes as long as it has."""
    while name in given:
        name = prefix + name
    return name


def as_text(value: Any) -> str | None:  # JSON
    """A value as a cell of text."""
    return value if value is None or isinstance(value, str) else orjson.dumps(value).decode()


Parts = Iterator[list[Answered]]


def as_ndjson(parts: Parts, summary: Summary) -> Iterator[bytes]:
    """Lines of JSON: each row's own members, then those of its decision, or its error."""
    for answers in _watched(parts, summary):
        yield b"".join(orjson.dumps(_object(one)) + b"\n" for one in answers)
    yield orjson.dumps({SUMMARY: summary.to_json()}) + b"\n"


def as_json(parts: Parts, summary: Summary) -> Iterator[bytes]:
    """One JSON object: the rows as ``decisions``, then the ``summary``."""
    yield b'{"decisions":['
    is_first = True
    for answers in _watched(parts, summary):
        rows = b",".join(orjson.dumps(_object(one)) for one in answers)
        yield rows if is_first else b"," + rows
        is_first = False
    yield b'],"summary":' + orjson.dumps(summary.to_json()) + b"}"


def _object(answer: Answered) -> dict[str, Any]:
    values = answer.row.values
    if answer.decided is None:
        said: dict[str, Any] = {
            "row": answer.row.number,
            "error": {"code": answer.code, "detail": answer.detail},
        }
    else:
        said = {name: getattr(answer.decided, name) for name in _MEMBERS}
    return values | {free_name(name, values): value for name, value in said.items()}


def as_csv(parts: Parts, summary: Summary, *, writer: Writer) -> Iterator[bytes]:
    """CSV with a header; text is as it came, so open what strangers wrote with care."""
    yield _csv_lines([list(writer.columns)])
    for answers in _watched(parts, summary):
        yield _csv_lines([writer.row(one) for one in answers])
    yield _csv_lines([writer.summary(summary)])


def _csv_lines(rows: list[list[Any]]) -> bytes:
    lines = io.StringIO()
    csv.writer(lines).writerows([[_csv_cell(value) for value in row] for row in rows])
    return lines.getvalue().encode()


def _csv_cell(value: Any) -> Any:
    return str(value).lower() if isinstance(value, bool) else value


def write_parquet(path: Path, parts: Parts, *, summary: Summary, writer: Writer) -> None:
    """Write a Parquet file; what ended a list early is in its summary."""
    rows = ([writer.row(one) for one in answers] for answers in _watched(parts, summary))
    write_file(path, rows, columns=writer.columns, form="parquet")


def _watched(parts: Parts, summary: Summary) -> Parts:
    """Parts, counted; what ends them early is noted, since a half list is still worth its rows."""
    try:
        for answers in parts:
            summary.count(answers)
            yield answers
    except ExperimentsError as error:
        summary.error = {"code": error.code, "detail": str(error)}
    else:
        summary.is_complete = True


Streamed = Callable[[Parts, Summary], Iterator[bytes]]


def streamed(form: Form | Literal["json"], writer: Writer) -> Streamed:
    """How answers are written as they come."""
    if form == "ndjson":
        return as_ndjson
    if form == "json":
        return as_json
    return lambda parts, summary: as_csv(parts, summary, writer=writer)
