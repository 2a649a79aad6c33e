"""Hard data gives a definite answer or a reason why there is none: never NaN, never a crash."""

import json
from decimal import Decimal
from typing import Any

import numpy as np
import pytest
from scipy import stats
from sqlmodel import Session

from experiments.review import results, results_over_time
from tests.experiments.review_world import KEY, observe, row_of, start_experiment, variant_of

BILLION = 10**9


def _looked_at(session: Session, metric: str = "visit") -> dict[str, Any]:
    """All that can be asked, as strict JSON, in which there is no NaN."""
    found = results(session, KEY, metric=metric)
    for answer in (found, results_over_time(session, KEY, metric=metric)):
        json.dumps(answer, allow_nan=False)
    for row in [*found["segments"], found["overall"]]:
        for variant in row["variants"]:
            told = variant["uplift"]
            assert told is None or told["absolute"] is not None or told["reason"].startswith("not estimable")
            assert told is None or told["relative"] is not None or told["reason"] is not None
            sequence = variant["always_valid"]
            assert (
                sequence is None or sequence["interval"] is not None or sequence["reason"].startswith("not estimable")
            )
    return found


def test_no_unit_at_all(session: Session) -> None:
    start_experiment(session, segments=("vip", "all"))
    for metric in ("visit", "spend", "complaint"):
        answer = _looked_at(session, metric)
        assert answer["overall"]["verdict"] == "keep_running"
        for variant in answer["overall"]["variants"]:
            assert (variant["mean"], variant["interval"], variant["probability_best"]) == (None, None, None)
            assert variant["reason"] == "not estimable: no unit"
            assert variant["expected_loss"] is None


def test_one_unit_and_a_segment_without_any(session: Session) -> None:
    series = start_experiment(session, segments=("vip", "all"))
    observe(session, series, variant="a", segment="vip", n_units=1, visits=1)
    for metric in ("visit", "spend"):
        answer = _looked_at(session, metric)
        assert row_of(answer, "all")["verdict"] == "keep_running"
        assert (answer["overall"]["leader"], variant_of(answer["overall"], "a")["probability_best"]) == (None, None)
        assert variant_of(answer["overall"], "b")["uplift"]["absolute"] is None


@pytest.mark.parametrize("visits", [0, 500])
def test_all_zeros_and_all_ones(session: Session, visits: int) -> None:
    series = start_experiment(session)
    for variant in ("a", "b"):
        observe(session, series, variant=variant, n_units=500, visits=visits)
        observe(session, series, variant=variant, n_units=500, visits=visits, metric="spend")
    for metric in ("visit", "spend"):
        answer = _looked_at(session, metric)
        assert answer["overall"]["verdict"] in {"keep_running", "no_difference"}
        shown = variant_of(answer["overall"], "b")
        assert shown["mean"] == visits / 500
        assert "is ahead" not in answer["overall"]["reason"]
        if metric == "visit":
            low, high = shown["interval"]
            assert (low, high)[visits > 0] == shown["mean"], "it lies at the end of its interval"
            assert 0.005 < high - low < 0.008  # 3.7 / 500 by the posterior's 97.5 %


def test_one_variant_without_data(session: Session) -> None:
    series = start_experiment(session, variants=("a", "b", "c"))
    for variant, visits in (("a", 40), ("b", 60)):
        observe(session, series, variant=variant, n_units=400, visits=visits)
    answer = _looked_at(session)
    missing = variant_of(answer["overall"], "c")
    assert (missing["mean"], missing["probability_best"], missing["reason"]) == (None, None, "not estimable: no unit")
    best = [variant_of(answer["overall"], key)["probability_best"] for key in ("a", "b")]
    assert sum(best) == pytest.approx(1.0)
    assert variant_of(answer["overall"], "b")["uplift"]["absolute"] == pytest.approx(0.05)


def test_one_huge_outlier_widens_the_interval_and_ships_nothing(session: Session) -> None:
    """One customer of b spends a million: the mean follows, and so does its interval, which holds zero."""
    series = start_experiment(session, goal="spend", metrics=["visit"])
    for day in range(14):
        for variant in ("a", "b"):
            spent: dict[str, Any] = {"total": "300", "squares": "3300"}
            if variant == "b" and day == 3:
                spent = {"total": str(Decimal(1_000_300)), "squares": str(Decimal(10) ** 12 + 3_300)}
            observe(session, series, variant=variant, n_units=300, visits=30, day=day, metric="spend", **spent)
    answer = _looked_at(session, "spend")
    low, high = variant_of(answer["overall"], "b")["uplift"]["interval"]
    assert low < 0.0 < high
    assert answer["overall"]["verdict"] == "keep_running"
    assert any("b in all segments (420 responded, worth 1.0 equal sums)" in words for words in answer["warnings"])


def test_gains_and_losses_that_cancel_are_no_few_large_sums(session: Session) -> None:
    """Margins about 0 of a and about 2 of b, sd 10, 4,200 units each: z is 9, a's sum worth no equal amount."""
    rng = np.random.default_rng(20261127)
    series = start_experiment(session, goal="spend", metrics=["visit"])
    for day in range(14):
        for variant, mean in (("a", 0.0), ("b", 2.0)):
            margin = rng.normal(mean, 10.0, 300)
            spent: dict[str, Any] = {"total": f"{margin.sum():.6f}", "squares": f"{(margin**2).sum():.6f}"}
            observe(session, series, variant=variant, n_units=300, visits=300, day=day, metric="spend", **spent)
    answer = _looked_at(session, "spend")
    assert (answer["overall"]["verdict"], answer["overall"]["winner"]) == ("ship", "b")
    assert not any("Few units carry" in words for words in answer["warnings"])


