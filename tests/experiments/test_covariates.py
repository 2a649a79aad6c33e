"""Covariates as captured and counted: sums by hand, exact to the last digit, and always equal to a recount."""

from collections.abc import Iterator
from datetime import timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from sqlalchemy import Engine, event, text

from experiments.database import reading, transaction
from experiments.decisions.rows import DecisionRow
from experiments.outcomes.attribution import OutcomeRow
from experiments.series import PinnedCovariate
from experiments.tables import Decision, TallyCovariate, TallyProduct, TallyResponse
from experiments.tallies.days import NO_HOURS
from experiments.tallies.read import read_tallies
from experiments.tallies.recount import recount
from tests.experiments.rows import CLICK, DAY, NOW, REVENUE, VISITS, add_series, decision, outcome
from tests.experiments.tallied import (
    add_variants,
    all_rows,
    assert_recount_agrees,
    decide,
    exact_sum,
    record,
    sums_of,
)
from tests.experiments.test_ratios import BASKET, CLICKS_PER_OPEN

PINNED = {"attribute": "orders", "missing": 2.0}
ORDERS = PinnedCovariate.from_json(PINNED)
METRICS = (CLICK, REVENUE, VISITS, BASKET, CLICKS_PER_OPEN)


def known(customer: str, covariate: float | None, **changes: Any) -> DecisionRow:
    """A decision in series 1 with a covariate as captured."""
    return decision(1, customer, covariate=covariate, of_covariate=ORDERS, **changes)


def sums_of_covariate(engine: Engine) -> tuple[int, Any, Any]:
    """Units without covariate, sum and sum of squares, over shards and hours."""
    rows = all_rows(engine, TallyCovariate)
    n_missing, total, squares = (
        [getattr(row, name) for row in rows] for name in ("n_missing", "total", "total_squares")
    )
    return sum(n_missing), exact_sum(total), exact_sum(squares)


def products(engine: Engine, key: str) -> list[Any]:
    """The sums of a metric's tallies that have to do with covariates: with total, capped total, denominator."""
    found = sums_of(engine, TallyProduct, metric=key)
    return [found[name] for name in ("covariate_total", "covariate_capped", "covariate_denominator")]


@pytest.fixture
def shop(engine: Engine) -> Engine:
    """Series 1 with a covariate: anna has 3, bob none (2 stands for it), carl 0.5."""
    add_series(engine, 1, metrics=METRICS, covariate=PINNED)
    decide(engine, known("anna", 3.0), known("bob", None), shard=1)
    decide(engine, known("carl", 0.5), known("anna", 7.0), shard=2)  # she keeps what was captured first
    return engine


def test_a_tally_sums_the_covariates_of_its_units(shop: Engine) -> None:
    assert sums_of_covariate(shop) == (1, Decimal("5.5"), Decimal("13.25"))
    stored = {row.customer_id: row.covariate for row in all_rows(shop, Decision)}
    assert stored == {"anna": 3.0, "bob": None, "carl": 0.5}
    assert_recount_agrees(shop, 1)


def test_products_follow_each_units_value(shop: Engine) -> None:
    """By hand. Revenue: anna 40 + 80, of which 100 count, bob 10; clicks: anna and carl, two and one; visits: bob 3.

    Clicks per open: anna 2 and 1. Baskets are revenue over purchases: anna 120 and 2, bob 10 and 1.
    """
    record(shop, outcome("purchase", "anna", value="40"), outcome("click", "anna"), outcome("visit", "bob"))
    record(shop, outcome("purchase", "bob", value="10"), outcome("click", "anna"), outcome("click", "carl"))
    record(shop, outcome("visit", "bob"), outcome("visit", "bob"), outcome("open", "anna"), shard=2)
    record(shop, outcome("purchase", "anna", value="80"), shard=3)
    assert products(shop, "revenue") == [3 * 120 + 2 * 10, 3 * 100 + 2 * 10, 0]
    assert products(shop, "click") == [3 + Decimal("0.5")] * 2 + [0]
    assert products(shop, "visits") == [6, 6, 0]
    assert products(shop, "clicks-per-open") == [3 * 2 + Decimal("0.5")] * 2 + [3 * 1]
    assert products(shop, "basket") == [380, 320, 3 * 2 + 2 * 1]
    assert_recount_agrees(shop, 1)


def test_a_refund_takes_its_products_back(shop: Engine) -> None:
    record(shop, outcome("purchase", "anna", value="19.99"))
    record(shop, outcome("purchase", "anna", value="-19.99"), shard=2)
    assert products(shop, "revenue") == [0, 0, 0]
    assert products(shop, "basket") == [0, 0, 6]
    assert_recount_agrees(shop, 1)


def test_a_late_decision_counts_nowhere(engine: Engine) -> None:
    add_series(engine, 1, metrics=METRICS, covariate=PINNED, closes_at=NOW)
    decide(engine, known("anna", 3.0, stale=True, decided_at=NOW + timedelta(seconds=1)))
    assert all_rows(engine, TallyCovariate) == []
    assert_recount_agrees(engine, 1)


