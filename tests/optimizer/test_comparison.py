import numpy as np
import pytest
from numpy.typing import ArrayLike
from scipy.special import betaln
from scipy.stats import beta, binom, norm, t

from optimizer.comparison import against_control, best_and_loss, probability_best
from optimizer.errors import InvalidArgument
from optimizer.posteriors import BetaPosterior, StudentPosterior, beta_posterior


def betas(*pairs: tuple[float, float]) -> BetaPosterior:
    alpha, beta_ = np.array(pairs, dtype=np.float64).T
    return BetaPosterior(alpha, beta_)


def students(location: ArrayLike, scale: ArrayLike, df: ArrayLike) -> StudentPosterior:
    return StudentPosterior(*(np.asarray(values, dtype=np.float64) for values in (location, scale, df)))


def miller(first: tuple[int, int], second: tuple[int, int]) -> float:
    """P(second > first), Evan Miller (2013), "Formulas for Bayesian A/B Testing", eq. 6: an exact finite sum."""
    (a, b), (c, d) = first, second
    i = np.arange(c)
    return float(np.exp(betaln(a + i, b + d) - np.log(d + i) - betaln(1 + i, d) - betaln(a, b)).sum())


def stucchio_loss(kept: tuple[int, int], other: tuple[int, int]) -> float:
    """E max(other - kept, 0), Stucchio (2015), section 5: two of Miller's probabilities."""
    (a, b), (c, d) = kept, other
    first = np.exp(betaln(c + 1, d) - betaln(c, d)) * miller((a, b), (c + 1, d))
    return float(first - np.exp(betaln(a + 1, b) - betaln(a, b)) * miller((a + 1, b), (c, d)))


PAIRS = [
    ((2, 10), (3, 9)),
    ((2, 10), (50_001, 950_001)),
    ((11, 991), (16, 986)),
    ((1, 1), (1, 1)),
    ((1, 5), (900, 100)),
    ((201, 1_801), (251, 1_751)),
]


@pytest.mark.parametrize(("first", "second"), PAIRS)
def test_chance_to_beat_control_equals_millers_sum(first: tuple[int, int], second: tuple[int, int]) -> None:
    both = betas(first, second)
    assert against_control(both, control_index=0).beats[1] == pytest.approx(miller(first, second), abs=1e-9)
    lower = against_control(both, control_index=0, higher_is_better=False).beats
    assert lower[1] == pytest.approx(1 - miller(first, second), abs=1e-9)
    assert lower[0] == 0.0


def test_of_two_variants_the_one_that_beats_control_is_the_best() -> None:
    """Two independent quadratures of ours must agree on 300 random pairs, Jeffreys priors among them."""
    rng = np.random.default_rng(20240627)
    posterior = BetaPosterior(rng.uniform(0.5, 40, (300, 2)), rng.uniform(0.5, 4_000, (300, 2)))
    beats = against_control(posterior, control_index=0).beats[:, 1]
    assert beats == pytest.approx(probability_best(posterior)[:, 1], abs=1e-6)


@pytest.mark.parametrize(("first", "second"), PAIRS)
def test_expected_loss_of_two_rates_equals_stucchios_sum(first: tuple[int, int], second: tuple[int, int]) -> None:
    expected = [stucchio_loss(first, second), stucchio_loss(second, first)]
    assert best_and_loss(betas(first, second))[1] == pytest.approx(expected, abs=1e-9)


def test_expected_loss_of_many_variants_agrees_with_draws() -> None:
    """Tolerance: six standard errors of the mean over 400,000 draws."""
    rng = np.random.default_rng(20240618)
    posterior = betas((3, 40), (9, 90), (101, 901), (0.5, 10.5), (2, 3))
    draws = rng.beta(posterior.alpha, posterior.beta, size=(400_000, 5))
    for sign in (1.0, -1.0):
        losses = (sign * draws).max(axis=1, keepdims=True) - sign * draws
        error = losses.std(axis=0) / np.sqrt(400_000)
        assert (np.abs(best_and_loss(posterior, higher_is_better=sign > 0)[1] - losses.mean(axis=0)) < 6 * error).all()


def test_expected_loss_of_two_normals_has_its_closed_form() -> None:
    """E max(D, 0) of D ~ N(mu, s^2) is mu Phi(mu / s) + s phi(mu / s); a Student with 10**8 df is normal."""
    posterior = students([1.0, 1.5, 1.5], [2.0, 0.5, 1e-4], [1e8] * 3)
    s = np.hypot(2.0, 0.5)
    expected = 0.5 * norm.cdf(0.5 / s) + s * norm.pdf(0.5 / s)
    two = students([1.0, 1.5], [2.0, 0.5], [1e8] * 2)
    assert best_and_loss(two)[1][0] == pytest.approx(expected, rel=1e-7)
    narrow = best_and_loss(students([1.0, 1.5], [2.0, 1e-4], [1e8] * 2))[1][0]
    assert narrow == pytest.approx(0.5 * norm.cdf(0.25) + 2 * norm.pdf(0.25), rel=1e-7)
    assert best_and_loss(posterior)[1].shape == (3,)


def test_expected_loss_mirrors_permutes_and_ignores_its_neighbours() -> None:
    rng = np.random.default_rng(20240619)
    posterior = students(rng.normal(size=(600, 4)), rng.uniform(0.01, 3, size=(600, 4)), rng.uniform(3, 50, (600, 4)))
    loss = best_and_loss(posterior)[1]
    mirrored = students(-posterior.location, posterior.scale, posterior.degrees_of_freedom)
    assert best_and_loss(mirrored, higher_is_better=False)[1] == pytest.approx(loss, abs=1e-6)
    one = students(*(v[577, ::-1] for v in (posterior.location, posterior.scale, posterior.degrees_of_freedom)))
    assert best_and_loss(one)[1] == pytest.approx(loss[577, ::-1], abs=1e-9)
    assert (loss >= 0).all()
    assert best_and_loss(betas((3, 4)))[1] == pytest.approx([0.0])


