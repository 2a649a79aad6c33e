"""The quick rule against the sure one, and both against scipy's adaptive quadrature."""

from itertools import pairwise

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import beta

from optimizer import panels, trapezoid
from optimizer.comparison import absolute_uplift, expected_loss, probability_beats
from optimizer.posteriors import BetaPosterior, Posterior, StudentPosterior

TAILS = (0.025, 0.975)


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
def test_wherever_the_quick_rule_is_trusted_it_agrees_with_the_panels(pairs: Posterior, effort: int) -> None:
    at_most, trusted = trapezoid.at_most_control(pairs, effort)
    assert at_most[trusted] == pytest.approx(panels.at_most_control(pairs)[trusted], abs=1e-7)
    lost, trusted = trapezoid.loss(pairs, effort)
    gap = np.abs(lost - panels.loss(pairs))[trusted] / pairs.sd.max(axis=1, keepdims=True)[trusted]
    assert gap.max(initial=0.0) < 1e-6
    ends, trusted = trapezoid.ends(pairs, effort, tails=TAILS, relative=False)
    sure = panels.ends(pairs, tails=TAILS, relative=False)
    gap = np.abs(ends - sure)[trusted] / np.linalg.norm(pairs.sd, axis=1, keepdims=True)[trusted]
    assert gap.max(initial=0.0) < 5e-6


def test_most_everyday_pairs_need_no_panels_and_posteriors_far_too_narrow_for_the_steps_do() -> None:
    everyday = CASES[0][1]
    assert trapezoid.ends(everyday, trapezoid.EFFORTS[-1], tails=TAILS, relative=False)[1].mean() > 0.6
    needle = StudentPosterior(np.array([[0.0, 0.01]]), np.array([[1.0, 1e-4]]), np.array([[1e3, 1e3]]))
    for effort in trapezoid.EFFORTS:
        assert not trapezoid.at_most_control(needle, effort)[1].any()
        assert not trapezoid.loss(needle, effort)[1].any()


@pytest.mark.parametrize("pairs", [case for _, case in CASES], ids=IDS)
def test_mirrored_and_permuted_rates_and_means_give_mirrored_answers(pairs: Posterior) -> None:
    mirrored: Posterior
    if isinstance(pairs, BetaPosterior):
        mirrored = BetaPosterior(pairs.beta, pairs.alpha)
        swapped: Posterior = BetaPosterior(pairs.alpha[:, ::-1], pairs.beta[:, ::-1])
    else:
        mirrored = StudentPosterior(-pairs.location, pairs.scale, pairs.degrees_of_freedom)
        swapped = StudentPosterior(*(v[:, ::-1] for v in (pairs.location, pairs.scale, pairs.degrees_of_freedom)))
    uplift, other = absolute_uplift(pairs, control_index=0), absolute_uplift(mirrored, control_index=0)
    sd = np.linalg.norm(pairs.sd, axis=1)
    assert np.abs(uplift.low + other.high)[:, 1] / sd == pytest.approx(np.zeros(150), abs=5e-6)
    turned = absolute_uplift(swapped, control_index=1)
    assert np.abs(uplift.low - turned.low[:, ::-1])[:, 1] / sd == pytest.approx(np.zeros(150), abs=5e-6)
    beats = probability_beats(pairs, control_index=0)[:, 1] + probability_beats(pairs, control_index=1)[:, 0]
    assert beats == pytest.approx(np.ones(150), abs=1e-7)
    assert (expected_loss(pairs) >= 0.0).all()


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
    assert expected_loss(posterior)[0] == pytest.approx(loss, abs=1e-7 * posterior.sd.max())
    assert probability_beats(posterior, control_index=0)[1] == pytest.approx(chance, abs=1e-8)