def test_series_without_covariate_have_no_rows_of_it(engine: Engine) -> None:
    add_series(engine, 1)
    decide(engine, decision(1, "anna"))
    record(engine, outcome("purchase", "anna", value="5"))
    assert (all_rows(engine, TallyCovariate), all_rows(engine, TallyProduct)) == ([], [])


def test_sums_of_covariates_are_exact_to_the_last_digit(engine: Engine) -> None:
    """Each product has more digits than a float holds, the least number is 5e-324; the sums are by fractions."""
    covariates = [0.1, 1e12, -123456.789, 5e-324, 1e-7, 0.30000000000000004]
    values = ["1234567.89", "999999999999.12", "0.123456789", "12345678.91", "3.21", "0.1"]
    add_series(engine, 1, metrics=(REVENUE,), covariate=PINNED)
    for shard, (x, value) in enumerate(zip(covariates, values, strict=True)):
        decide(engine, known(f"c{shard}", x), shard=shard)
        record(engine, outcome("purchase", f"c{shard}", value=value), shard=shard % 2)
    exact, spent = [Fraction(repr(x)) for x in covariates], [Fraction(value) for value in values]
    _, total, squares = sums_of_covariate(engine)
    found = sums_of(engine, TallyProduct, metric="revenue")
    assert Fraction(total) == sum(exact)
    assert Fraction(squares) == sum(x * x for x in exact)
    assert Fraction(found["covariate_total"]) == sum(x * value for x, value in zip(exact, spent, strict=True))
    assert_recount_agrees(engine, 1)


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE tally_covariate SET n_missing = 9",
        "UPDATE tally_covariate SET total_squares = '0.25'",
        "DELETE FROM tally_covariate",
        "UPDATE tally_product SET covariate_capped = '6.5'",
        "DELETE FROM tally_product",
    ],
)
def test_a_recount_finds_and_mends_damaged_covariates(engine: Engine, damage: str) -> None:
    add_series(engine, 1, metrics=(REVENUE,), covariate=PINNED)
    decide(engine, known("anna", 3.0), known("bob", None))
    record(engine, outcome("purchase", "anna", value="150"))
    with engine.begin() as connection:
        connection.execute(text(damage))
    with transaction(engine) as session:
        (found,) = recount(session, 1, mend=True).differences
    assert found.where.split()[0] in damage
    assert sums_of_covariate(engine) == (1, 5, 13)
    assert products(engine, "revenue") == [450, 300, 0]
    assert_recount_agrees(engine, 1)


def test_covariates_are_read_by_row(shop: Engine) -> None:
    add_variants(shop, 1)
    decide(shop, known("dora", None, decided_at=NOW + timedelta(hours=3)))
    record(shop, outcome("purchase", "anna", value="120"), outcome("open", "anna"), outcome("click", "bob"))
    with reading(shop) as session:
        revenue, opens = (read_tallies(session, 1, metric=key) for key in ("revenue", "clicks-per-open"))
        by_day = read_tallies(session, 1, metric="revenue", by_hour=NO_HOURS)
    assert revenue.has_covariate
    assert sorted(zip(revenue.n_units, revenue.covariate_missing, revenue.covariate, strict=True)) == [
        (1, 1, 2),
        (3, 1, 5.5),
    ]
    assert sorted(revenue.covariate_squares) == [4, 13.25]
    assert sorted(revenue.covariate_total) == [0, 360]
    assert sorted(revenue.covariate_capped) == [0, 300]
    assert (revenue.denominator.tolist(), revenue.covariate_denominator.tolist()) == ([0, 0], [0, 0])
    assert (sorted(opens.covariate_total), sorted(opens.covariate_denominator)) == ([0, 2], [0, 3])
    assert (by_day.covariate.tolist(), by_day.covariate_total.tolist()) == ([7.5], [360])


