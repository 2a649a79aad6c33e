"""Money of a winner. Expected values are worked out by hand beside each test, or from unit outcomes by numpy."""

import numpy as np
import pytest
from sqlmodel import Session

from experiments.review import results
from experiments.review.money import MONTH_HOURS, monthly_units
from experiments.series import PinnedMetric
from tests.experiments.review_world import KEY, observe, start_experiment
from tests.experiments.rows import metric


def _money(session: Session, asked: str | None = None) -> dict[str, object] | None:
    money: dict[str, object] | None = results(session, KEY, metric=asked)["money"]
    return money


def test_money_is_the_winners_gain_per_thousand_units_and_per_month(session: Session) -> None:
    """2 days of 1,000 units each: b brings 2,600 - 2,000 = 600 on 1,000 units, and 30,000 units come in 30 days."""
    series = start_experiment(session, goal="spend", metrics=["visit"])
    for day in (0, 1):
        for variant, total, squares in (("a", "1000", "9000"), ("b", "1300", "9100")):
            count = {"visits": 100, "total": total, "squares": squares, "metric": "spend"}
            observe(session, series, variant=variant, n_units=500, day=day, **count)  # type: ignore[arg-type]
    money = results(session, KEY)["money"]
    assert (money["variant"], money["against"], money["currency"]) == ("b", "a", "EUR")
    assert money["per_1000"] == pytest.approx(600.0)
    assert money["per_month"] == pytest.approx(0.6 * 2_000 * 30 * 24 / 25)  # from the first to the 25th hour
    variance = (18_000 / 1_000 - 4.0 + 18_200 / 1_000 - 2.6**2) / 999
    half = 1_000 * 1.959964 * np.sqrt(variance)
    assert money["interval"] == pytest.approx([600.0 - half, 600.0 + half], rel=1e-6)


def test_costs_for_each_response_and_each_decision_are_taken_off(session: Session) -> None:
    """By hand, per unit: b spends 1.30 - 0.2 x 0.50 - 0.10 = 1.10 beside a's 1.00."""
    costs = {"b": {"per_response": 0.5, "per_decision": 0.1}}
    series = start_experiment(session, goal="spend", metrics=["visit"], costs=costs)
    outcomes = {"a": np.repeat([10.0, 0.0], [100, 900]), "b": np.repeat([6.5, 0.0], [200, 800])}
    for variant, values in outcomes.items():
        sums = {"total": str(values.sum()), "squares": str((values**2).sum()), "metric": "spend"}
        observe(session, series, variant=variant, n_units=1_000, visits=int((values > 0).sum()), **sums)  # type: ignore[arg-type]
    net_b = outcomes["b"] - 0.5 * (outcomes["b"] > 0) - 0.1
    gain = 1_000 * (net_b.mean() - outcomes["a"].mean())
    half = 1_959.964 * np.sqrt(net_b.var(ddof=1) / 1_000 + outcomes["a"].var(ddof=1) / 1_000)
    answer = results(session, KEY)
    assert answer["money"]["variant"] == "b"
    assert answer["money"]["per_1000"] == pytest.approx(gain)
    assert gain == pytest.approx(100.0)
    assert answer["money"]["interval"] == pytest.approx([gain - half, gain + half], rel=1e-6)
    assert answer["money"]["per_month"] is None  # all within an hour


def test_another_events_costs_leave_the_interval_too_wide_rather_than_too_narrow(session: Session) -> None:
    """Costs follow visits, money follows buys: how they go together is unknown, so the bound of no overlap is taken."""
    series = start_experiment(session, costs={"b": {"per_response": 2.0}})
    for variant in "ab":
        observe(session, series, variant=variant, n_units=1_000, visits=100 if variant == "a" else 200)
        spent = {"total": "3000", "squares": "90000", "metric": "spend"}
        observe(session, series, variant=variant, n_units=1_000, visits=100, **spent)  # type: ignore[arg-type]
    money = results(session, KEY)["money"]
    assert money["variant"] == "b"
    assert money["per_1000"] == pytest.approx(-400.0)
    separate = np.array([90 - 9.0, 90 + 4 * 0.2 - 2.6**2]) / 999
    half = 1_959.964 * np.sqrt(separate.sum())
    assert money["interval"] == pytest.approx([-400 - half, -400 + half], rel=1e-6)


