"""Tallies: counts and exact sums by (series, segment, allocation version, variant, hour of decision), moved by deltas.

Writers add deltas in key order (so that two workers never wait for each other in a circle) to a shard of their own;
readers sum over shards. A tally always equals what a recount from raw rows gives. Changes of days that are over are
counted, for the sake of the sums that are kept of them (``days``).
"""

import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Context, Decimal
from functools import cache
from operator import itemgetter
from typing import Any

from sqlalchemy import Connection, Table
from sqlmodel import SQLModel

from experiments.column_types import ExactNumber, to_microseconds
from experiments.tables import (
    Tally,
    TallyAge,
    TallyChange,
    TallyCovariate,
    TallyExposure,
    TallyProduct,
    TallyResponse,
)

EXACT = Context(prec=1_000)  # enough for a sum of squares of any floats of at most 1e12; only digits used cost
MACHINES = "+machine"  # ends the key of what machines did for a metric; no key of a metric has a plus
HOURS_UNTIL_SUMMED = 6  # after a day's end; writers count its changes from the half on: clocks differ by less
_HOUR_MICROSECONDS = 3_600_000_000

TallyKey = tuple[int, str, int, str, int]  # series, segment, allocation version, variant, hour
ResponseKey = tuple[int, str, int, str, int, str]  # the same, and the metric
AgeKey = tuple[int, str, str, int, int]  # series, metric, variant, day, age bin
_TALLY = ("series", "segment", "allocation_version", "variant", "hour")
_AGE = ("series", "metric", "variant", "day", "age_bin")


@dataclass(slots=True)
class Units:
    """A change of one tally."""

    n_units: int = 0
    n_lacking: int = 0
    decided_seconds: int = 0


@dataclass(slots=True)
class Responses:
    """A change of one metric below a tally: unit totals and their squares, plain and capped."""

    n_responders: int = 0
    total: Decimal = Decimal(0)
    total_squares: Decimal = Decimal(0)
    capped_total: Decimal = Decimal(0)
    capped_squares: Decimal = Decimal(0)

    def add_unit(self, value: Decimal, *, responds: bool, cap: Decimal | None, sign: int) -> None:
        """Add (sign 1) or take away (sign -1) one unit's total."""
        capped = value if cap is None else min(value, cap)
        move = EXACT.add if sign > 0 else EXACT.subtract
        self.n_responders += sign * responds
        self.total = move(self.total, value)
        self.total_squares = move(self.total_squares, EXACT.multiply(value, value))
        self.capped_total = move(self.capped_total, capped)
        self.capped_squares = move(self.capped_squares, EXACT.multiply(capped, capped))


@dataclass(slots=True)
class Covariates:
    """A change of one tally's covariate: units without a value, and sums in which a constant stands for these."""

    n_missing: int = 0
    total: Decimal = Decimal(0)
    total_squares: Decimal = Decimal(0)

    def add_unit(self, value: Decimal, *, is_missing: bool, sign: int = 1) -> None:
        """Add (sign 1) or take away (sign -1) one unit."""
        move = EXACT.add if sign > 0 else EXACT.subtract
        self.n_missing += sign * is_missing
        self.total = move(self.total, value)
        self.total_squares = move(self.total_squares, EXACT.multiply(value, value))


@dataclass(slots=True)
class Exposures:
    """A change of one tally of units by the hour of their decision: all, and those that met their variant."""

    n_decided: int = 0
    n_exposed: int = 0


@dataclass(slots=True)
class Products:
    """A change of what ratios and covariates need of one metric below a tally: see ``TallyProduct``."""

    denominator: Decimal = Decimal(0)
    denominator_squares: Decimal = Decimal(0)
    denominator_total: Decimal = Decimal(0)
    denominator_capped: Decimal = Decimal(0)
    covariate_total: Decimal = Decimal(0)
    covariate_capped: Decimal = Decimal(0)
    covariate_denominator: Decimal = Decimal(0)

    def add_unit(
        self, value: Decimal, *, cap: Decimal | None, denominator: Decimal | None, covariate: Decimal | None, sign: int
    ) -> None:
        """Add (sign 1) or take away (sign -1) one unit: its total, and its denominator and covariate where it has."""
        capped = value if cap is None else min(value, cap)
        move, times = EXACT.add if sign > 0 else EXACT.subtract, EXACT.multiply
        if denominator is not None:
            self.denominator = move(self.denominator, denominator)
            self.denominator_squares = move(self.denominator_squares, times(denominator, denominator))
            self.denominator_total = move(self.denominator_total, times(value, denominator))
            self.denominator_capped = move(self.denominator_capped, times(capped, denominator))
        if covariate is not None:
            self.covariate_total = move(self.covariate_total, times(covariate, value))
            self.covariate_capped = move(self.covariate_capped, times(covariate, capped))
        if denominator is not None and covariate is not None:
            self.covariate_denominator = move(self.covariate_denominator, times(covariate, denominator))


