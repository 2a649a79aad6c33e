"""Ratios as written: numerator and denominator of each unit, their sums, squares and products. Numbers by hand."""

import threading
from collections.abc import Sequence
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import Engine, text

from experiments.database import reading, transaction
from experiments.series import PinnedDenominator, PinnedMetric
from experiments.tables import Response, TallyProduct, TallyResponse
from experiments.tallies.read import read_tallies
from experiments.tallies.recount import recount
from tests.experiments.rows import DAY, NOW, add_series, decision, metric, outcome
from tests.experiments.tallied import add_variants, all_rows, assert_recount_agrees, decide, record, sums_of


def ratio(key: str, of: tuple[str, str], to: tuple[str, str], **changes: Any) -> PinnedMetric:
    """A ratio of (event, aggregate) to (event, aggregate)."""
    return metric(key, event=of[0], kind="ratio", aggregate=of[1], denominator=PinnedDenominator(*to), **changes)


BASKET = ratio("basket", ("purchase", "sum"), ("purchase", "count"), cap=Decimal(100), currency="EUR")
CLICKS_PER_OPEN = ratio("clicks-per-open", ("click", "count"), ("open", "count"))
PRICE = ratio("price", ("purchase", "sum"), ("items", "sum"))
COLUMNS = ("denominator", "denominator_squares", "denominator_total", "denominator_capped")


def add(engine: Engine, *metrics: PinnedMetric, customers: Sequence[str] = ("anna", "bob", "carl")) -> None:
    """Series 1 with some metrics, and a decision of each customer in the same tally."""
    add_series(engine, 1, metrics=metrics)
    decide(engine, *(decision(1, customer) for customer in customers))


def products(engine: Engine, key: str) -> list[Any]:
    """The sums of a ratio's tally that have to do with denominators."""
    found = sums_of(engine, TallyProduct, metric=key)
    assert [value for name, value in found.items() if name not in COLUMNS] == [0, 0, 0], "no covariate"
    return [found[name] for name in COLUMNS]


def unit(engine: Engine, customer: str) -> tuple[Any, ...]:
    """Outcomes, numerator and denominator of a unit of series 1 with one metric."""
    (row,) = (row for row in all_rows(engine, Response) if row.decision_id == decision(1, customer).id)
    return row.n_outcomes, row.total, row.denominator


def test_one_event_may_feed_both_parts(engine: Engine) -> None:
    """Revenue per purchase, capped at 100 a unit: N and D are 130 and 2 (capped 100), 0 and 2 (a refund), 0 and 1.

    The third purchase has no value: it counts below and says nothing above.
    """
    add(engine, BASKET, customers=("anna", "bob", "carl", "dora"))
    record(engine, outcome("purchase", "anna", value="60"), outcome("purchase", "bob", value="30"))
    record(engine, outcome("purchase", "bob", value="-30"), outcome("purchase", "carl"))
    record(engine, outcome("purchase", "anna", value="70"))
    assert unit(engine, "anna") == (2, 130, 2)
    assert unit(engine, "bob") == (2, 0, 2)
    assert unit(engine, "carl") == (1, 0, 1)
    found = sums_of(engine, TallyResponse, metric="basket")
    assert found == {
        "n_responders": 3,
        "total": 130,
        "total_squares": 16_900,
        "capped_total": 100,
        "capped_squares": 10_000,
    }
    assert products(engine, "basket") == [5, 4 + 4 + 1, 260, 200]
    assert_recount_agrees(engine, 1)


def test_two_events_feed_a_part_each_in_any_order(engine: Engine) -> None:
    """Clicks per open: anna has 3 and 2, bob clicked without an open (1 and 0: no responder), carl opened (0 and 1)."""
    add(engine, CLICKS_PER_OPEN)
    for event in ("click", "open", "click", "open", "click"):
        record(engine, outcome(event, "anna"))
    record(engine, outcome("click", "bob"), outcome("open", "carl"))
    assert [unit(engine, customer) for customer in ("anna", "bob", "carl")] == [(5, 3, 2), (1, 1, 0), (1, 0, 1)]
    found = sums_of(engine, TallyResponse, metric="clicks-per-open")
    assert (found["n_responders"], found["total"], found["total_squares"]) == (2, 4, 10)
    assert products(engine, "clicks-per-open") == [3, 5, 6, 6]
    assert_recount_agrees(engine, 1)


def test_of_two_sums_an_outcome_without_a_value_says_nothing(engine: Engine) -> None:
    """Price of an item: anna pays 10 + 5 for 3 items; bob's items come back (2 - 2), so that he has no ratio."""
    add(engine, PRICE)
    record(engine, outcome("items", "anna"), outcome("purchase", "anna"))
    assert all_rows(engine, Response) == []
    record(
        engine,
        outcome("purchase", "anna", value="10"),
        outcome("items", "anna", value="3"),
        outcome("purchase", "anna", value="5"),
        outcome("purchase", "bob", value="8"),
        outcome("items", "bob", value="2"),
        outcome("items", "bob", value="-2"),
    )
    assert [unit(engine, customer) for customer in ("anna", "bob")] == [(3, 15, 3), (3, 8, 0)]
    assert sums_of(engine, TallyResponse, metric="price")["n_responders"] == 1
    assert products(engine, "price") == [3, 9, 45, 45]
    assert_recount_agrees(engine, 1)