def test_money_of_a_usual_spread_is_no_outlier_and_clicks_have_none(session: Session) -> None:
    """50 payers of log-normal sums of log sd 1: some 18 equal ones. Rates are all alike."""
    series = start_experiment(session, goal="spend", metrics=["visit"])
    amounts = np.exp(stats.norm.ppf((np.arange(50) + 0.5) / 50))
    spent: dict[str, Any] = {"total": f"{amounts.sum():.6f}", "squares": f"{(amounts**2).sum():.6f}"}
    for variant in ("a", "b"):
        observe(session, series, variant=variant, n_units=500, visits=50, metric="spend", **spent)
        observe(session, series, variant=variant, n_units=500, visits=50)
    for metric in ("spend", "visit"):
        assert not any("Few units carry" in words for words in _looked_at(session, metric)["warnings"])


def test_refunds_make_negative_means_that_are_told(session: Session) -> None:
    series = start_experiment(session, goal="spend", metrics=["visit"])
    refunds: dict[str, Any] = {"metric": "spend", "visits": 50, "squares": "6000"}
    observe(session, series, variant="a", n_units=500, total="-400", **refunds)
    observe(session, series, variant="b", n_units=500, total="200", **refunds)
    answer = _looked_at(session, "spend")
    treated = variant_of(answer["overall"], "b")
    assert variant_of(answer["overall"], "a")["mean"] == pytest.approx(-0.8)
    assert treated["uplift"]["absolute"] == pytest.approx(1.2)
    assert treated["uplift"]["relative"] is None
    assert "not clearly above zero" in treated["uplift"]["reason"]


def test_a_billion_units(session: Session) -> None:
    """A difference of 0.01 points of 10 %, z = 7.5: found, to the digit."""
    series = start_experiment(session)
    for day in range(10):
        observe(session, series, variant="a", n_units=BILLION // 10, visits=10_000_000, day=day)
        observe(session, series, variant="b", n_units=BILLION // 10, visits=10_010_000, day=day)
    answer = _looked_at(session)
    treated = variant_of(answer["overall"], "b")
    assert treated["uplift"]["absolute"] == pytest.approx(1e-4)
    assert treated["probability_beats_control"] > 1.0 - 1e-9
    low, high = treated["uplift"]["interval"]
    assert 0.0 < low < high < 2e-4


def test_what_companies_pay_says_nothing_of_people(session: Session) -> None:
    """People pay 20 or 24 (sd 5), companies some 25,000 (sd 76,000): a person's row is what it would be alone.

    Expected: Student's intervals of the row's own mean by scipy, which ours are within 3 % of from 20 payers on.
    """
    series = start_experiment(session, segments=("b2b", "b2c"), goal="spend", metrics=["visit"])
    for segment, variant, mean, sd in (
        ("b2c", "a", 20.0, 5.0),
        ("b2c", "b", 24.0, 5.0),
        ("b2b", "a", 25_000.0, 76_000.0),
        ("b2b", "b", 25_000.0, 76_000.0),
    ):
        sums: dict[str, Any] = {"total": str(1_000 * mean), "squares": str(999 * sd**2 + 1_000 * mean**2)}
        observe(session, series, variant=variant, segment=segment, n_units=1_000, visits=1_000, metric="spend", **sums)
    answer = _looked_at(session, "spend")
    (people,) = (row for row in answer["segments"] if row["segment"] == "b2c")
    half = stats.t.ppf(0.975, 999) * 5.0 / np.sqrt(1_000)
    for key, mean in (("a", 20.0), ("b", 24.0)):
        row = variant_of(people, key)
        assert row["interval"] == pytest.approx([mean - half, mean + half], abs=0.01 * half)
        assert row["hurdle"]["mean"] == pytest.approx(mean, rel=0.01)
    uplift = variant_of(people, "b")["uplift"]
    assert uplift["interval"] == pytest.approx([4.0 - half * 2**0.5, 4.0 + half * 2**0.5], abs=0.01 * half)
    assert variant_of(people, "b")["probability_best"] > 0.999


def test_identical_payers_prove_no_difference_of_what_never_varied(session: Session) -> None:
    series = start_experiment(session, goal="spend", metrics=["visit"])
    for day in range(14):
        for variant in ("a", "b"):
            paid: dict[str, Any] = {"metric": "spend", "total": "140", "squares": "980"}
            observe(session, series, variant=variant, n_units=20, visits=20, day=day, **paid)
    overall = _looked_at(session, "spend")["overall"]
    assert overall["verdict"] == "keep_running"
    assert overall["reason"].startswith("No variant is known to be ahead")
    uplift = variant_of(overall, "b")["uplift"]
    assert (uplift["absolute"], uplift["interval"]) == (0.0, None)
    assert "no outcome varies" in uplift["reason"]
