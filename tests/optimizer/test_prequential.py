"""Expected values: one stratum by hand; simulated worlds whose truth is known, with weights that move."""

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import chi2, norm

from optimizer.errors import InvalidArgument, InvalidCounts, OptimizerError
from optimizer.prequential import DayStrata, PrequentialValue, prequential_value

Floats = NDArray[np.float64]


def _strata(
    n_units: Floats,
    total: Floats,
    *,
    propensity: Floats,
    segment: list[int],
    day: list[int],
    squares: Floats | None = None,
) -> DayStrata:
    return DayStrata(
        segment=np.array(segment),
        day=np.array(day),
        n_units=n_units,
        total=total,
        sum_squares=total if squares is None else squares,
        propensity=propensity,
        n_segments=max(segment) + 1,
    )


def _two_days() -> DayStrata:
    """Day 0: segment 0 does best with 1, segment 1 with 0, and 0 is best for all. Day 1 is to be evaluated."""
    n = np.array([[4e4, 4e4], [4e4, 4e4], [600.0, 400.0], [500.0, 500.0]])
    total = np.array([[4e3, 6e3], [8e3, 4e3], [60.0, 50.0], [100.0, 90.0]])
    weights = np.array([[0.5, 0.5], [0.5, 0.5], [0.6, 0.4], [0.5, 0.5]])
    return _strata(n, total, propensity=weights, segment=[0, 1, 0, 1], day=[0, 0, 1, 1])


def test_the_value_is_that_of_the_weighted_difference_by_hand() -> None:
    """One segment differs, on one later day.

    Segment 0 expects 10,000 / 80,000 = 0.125. Own (1): (50 - 400 * 0.125) / 0.4 = 0; one for all (0): (60 - 600 *
    0.125) / 0.6 = -25. Value 25 over 2,000 units (segment 1's choices agree). Squares: (1 - 0.125)^2 and 0.125^2.
    """
    found = prequential_value(_two_days(), control_index=0)
    squares = (50 * 0.875**2 + 350 * 0.125**2) / 0.16 + (60 * 0.875**2 + 540 * 0.125**2) / 0.36
    assert found.estimable
    assert found.value == pytest.approx(25 / 2_000)
    assert found.standard_error == pytest.approx(np.sqrt(squares - 25**2 / 1_000) / 2_000)
    # Control's mean, weighted: (1,000 * 0.125 - 25 + 1,000 * 0.15 + (100 - 500 * 0.15) / 0.5) / 2,000 = 0.15.
    assert found.relative == pytest.approx(25 / 2_000 / 0.15)
    assert (found.n_units, found.covered, found.n_periods) == (2_000.0, 1.0, 1)


def test_lower_is_better_mirrors() -> None:
    """Of a complaint, segment 0 does best with 0, segment 1 with 1; 1 is best for all. Worth -25 again, by symmetry."""
    found = prequential_value(_two_days(), control_index=0, higher_is_better=False)
    assert found.value == pytest.approx((0.0 + 25.0) / 2_000)


def test_a_choice_that_later_weights_never_give_is_not_covered() -> None:
    strata = _two_days()
    weights, n, total = strata.propensity.copy(), strata.n_units.copy(), strata.total.copy()
    weights[2], n[2], total[2] = [1.0, 0.0], [600.0, 0.0], [60.0, 0.0]
    found = prequential_value(
        replace(strata, propensity=weights, n_units=n, total=total, sum_squares=total), control_index=0
    )
    assert not found.estimable
    assert "never differed" in found.reason
    assert np.isnan(found.value)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"day": np.zeros(4, dtype=np.int64)}, "1 days"),
        ({"n_units": np.zeros((4, 2)), "total": np.zeros((4, 2)), "sum_squares": np.zeros((4, 2))}, "0 days"),
    ],
)
def test_two_days_are_needed(change: dict[str, NDArray[np.generic]], reason: str) -> None:
    found = prequential_value(replace(_two_days(), **change), control_index=0)  # type: ignore[arg-type]
    assert not found.estimable
    assert reason in found.reason


