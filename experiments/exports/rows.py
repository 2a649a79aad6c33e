"""Decisions and outcomes as rows of an export: one consistent state of the database, read in parts."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import orjson
from sqlalchemy import Connection, Select, Table, select
from sqlmodel import Session

from experiments.decisions.hashing import series_of
from experiments.exports.files import Columns, Rows
from experiments.tables import Decision, Outcome, Series

PART: Final = 5_000

_decision: Table = Decision.__table__  # type: ignore[attr-defined]  # SQLModel's type stub lacks it
_outcome: Table = Outcome.__table__  # type: ignore[attr-defined]
_series: Table = Series.__table__  # type: ignore[attr-defined]

SERIES_COLUMNS: Final[Columns] = {"series": "whole", "kind": "text", "placement": "text", "experiment": "text"}
DECISION_COLUMNS: Final[Columns] = {
    "decision_id": "text",
    **SERIES_COLUMNS,
    "customer_id": "text",
    "occasion_id": "text",
    "segment": "text",
    "variant": "text",
    "allocation_version": "whole",
    "propensity": "number",
    "decided_at": "time",
    "attributes": "text",
    "lacks_attribute": "flag",
    "late": "flag",
    "contradicted": "flag",
    "covariate": "number",
    "merged": "flag",
    "exposed_at": "time",
}
OUTCOME_COLUMNS: Final[Columns] = {
    "id": "text",
    "source": "text",
    "outcome_id": "text",
    "decision_id": "text",
    "customer_id": "text",
    "occasion_id": "text",
    "event": "text",
    "value": "text",
    "occurred_at": "time",
    "received_at": "time",
    "status": "text",
    "n_duplicates": "whole",
    "excluded_by": "whole",
    "placement": "text",
    "machine": "text",
}
_PLAIN_DECISION: Final = tuple(DECISION_COLUMNS)[5:]
_PLAIN_OUTCOME: Final = tuple(OUTCOME_COLUMNS)[1:]


@dataclass(frozen=True, slots=True)
class Span:
    """Times from ``since`` (or the beginning) until just before ``until``."""

    since: datetime | None
    until: datetime

    def of(self, query: Select[Any], column: Any) -> Select[Any]:
        """Those rows of a query whose column lies in the span."""
        query = query.where(column < self.until)
        return query if self.since is None else query.where(column >= self.since)


def decision_rows(session: Session, span: Span) -> Iterator[Rows]:
    """Decisions made in a span. Ids are hexadecimal, attributes JSON; ``covariate`` is null where none was captured."""
    connection = session.connection()
    series, c = series_of_all(connection), _decision.c
    at = _PLAIN_DECISION.index("attributes") + 1
    query = span.of(select(c.id, *(c[name] for name in _PLAIN_DECISION)), c.decided_at)
    for part in _parts(connection, query):
        yield [(row[0].hex(), *series[series_of(row[0])], *row[1:at], _json(row[at]), *row[at + 1 :]) for row in part]


def outcome_rows(session: Session, span: Span) -> Iterator[Rows]:
    """Outcomes received in a span. Ids are hexadecimal; a value is decimal text, so that no digit is lost."""
    c = _outcome.c
    query = span.of(select(c.id, *(c[name] for name in _PLAIN_OUTCOME)), c.received_at)
    for part in _parts(session.connection(), query):
        yield [
            (
                row.id.hex(),
                row.source,
                row.outcome_id,
                None if row.decision_id is None else row.decision_id.hex(),
                *row[4:7],
                None if row.value is None else format(row.value, "f"),
                *row[8:],
            )
            for row in part
        ]


def series_of_all(connection: Connection) -> Mapping[int, tuple[int, str, str, str | None]]:
    """Number, kind, placement and experiment of every series, by number."""
    c = _series.c
    rows = connection.execute(select(c.number, c.kind, c.placement, c.experiment))
    return {row[0]: (row[0], row[1], row[2], row[3]) for row in rows}


def _parts(connection: Connection, query: Select[Any]) -> Iterator[Any]:
    """The rows as they lie in the table, whole pages of it at a time: no index is kept for this."""
    return connection.execute(query.execution_options(yield_per=PART)).partitions()


def _json(attributes: Any) -> str | None:  # JSON
    return None if attributes is None else orjson.dumps(attributes).decode()
