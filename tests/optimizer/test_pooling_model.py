"""Expected values: the same posterior written in the coordinates of its definition, with scipy's densities."""

import ctypes

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from optimizer.pooling_model import Problem, for_nutpie, known_warnings

Floats = NDArray[np.float64]


def _problem(*, n_segments: int, n_variants: int, control_index: int, binary: bool) -> Problem:
    rng = np.random.default_rng(n_segments)
    n_units = rng.integers(50, 500, size=(n_segments, n_variants)).astype(np.float64)
    responders = rng.binomial(n_units.astype(int), 0.2).astype(np.float64)
    odds = np.log((responders + 0.5) / (n_units - responders + 0.5))
    return Problem(
        estimate=odds,
        precision=1.0 / (1.0 / (responders + 0.5) + 1.0 / (n_units - responders + 0.5)),
        counts=(n_units, responders) if binary else None,
        level_centre=-1.4,
        level_sd=2.0,
        control_index=control_index,
        average_sd=0.2,
        tau_scale=0.1,
    )


def _by_definition(problem: Problem, point: Floats) -> float:
    """Log density of (log tau, averages, levels, interactions), times the change from the noises to the latter two."""
    n_segments, n_variants = problem.estimate.shape
    tau, free = np.exp(point[0]), point[1:n_variants]
    average = np.insert(free, problem.control_index, 0.0)
    level_noise, noise = point[n_variants : n_variants + n_segments], point[n_variants + n_segments :]
    # The conditional posteriors of levels and interactions, given tau, averages and normal estimates.
    marginal = 1.0 / (1.0 / problem.precision + tau**2)
    level_variance = 1.0 / (marginal.sum(axis=1) + problem.level_sd**-2)
    above = problem.estimate - problem.level_centre - average
    level = level_variance * (marginal * above).sum(axis=1) + level_noise * np.sqrt(level_variance)
    spread = 1.0 / (problem.precision + tau**-2)
    rest = above - level[:, None]
    interaction = spread * problem.precision * rest + noise.reshape(rest.shape) * np.sqrt(spread)
    place = problem.level_centre + average + level[:, None] + interaction
    if problem.counts is None:
        seen = np.sum(stats.norm.logpdf(problem.estimate, place, problem.precision**-0.5))
    else:
        seen = np.sum(stats.binom.logpmf(problem.counts[1], problem.counts[0], 1.0 / (1.0 + np.exp(-place))))
    prior = float(stats.halfnorm.logpdf(tau, scale=problem.tau_scale)) + np.log(tau)
    prior += np.sum(stats.norm.logpdf(free, 0.0, problem.average_sd))
    prior += np.sum(stats.norm.logpdf(level, 0.0, problem.level_sd))
    prior += np.sum(stats.norm.logpdf(interaction, 0.0, tau))
    return float(seen + prior + 0.5 * np.log(level_variance).sum() + 0.5 * np.log(spread).sum())


def _called(problem: Problem, points: list[Floats]) -> list[tuple[float, Floats]]:
    """Densities and gradients as the sampler asks for them: by address."""
    with known_warnings():
        compiled = for_nutpie(problem).compiled_logp_func.ctypes
    answers = []
    for point in points:
        logp, gradient = np.empty(1), np.empty(len(point))
        pointers = [array.ctypes.data_as(ctypes.POINTER(ctypes.c_double)) for array in (point, gradient, logp)]
        assert compiled(len(point), *pointers, None) == 0
        answers.append((float(logp[0]), gradient))
    return answers


@pytest.mark.timeout(300)  # the first run on a machine compiles
@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize(("n_segments", "n_variants", "control_index"), [(4, 3, 1), (1, 2, 0)])
def test_the_sampled_density_is_the_models(
    *, n_segments: int, n_variants: int, control_index: int, binary: bool
) -> None:
    """Up to a constant, in every direction; and its gradient is the slope of the definition."""
    problem = _problem(n_segments=n_segments, n_variants=n_variants, control_index=control_index, binary=binary)
    n_dim = n_variants + n_segments * (1 + n_variants)
    rng = np.random.default_rng(8)
    first, second = (np.concatenate([[np.log(0.1)], np.zeros(n_dim - 1)]) + rng.normal(size=n_dim) for _ in range(2))
    (found, gradient), (other, _) = _called(problem, [first, second])
    expected = _by_definition(problem, second) - _by_definition(problem, first)
    assert other - found == pytest.approx(expected, rel=1e-8, abs=1e-8)
    steps = 1e-5 * np.eye(n_dim)
    slopes = [(_by_definition(problem, first + s) - _by_definition(problem, first - s)) / 2e-5 for s in steps]
    assert gradient == pytest.approx(slopes, rel=1e-4, abs=1e-4)
