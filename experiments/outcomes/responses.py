"""Responses: all outcomes of one metric attributed to one decision, and the tallies that move with them.

What machines did is kept under the metric's key with ``+machine``: a unit's total of it as a response of its own, and
in the tallies by how much all units' totals would differ if machines were people. So the metric itself is people's
alone, and adding the two gives the other reading, exactly and without a look at raw rows.
"""

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from functools import reduce
from typing import Any, Self

from sqlalchemy import Connection, select

from experiments.database import upsert
from experiments.decisions.hashing import series_of
from experiments.outcomes.attribution import Hit, OutcomeRow
from experiments.series import PinnedMetric
from experiments.tables import Response
from experiments.tallies.moves import (
    EXACT,
    MACHINES,
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

_IDS_AT_ONCE = 5_000  # SQLite takes 32,766 parameters in a statement, PostgreSQL 65,535
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

    def with_more(self, other: "UnitTotal") -> "UnitTotal":
        """This total and another of the same unit and metric, together."""
        moments = [one.first_at for one in (self, other) if one.first_at is not None]
        parts = [one.denominator for one in (self, other) if one.denominator is not None]
        return UnitTotal(
            self.n_outcomes + other.n_outcomes,
            EXACT.add(self.total, other.total),
            min(moments, default=None),
            reduce(EXACT.add, parts) if parts else None,
        )

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

    def add_unit(self, hit: Hit, *, totals: "Totals", sign: int) -> None:
        """Add (sign 1) or take away (sign -1) what a unit has answered on a metric from the tallies of its decision."""
        decision, metric = hit.decision, hit.metric
        people, machines = (totals.get((decision.id, key)) for key in (metric.key, metric.key + MACHINES))
        if people is not None and people.first_at is not None:
            self._add(hit, unit=people, key=metric.key, sign=sign)
            hour, series = hour_of(decision.starts_at)[0], series_of(decision.id)
            age = max(0.0, (people.first_at - decision.starts_at).total_seconds())
            self.ages[series, metric.key, decision.variant, hour // 24, age_bin(age)] += sign
        if machines is not None and machines.first_at is not None:
            both = machines if people is None else people.with_more(machines)
            self._add(hit, unit=both, key=metric.key + MACHINES, sign=sign)
            if people is not None and people.first_at is not None:
                self._add(hit, unit=people, key=metric.key + MACHINES, sign=-sign)

    def _add(self, hit: Hit, *, unit: UnitTotal, key: str, sign: int) -> None:
        decision, metric = hit.decision, hit.metric
        hour, _ = hour_of(decision.starts_at)
        place = (series_of(decision.id), decision.segment, decision.allocation_version, decision.variant, hour, key)
        value = unit.value(metric)
        self.responses[place].add_unit(value, responds=unit.responds(metric), cap=metric.cap, sign=sign)
        if unit.denominator is not None or hit.covariate is not None:
            self.products[place].add_unit(
                value, cap=metric.cap, denominator=unit.denominator, covariate=hit.covariate, sign=sign
            )


Totals = Mapping[tuple[bytes, str], UnitTotal]


def key_of(outcome: OutcomeRow, metric: PinnedMetric) -> str:
    """Under which key a unit's total has an outcome."""
    return metric.key if outcome.machine is None else metric.key + MACHINES


def units_of(keys: Collection[tuple[bytes, str]]) -> Iterator[tuple[bytes, str]]:
    """The decisions and metrics that keys of totals are of, each once, in order."""
    yield from sorted({(id_, key.removesuffix(MACHINES)) for id_, key in keys})


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
    totals = _read(connection, {hit.decision.id for _, hit in counted})
    changes, moved = Changes.none(), dict[tuple[bytes, str], UnitTotal]()
    for outcome, hit in counted:
        key = (hit.decision.id, key_of(outcome, hit.metric))
        changes.add_unit(hit, totals=totals, sign=-1)
        moved[key] = totals.setdefault(key, UnitTotal())
        moved[key].add(outcome, hit.metric)
        changes.add_unit(hit, totals=totals, sign=1)
    write_totals(connection, moved)
    add_responses(connection, changes.responses, shard=shard)
    add_products(connection, changes.products, shard=shard)
    add_ages(connection, changes.ages, shard=shard)


def _read(connection: Connection, ids: Collection[bytes]) -> dict[tuple[bytes, str], UnitTotal]:
    """All totals of decisions: of each metric, that of people and that of machines."""
    c = _response.c
    query = select(c.decision_id, c.metric, c.n_outcomes, c.total, c.first_at, c.denominator)
    wanted = sorted(ids)
    found: dict[tuple[bytes, str], UnitTotal] = {}
    for start in range(0, len(wanted), _IDS_AT_ONCE):
        part = query.where(c.decision_id.in_(wanted[start : start + _IDS_AT_ONCE]))
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