def hour_of(moment: datetime) -> tuple[int, int]:
    """The hour since 1970 that a moment lies in, and the whole seconds into it."""
    hour, rest = divmod(to_microseconds(moment), _HOUR_MICROSECONDS)
    return hour, rest // 1_000_000


def add_units(connection: Connection, changes: Mapping[TallyKey, Units], *, shard: int) -> None:
    """Move tallies of units."""
    _add_hours(connection, Tally, names=_TALLY, changes=changes, shard=shard)


def add_responses(connection: Connection, changes: Mapping[ResponseKey, Responses], *, shard: int) -> None:
    """Move what the units answered."""
    _add_hours(connection, TallyResponse, names=(*_TALLY, "metric"), changes=changes, shard=shard)


def add_covariates(connection: Connection, changes: Mapping[TallyKey, Covariates], *, shard: int) -> None:
    """Move what the units' covariates were."""
    _add_hours(connection, TallyCovariate, names=_TALLY, changes=changes, shard=shard)


def add_exposures(connection: Connection, changes: Mapping[TallyKey, Exposures], *, shard: int) -> None:
    """Move how many units were decided and met their variant, by the hour of decision."""
    _add(connection, TallyExposure, names=_TALLY, changes=changes, shard=shard)


def add_products(connection: Connection, changes: Mapping[ResponseKey, Products], *, shard: int) -> None:
    """Move what ratios and covariates need of the units' answers."""
    _add_hours(connection, TallyProduct, names=(*_TALLY, "metric"), changes=changes, shard=shard)


def add_ages(connection: Connection, changes: Mapping[AgeKey, int], *, shard: int) -> None:
    """Move the first responses by age."""
    counted = {key: FirstResponses(n) for key, n in changes.items() if n}
    _add(connection, TallyAge, names=_AGE, changes=counted, shard=shard)


@dataclass(slots=True)
class FirstResponses:
    """A change of one age bin."""

    n_first: int


@dataclass(slots=True)
class _Changed:
    """That a day's tallies have changed."""

    n_changes: int = 1


def _add_hours(
    connection: Connection, table: type[SQLModel], *, names: tuple[str, ...], changes: Mapping[Any, Any], shard: int
) -> None:
    _add(connection, table, names=names, changes=changes, shard=shard)
    days = _days_over(changes)
    _add(connection, TallyChange, names=("series", "day"), changes=dict.fromkeys(days, _Changed()), shard=shard)


def _days_over(keys: Collection[TallyKey] | Collection[ResponseKey]) -> set[tuple[int, int]]:
    """The series and days, of the keys of tallies, that may have been summed: hours before any is."""
    first_open = int(time.time() // 3_600) - HOURS_UNTIL_SUMMED // 2
    return {(key[0], key[4] // 24) for key in keys if (key[4] // 24 + 1) * 24 <= first_open}


def _add(
    connection: Connection, table: type[SQLModel], *, names: tuple[str, ...], changes: Mapping[Any, Any], shard: int
) -> None:
    if not changes:
        return
    is_sqlite = connection.dialect.name == "sqlite"
    rows = []
    for key, change in sorted(changes.items(), key=itemgetter(0)):
        values = [getattr(change, field) for field in change.__dataclass_fields__]
        if is_sqlite:
            values = [format(value, "f") if isinstance(value, Decimal) else value for value in values]
        rows.append((*key, shard, *values))
    columns = (*names, "shard", *next(iter(changes.values())).__dataclass_fields__)
    connection.exec_driver_sql(_adding(table, connection.dialect.name, columns=columns), rows)


@cache
def _adding(table: type[SQLModel], dialect: str, *, columns: tuple[str, ...]) -> str:
    """INSERT … ON CONFLICT DO UPDATE that adds every column outside the key.

    Text for the driver itself: it runs in every commit, and SQLAlchemy's own costs more than it saves here.
    """
    model = table.__table__  # type: ignore[attr-defined]  # SQLModel's type stub lacks it
    key = [column.name for column in model.columns if column.primary_key]
    marks = ", ".join("?" if dialect == "sqlite" else "%s" for _ in columns)
    sums = ", ".join(f"{name} = {_sum(model, name, dialect=dialect)}" for name in columns if name not in key)
    return (
        f"INSERT INTO {model.name} ({', '.join(columns)}) VALUES ({marks}) "  # noqa: S608  # names of our own models
        f"ON CONFLICT ({', '.join(key)}) DO UPDATE SET {sums}"
    )


def _sum(model: Table, name: str, *, dialect: str) -> str:
    if dialect == "sqlite" and isinstance(model.columns[name].type, ExactNumber):
        return f"decimal_add({model.name}.{name}, excluded.{name})"  # SQLite itself would add floats
    return f"{model.name}.{name} + excluded.{name}"


def decimal_add(left: str, right: str) -> str:
    """The exact sum of two numbers that SQLite keeps as text; registered on each of its connections."""
    return format(EXACT.add(Decimal(left), Decimal(right)), "f")