def test_an_outcome_counts_once_for_a_ratio_and_a_repeat_not_at_all(engine: Engine) -> None:
    add(engine, BASKET, CLICKS_PER_OPEN, metric("purchase"))
    once = outcome("purchase", "anna", value="7", id=b"7" * 16, outcome_id="o")
    assert record(engine, once, once) == ["attributed", "duplicate"]
    assert record(engine, once) == ["duplicate"]
    counted: dict[str, Any] = {
        row.metric: (row.n_outcomes, row.total, row.denominator) for row in all_rows(engine, Response)
    }
    assert counted == {"basket": (1, 7, 1), "purchase": (1, 7, None)}
    assert {row.metric for row in all_rows(engine, TallyProduct)} == {"basket"}
    assert_recount_agrees(engine, 1)


def test_each_part_is_counted_inside_the_window_only(engine: Engine) -> None:
    add(engine, CLICKS_PER_OPEN)
    assert record(engine, outcome("open", "anna", at=NOW + 3 * DAY)) == ["unattributed"]
    assert record(engine, outcome("open", "anna"), outcome("click", "anna", at=NOW + 3 * DAY)) == [
        "attributed",
        "unattributed",
    ]
    assert unit(engine, "anna") == (1, 0, 1)
    assert_recount_agrees(engine, 1)


def test_the_cap_of_a_numerator_moves_its_product_with_later_denominators(engine: Engine) -> None:
    """On +dn the products move by N dn and min(N, 100) dn: here 250 (100) with 1 below, then with 2."""
    add(engine, BASKET, customers=("anna",))
    record(engine, outcome("purchase", "anna", value="250"))
    assert products(engine, "basket") == [1, 1, 250, 100]
    record(engine, outcome("purchase", "anna"))
    assert products(engine, "basket") == [2, 4, 500, 200]
    record(engine, outcome("purchase", "anna", value="-190"))
    assert products(engine, "basket") == [3, 9, 180, 180]
    assert_recount_agrees(engine, 1)


def test_writers_of_the_two_parts_lose_no_product(engine: Engine) -> None:
    """Each of 10 customers gets 10 clicks from one writer and 10 opens from another: 100 x 10 in products."""
    customers = [f"c{n}" for n in range(10)]
    add(engine, CLICKS_PER_OPEN, customers=customers)
    start = threading.Barrier(2)

    def worker(event: str, shard: int) -> None:
        start.wait()
        for n in range(10):
            order = customers if (n + shard) % 2 else customers[::-1]
            record(engine, *(outcome(event, customer) for customer in order), shard=shard)

    threads = [threading.Thread(target=worker, args=pair) for pair in (("click", 1), ("open", 2))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    rows = all_rows(engine, TallyProduct)
    assert {row.shard for row in rows} == {1, 2}
    assert sum(row.denominator_total for row in rows) == 1_000
    assert sum(row.denominator_squares for row in rows) == 1_000
    assert_recount_agrees(engine, 1)


def test_a_ratio_that_joined_later_counts_only_what_came_since(engine: Engine) -> None:
    late = ratio("late", ("click", "count"), ("open", "count"), since=NOW + timedelta(hours=2))
    add(engine, late)
    record(engine, outcome("open", "anna"), outcome("click", "anna", at=NOW + timedelta(hours=3)))
    assert unit(engine, "anna") == (1, 1, 0)
    assert_recount_agrees(engine, 1)


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE tally_product SET denominator_total = '6.5'",
        "DELETE FROM tally_product",
        "UPDATE response SET denominator = '9'",
        "UPDATE response SET denominator = NULL",
    ],
)
def test_a_recount_finds_and_mends_damaged_ratios(engine: Engine, damage: str) -> None:
    add(engine, BASKET)
    record(engine, outcome("purchase", "anna", value="5"))
    with engine.begin() as connection:
        connection.execute(text(damage))
    with transaction(engine) as session:
        (found,) = recount(session, 1, mend=True).differences
    assert found.where.split()[0] in damage
    assert products(engine, "basket") == [1, 1, 5, 5]
    assert_recount_agrees(engine, 1)


def test_sums_of_a_ratio_are_read_by_row_over_shards(engine: Engine) -> None:
    """By hand: 0.1 + 0.2 of two purchases in three shards."""
    add(engine, BASKET, metric("purchase"))
    for shard, value in enumerate(("0.1", "0.2")):
        record(engine, outcome("purchase", "anna", value=value), shard=shard)
    add_variants(engine, 1)
    with reading(engine) as session:
        found = read_tallies(session, 1, metric="basket")
    assert (found.n_units.tolist(), found.denominator.tolist()) == ([3], [2])
    assert found.total.tolist() == pytest.approx([0.3], rel=1e-14)
    assert found.denominator_squares.tolist() == [4]
    assert found.denominator_total.tolist() == pytest.approx([0.6], rel=1e-14)
    assert found.denominator_capped.tolist() == pytest.approx([0.6], rel=1e-14)
    assert not found.has_covariate
    assert (found.covariate.tolist(), found.covariate_denominator.tolist()) == ([0], [0])
