import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import binom, norm

from optimizer.errors import InvalidArgument
from optimizer.scepticism import relative_effect, sceptical_posterior


def test_the_sceptical_posterior_has_gbstats_numbers() -> None:
    """reference/STATISTICS.md, section 2: gb01 (flat prior) and gb03 (prior sd .3), from gbstats' own delta method."""
    rates, n = np.array([0.1, 0.108]), 10_000
    effect, error = relative_effect(rates, rates * (1 - rates) / n, control_index=0)
    flat = sceptical_posterior(effect[1], error[1], prior_sd=np.inf)
    assert flat.mean == pytest.approx(0.08)
    assert flat.interval(0.95) == pytest.approx((-0.0079393, 0.1679393), abs=1e-7)
    assert flat.probability_beats_control == pytest.approx(0.9627081, abs=1e-7)
    assert (flat.loss_if_kept, flat.loss_if_shipped) == pytest.approx((0.0806684110, 0.0006684110), abs=1e-9)
    rates, n = np.array([0.1, 0.125]), 2_000
    effect, error = relative_effect(rates, rates * (1 - rates) / n, control_index=0)
    proper = sceptical_posterior(effect[1], error[1], prior_sd=0.3)
    assert proper.mean == pytest.approx(0.2195122, abs=1e-7)
    assert proper.probability_beats_control == pytest.approx(0.9819274, abs=1e-7)
    assert proper.interval(0.95) == pytest.approx((0.0141775, 0.4248469), abs=1e-7)


def test_losses_of_the_sceptical_posterior_equal_their_integrals() -> None:
    posterior = sceptical_posterior(-0.03, 0.02, prior_sd=0.05, higher_is_better=False)
    mean, sd = float(posterior.mean), float(posterior.sd)
    harm = quad(lambda x: x * norm.pdf(x, mean, sd), 0, 1)[0]
    assert posterior.loss_if_shipped == pytest.approx(harm, rel=1e-7)
    assert posterior.loss_if_kept == pytest.approx(harm - mean, rel=1e-7)
    mirrored = sceptical_posterior(0.03, 0.02, prior_sd=0.05)
    assert mirrored.probability_beats_control == pytest.approx(posterior.probability_beats_control)


def test_a_relative_effect_on_a_control_near_zero_is_nan() -> None:
    effect, error = relative_effect([0.1, 0.5], [0.01, 0.01], control_index=0)
    assert np.isnan(effect).all()
    assert np.isnan(error).all()


def test_under_its_own_prior_the_chance_to_beat_control_is_calibrated() -> None:
    """Effects from the prior: of those said to be better with .9 to .95, that share is. False alarm: 1 in 10**6."""
    rng = np.random.default_rng(20240626)
    truth = rng.normal(0.0, 0.05, size=20_000)
    posterior = sceptical_posterior(rng.normal(truth, 0.04), np.full(20_000, 0.04), prior_sd=0.05)
    sure = (posterior.probability_beats_control > 0.9) & (posterior.probability_beats_control < 0.95)
    expected = posterior.probability_beats_control[sure].mean()
    right = int((truth[sure] > 0).sum())
    assert binom.ppf(5e-7, sure.sum(), expected) <= right <= binom.ppf(1 - 5e-7, sure.sum(), expected)


def test_impossible_input_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="prior_sd"):
        sceptical_posterior(0.1, 0.1, prior_sd=0)
    with pytest.raises(InvalidArgument, match="standard_error"):
        sceptical_posterior(0.1, 0.0, prior_sd=1)
    with pytest.raises(InvalidArgument, match="control_index"):
        relative_effect([0.1, 0.2], [0.1, 0.2], control_index=2)
    with pytest.raises(InvalidArgument, match="level"):
        sceptical_posterior(0.1, 0.1, prior_sd=1).interval(1.0)
