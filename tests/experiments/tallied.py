"""Writing decisions and outcomes as the journal does, and what became of them, for tests of the write path."""

from collections.abc import Iterable, Sequence
from decimal import Context, Decimal
from functools import reduce
from typing import Any, TypeVar

from sqlalchemy import Engine
from sqlmodel import SQLModel, select

from experiments.database import reading, transaction
from experiments.decisions.rows import DecisionRow, write_decisions
from experiments.outcomes.attribution import OutcomeRow
from experiments.outcomes.rows import write_outcomes
from experiments.tables import SeriesVariant, TallyProduct, TallyResponse
from experiments.tallies.recount import recount
from tests.experiments.rows import NOW

Table = TypeVar("Table", bound=SQLModel)


def add_variants(engine: Engine, series: int, *, keys: Sequence[str] = ("a", "b")) -> None:
    """Give a series variants, so that its tallies can be read; the first is the control."""
    with transaction(engine) as session:
        session.add_all(
            SeriesVariant(series=series, key=key, position=i, content={}, is_control=i == 0, added_at=NOW)
            for i, key in enumerate(keys)
        )


def decide(engine: Engine, *rows: DecisionRow, shard: int = 1) -> None:
    """Write decisions."""
    with transaction(engine) as session:
        write_decisions(session.connection(), rows, shard=shard)


def record(engine: Engine, *rows: OutcomeRow, shard: int = 1) -> list[str]:
    """Write outcomes; what became of each."""
    with transaction(engine) as session:
        return write_outcomes(session.connection(), rows, shard=shard)


def all_rows(engine: Engine, table: type[Table]) -> list[Table]:
    """All rows of a table."""
    with reading(engine) as session:
        return list(session.exec(select(table)))


def sums_of(engine: Engine, table: type[TallyResponse | TallyProduct], *, metric: str) -> dict[str, Any]:
    """What the tallies of a metric hold beside their keys, summed."""
    columns = table.__table__.columns  # type: ignore[union-attr]  # SQLModel's type stub lacks it
    names = [column.name for column in columns if not column.primary_key]
    rows = [row for row in all_rows(engine, table) if row.metric == metric]
    return {name: exact_sum(getattr(row, name) for row in rows) for name in names}


def exact_sum(numbers: Iterable[int | Decimal]) -> Decimal:
    """A sum with all its digits; Python's own ``sum`` of decimals rounds to 28."""
    return reduce(Context(prec=5_000).add, numbers, Decimal(0))


def assert_recount_agrees(engine: Engine, *series: int) -> None:
    """Assert that tallies and responses are what the raw rows give."""
    with reading(engine) as session:
        for number in series:
            assert recount(session, number).differences == []
