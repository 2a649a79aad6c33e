import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import brentq
from scipy.stats import norm

from optimizer.adaptive_contrast import adaptive_contrast
from optimizer.errors import InvalidArgument
from optimizer.sequential import half_width
from optimizer.shared_control import sceptical_effects
from optimizer.time_to_verdict import units_until_alike, units_until_clear

N_STAR = 5_000.0


def test_the_published_half_width_is_reached_at_its_units() -> None:
    """reference/STATISTICS.md, section 7.1: s = 1, t* = 5000: the half width at 1,000 units is .1063755."""
    more = units_until_clear([0.1063756, -0.1063756, 0.1063754], 0.1, n_units=100, n_star=N_STAR).more
    assert more.tolist() == [900, 900, 901]


@given(
    difference=st.floats(1e-3, 10.0), sd=st.floats(0.1, 10.0), n=st.integers(1, 100_000), ahead=st.floats(0.05, 50.0)
)
def test_at_the_units_found_the_interval_excludes_zero_and_one_unit_before_it_does_not(
    difference: float, sd: float, n: int, ahead: float
) -> None:
    """Directly: weights h of one over the unit's standard deviation make each unit's variance 1, so V = n + m."""
    found = units_until_clear(difference, sd / np.sqrt(n), n_units=n, n_star=N_STAR, unit_sd_ahead=ahead)
    more = float(found.more)

    def is_clear(m: float) -> bool:
        error = np.sqrt(n + m) / (n / sd + m / ahead)
        return bool(half_width(n + m, n_star=N_STAR) * np.sqrt(n + m) * error < difference)

    assert np.isfinite(more)
    assert is_clear(more * (1 + 1e-9))
    assert more == 0 or not is_clear((more - 1) * (1 - 1e-9))


def test_no_difference_is_never_clear_and_a_clear_one_needs_nothing() -> None:
    found = units_until_clear([0.0, 1.0, np.nan, 0.1], [0.1, 0.1, 0.1, 0.0], n_units=1_000, n_star=N_STAR)
    assert found.more.tolist() == [np.inf, 0, np.inf, np.inf]
    assert found.estimable.tolist() == [True, True, False, False]


def test_it_waits_for_enough_responders() -> None:
    """5 of 1,000 units responded: 20 need 4,000 units."""
    found = units_until_clear(
        [1.0, 1.0, 1.0], 0.1, n_units=1_000, n_star=N_STAR, n_responders=[5, 0, 40], least_responders=20
    )
    assert found.more.tolist() == [3_000, np.inf, 0]


def test_the_median_experiment_is_clear_about_then() -> None:
    """400 experiments per effect, looked at after every 20 units, from 200 units on; within 15 %."""
    rng = np.random.default_rng(20240629)
    for effect in (0.1, 0.2):
        planned = 200 + float(units_until_clear(effect, 1 / np.sqrt(200), n_units=200, n_star=N_STAR).more)
        steps = rng.standard_normal((400, 1_000)) * np.sqrt(20) + 20 * effect
        n = 20.0 * np.arange(1, 1_001)
        clear = (np.abs(np.cumsum(steps, axis=1)) / n > half_width(n, n_star=N_STAR)) & (n >= 200)
        assert clear.any(axis=1).all()
        crossing = np.median(n[clear.argmax(axis=1)])
        assert planned / 1.15 < crossing < planned * 1.15


def test_weights_that_have_moved_are_reckoned_with() -> None:
    """500 units by halves, then 90 and 10 of 100: the median of 300 adaptive contrasts is clear within 25 % of that."""
    rng, n_looks, effect = np.random.default_rng(20240630), 100, 0.25
    share = np.array([0.5] * 5 + [0.1] * (n_looks - 5))
    propensity = np.broadcast_to(np.stack([1 - share, share], axis=-1), (300, n_looks, 2))
    n_units = rng.multinomial(100, propensity).astype(np.float64)
    total = n_units * [0.0, effect] + np.sqrt(n_units) * rng.standard_normal(n_units.shape)
    squares = rng.chisquare(np.maximum(n_units - 1, 1e-9)) + total**2 / np.maximum(n_units, 1)
    predicted = np.broadcast_to([0.0, effect], n_units.shape)
    clear = np.zeros((300, n_looks), dtype=np.bool_)
    for look in range(5, n_looks):
        part = slice(0, look + 1)
        contrast = adaptive_contrast(
            n_units[:, part],
            total[:, part],
            sum_squares=squares[:, part],
            propensity=propensity[:, part],
            predicted=predicted[:, part],
            control_index=0,
        )
        width = half_width(contrast.n_units, n_star=N_STAR) * contrast.standard_error * np.sqrt(contrast.n_units)
        clear[:, look] = (contrast.estimate > width)[:, 1]
    ahead = np.sqrt(1 / 0.9 + 1 / 0.1)
    found = units_until_clear(effect, 2 / np.sqrt(500), n_units=500, n_star=N_STAR, unit_sd_ahead=ahead)
    as_before = units_until_clear(effect, 2 / np.sqrt(500), n_units=500, n_star=N_STAR)
    crossing = np.median(100 * (clear.argmax(axis=1) + 1))
    assert clear.any(axis=1).mean() > 0.95
    assert (500 + found.more) / 1.25 < crossing < (500 + found.more) * 1.25
    assert found.more > 1.3 * as_before.more


