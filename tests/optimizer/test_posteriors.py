import numpy as np
import pytest
from scipy import stats

from optimizer.errors import InvalidCounts, InvalidPosterior, NoVariation
from optimizer.posteriors import (
    BetaPosterior,
    MeanPrior,
    StudentPosterior,
    beta_posterior,
    mean_posterior,
    weak_mean_prior,
    weak_mean_priors,
)

ALPHA, BETA = np.array([0.5, 3.0, 20_001.0]), np.array([0.5, 9.0, 980_001.0])
LOCATION, SCALE, DF = np.array([0.0, -2.0, 1e6]), np.array([1.0, 0.01, 30.0]), np.array([3.0, 2.5, 1e6])
Q = np.array([[1e-9], [0.025], [0.5], [0.9]])


def test_beta_agrees_with_scipy_stats() -> None:
    posterior, reference = BetaPosterior(ALPHA, BETA), stats.beta(ALPHA, BETA)
    x = reference.ppf(Q)
    assert posterior.ppf(Q) == pytest.approx(x, rel=1e-9)
    assert posterior.cdf(x) == pytest.approx(reference.cdf(x), rel=1e-9)
    assert posterior.pdf(x) == pytest.approx(reference.pdf(x), rel=1e-6)
    assert posterior.mean == pytest.approx(reference.mean(), rel=1e-12)
    assert posterior.sd == pytest.approx(reference.std(), rel=1e-12)
    assert np.array(posterior.interval(0.95)) == pytest.approx(np.array(reference.interval(0.95)), rel=1e-9)


def test_beta_has_no_mass_outside_the_unit_interval() -> None:
    posterior = BetaPosterior(np.array([2.0]), np.array([3.0]))
    assert posterior.pdf([-0.1, 1.1]).tolist() == [0.0, 0.0]
    assert posterior.cdf([-0.1, 1.1]).tolist() == [0.0, 1.0]


def test_student_agrees_with_scipy_stats() -> None:
    posterior, reference = StudentPosterior(LOCATION, SCALE, DF), stats.t(DF, LOCATION, SCALE)
    x = reference.ppf(Q)
    assert posterior.ppf(Q) == pytest.approx(x, rel=1e-8)
    assert posterior.cdf(x) == pytest.approx(reference.cdf(x), rel=1e-6)
    assert posterior.pdf(x) == pytest.approx(reference.pdf(x), rel=1e-6)
    assert posterior.sd == pytest.approx(reference.std(), rel=1e-9)
    assert np.array(posterior.interval(0.95)) == pytest.approx(np.array(reference.interval(0.95)), rel=1e-8)


def test_student_of_two_degrees_of_freedom_has_no_finite_spread() -> None:
    assert StudentPosterior(np.array([0.0]), np.array([1.0]), np.array([2.0])).sd.tolist() == [np.inf]


def test_beta_posterior_adds_counts_to_the_prior() -> None:
    posterior = beta_posterior([3.0, 0.0], [10.0, 2.5], prior_alpha=0.5, prior_beta=2.0)
    assert posterior.alpha.tolist() == [3.5, 0.5]
    assert posterior.beta.tolist() == [9.0, 4.5]


def test_mean_posterior_is_the_textbook_update() -> None:
    """BDA3, section 3.3, by hand: prior (2, 4, variance 9, df 5); data 1, 3, 8.

    mu = (4 * 2 + 12) / 7; nu = 8; nu s^2 = 5 * 9 + 26 + (4 * 3 / 7) (4 - 2)^2 = 545 / 7; scale^2 = s^2 / 7.
    """
    prior = MeanPrior(mean=2.0, weight=4.0, variance=9.0, degrees_of_freedom=5.0)
    posterior = mean_posterior([3.0], total=[12.0], sum_squares=[74.0], prior=prior)
    assert posterior.location == pytest.approx([20.0 / 7.0], rel=1e-12)
    assert posterior.scale == pytest.approx([np.sqrt(545.0 / 7.0 / 8.0 / 7.0)], rel=1e-12)
    assert posterior.degrees_of_freedom.tolist() == [8.0]


def test_updating_in_two_steps_is_updating_once() -> None:
    rng = np.random.default_rng(4)
    first, second = rng.gamma(2.0, 3.0, size=40), rng.gamma(2.0, 3.0, size=25)
    prior = MeanPrior(mean=1.0, weight=2.0, variance=4.0, degrees_of_freedom=3.0)
    step = mean_posterior([40.0], total=[first.sum()], sum_squares=[(first**2).sum()], prior=prior)
    middle = MeanPrior(
        mean=step.location.item(),
        weight=42.0,
        variance=(step.scale**2).item() * 42.0,
        degrees_of_freedom=step.degrees_of_freedom.item(),
    )
    twice = mean_posterior([25.0], total=[second.sum()], sum_squares=[(second**2).sum()], prior=middle)
    both = np.concatenate([first, second])
    once = mean_posterior([65.0], total=[both.sum()], sum_squares=[(both**2).sum()], prior=prior)
    assert twice.location == pytest.approx(once.location, rel=1e-12)
    assert twice.scale == pytest.approx(once.scale, rel=1e-10)