def test_a_handful_of_units_is_no_check() -> None:
    strata = _two_days()
    n, total = strata.n_units.copy(), strata.total.copy()
    n[2], total[2] = [30.0, 5.0], [3.0, 1.0]
    found = prequential_value(replace(strata, n_units=n, total=total, sum_squares=total), control_index=0)
    assert not found.estimable
    assert "only 5 units" in found.reason


def _world(rng: np.random.Generator, rate: Floats) -> PrequentialValue:
    """Ten days on which weights move towards what was best so far, and base rates fall by a third."""
    n_segments, n_variants = rate.shape
    n_days, rows = 10, []
    seen, responded = np.ones(rate.shape), 0.1 * np.ones(rate.shape)
    for day in range(n_days):
        score = np.exp(20.0 * (responded / seen))
        weights = 0.05 + (1 - 0.05 * n_variants) * score / score.sum(axis=1, keepdims=True)
        units = np.stack([rng.multinomial(400, row) for row in weights]).astype(float)
        responders = rng.binomial(units.astype(int), rate * (1.0 - day / 30.0)).astype(float)
        seen, responded = seen + units, responded + responders
        rows.append((units, responders, weights))
    units, responders, weights = (np.concatenate([row[i] for row in rows]) for i in range(3))
    days = np.repeat(np.arange(n_days), n_segments).tolist()
    segments = np.tile(np.arange(n_segments), n_days).tolist()
    strata = _strata(units, responders, propensity=weights, segment=segments, day=days)
    return prequential_value(strata, control_index=0, most_periods=3)


def test_without_heterogeneity_it_is_unbiased_with_the_right_standard_error_though_weights_move() -> None:
    """120 worlds of equal variants: every choice is truly worth 0. False alarm: 1 in 1,000 each for mean and spread."""
    rng = np.random.default_rng(20261125)
    worlds = [_world(rng, np.repeat(rng.uniform(0.05, 0.3, size=(6, 1)), 3, axis=1)) for _ in range(120)]
    scores = np.array([world.value / world.standard_error for world in worlds if world.estimable])
    assert scores.size > 90
    assert abs(scores.mean()) * np.sqrt(scores.size) < norm.ppf(0.9995)
    n = scores.size
    assert chi2.ppf(0.0005, n) / n < (scores**2).mean() < chi2.ppf(0.9995, n) / n


def test_real_heterogeneity_has_a_positive_value() -> None:
    """Segments 0 to 2 do best with variant 1, the others with 2, by 50 %: all of 10 worlds say so."""
    rng = np.random.default_rng(20261126)
    rate = 0.2 * np.array([[1.0, 1.5, 1.0]] * 3 + [[1.0, 1.0, 1.5]] * 3)
    assert all(
        world.estimable and world.value > 2 * world.standard_error for world in (_world(rng, rate) for _ in range(10))
    )


@pytest.mark.parametrize(
    ("change", "error", "named"),
    [
        ({"segment": np.array([0, 1, 0, 2])}, InvalidArgument, "segment"),
        ({"day": np.array([0, 1])}, InvalidArgument, "segment"),
        ({"propensity": np.full((4, 2), 0.4)}, InvalidArgument, "propensity"),
        ({"total": np.zeros((4, 3))}, InvalidArgument, "n_units"),
        ({"total": np.full((4, 2), np.nan)}, InvalidCounts, "total"),
        ({"n_units": np.full((4, 2), -1.0)}, InvalidCounts, "n_units"),
    ],
)
def test_strata_that_cannot_be_are_refused_by_name(
    change: dict[str, NDArray[np.generic]], error: type[OptimizerError], named: str
) -> None:
    with pytest.raises(error, match=named):
        replace(_two_days(), **change)  # type: ignore[arg-type]


def test_settings_that_cannot_be_are_refused_by_name() -> None:
    with pytest.raises(InvalidArgument, match="control_index"):
        prequential_value(_two_days(), control_index=2)
    with pytest.raises(InvalidArgument, match="most_periods"):
        prequential_value(_two_days(), control_index=0, most_periods=0)
