"""Tallies as rows of an export: one for each metric that a series measures, summed over writer shards."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final

from sqlalchemy import Connection, Select, Table, func, select, tuple_
from sqlmodel import Session

from experiments.exports.files import Columns, Rows
from experiments.exports.rows import SERIES_COLUMNS, Span, series_of_all
from experiments.series import PinnedMetric, read_series_metrics
from experiments.tables import Tally, TallyCovariate, TallyProduct, TallyResponse
from experiments.tallies.moves import EXACT, Covariates, Products, Responses, hour_of

_tally: Table = Tally.__table__  # type: ignore[attr-defined]  # SQLModel's type stub lacks it
_response: Table = TallyResponse.__table__  # type: ignore[attr-defined]
_covariate: Table = TallyCovariate.__table__  # type: ignore[attr-defined]
_product: Table = TallyProduct.__table__  # type: ignore[attr-defined]

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
    "denominator": "text",
    "denominator_squares": "text",
    "denominator_total": "text",
    "denominator_capped": "text",
    "covariate_missing": "whole",
    "covariate": "text",
    "covariate_squares": "text",
    "covariate_total": "text",
    "covariate_capped": "text",
    "covariate_denominator": "text",
}
PART: Final = 5_000
_KEY: Final = ("series", "segment", "allocation_version", "variant", "hour")
_HOUR_SECONDS: Final = 3_600
_Sums = tuple[Any, ...]
_RESPONSES: Final = tuple(Responses.__dataclass_fields__)
_COVARIATES: Final = tuple(Covariates.__dataclass_fields__)
_PRODUCTS: Final = tuple(Products.__dataclass_fields__)
_N_OF_RATIO: Final = 4  # products that only a ratio has; then two that each metric has with a covariate, one of both


def tally_rows(session: Session, span: Span) -> Iterator[Rows]:
    """Tallies of the whole hours of a span: from the one in which it begins, without the one in which it ends.

    Every tally has a row for each metric of its series, with zeros where nobody responded. Sums are decimal text; those
    of denominators are null unless the metric is a ratio, those of covariates where the series has none.
    """
    connection = session.connection()
    series = series_of_all(connection)
    pinned = read_series_metrics(connection, list(series))
    for units in _units(connection, span):
        below = _Below(connection, span, keys=(tuple(units[0][:5]), tuple(units[-1][:5])))
        yield [
            (
                *series[row[0]],
                *row[1:4],
                datetime.fromtimestamp(row[4] * _HOUR_SECONDS, UTC),
                metric.key,
                *map(int, row[5:]),  # PostgreSQL adds bigints to a numeric
                *below.said(tuple(row[:5]), metric=metric, has_covariate=pinned[row[0]].covariate is not None),
            )
            for row in units
            for metric in pinned[row[0]].metrics
        ]


class _Below:
    """What lies below and beside the tallies between two keys."""

    def __init__(self, connection: Connection, span: Span, *, keys: tuple[_Sums, _Sums]) -> None:
        self._responses = _summed(connection, span, table=_response, names=_RESPONSES, keys=keys)
        self._products = _summed(connection, span, table=_product, names=_PRODUCTS, keys=keys)
        self._covariates = _summed(connection, span, table=_covariate, names=_COVARIATES, keys=keys)

    def said(self, key: _Sums, *, metric: PinnedMetric, has_covariate: bool) -> _Sums:
        """The columns of a metric of a tally, in their order."""
        responses = self._responses.get((*key, metric.key), (0,) * len(_RESPONSES))
        products = self._products.get((*key, metric.key), (0,) * len(_PRODUCTS))
        covariates = self._covariates.get(key, (0,) * len(_COVARIATES))
        of_ratio, of_any, of_both = products[:_N_OF_RATIO], products[_N_OF_RATIO:-1], products[-1:]
        is_ratio = metric.kind == "ratio"
        return (
            responses[0],
            *map(_text, responses[1:]),
            *(_text(one) if is_ratio else None for one in of_ratio),
            covariates[0] if has_covariate else None,
            *(_text(one) if has_covariate else None for one in (*covariates[1:], *of_any)),
            *(_text(one) if has_covariate and is_ratio else None for one in of_both),
        )


def _units(connection: Connection, span: Span) -> Iterator[Sequence[Any]]:
    key = [_tally.c[name] for name in _KEY]
    sums = func.sum(_tally.c.n_units), func.sum(_tally.c.n_lacking)
    query = _hours(select(*key, *sums), _tally, span=span).group_by(*key).order_by(*key).limit(PART)
    rows = connection.execute(query).all()
    while rows:
        yield rows
        rows = connection.execute(query.where(tuple_(*key) > tuple(rows[-1][:5]))).all()


def _summed(
    connection: Connection, span: Span, *, table: Table, names: Sequence[str], keys: tuple[_Sums, _Sums]
) -> Mapping[_Sums, _Sums]:
    """The sums of the rows between two keys, exactly added over shards, by key (and metric)."""
    c = table.c
    key = [c[name] for name in _KEY]
    by = [*key, c.metric] if "metric" in c else key
    query = _hours(select(*by, *(c[name] for name in names)), table, span=span)
    query = query.where(tuple_(*key) >= keys[0], tuple_(*key) <= keys[1])
    found: dict[_Sums, _Sums] = {}
    for record in connection.execute(query):
        row: _Sums = tuple(record)
        of, sums = row[: len(by)], row[len(by) :]
        have = found.get(of)
        found[of] = sums if have is None else tuple(map(_plus, have, sums))
    return found


def _plus(left: Any, right: Any) -> Any:
    return EXACT.add(left, right) if isinstance(left, Decimal) else left + right


def _hours(query: Select[Any], table: Table, *, span: Span) -> Select[Any]:
    query = query.where(table.c.hour < hour_of(span.until)[0])
    return query if span.since is None else query.where(table.c.hour >= hour_of(span.since)[0])


def _text(number: int | Decimal) -> str:
    return format(number, "f") if isinstance(number, Decimal) else str(number)