@pytest.fixture
def statements(engine: Engine) -> Iterator[list[str]]:
    """The statements sent to the database."""
    sent: list[str] = []

    def note(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        sent.append(statement)

    event.listen(engine, "before_cursor_execute", note)
    yield sent
    event.remove(engine, "before_cursor_execute", note)


def test_plain_metrics_of_series_without_covariate_cost_no_query_more(engine: Engine, statements: list[str]) -> None:
    add_series(engine, 1)
    add_variants(engine, 1)
    decide(engine, decision(1, "anna"))
    record(engine, outcome("purchase", "anna", value="5"))
    with reading(engine) as session:
        read_tallies(session, 1, metric="revenue")
    assert not [one for one in statements if "tally_covariate" in one or "tally_product" in one]


# A random stream, against sums by fractions that share no code with the service.


def test_any_stream_gives_sums_by_fractions_and_a_recount_agrees(engine: Engine) -> None:
    """20 customers in two variants and two hours, 300 outcomes in random portions and shards; seed 11."""
    rng = np.random.default_rng(11)
    covariates = {f"c{n}": None if n % 4 == 0 else float(rng.normal(0, 50)) for n in range(20)}
    decisions = [
        known(key, x, variant="ab"[n % 2], decided_at=NOW + timedelta(hours=n // 10))
        for n, (key, x) in enumerate(covariates.items())
    ]
    add_series(engine, 1, metrics=METRICS, covariate=PINNED)
    rows = [_any_outcome(rng) for _ in range(300)]
    decide(engine, *decisions[:13])
    decide(engine, *decisions[9:], shard=2)
    start = 0
    while start < len(rows):
        size = int(rng.integers(1, 40))
        record(engine, *rows[start : start + size], shard=int(rng.integers(0, 3)))
        start += size
    expected = _expected({row.customer_id: row for row in decisions}, rows)
    for key in ("revenue", "basket", "clicks-per-open", "click", "visits"):
        found = sums_of(engine, TallyResponse, metric=key) | sums_of(engine, TallyProduct, metric=key)
        assert {name: Fraction(value) for name, value in found.items()} == expected[key], key
    assert_recount_agrees(engine, 1)
    with engine.begin() as connection:
        for table in ("response", "tally_product", "tally_covariate", "tally_response"):
            connection.execute(text(f"DELETE FROM {table} WHERE {_some(table)}"))  # noqa: S608  # names from the line above
    with transaction(engine) as session:
        assert recount(session, 1, mend=True).differences
    assert_recount_agrees(engine, 1)
    mended = sums_of(engine, TallyProduct, metric="basket")
    assert all(expected["basket"][name] == Fraction(value) for name, value in mended.items())


def _some(table: str) -> str:
    return "metric IN ('basket', 'revenue')" if table != "tally_covariate" else "variant = 'a'"


def _any_outcome(rng: np.random.Generator) -> OutcomeRow:
    """Some outside the window of three days, or received after its day of grace, or without value."""
    at = NOW + timedelta(hours=float(rng.uniform(-3, 80)))
    value = None if rng.random() < 0.1 else str(round(float(rng.normal(20, 60)), 3))
    came = at + (5 * DAY if rng.random() < 0.1 else timedelta(0))
    kind = ("click", "open", "purchase", "visit")[int(rng.integers(4))]
    return outcome(kind, f"c{rng.integers(20)}", value=value, at=at, received_at=came)


def _expected(decisions: dict[str, DecisionRow], rows: list[OutcomeRow]) -> dict[str, dict[str, Fraction]]:
    counted: dict[tuple[str, str], list[OutcomeRow]] = {}
    for row in rows:
        decided = decisions[row.customer_id or ""]
        age = row.occurred_at - decided.decided_at
        if timedelta(0) <= age < 3 * DAY and row.received_at <= decided.decided_at + 4 * DAY:
            counted.setdefault((row.event, decided.customer_id), []).append(row)
    sums = {}
    for key in ("revenue", "basket", "clicks-per-open", "click", "visits"):
        units = [(_unit(key, counted, who), decided.covariate) for who, decided in decisions.items()]
        sums[key] = _sums([(*unit, _x(x)) for unit, x in units], key=key)
    return sums


def _x(covariate: float | None) -> Fraction:
    return Fraction(2) if covariate is None else Fraction(repr(covariate))


def _unit(key: str, counted: dict[tuple[str, str], list[OutcomeRow]], who: str) -> tuple[Fraction, Fraction, bool]:
    """Value, denominator, and whether the unit responds."""
    clicks, opens, visits = (len(counted.get((kind, who), [])) for kind in ("click", "open", "visit"))
    purchases = counted.get(("purchase", who), [])
    spent = sum((Fraction(row.value) for row in purchases if row.value is not None), Fraction(0))
    return {
        "revenue": (spent, Fraction(0), spent != 0),
        "basket": (spent, Fraction(len(purchases)), len(purchases) > 0),
        "clicks-per-open": (Fraction(clicks), Fraction(opens), opens > 0),
        "click": (Fraction(min(clicks, 1)), Fraction(0), clicks > 0),
        "visits": (Fraction(visits), Fraction(0), visits > 0),
    }[key]


def _sums(units: list[tuple[Fraction, Fraction, bool, Fraction]], *, key: str) -> dict[str, Fraction]:
    cap = Fraction(100) if key in {"revenue", "basket"} else None
    total = {
        name: Fraction(0) for model in (TallyResponse, TallyProduct) for name in model.model_fields if name not in _KEY
    }
    for value, below, responds, x in units:
        capped = value if cap is None else min(value, cap)
        total["n_responders"] += responds
        total["total"] += value
        total["total_squares"] += value * value
        total["capped_total"] += capped
        total["capped_squares"] += capped * capped
        total["denominator"] += below
        total["denominator_squares"] += below * below
        total["denominator_total"] += below * value
        total["denominator_capped"] += below * capped
        total["covariate_total"] += x * value
        total["covariate_capped"] += x * capped
        total["covariate_denominator"] += x * below
    return total


_KEY = {"series", "segment", "allocation_version", "variant", "hour", "metric", "shard"}