def test_without_units_the_mean_posterior_is_the_prior() -> None:
    prior = MeanPrior(mean=3.0, weight=4.0, variance=16.0, degrees_of_freedom=5.0)
    posterior = mean_posterior([0.0], total=[0.0], sum_squares=[0.0], prior=prior)
    assert (posterior.location.item(), posterior.scale.item(), posterior.degrees_of_freedom.item()) == (3.0, 2.0, 5.0)


def test_a_variant_without_payers_is_not_taken_for_a_certain_zero() -> None:
    """S15 of reference/REVIEW.md: 100 units at Hillstrom's 0.9 % purchase, 40 % of the time without any payer.

    By hand: two others have 9 payers of 100 in 900 units each. The third's 95 % interval must still hold their mean, 1.
    """
    units, total, squares = [900.0, 900.0, 100.0], [900.0, 900.0, 0.0], [90_000.0, 90_000.0, 0.0]
    prior = weak_mean_prior(units, total=total, sum_squares=squares, n_responders=[9.0, 9.0, 0.0])
    low, high = mean_posterior(units, total=total, sum_squares=squares, prior=prior).interval(0.95)
    assert low[2] < 1.0 < high[2]
    assert prior.weight == pytest.approx(1900.0 / 18.0)
    assert prior.degrees_of_freedom == pytest.approx(19_000.0 / 18.0)
    assert prior.variance == pytest.approx((180_000.0 - 1800.0**2 / 1900.0) / 1899.0)


def test_a_prior_needs_outcomes_that_vary() -> None:
    with pytest.raises(NoVariation) as refused:
        weak_mean_prior([100.0], total=[0.0], sum_squares=[0.0], n_responders=[0.0])
    assert refused.value.code == "no_variation"
    with pytest.raises(NoVariation):
        weak_mean_prior([1.0], total=[5.0], sum_squares=[25.0], n_responders=[1.0])


@pytest.mark.parametrize(("responders", "units"), [(-1.0, 2.0), (3.0, 2.0), (np.nan, 2.0), (1.0, np.inf)])
def test_impossible_counts_are_refused(responders: float, units: float) -> None:
    with pytest.raises(InvalidCounts) as refused:
        beta_posterior([responders], [units])
    assert refused.value.code == "invalid_counts"


@pytest.mark.parametrize(
    ("n", "total", "squares"), [(0.0, 1.0, 1.0), (2.0, 10.0, 1.0), (-1.0, 0.0, 0.0), (2.0, np.nan, 1.0)]
)
def test_sums_that_contradict_each_other_are_refused(n: float, total: float, squares: float) -> None:
    prior = MeanPrior(mean=0.0, weight=1.0, variance=1.0, degrees_of_freedom=1.0)
    with pytest.raises(InvalidCounts):
        mean_posterior([n], total=[total], sum_squares=[squares], prior=prior)


def test_improper_parameters_are_refused() -> None:
    one, two = np.ones(1), np.ones(2)
    with pytest.raises(InvalidPosterior):
        BetaPosterior(np.zeros(1), one)
    with pytest.raises(InvalidPosterior, match="shapes"):
        BetaPosterior(one, two)
    with pytest.raises(InvalidPosterior, match="location"):
        StudentPosterior(np.array([np.nan]), one, one)
    with pytest.raises(InvalidPosterior, match="variance"):
        MeanPrior(mean=0.0, weight=1.0, variance=0.0, degrees_of_freedom=1.0)


def test_a_segment_with_responders_enough_takes_its_prior_from_its_own_variants() -> None:
    """Companies pay about 10,000, people about 20; a third segment has few payers and takes the prior of all."""
    rng = np.random.default_rng(7)
    values = [[rng.normal(mean, mean / 4, size=n) for _ in range(2)] for mean, n in ((10_000, 300), (20, 300), (20, 5))]
    n, total, squares = (
        np.array([[moment(one) for one in segment] for segment in values])
        for moment in (len, np.sum, lambda x: np.sum(x**2))
    )
    priors = weak_mean_priors(n, total=total, sum_squares=squares, n_responders=n)
    own = [weak_mean_prior(n[i], total=total[i], sum_squares=squares[i], n_responders=n[i]) for i in range(2)]
    whole = weak_mean_prior(n, total=total, sum_squares=squares, n_responders=n)
    for name in ("mean", "weight", "variance", "degrees_of_freedom"):
        expected = [getattr(prior, name) for prior in (*own, whole, whole)]
        assert np.ravel(getattr(priors, name)) == pytest.approx(expected)
