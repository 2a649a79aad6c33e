"""Posteriors are calibrated: truths drawn from the prior lie where the posterior says. Seeded; exact bounds."""

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from optimizer.comparison import against_control, best_and_loss, probability_best
from optimizer.posteriors import BetaPosterior, MeanPrior, StudentPosterior, beta_posterior, mean_posterior

Floats = NDArray[np.float64]

N_WORLDS = 4_000
PRIOR = MeanPrior(mean=2.0, weight=4.0, variance=9.0, degrees_of_freedom=8.0)


def _rates(rng: np.random.Generator, *, n_units: int, n_variants: int = 1) -> tuple[Floats, BetaPosterior]:
    """True rates from Beta(4, 36), and their posteriors under that prior."""
    truth = rng.beta(4.0, 36.0, (N_WORLDS, n_variants))
    seen = rng.binomial(n_units, truth)
    return truth, beta_posterior(seen, np.full(seen.shape, n_units), prior_alpha=4.0, prior_beta=36.0)


def _means(rng: np.random.Generator, *, n_units: int, n_variants: int = 1) -> tuple[Floats, StudentPosterior]:
    """True means and variances from the prior, normal outcomes, and the posteriors of the means."""
    shape = N_WORLDS, n_variants
    variance = PRIOR.degrees_of_freedom * PRIOR.variance / rng.chisquare(PRIOR.degrees_of_freedom, shape)
    truth = rng.normal(PRIOR.mean, np.sqrt(variance / PRIOR.weight))
    outcomes = rng.normal(truth, np.sqrt(variance), (n_units, *shape))
    n = np.full(shape, float(n_units))
    return truth, mean_posterior(n, total=outcomes.sum(axis=0), sum_squares=(outcomes**2).sum(axis=0), prior=PRIOR)


@pytest.mark.parametrize("n_units", [10, 300])
def test_the_rank_of_a_true_rate_in_its_posterior_is_uniform(n_units: int) -> None:
    """Kolmogorov-Smirnov. False alarm 1 in 10**6; a prior off by a third in its weight at 10 units fails."""
    truth, posterior = _rates(np.random.default_rng(20261125), n_units=n_units)
    assert stats.kstest(posterior.cdf(truth).ravel(), "uniform").pvalue > 1e-6


@pytest.mark.parametrize("n_units", [3, 40])
def test_the_rank_of_a_true_mean_in_its_posterior_is_uniform(n_units: int) -> None:
    """Kolmogorov-Smirnov. False alarm 1 in 10**6; a normal in place of the Student of 11 degrees of freedom fails."""
    truth, posterior = _means(np.random.default_rng(20261125), n_units=n_units)
    assert stats.kstest(posterior.cdf(truth).ravel(), "uniform").pvalue > 1e-6


def test_intervals_of_rates_and_means_cover_at_their_level() -> None:
    """Of 4,000 each. False alarm: 1 in 10**6. A true coverage of 0.92 fails 99 % of the time."""
    rng = np.random.default_rng(7)
    for truth, posterior in (_rates(rng, n_units=100), _means(rng, n_units=12)):
        low, high = posterior.interval(0.95)
        covered = int(((low <= truth) & (truth <= high)).sum())
        assert stats.binomtest(covered, N_WORLDS, 0.95).pvalue > 1e-6


@pytest.mark.parametrize("kind", ["rates", "means"])
def test_probability_best_is_calibrated(kind: str) -> None:
    """Of the variants said to be best with probability about p, a share p is. Chi-squared over ten bins.

    False alarm: 1 in 10**6. Probabilities pushed from p to p^1.5 / sum fail.
    """
    rng = np.random.default_rng(11)
    truth, posterior = (
        _rates(rng, n_units=200, n_variants=3) if kind == "rates" else _means(rng, n_units=20, n_variants=3)
    )
    said = probability_best(posterior)
    assert _misfit(said, truth) > 1e-6
    pushed = said**1.5
    assert _misfit(pushed / pushed.sum(axis=1, keepdims=True), truth) < 1e-3


def _misfit(said: Floats, truth: Floats) -> float:
    """P-value of said probabilities, given which variant was best; one variant a world: independent terms."""
    world, variant = np.arange(len(said)), np.arange(len(said)) % said.shape[1]
    p, won = said[world, variant], (truth.argmax(axis=1) == variant).astype(np.float64)
    which = np.minimum((p * 10).astype(int), 9)
    gap, spread = (np.bincount(which, weights=values, minlength=10) for values in (won - p, p * (1.0 - p)))
    used = spread > 1.0
    return float(stats.chi2.sf((gap[used] ** 2 / spread[used]).sum(), used.sum()))


def test_expected_loss_is_what_is_lost_on_average() -> None:
    """The mean over 4,000 worlds of what shipping a variant lost, within 4.9 standard errors (1 in 10**6)."""
    truth, posterior = _rates(np.random.default_rng(13), n_units=200, n_variants=3)
    gap = truth.max(axis=1) - truth[:, 0] - best_and_loss(posterior)[1][:, 0]
    assert abs(gap.mean()) < 4.9 * gap.std() / np.sqrt(gap.size)


def test_the_chance_to_beat_control_is_calibrated() -> None:
    """As above, of two variants."""
    truth, posterior = _rates(np.random.default_rng(17), n_units=150, n_variants=2)
    p, won = against_control(posterior, control_index=0).beats[:, 1], truth[:, 1] > truth[:, 0]
    which = np.minimum((p * 10).astype(int), 9)
    gap, spread = (np.bincount(which, weights=values, minlength=10) for values in (won - p, p * (1.0 - p)))
    assert stats.chi2.sf((gap**2 / spread).sum(), 10) > 1e-6
