"""Responses: all outcomes of one metric attributed to one decision, and the tallies that move with them."""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any, Self

from sqlalchemy import Connection, select, tuple_

from experiments.database import upsert
from experiments.decisions.hashing import series_of
from experiments.outcomes.attribution import Hit, OutcomeRow
from experiments.series import PinnedMetric
from experiments.tables import Response
from experiments.tallies.moves import (
    EXACT,
    AgeKey,
    Products,
    ResponseKey,
    Responses,
    add_ages,
    add_products,
    add_responses,
    hour_of,
)
from optimizer.delay import age_bin

_KEYS_AT_ONCE = 5_000  # of two parameters each: SQLite takes 32,766 in a statement, PostgreSQL 65,535
_response: Any = Response.__table__  # type: ignore[attr-defined]  # SQLModel's type stub lacks it


_NOTHING = Decimal(0)


@dataclass(slots=True)
class UnitTotal:
    """What one unit has answered on one metric so far; of a ratio, ``total`` is the numerator."""

    n_outcomes: int = 0
    total: Decimal = _NOTHING
    first_at: datetime | None = None
    denominator: Decimal | None = None

    def add(self, outcome: OutcomeRow, metric: PinnedMetric) -> None:
        """Count one more outcome, of which the metric ``counts`` something."""
        self.n_outcomes += 1
        self.first_at = outcome.occurred_at if self.first_at is None else min(self.first_at, outcome.occurred_at)
        if metric.denominator is None:
            self.total = EXACT.add(self.total, outcome.value or _NOTHING)
        else:
            numerator, denominator = ratio_parts(outcome, metric)
            self.total = EXACT.add(self.total, numerator or _NOTHING)
            self.denominator = EXACT.add(self.denominator or _NOTHING, denominator or _NOTHING)

    def value(self, metric: PinnedMetric) -> Decimal:
        """The unit's value on the metric: 0 or 1, a count, or a sum in the metric's unit (of a ratio its numerator)."""
        if metric.kind == "binary":
            return Decimal(min(self.n_outcomes, 1))
        return Decimal(self.n_outcomes) if metric.kind == "count" else self.total

    def responds(self, metric: PinnedMetric) -> bool:
        """Whether a unit has answered: of money or a denominator, not if the sum is zero; else if anything happened.

        A full refund is no answer, and a unit without a denominator has no ratio.
        """
        if metric.kind == "ratio":
            return bool(self.denominator)
        return self.total != 0 if metric.kind == "mean" else self.n_outcomes > 0


@dataclass(slots=True)
class Changes:
    """Changes of tallies, gathered."""

    responses: dict[ResponseKey, Responses]
    products: dict[ResponseKey, Products]
    ages: dict[AgeKey, int]

    @classmethod
    def none(cls) -> Self:
        """No change yet."""
        return cls(defaultdict(Responses), defaultdict(Products), defaultdict(int))

    def add_unit(self, hit: Hit, *, unit: UnitTotal, sign: int) -> None:
        """Add (sign 1) or take away (sign -1) one unit's total on a metric from the tallies of its decision."""
        if unit.first_at is None:
            return
        decision, metric = hit.decision, hit.metric
        hour, _ = hour_of(decision.starts_at)
        series = series_of(decision.id)
        key = (series, decision.segment, decision.allocation_version, decision.variant, hour, metric.key)
        value = unit.value(metric)
        self.responses[key].add_unit(value, responds=unit.responds(metric), cap=metric.cap, sign=sign)
        if unit.denominator is not None or hit.covariate is not None:
            self.products[key].add_unit(
                value, cap=metric.cap, denominator=unit.denominator, covariate=hit.covariate, sign=sign
            )
        age = max(0.0, (unit.first_at - decision.starts_at).total_seconds())
        self.ages[series, metric.key, decision.variant, hour // 24, age_bin(age)] += sign


def counts(outcome: OutcomeRow, metric: PinnedMetric) -> bool:
    """Whether an outcome says anything on a metric: without a value, it says nothing of a sum of values."""
    if metric.kind == "ratio":
        return ratio_parts(outcome, metric) != (None, None)
    return metric.kind != "mean" or outcome.value is not None


def ratio_parts(outcome: OutcomeRow, metric: PinnedMetric) -> tuple[Decimal | None, Decimal | None]:
    """What an outcome adds to the numerator and to the denominator of a ratio; None where it says nothing of it."""
    below = metric.denominator
    return (
        _amount(outcome, event=metric.event, aggregate=metric.aggregate),
        None if below is None else _amount(outcome, event=below.event, aggregate=below.aggregate),
    )


def _amount(outcome: OutcomeRow, *, event: str, aggregate: str | None) -> Decimal | None:
    if outcome.event != event:
        return None
    return Decimal(1) if aggregate == "count" else outcome.value


def apply_hits(connection: Connection, hits: Sequence[tuple[OutcomeRow, Hit]], *, shard: int) -> None:
    """Add outcomes to their responses, and move the tallies by the difference. The decisions must be locked."""
    counted = [(outcome, hit) for outcome, hit in hits if counts(outcome, hit.metric)]
    totals = _read(connection, {(hit.decision.id, hit.metric.key) for _, hit in counted})
    changes = Changes.none()
    for outcome, hit in counted:
        unit = totals.setdefault((hit.decision.id, hit.metric.key), UnitTotal())
        changes.add_unit(hit, unit=unit, sign=-1)
        unit.add(outcome, hit.metric)
        changes.add_unit(hit, unit=unit, sign=1)
    write_totals(connection, totals)
    add_responses(connection, changes.responses, shard=shard)
    add_products(connection, changes.products, shard=shard)
    add_ages(connection, changes.ages, shard=shard)


def _read(connection: Connection, keys: Collection[tuple[bytes, str]]) -> dict[tuple[bytes, str], UnitTotal]:
    c = _response.c
    query = select(c.decision_id, c.metric, c.n_outcomes, c.total, c.first_at, c.denominator)
    wanted = sorted(keys)
    found: dict[tuple[bytes, str], UnitTotal] = {}
    for start in range(0, len(wanted), _KEYS_AT_ONCE):
        part = query.where(tuple_(c.decision_id, c.metric).in_(wanted[start : start + _KEYS_AT_ONCE]))
        found |= {(row[0], row[1]): UnitTotal(*row[2:]) for row in connection.execute(part)}
    return found


def write_totals(connection: Connection, totals: Mapping[tuple[bytes, str], UnitTotal]) -> None:
    """Store units' totals."""
    if not totals:
        return
    insert = upsert(connection, _response)
    changed = {name: insert.excluded[name] for name in ("n_outcomes", "total", "first_at", "denominator")}
    values = [
        {
            "decision_id": id_,
            "metric": metric,
            "n_outcomes": unit.n_outcomes,
            "total": unit.total,
            "first_at": unit.first_at,
            "denominator": unit.denominator,
        }
        for (id_, metric), unit in sorted(totals.items(), key=lambda item: item[0])
    ]
    connection.execute(insert.on_conflict_do_update(index_elements=["decision_id", "metric"], set_=changed), values)
