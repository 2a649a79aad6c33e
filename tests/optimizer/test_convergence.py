"""Expected values: arviz's own, and chains whose effective size is known."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from optimizer.convergence import bulk_ess, r_hat
from optimizer.errors import InvalidArgument
from optimizer.pooling_model import known_warnings

Floats = NDArray[np.float64]


def _autoregressive(rho: float, *, n_draws: int, rng: np.random.Generator) -> Floats:
    draws = rng.normal(size=(4, n_draws))
    draws[:, 0] /= np.sqrt(1.0 - rho**2)
    for i in range(1, n_draws):
        draws[:, i] += rho * draws[:, i - 1]
    return draws


def test_both_are_those_of_arviz() -> None:
    """Sticky, antithetic and independent chains, one set shifted, even and odd lengths."""
    with known_warnings():
        import arviz
    measures: Any = arviz  # partly untyped
    rng = np.random.default_rng(20261125)
    for n_draws in (50, 501, 1_000):
        draws = np.stack([_autoregressive(rho, n_draws=n_draws, rng=rng) for rho in (0.9, -0.5, 0.0, 0.3)], axis=-1)
        draws[0, :, 3] += 0.3
        data = measures.convert_to_dataset({"x": draws})
        assert r_hat(draws) == pytest.approx(np.asarray(measures.rhat(data)["x"]), rel=1e-9)
        assert bulk_ess(draws) == pytest.approx(np.asarray(measures.ess(data)["x"]), rel=1e-9)


def test_sticky_chains_are_worth_what_theory_says() -> None:
    """An autoregression of 0.5 is worth (1 - 0.5) / (1 + 0.5) of its draws: 13,333 of 40,000, to about 5 %."""
    draws = _autoregressive(0.5, n_draws=10_000, rng=np.random.default_rng(1))
    assert float(bulk_ess(draws)) == pytest.approx(40_000 / 3, rel=0.1)


def test_chains_that_stand_at_different_places_or_differ_in_spread_do_not_agree() -> None:
    draws = np.random.default_rng(2).normal(size=(4, 500))
    assert float(r_hat(draws)) < 1.01
    assert float(r_hat(draws + np.array([[0.0], [0.0], [0.0], [2.0]]))) > 1.1
    assert float(r_hat(draws * np.array([[1.0], [1.0], [1.0], [5.0]]))) > 1.1
    assert float(r_hat(np.repeat([[0.0], [1.0]], 10, axis=1))) > 10.0


def test_chains_that_never_move_from_the_same_place_agree() -> None:
    assert float(r_hat(np.ones((4, 100)))) < 1.01


@pytest.mark.parametrize("shape", [(1, 100), (4, 3), (100,)])
def test_too_little_to_compare_is_refused(shape: tuple[int, ...]) -> None:
    for measure in (r_hat, bulk_ess):
        with pytest.raises(InvalidArgument, match="draws"):
            measure(np.zeros(shape))
