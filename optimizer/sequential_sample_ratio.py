"""Whether units come in the shares that were asked for, looked at as often as one likes."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from optimizer.errors import InvalidArgument, InvalidCounts

Floats = NDArray[np.float64]

CONCENTRATION = 1_000.0  # finds losses of 5-10 % soonest, and those of 2 % as soon as 10,000 does
_CELLS_AT_ONCE = 25_000  # of (sequence, stratum, variant): small arrays stay in the processor's cache


@dataclass(frozen=True, slots=True)
class SequentialSampleRatios:
    """Evidence against the logged weights that may be looked at after every stratum.

    Attributes:
        log_e: Natural logarithm of the e-process after each stratum, shape (..., n_strata).
        p_value: Smallest 1 / E so far, shape (...): valid at any time, however often one looks.
    """

    log_e: Floats
    p_value: Floats


@dataclass(frozen=True, slots=True)
class SequentialSampleRatio:
    """The same of one sequence.

    Attributes:
        log_e: As there, shape (n_strata,).
        p_value: As there.
    """

    log_e: Floats
    p_value: float


def sequential_sample_ratio(
    n_units: ArrayLike, weights: ArrayLike, *, block: ArrayLike | None = None, concentration: float = CONCENTRATION
) -> SequentialSampleRatio:
    """As `sequential_sample_ratios`, of one sequence of shape (n_strata, n_variants).

    Raises:
        InvalidArgument, InvalidCounts: More than one sequence, or as there.

    >>> result = sequential_sample_ratio([[5000, 5500]], [[0.5, 0.5]], concentration=2)
    >>> round(float(result.log_e[-1]), 4), round(result.p_value, 8)
    (7.5043, 0.00055072)
    """
    units, shares = (np.atleast_2d(np.asarray(values, dtype=np.float64)) for values in (n_units, weights))
    if units.ndim != 2:
        raise InvalidArgument("n_units", f"shape {units.shape} is not that of one sequence")
    found = sequential_sample_ratios(units, shares, block=block, concentration=concentration)
    return SequentialSampleRatio(found.log_e, float(found.p_value))


def sequential_sample_ratios(
    n_units: ArrayLike, weights: ArrayLike, *, block: ArrayLike | None = None, concentration: float = CONCENTRATION
) -> SequentialSampleRatios:
    """Always-valid check of sample ratio over strata in time order, each with its own logged weights.

    Each stratum multiplies the e-process by Dirichlet-multinomial over multinomial likelihood. The Dirichlet of a
    stratum is fixed before it: proportional to theta (k theta_0 + units before) / (k theta_0 + expected before), with
    as many pseudo-units as k plus the units before. With constant weights that is Lindon & Malek's test exactly, in
    any order of units; with moving weights it is our own extension, valid because every predictable choice is.
    theta_0 of a variant is the first positive weight that it had in a stratum with units.

    All segments together are one sequence: their strata by day, with the day as ``block``.

    Args:
        n_units: Units counted in each stratum, in time order, shape (..., n_strata, n_variants). Strata without units
            (padding) change nothing, wherever they are and whatever their weights.
        weights: Logged propensities of each stratum, >= 0, rows with units summing to 1, the same shape.
        block: Number of the stratum's block, never falling, broadcasts to (..., n_strata). Strata of a block came at
            the same time and learn from earlier blocks only; by default each stratum is a block of its own.
        concentration: k, pseudo-units of the prior: large values look for small imbalances.
    Raises:
        InvalidCounts: Counts negative or not finite.
        InvalidArgument: Shapes differ, weights that are no probabilities, blocks that fall, or k not positive.
    Source: Lindon & Malek (2022), NeurIPS, "Anytime-valid inference for multinomial count data", arXiv:2011.03567.

    >>> lost = sequential_sample_ratios([[[500, 430], [900, 810]], [[500, 500], [900, 900]]], [[[0.5, 0.5]] * 2] * 2)
    >>> lost.p_value.round(3)
    array([0.057, 1.   ])
    """
    units, shares = (np.asarray(values, dtype=np.float64) for values in (n_units, weights))
    if units.shape != shares.shape or units.ndim < 2 or 0 in units.shape[-2:]:
        raise InvalidArgument("weights", f"shape {shares.shape} does not fit n_units of shape {units.shape}")
    if not (np.isfinite(concentration) and concentration > 0.0):
        raise InvalidArgument("concentration", f"{concentration} is not positive")
    start = None if block is None else _starts(block, units.shape[:-1])
    log_e = np.zeros(units.shape[:-1])
    flat, n_sequences = log_e.reshape(-1, units.shape[-2]), log_e.size // units.shape[-2]
    step = max(1, _CELLS_AT_ONCE // (units.shape[-2] * units.shape[-1]))
    for first in range(0, n_sequences, step):
        part = slice(first, first + step)
        counted, asked = (values.reshape(-1, *units.shape[-2:])[part] for values in (units, shares))
        begins = None if start is None else start.reshape(flat.shape)[part]
        flat[part] = _log_e(*_strata(counted, asked), start=begins, concentration=concentration)
    return SequentialSampleRatios(log_e, np.exp(-np.maximum(log_e.max(axis=-1), 0.0)))


def _log_e(units: Floats, shares: Floats, *, start: NDArray[np.intp] | None, concentration: float) -> Floats:
    pseudo = _prior_units(units, shares=shares, start=start, concentration=concentration)
    known = np.where(pseudo > 0.0, pseudo, 1.0)
    gain = special.gammaln(known + units) - special.gammaln(known) - units * _log(shares, units)
    seen = units.sum(axis=0)
    total = np.where(seen > 0.0, pseudo.sum(axis=0), 1.0)
    log_e: Floats = np.cumsum(gain.sum(axis=0) + special.gammaln(total) - special.gammaln(total + seen), axis=-1)
    return log_e


def _prior_units(units: Floats, *, shares: Floats, start: NDArray[np.intp] | None, concentration: float) -> Floats:
    """Pseudo-units of each stratum's Dirichlet; all 0 for strata without units."""
    had = shares > 0.0
    anchor = concentration * np.take_along_axis(shares, had.argmax(axis=-1)[..., np.newaxis], axis=-1)

    def before(values: Floats) -> Floats:
        earlier = np.cumsum(values, axis=-1) - values
        return earlier if start is None else np.take_along_axis(earlier, np.broadcast_to(start, values.shape), axis=-1)

    seen = units.sum(axis=0)
    expected = anchor + before(shares * seen)
    tilted = shares * (anchor + before(units)) / np.where(expected > 0.0, expected, 1.0)
    sums = tilted.sum(axis=0)
    prior_units: Floats = tilted * ((concentration + before(seen)) / np.where(sums > 0.0, sums, 1.0))
    return prior_units


