"""Simulated experiments whose weights follow their outcomes, many worlds at once, kept as sums by batch."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special

Floats = NDArray[np.float64]
Outcomes = Callable[[Floats, int], tuple[Floats, Floats, Floats]]  # units, batch -> total, squares, responders


@dataclass(frozen=True, slots=True)
class Worlds:
    """Sums of every batch, shapes (n_worlds, n_batches, n_variants), as `bandit_estimates` takes them."""

    n_units: Floats
    total: Floats
    squares: Floats
    responders: Floats
    propensity: Floats
    predicted: Floats

    def until(self, batch: int) -> "Worlds":
        """What had been seen after so many batches."""
        return Worlds(*(getattr(self, name)[:, :batch] for name in self.__slots__))


@dataclass(frozen=True, slots=True)
class Plan:
    """How worlds are run; ``floor`` 1 / n_variants leaves the weights equal for ever."""

    n_worlds: int
    n_batches: int
    batch: int
    n_variants: int
    floor: float
    n_draws: int = 100


def bernoulli(rng: np.random.Generator, *, rates: Floats) -> Outcomes:
    """Outcomes 0 or 1; rates by batch, shape (n_batches, n_variants)."""

    def drawn(units: Floats, batch: int) -> tuple[Floats, Floats, Floats]:
        hits = rng.binomial(units.astype(np.int64), rates[batch]).astype(np.float64)
        return hits, hits, hits

    return drawn


def normal(rng: np.random.Generator, *, means: Floats) -> Outcomes:
    """Outcomes of standard deviation 1 about the variants' means; sums have their exact distribution."""

    def drawn(units: Floats, batch: int) -> tuple[Floats, Floats, Floats]:
        del batch
        total = units * means + np.sqrt(units) * rng.standard_normal(units.shape)
        spread = np.where(units > 1, rng.chisquare(np.maximum(units - 1.0, 1.0)), 0.0)
        return total, spread + np.divide(total**2, units, out=np.zeros(units.shape), where=units > 0), units

    return drawn


def money(rng: np.random.Generator, *, rate: float, log_sd: float) -> Outcomes:
    """Few units pay; what they pay is log-normal with median 1."""

    def drawn(units: Floats, batch: int) -> tuple[Floats, Floats, Floats]:
        del batch
        payers = rng.binomial(units.astype(np.int64), rate)
        paid = np.exp(log_sd * rng.standard_normal(int(payers.sum())))
        cell = np.repeat(np.arange(payers.size), payers.reshape(-1))
        sums = [np.bincount(cell, weights=paid**power, minlength=payers.size) for power in (1, 2)]
        total, squares = (np.asarray(values, dtype=np.float64).reshape(units.shape) for values in sums)
        return total, squares, payers.astype(np.float64)

    return drawn


def run(rng: np.random.Generator, outcomes: Outcomes, *, plan: Plan) -> Worlds:
    """Thompson sampling by normal posteriors of the pooled means, in batches, with a floor; predictions of the past."""
    shape = (plan.n_worlds, plan.n_batches, plan.n_variants)
    kept = Worlds(*(np.zeros(shape) for _ in Worlds.__slots__))
    share = np.full((plan.n_worlds, plan.n_variants), 1.0 / plan.n_variants)
    n, total, squares = (np.zeros(share.shape) for _ in range(3))
    for batch in range(plan.n_batches):
        kept.propensity[:, batch] = share
        kept.predicted[:, batch] = total / np.maximum(n, 1.0)
        units = rng.multinomial(plan.batch, share).astype(np.float64)
        kept.n_units[:, batch] = units
        drawn = outcomes(units, batch)
        kept.total[:, batch], kept.squares[:, batch], kept.responders[:, batch] = drawn
        n, total, squares = n + units, total + drawn[0], squares + drawn[1]
        if plan.floor * plan.n_variants < 1.0:
            share = _thompson(rng, n, total=total, squares=squares, plan=plan)
    return kept


def _thompson(rng: np.random.Generator, n: Floats, *, total: Floats, squares: Floats, plan: Plan) -> Floats:
    pooled = total.sum(axis=1, keepdims=True) / n.sum(axis=1, keepdims=True)
    variance = np.maximum(squares.sum(axis=1, keepdims=True) / n.sum(axis=1, keepdims=True) - pooled**2, 1e-6)
    mean, sd = (total + pooled) / (n + 1.0), np.sqrt(variance / (n + 1.0))
    if plan.n_variants == 2:
        first = special.ndtr((mean[:, 0] - mean[:, 1]) / np.hypot(sd[:, 0], sd[:, 1]))
        best = np.stack([first, 1.0 - first], axis=1)
    else:
        draws = mean + sd * rng.standard_normal((plan.n_draws, *mean.shape))
        best = np.eye(plan.n_variants)[draws.argmax(axis=2)].mean(axis=0)
    weights: Floats = plan.floor + (1.0 - plan.n_variants * plan.floor) * best
    return weights