def test_a_posterior_without_a_mean_has_no_expected_loss() -> None:
    with pytest.raises(InvalidArgument, match="degrees of freedom"):
        best_and_loss(students([0, 0], [1, 1], [1, 5]))[1]


def test_the_interval_of_the_difference_of_two_normals_is_normal() -> None:
    uplift = against_control(students([1.0, 1.5], [0.3, 0.4], [1e9, 1e9]), control_index=0, level=0.9).absolute
    assert [uplift.low[1], uplift.high[1]] == pytest.approx(norm.interval(0.9, 0.5, 0.5), abs=1e-6)
    assert (uplift.estimate.tolist(), uplift.low[0], uplift.high[0]) == ([0.0, 0.5], 0.0, 0.0)


@pytest.mark.parametrize(
    "posterior",
    [betas((2, 10), (50_001, 950_001)), betas((5.5, 95.5), (0.5, 12.5)), students([2, 3], [0.1, 2], [40, 4])],
)
def test_intervals_hold_exactly_their_level_under_independent_quadrature(
    posterior: BetaPosterior | StudentPosterior,
) -> None:
    if isinstance(posterior, BetaPosterior):
        control, variant = (beta(a, b) for a, b in zip(posterior.alpha, posterior.beta, strict=True))
    else:
        parts = zip(posterior.degrees_of_freedom, posterior.location, posterior.scale, strict=True)
        control, variant = (t(df, location, scale) for df, location, scale in parts)
    levels = (np.arange(100_000) + 0.5) / 100_000
    quantiles = control.ppf(levels)
    absolute = against_control(posterior, control_index=0).absolute
    relative = against_control(posterior, control_index=0).relative
    for end, probability in ((absolute.low[1], 0.025), (absolute.high[1], 0.975)):
        assert variant.cdf(quantiles + end).mean() == pytest.approx(probability, abs=1e-5)
    assert relative.estimable[1] == (posterior.mean[0] > 1.96 * posterior.sd[0])
    if relative.estimable[1]:
        for end, probability in ((relative.low[1], 0.025), (relative.high[1], 0.975)):
            assert variant.cdf(quantiles * (1 + end)).mean() == pytest.approx(probability, abs=1e-5)


def test_the_relative_interval_is_near_the_log_ratio_interval_with_many_units() -> None:
    """Katz et al. (1978): of 1080/10000 over 1000/10000 the log has variance 1/1080 + 1/1000 - 2/10000."""
    uplift = against_control(betas((1_001, 9_001), (1_081, 8_921)), control_index=0).relative
    error = np.sqrt(1 / 1_080 + 1 / 1_000 - 2 / 10_000)
    assert uplift.low[1] == pytest.approx(1.08 * np.exp(-1.96 * error) - 1, abs=2e-3)
    assert uplift.high[1] == pytest.approx(1.08 * np.exp(1.96 * error) - 1, abs=2e-3)
    assert uplift.estimate.tolist() == pytest.approx([0.0, 1_081 / 1_001 - 1])


def test_relative_and_absolute_intervals_exclude_zero_together() -> None:
    rng = np.random.default_rng(20240620)
    posterior = BetaPosterior(rng.uniform(6, 60, (80, 3)), rng.uniform(300, 500, (80, 3)))
    found = against_control(posterior, control_index=1)
    absolute, relative = found.absolute, found.relative
    assert relative.estimable.all()
    assert (np.sign(absolute.low) == np.sign(np.round(relative.low, 12))).all()
    assert (np.sign(absolute.high) == np.sign(np.round(relative.high, 12))).all()


def test_a_control_near_zero_makes_the_relative_uplift_not_estimable() -> None:
    for posterior in (betas((1, 500), (30, 500)), students([0.1, 2.0], [0.1, 0.1], [50, 50])):
        uplift = against_control(posterior, control_index=0).relative
        assert not uplift.estimable.any()
        assert np.isnan([uplift.estimate[1], uplift.low[1], uplift.high[1]]).all()


def test_a_variant_that_may_lose_money_has_a_relative_interval_below_minus_one() -> None:
    """Control is 1 almost surely, so the ratio is the variant: Student quantiles of scipy."""
    uplift = against_control(students([1.0, -0.5], [1e-7, 0.2], [1e6, 5]), control_index=0).relative
    assert [uplift.low[1], uplift.high[1]] == pytest.approx(t.interval(0.95, 5, -1.5, 0.2), abs=1e-5)


def test_intervals_of_the_difference_cover_the_truth_at_their_level() -> None:
    """Rates drawn from the prior: coverage is .95 exactly; false alarm 1 in 10**6 on each side."""
    rng = np.random.default_rng(20240621)
    rates = rng.beta(1, 1, size=(1_500, 2))
    hits = rng.binomial([30, 300], rates)
    uplift = against_control(beta_posterior(hits, [30, 300]), control_index=0).absolute
    truth = rates[:, 1] - rates[:, 0]
    covered = ((uplift.low[:, 1] <= truth) & (truth <= uplift.high[:, 1])).sum()
    assert binom.ppf(1e-6, 1_500, 0.95) <= covered <= binom.ppf(1 - 1e-6, 1_500, 0.95)


def test_impossible_input_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="control_index"):
        against_control(betas((1, 1), (2, 2)), control_index=2)
    with pytest.raises(InvalidArgument, match="level"):
        against_control(betas((1, 1), (2, 2)), control_index=0, level=95)
