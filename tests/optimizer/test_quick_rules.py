"""The quick rules against the sure one, and all against scipy's adaptive quadrature."""

from itertools import pairwise

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import beta

from optimizer import panels, single_rule, trapezoid
from optimizer.comparison import against_control, best_and_loss
from optimizer.posteriors import BetaPosterior, Posterior, StudentPosterior

AT = (0.025, 0.975)


def spread_over(rng: np.random.Generator, low: float, high: float) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    return np.exp(rng.uniform(np.log(low), np.log(high), (150, 2)))


def hard_cases() -> list[tuple[str, Posterior]]:
    """Everyday rates, rates near 0 and 1 with kinks at the ends, widths a thousand apart, and heavy tails."""
    rng = np.random.default_rng(20240701)
    n_units, rate = spread_over(rng, 100, 1e5), spread_over(rng, 0.01, 0.9)
    return [
        ("everyday", BetaPosterior(1 + n_units * rate, 1 + n_units * (1 - rate))),
        ("few responders", BetaPosterior(spread_over(rng, 1, 8), spread_over(rng, 20, 500))),
        ("any", BetaPosterior(spread_over(rng, 1, 1e6), spread_over(rng, 1, 1e6))),
        ("means", StudentPosterior(rng.normal(5, 1, (150, 2)), spread_over(rng, 0.1, 1), spread_over(rng, 20, 1e4))),
        ("tails", StudentPosterior(rng.normal(5, 1, (150, 2)), spread_over(rng, 1e-3, 1), spread_over(rng, 2.5, 40))),
    ]


CASES = hard_cases()
IDS = [name for name, _ in CASES]


@pytest.mark.parametrize("effort", trapezoid.EFFORTS)
@pytest.mark.parametrize("pairs", [case for _, case in CASES], ids=IDS)
def test_wherever_steps_are_trusted_they_agree_with_the_panels(pairs: Posterior, effort: int) -> None:
    found, trusted = trapezoid.against_control(pairs, effort, at=AT)
    sure = panels.against_control(pairs, at=AT)
    assert found[trusted, 0] == pytest.approx(sure[trusted, 0], abs=1e-7)
    gap = np.abs(found - sure)[trusted, 1:3] / np.linalg.norm(pairs.sd, axis=1, keepdims=True)[trusted]
    assert gap.max(initial=0.0) < 5e-6
    assert (np.isnan(found) == np.isnan(sure)).all()
    ratios, clear = found[trusted, 3:], np.isfinite(sure[trusted, 3])
    width = np.abs(sure[trusted, 4] - sure[trusted, 3])[:, np.newaxis]
    assert (np.abs(ratios - sure[trusted, 3:]) / width)[clear].max(initial=0.0) < 5e-6


@pytest.mark.parametrize("effort", single_rule.EFFORTS)
@pytest.mark.parametrize("pairs", [case for _, case in CASES], ids=IDS)
def test_wherever_the_single_rule_is_trusted_it_agrees_with_the_panels(pairs: Posterior, effort: int) -> None:
    found, trusted = single_rule.best_and_loss(pairs, effort)
    sure = panels.best_and_loss(pairs)
    assert found[trusted, :, 0] == pytest.approx(sure[trusted, :, 0], abs=1e-7)
    gap = np.abs(found - sure)[trusted, :, 1] / pairs.sd.max(axis=1, keepdims=True)[trusted]
    assert gap.max(initial=0.0) < 1e-6


def test_most_everyday_pairs_need_no_panels_and_posteriors_far_too_narrow_for_the_steps_do() -> None:
    everyday = CASES[0][1]
    assert trapezoid.against_control(everyday, trapezoid.EFFORTS[-1], at=AT)[1].mean() > 0.6
    assert single_rule.best_and_loss(everyday, single_rule.EFFORTS[-1])[1].mean() > 0.9
    needle = StudentPosterior(np.array([[0.0, 0.01]]), np.array([[1.0, 1e-4]]), np.array([[1e3, 1e3]]))
    assert not any(trapezoid.against_control(needle, effort, at=AT)[1].any() for effort in trapezoid.EFFORTS)
    assert not any(single_rule.best_and_loss(needle, effort)[1].any() for effort in single_rule.EFFORTS)


@pytest.mark.parametrize("pairs", [case for _, case in CASES], ids=IDS)
def test_mirrored_and_permuted_rates_and_means_give_mirrored_answers(pairs: Posterior) -> None:
    mirrored: Posterior
    if isinstance(pairs, BetaPosterior):
        mirrored = BetaPosterior(pairs.beta, pairs.alpha)
        swapped: Posterior = BetaPosterior(pairs.alpha[:, ::-1], pairs.beta[:, ::-1])
    else:
        mirrored = StudentPosterior(-pairs.location, pairs.scale, pairs.degrees_of_freedom)
        swapped = StudentPosterior(*(v[:, ::-1] for v in (pairs.location, pairs.scale, pairs.degrees_of_freedom)))
    uplift, other = (
        against_control(pairs, control_index=0).absolute,
        against_control(mirrored, control_index=0).absolute,
    )
    sd = np.linalg.norm(pairs.sd, axis=1)
    assert np.abs(uplift.low + other.high)[:, 1] / sd == pytest.approx(np.zeros(150), abs=5e-6)
    turned = against_control(swapped, control_index=1).absolute
    assert np.abs(uplift.low - turned.low[:, ::-1])[:, 1] / sd == pytest.approx(np.zeros(150), abs=5e-6)
    beats = against_control(pairs, control_index=0).beats[:, 1] + against_control(pairs, control_index=1).beats[:, 0]
    assert beats == pytest.approx(np.ones(150), abs=1e-7)
    assert (best_and_loss(pairs)[1] >= 0.0).all()


@pytest.mark.parametrize(
    ("alphas", "betas"), [((11.6, 3.2), (3463.3, 700.0)), ((900.0, 40.0), (100.0, 6.0)), ((1.5, 2.0), (60.0, 60.0))]
)
def test_a_loss_and_a_chance_equal_adaptive_quadrature(alphas: tuple[float, float], betas: tuple[float, float]) -> None:
    posterior = BetaPosterior(np.array(alphas), np.array(betas))
    first, second = (beta(a, b) for a, b in zip(alphas, betas, strict=True))
    edges = np.unique(
        np.concatenate([[0.0, 1.0], *(d.ppf([1e-6, 0.05, 0.5, 0.95, 1 - 1e-6]) for d in (first, second))])
    )
    panels_ = list(pairwise(edges))
    loss = sum(quad(lambda x: first.cdf(x) * second.sf(x), a, b, epsabs=1e-13)[0] for a, b in panels_)
    chance = sum(quad(lambda x: first.pdf(x) * second.sf(x), a, b, epsabs=1e-13)[0] for a, b in panels_)
    assert best_and_loss(posterior)[1][0] == pytest.approx(loss, abs=1e-7 * posterior.sd.max())
    assert against_control(posterior, control_index=0).beats[1] == pytest.approx(chance, abs=1e-8)