def test_a_response_that_costs_what_it_brings_leaves_nothing(session: Session) -> None:
    """By hand: 25 of b's 500 units pay 29.90 and cost as much, 20 of a's pay and cost nothing: 20 x 29.90 / 500."""
    series = start_experiment(session, goal="spend", metrics=["visit"], costs={"b": {"per_response": 29.9}})
    for variant, n, total, squares in (("a", 20, "598.00", "17880.20"), ("b", 25, "747.50", "22350.25")):
        count = {"visits": n, "total": total, "squares": squares, "metric": "spend"}
        observe(session, series, variant=variant, n_units=500, **count)  # type: ignore[arg-type]
    money = results(session, KEY)["money"]
    assert (money["variant"], money["per_1000"]) == ("b", pytest.approx(-1_196.0))
    half = 1_959.964 * np.sqrt(np.repeat([29.9, 0.0], [20, 480]).var(ddof=1) / 500)
    assert money["interval"] == pytest.approx([-1_196.0 - half, -1_196.0 + half], rel=1e-6)


def test_nothing_is_money_without_a_currency_and_without_costs(session: Session) -> None:
    series = start_experiment(session, goal="visit", metrics=["complaint"])
    observe(session, series, variant="a", n_units=100, visits=10)
    observe(session, series, variant="b", n_units=100, visits=20)
    assert _money(session) is None


def test_costs_alone_are_money_lost(session: Session) -> None:
    series = start_experiment(session, metrics=["complaint"], costs={"b": {"per_decision": 0.25}})
    observe(session, series, variant="a", n_units=100, visits=10)
    observe(session, series, variant="b", n_units=100, visits=20)
    money = results(session, KEY)["money"]
    assert (money["per_1000"], money["interval"], money["currency"]) == (-250.0, [-250.0, -250.0], None)


def test_the_present_rate_is_that_of_the_last_seven_days_with_decisions() -> None:
    """100 a day for a week, then 200 a day for a week: 6,000 in 30 days."""
    hour = np.arange(14 * 24, dtype=np.float64)
    units = np.where(hour < 7 * 24, 100 / 24, 200 / 24)
    assert monthly_units(hour, hour, n_units=units) == pytest.approx(6_000)
    assert monthly_units(hour[:12], hour[:12], n_units=units[:12]) is None
    day = np.arange(14, dtype=np.float64) * 24.0
    per_day = np.where(day < 7 * 24, 100.0, 200.0)
    assert monthly_units(day, day + 23, n_units=per_day) == pytest.approx(6_000)
    assert MONTH_HOURS == 720


def test_a_metric_without_a_currency_is_no_money_unless_something_costs() -> None:
    from experiments.review.money import costs_of, value_metric

    minutes, revenue = metric("minutes", kind="mean"), metric("revenue", kind="mean", currency="EUR")
    free, dear = costs_of([None, None]), costs_of([None, {"per_response": 1.0}])

    def chosen(asked: PinnedMetric, pinned: list[PinnedMetric], *, dearly: bool) -> str | None:
        found = value_metric(asked, pinned, costs=dear if dearly else free)
        return None if found is None else found.key

    assert chosen(minutes, [minutes], dearly=False) is None
    assert chosen(minutes, [minutes], dearly=True) == "minutes"
    assert chosen(minutes, [minutes, revenue], dearly=True) == "revenue"
    assert chosen(metric("click"), [metric("click"), revenue], dearly=False) == "revenue"