def _log(shares: Floats, units: Floats) -> Floats:
    """Logarithm of the weights; minus infinity for those of 0 that had units, 0 for those that had none."""
    with np.errstate(divide="ignore"):
        return np.log(np.where((shares > 0.0) | (units > 0.0), shares, 1.0))


def _starts(block: ArrayLike, shape: tuple[int, ...]) -> NDArray[np.intp]:
    """Index of the first stratum of each stratum's block, shape (..., n_strata)."""
    own = np.broadcast_to(np.arange(shape[-1]), shape)
    number = np.broadcast_to(np.asarray(block), shape)
    rise = np.diff(number, axis=-1)
    if (rise < 0).any():
        raise InvalidArgument("block", "the number falls from one stratum to the next")
    opens = np.concatenate([np.ones((*shape[:-1], 1), dtype=np.bool_), rise > 0], axis=-1)
    starts: NDArray[np.intp] = np.maximum.accumulate(np.where(opens, own, 0), axis=-1)
    return starts


def _strata(n_units: Floats, weights: Floats) -> tuple[Floats, Floats]:
    """Counts and weights, variants first, shape (n_variants, n_sequences, n_strata); weights 0 where no units came."""
    units, shares = (np.ascontiguousarray(np.moveaxis(values, -1, 0)) for values in (n_units, weights))
    if not (np.isfinite(units).all() and (units >= 0.0).all()):
        raise InvalidCounts("n_units", "is negative or not finite")
    counted = (units > 0.0).any(axis=0)
    if not ((shares >= 0.0).all() and (np.abs(shares.sum(axis=0) - 1.0) < 1e-6)[counted].all()):
        raise InvalidArgument("weights", "one is negative, or a row does not sum to 1")
    return units, np.where(counted, shares, 0.0)
