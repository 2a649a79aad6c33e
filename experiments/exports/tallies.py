"""Tallies as rows of an export: one for each metric that a series measures, summed over writer shards."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from sqlalchemy import Connection, Select, Table, func, select, tuple_
from sqlmodel import Session

from experiments.exports.files import Columns, Rows
from experiments.exports.rows import SERIES_COLUMNS, Span, series_of_all
from experiments.series import read_series_metrics
from experiments.tables import Tally, TallyResponse
from experiments.tallies.moves import EXACT, Responses, hour_of

_tally: Table = Tally.__table__  # type: ignore[attr-defined]  # SQLModel's type stub lacks it
_response: Table = TallyResponse.__table__  # type: ignore[attr-defined]

TALLY_COLUMNS: Final[Columns] = {
    **SERIES_COLUMNS,
    "segment": "text",
    "allocation_version": "whole",
    "variant": "text",
    "hour": "time",
    "metric": "text",
    "n_units": "whole",
    "n_lacking": "whole",
    "n_responders": "whole",
    "total": "text",
    "total_squares": "text",
    "capped_total": "text",
    "capped_squares": "text",
}
PART: Final = 5_000
_KEY: Final = ("series", "segment", "allocation_version", "variant", "hour")
_SUMS: Final = tuple(Responses.__dataclass_fields__)
_HOUR_SECONDS: Final = 3_600
_NONE: Final = Responses()


def tally_rows(session: Session, span: Span) -> Iterator[Rows]:
    """Tallies of the whole hours of a span: from the one in which it begins, without the one in which it ends.

    Every tally has a row for each metric of its series, with zeros where nobody responded. Sums are decimal text.
    """
    connection = session.connection()
    series = series_of_all(connection)
    pinned = read_series_metrics(connection, list(series))
    metrics = {number: [metric.key for metric in found.metrics] for number, found in pinned.items()}
    for units in _units(connection, span):
        responses = _responses(connection, span, first=units[0][:5], last=units[-1][:5])
        yield [
            (
                *series[row[0]],
                *row[1:4],
                datetime.fromtimestamp(row[4] * _HOUR_SECONDS, UTC),
                metric,
                *map(int, row[5:]),  # PostgreSQL adds bigints to a numeric
                *_said(responses.get((*row[:5], metric), _NONE)),
            )
            for row in units
            for metric in metrics[row[0]]
        ]


def _units(connection: Connection, span: Span) -> Iterator[Sequence[Any]]:
    key = [_tally.c[name] for name in _KEY]
    sums = func.sum(_tally.c.n_units), func.sum(_tally.c.n_lacking)
    query = _hours(select(*key, *sums), _tally, span=span).group_by(*key).order_by(*key).limit(PART)
    rows = connection.execute(query).all()
    while rows:
        yield rows
        rows = connection.execute(query.where(tuple_(*key) > tuple(rows[-1][:5]))).all()


def _responses(
    connection: Connection, span: Span, *, first: Sequence[Any], last: Sequence[Any]
) -> Mapping[tuple[Any, ...], Responses]:
    """Responses below the tallies between two keys, exactly summed."""
    c = _response.c
    key = tuple_(*(c[name] for name in _KEY))
    query = select(*(c[name] for name in _KEY), c.metric, *(c[name] for name in _SUMS))
    query = _hours(query, _response, span=span).where(key >= tuple(first), key <= tuple(last))
    found: dict[tuple[Any, ...], Responses] = {}
    for record in connection.execute(query):
        row: tuple[Any, ...] = tuple(record)
        sums = found.setdefault(row[:6], Responses())
        sums.n_responders += row[6]
        for name, value in zip(_SUMS[1:], row[7:], strict=True):
            setattr(sums, name, EXACT.add(getattr(sums, name), value))
    return found


def _hours(query: Select[Any], table: Table, *, span: Span) -> Select[Any]:
    query = query.where(table.c.hour < hour_of(span.until)[0])
    return query if span.since is None else query.where(table.c.hour >= hour_of(span.since)[0])


def _said(sums: Responses) -> tuple[Any, ...]:
    return (sums.n_responders, *(format(getattr(sums, name), "f") for name in _SUMS[1:]))
