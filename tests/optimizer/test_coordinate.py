"""Bounds, distribution functions and their curves against scipy's distributions and adaptive quadrature."""

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.integrate import quad
from scipy.special import expit, logit
from scipy.stats import beta, norm, t

from optimizer.coordinate import OUTSIDE, bounds, cdf, coordinate, density, outcome, score, shortfall
from optimizer.posteriors import BetaPosterior, Posterior, StudentPosterior
from optimizer.score_curve import ScoreCurve

Floats = NDArray[np.float64]


def log_uniform(seed: int, low: float, high: float) -> Floats:
    return np.exp(np.random.default_rng(seed).uniform(np.log(low), np.log(high), (2_000, 1)))


RATES = BetaPosterior(log_uniform(1, 0.1, 1e9), log_uniform(2, 0.1, 1e9))
MEANS = StudentPosterior(log_uniform(3, 0.1, 10), log_uniform(4, 0.01, 10), log_uniform(5, 2.0, 1e6))


@pytest.mark.parametrize("alpha", [0.5, 3.0, 7.9, 8.0, 20.0, 1e3, 1e9])
@pytest.mark.parametrize("beta_", [0.5, 8.0, 55.0, 1e6])
def test_hardly_anything_lies_beyond_the_bounds_of_a_rate_and_they_are_not_far(alpha: float, beta_: float) -> None:
    low, high = bounds(BetaPosterior(np.array([alpha]), np.array([beta_])))
    beyond = beta(alpha, beta_).cdf(expit(low)), beta(beta_, alpha).cdf(expit(-high))
    assert max(beyond)[0] <= OUTSIDE * (1 + 1e-6)
    assert min(beyond)[0] >= OUTSIDE / 50.0


def test_coordinates_go_to_outcomes_and_back() -> None:
    for posterior in (RATES, MEANS):
        at = np.linspace(*bounds(posterior), 9, axis=-1)[:, 0]
        inside = at < 15.0  # rates nearer to 1 have too few digits
        back = coordinate(posterior, outcome(posterior, at))
        assert back[inside] == pytest.approx(at[inside], rel=1e-6, abs=1e-6)


@pytest.mark.parametrize(("alpha", "beta_"), [(0.3, 2.0), (1.0, 1.0), (40.0, 960.0), (8.0, 1e6), (3e5, 7e5)])
def test_a_rates_functions_in_log_odds_equal_scipys(alpha: float, beta_: float) -> None:
    one, truth = BetaPosterior(np.array([alpha]), np.array([beta_])), beta(alpha, beta_)
    rate = truth.ppf(np.array([1e-9, 0.01, 0.5, 0.99, 1 - 1e-9]))
    at = logit(rate)
    assert cdf(one, at) == pytest.approx(truth.cdf(rate), rel=1e-7)
    assert density(one, at) == pytest.approx(truth.pdf(rate) * rate * (1 - rate), rel=1e-6)
    assert score(one, at[:3]) == pytest.approx(norm.ppf(truth.cdf(rate[:3])), abs=1e-7)
    assert score(one, at[3:]) == pytest.approx(-norm.ppf(truth.sf(rate[3:])), abs=1e-6)
    for level in rate[1:4]:
        expected = quad(truth.cdf, 0.0, level, points=[rate[0], rate[1]], epsabs=0.0, epsrel=1e-10, limit=200)[0]
        assert shortfall(one, np.array([logit(level)])) == pytest.approx([expected], rel=1e-6)


@pytest.mark.parametrize("df", [2.5, 30.0, 1e5])
def test_a_means_functions_equal_scipys(df: float) -> None:
    one, truth = StudentPosterior(np.array([3.0]), np.array([0.5]), np.array([df])), t(df, 3.0, 0.5)
    at = truth.ppf(np.array([1e-9, 0.01, 0.5, 0.99]))
    assert cdf(one, at) == pytest.approx(truth.cdf(at), rel=1e-7)
    assert score(one, at) == pytest.approx(norm.ppf(truth.cdf(at)), abs=1e-6)
    for level in at[1:]:
        expected = quad(truth.cdf, -np.inf, level, epsabs=1e-13)[0]
        assert shortfall(one, np.array([level])) == pytest.approx([expected], rel=1e-6)


@pytest.mark.parametrize(
    ("posterior", "least"),
    [
        (RATES, 0.0),
        (BetaPosterior(log_uniform(6, 8, 1e9), log_uniform(7, 8, 1e9)), 0.99),
        (MEANS, 0.0),
        (StudentPosterior(MEANS.location, MEANS.scale, log_uniform(8, 60, 1e6)), 0.99),
    ],
    ids=["any rates", "rates", "any means", "means"],
)
def test_trusted_curves_give_the_distribution_function_everywhere(posterior: Posterior, least: float) -> None:
    curve = ScoreCurve.of(posterior)
    assert curve.trusted.mean() >= least
    rows = np.flatnonzero(curve.trusted)
    low, high = bounds(posterior)
    outcomes = outcome(posterior, low - 0.1 * (high - low) + np.linspace(0.0, 1.2, 97) * (high - low))
    found, expected = curve.cdf(outcomes[rows], rows), posterior.cdf(outcomes)[rows]
    assert np.abs(found - expected).max() < (1e-8 if least > 0.0 else 2e-8)
    few = rows[::7]
    assert curve.chosen(few).cdf(outcomes[few], np.arange(few.size)) == pytest.approx(found[::7], abs=1e-15)


def test_outcomes_that_no_rate_has_are_certain_or_impossible() -> None:
    curve = ScoreCurve.of(BetaPosterior(np.array([[40.0]]), np.array([[960.0]])))
    assert curve.cdf(np.array([[-0.1, 0.0, 1.0, 1.1]]), np.array([0])) == pytest.approx(
        np.array([[0.0, 0.0, 1.0, 1.0]]), abs=1e-9
    )