def by_hand(effect: float, variance: float, *, n: float) -> float:
    """Two variants, prior N(0, .05^2): units at which P(|effect| < .01) is .95, from the normal posterior."""

    def short(total: float) -> float:
        v = variance * n / total
        mean, sd = effect * 0.0025 / (v + 0.0025), np.sqrt(v * 0.0025 / (v + 0.0025))
        return float(norm.cdf((0.01 - mean) / sd) - norm.cdf((-0.01 - mean) / sd) - 0.95)

    return float(brentq(short, n, 1e12, xtol=1e-3))


@pytest.mark.parametrize("effect", [0.0, 0.001, -0.004, 0.009])
def test_alike_is_reached_where_the_normal_posterior_says(effect: float) -> None:
    found = units_until_alike(
        [0.0, effect],
        [0.0, 4e-4],
        control_variance=2e-4,
        control_index=0,
        n_units=10_000,
        prior_sd=0.05,
        smallest_effect=0.01,
    )
    assert found.more == np.ceil(by_hand(effect, 4e-4, n=10_000) - 10_000)


def test_an_effect_worth_having_is_never_alike_and_segments_are_taken_at_once() -> None:
    found = units_until_alike(
        [[0.0, 0.001, 0.002], [0.0, 0.001, 0.02], [0.0, 0.0, np.nan], [0.0, 0.0, 0.0]],
        [[0.0, 4e-4, 4e-4]] * 3 + [[0.0, 1e-9, 1e-9]],
        control_variance=[2e-4, 2e-4, 2e-4, 1e-10],
        control_index=0,
        n_units=[10_000] * 4,
        prior_sd=0.05,
        smallest_effect=0.01,
    )
    assert found.more[1:].tolist() == [np.inf, np.inf, 0]
    assert found.estimable.tolist() == [True, True, False, True]
    later = 10_000 / (10_000 + found.more[0])
    posterior = sceptical_effects(
        [0.0, 0.001, 0.002],
        np.array([0.0, 4e-4, 4e-4]) * later,
        control_variance=2e-4 * later,
        control_index=0,
        prior_sd=0.05,
    )
    assert posterior.probability_within(0.01)[1:].min() == pytest.approx(0.95, abs=1e-5)


def test_variants_that_are_not_available_do_not_hold_the_others_up() -> None:
    two, three = (
        units_until_alike(
            [0.0, 0.001, 0.5],
            [0.0, 4e-4, 4e-4],
            control_variance=0.0,
            control_index=0,
            n_units=10_000,
            prior_sd=0.05,
            smallest_effect=0.01,
            available=[True, True, third],
        )
        for third in (False, True)
    )
    assert np.isfinite(two.more)
    assert three.more == np.inf


def test_impossible_input_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="standard_error"):
        units_until_clear(0.1, -0.1, n_units=10, n_star=N_STAR)
    with pytest.raises(InvalidArgument, match="n_responders"):
        units_until_clear(0.1, 0.1, n_units=10, n_star=N_STAR, n_responders=-1)
    with pytest.raises(InvalidArgument, match="unit_sd_ahead"):
        units_until_clear(0.1, 0.1, n_units=10, n_star=N_STAR, unit_sd_ahead=np.nan)
    for name, wrong in (("n_units", 0.0), ("smallest_effect", 0.0), ("sure", 1.0)):
        settings = {"n_units": 100.0, "smallest_effect": 0.01, "sure": 0.95} | {name: wrong}
        with pytest.raises(InvalidArgument, match=name):
            units_until_alike(
                [0.0, 0.1], [0.0, 0.01], control_variance=1e-4, control_index=0, prior_sd=0.05, **settings
            )
