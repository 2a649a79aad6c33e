import numpy as np
import pytest
from numpy.typing import NDArray

from optimizer.delay import (
    DelayCurve,
    DelayNotIdentified,
    age_bin,
    age_bin_edges,
    delay_curve,
    matured_fraction,
)
from optimizer.errors import InvalidCounts

Floats = NDArray[np.float64]
DAY = 86_400.0
WEEK = 7.0 * DAY


def test_edges_run_from_one_minute_to_ninety_days_in_equal_ratios() -> None:
    edges = np.array(age_bin_edges())
    assert edges[[0, -1]] == pytest.approx([60.0, 7_776_000.0], rel=1e-12)
    assert edges[1:] / edges[:-1] == pytest.approx(np.full(32, 129_600.0 ** (1 / 32)), rel=1e-9)


@pytest.mark.parametrize("seconds", [-5.0, 0.0, 59.9, 60.0, 61.0, 86_400.0, 7_776_000.0, 1e12])
def test_a_delay_falls_between_the_edges_of_its_bin(seconds: float) -> None:
    edges = (-np.inf, *age_bin_edges(), np.inf)
    index = age_bin(seconds)
    assert edges[index] <= seconds < edges[index + 1]


def test_the_curve_is_that_of_complete_cohorts_when_all_are_old() -> None:
    """By hand: 30 responders in the first minute, 70 in the second bin, a window at that bin's end."""
    window = age_bin_edges()[1]
    counts = np.zeros((1, 1, 34))
    counts[0, 0, :2] = [30.0, 70.0]
    counts[0, 0, 5] = 1000.0  # after the window
    curve = delay_curve(counts, age_seconds=[window], window_seconds=window)
    assert isinstance(curve, DelayCurve)
    assert curve.age_seconds == pytest.approx([60.0, window])
    assert curve.fraction == pytest.approx(np.array([[0.3, 1.0]]), abs=1e-12)


def test_young_cohorts_do_not_bend_the_curve() -> None:
    """Exponential delays given a window of 7 days: F(a) = (1 - exp(-a / 2)) / (1 - exp(-7 / 2)), ages 0 to 14 days.

    Half of 40,000 responders are in cohorts whose window is over: five standard errors of F are at most 5 * 0.5 / 141.
    """
    counts, ages = _cohorts([0.5], n_responders=40_000, seed=1)
    curve = delay_curve(counts, age_seconds=ages, window_seconds=WEEK)
    assert isinstance(curve, DelayCurve)
    expected = _truth(0.5, curve.age_seconds)
    assert np.abs(curve.fraction[0] - expected).max() < 0.0175


def test_a_growing_base_rate_does_not_bend_the_curve() -> None:
    """Twice as many responders a day later on: only the ages' mix changes, not the delays."""
    counts, ages = _cohorts([0.5], n_responders=40_000, seed=2, growth=3.0)
    curve = delay_curve(counts, age_seconds=ages, window_seconds=WEEK)
    assert isinstance(curve, DelayCurve)
    assert np.abs(curve.fraction[0] - _truth(0.5, curve.age_seconds)).max() < 0.0175


def test_a_slow_variant_is_not_mistaken_for_a_worse_one() -> None:
    """S9 of reference/REVIEW.md: one pooled curve sets equal variants 27 % apart; their own, at most 4 %."""
    rates = [0.5, 1.0]
    counts, ages = _cohorts(rates, n_responders=40_000, seed=3)
    curve = delay_curve(counts, age_seconds=ages, window_seconds=WEEK)
    assert isinstance(curve, DelayCurve)
    young = np.linspace(0.05, 3.0, 60) * DAY
    estimated = matured_fraction(young, curve).mean(axis=0)
    expected = np.array([_truth(rate, young).mean() for rate in rates])
    assert estimated / expected == pytest.approx([1.0, 1.0], abs=0.02)
    assert expected[1] / expected[0] > 1.2


def test_a_variant_without_responders_gets_the_curve_of_its_metric() -> None:
    counts, ages = _cohorts([0.5], n_responders=5_000, seed=4)
    two = np.concatenate([counts, np.zeros_like(counts)], axis=1)
    alone = delay_curve(counts, age_seconds=ages, window_seconds=WEEK)
    curve = delay_curve(two, age_seconds=ages, window_seconds=WEEK)
    assert isinstance(curve, DelayCurve)
    assert isinstance(alone, DelayCurve)
    assert curve.fraction[1] == pytest.approx(alone.fraction[0], abs=1e-9)


def test_before_any_window_is_over_the_curve_is_not_identified() -> None:
    counts, ages = _cohorts([0.5], n_responders=5_000, seed=5)
    young = ages < 3.0 * DAY
    result = delay_curve(counts[young], age_seconds=ages[young], window_seconds=WEEK)
    assert result == DelayNotIdentified(n_matured_responders=0.0)


def test_the_matured_share_grows_from_nothing_to_all() -> None:
    counts, ages = _cohorts([0.5, 1.0], n_responders=5_000, seed=6)
    curve = delay_curve(counts, age_seconds=ages, window_seconds=WEEK)
    assert isinstance(curve, DelayCurve)
    share = matured_fraction(np.linspace(0.0, 10.0, 200) * DAY, curve)
    assert share[0].tolist() == [0.0, 0.0]
    assert share[-1].tolist() == [1.0, 1.0]
    assert (np.diff(share, axis=0) >= 0.0).all()


def test_impossible_delays_are_refused() -> None:
    with pytest.raises(InvalidCounts, match="shape"):
        delay_curve(np.zeros((2, 34)), age_seconds=[1.0, 2.0], window_seconds=WEEK)
    with pytest.raises(InvalidCounts, match="negative"):
        delay_curve(np.full((1, 1, 34), -1.0), age_seconds=[1.0], window_seconds=WEEK)
    with pytest.raises(InvalidCounts, match="window_seconds"):
        delay_curve(np.zeros((1, 1, 34)), age_seconds=[1.0], window_seconds=0.0)


def _truth(rate: float, age_seconds: Floats) -> Floats:
    seen: Floats = np.expm1(-rate * np.minimum(age_seconds, WEEK) / DAY) / np.expm1(-rate * 7.0)
    return seen


def _cohorts(rates: list[float], *, n_responders: int, seed: int, growth: float = 0.0) -> tuple[Floats, Floats]:
    """Responders of 56 six-hour cohorts, by variant and bin of delay: those that have responded by now."""
    rng = np.random.default_rng(seed)
    ages: Floats = np.linspace(0.125, 13.875, 56) * DAY
    busy = 1.0 + growth * (1.0 - ages / ages.max())
    counts: Floats = np.zeros((56, len(rates), 34))
    for variant, rate in enumerate(rates):
        cohort = rng.choice(56, size=n_responders, p=busy / busy.sum())
        delay = rng.exponential(DAY / rate, size=n_responders)
        seen = delay <= np.minimum(ages[cohort], WEEK)
        bins = np.searchsorted(np.array(age_bin_edges()), delay[seen], side="right")
        np.add.at(counts[:, variant], (cohort[seen], bins), 1.0)
    return counts, ages
