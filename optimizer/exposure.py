"""Learning within time: how much chance to respond each variant's units had, once base rates are taken out."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from optimizer.errors import InvalidCounts

Floats = NDArray[np.float64]

# A block's base rate is worth this many responders at the average rate before its own are seen.
PRIOR_RESPONDERS = 1.0
MAX_ITERATIONS = 2_000
TOLERANCE = 1e-8


@dataclass(frozen=True, slots=True)
class Exposure:
    """Counts comparable across variants although base rates moved while weights moved.

    Attributes:
        n_units: Effective units of each variant at the average base rate, shape (..., n_variants).
        n_responders: Responders, weighted by half-life, never more than n_units, the same shape.
        base_rate: Base rate of each block relative to the average unit's, shape (..., n_blocks).
    """

    n_units: Floats
    n_responders: Floats
    base_rate: Floats


def exposure(
    n_units: ArrayLike, *, n_responders: ArrayLike, matured: ArrayLike = 1.0, block_weight: ArrayLike = 1.0
) -> Exposure:
    """Effective exposure of each variant, from counts by block of time.

    exposure_k = sum over blocks v of n_vk alpha_v F_vk w_v, where rate_vk = alpha_v beta_k is fitted by Poisson
    iterative proportional fitting, and alpha averages 1 over the units. Pooled counts often end on the worse variant
    when base rates move while weights move; these do not. `beta_posterior(e.n_responders, e.n_units)` is then the
    posterior. Each alpha_v has a Gamma(1, 1) prior, one responder's worth, so that blocks without responders stay
    neutral. Variants that (almost) never shared a block are compared as they are: nothing tells base rate from effect.

    Money: where the base rate moves *who* responds and not *how much* they pay, S_k / exposure_k is the adjusted mean;
    so pass n_units from here to `mean_posterior`, with the sums weighted by `half_life_weights`. Sums themselves are
    not fitted: a few large payers would pass for a base rate.

    Args:
        n_units: Units by block (at most a day, split further by allocation version) and variant, shape
            (..., n_blocks, n_variants). Segments of fewer blocks are padded with zeros; each segment is fitted by
            itself, so callers may pass a few thousand at a time to bound memory.
        n_responders: Of these, how many responded, the same shape.
        matured: F, the share of a unit's responses that its age lets us see, in [0, 1]; broadcasts to n_units.
        block_weight: `half_life_weights` of the blocks, in [0, 1], shape (..., n_blocks).
    Returns:
        Exposure and responders of shape (..., n_variants), base rates of shape (..., n_blocks).
    Raises:
        InvalidCounts: Not finite, negative, more responders than units, or a share outside its range.
    Source: Deming & Stephan (1940), Annals of Mathematical Statistics 11(4), for the fitting; the use is our own.

    >>> two_days = exposure([[100, 100], [10, 190]], n_responders=[[10, 10], [2, 38]])
    >>> (two_days.n_responders / two_days.n_units).round(2)
    array([0.15, 0.15])
    """
    units, responders = _checked(n_units, n_responders)
    weight = _share(block_weight, "block_weight")[..., None]
    seen = units * _share(matured, "matured") * weight
    responded = responders * weight
    base_rate = _base_rates(seen, responded)
    total = responded.sum(axis=-2)
    effective = np.einsum("...vk,...v->...k", seen, base_rate)
    return Exposure(np.maximum(effective, total), total, base_rate)


def half_life_weights(age_seconds: ArrayLike, half_life_seconds: float) -> Floats:
    """What a block of this age still counts: 2^(-age / half-life).

    Args:
        age_seconds: Ages, any shape; negative ones count as 0.
        half_life_seconds: The age at which a unit counts half.
    Returns:
        Weights in (0, 1], the same shape.
    Raises:
        InvalidCounts: The half-life is not positive.

    >>> half_life_weights([0.0, 3600.0, 7200.0], 3600.0)
    array([1.  , 0.5 , 0.25])
    """
    if not half_life_seconds > 0.0:
        raise InvalidCounts("half_life_seconds", f"is {half_life_seconds}")
    return np.exp2(-np.maximum(np.asarray(age_seconds, dtype=np.float64), 0.0) / half_life_seconds)


def _base_rates(seen: Floats, responded: Floats) -> Floats:
    """Alternate between the two margins until no block's rate moves, each segment for as long as it needs."""
    units, responders = (counts.reshape(-1, *counts.shape[-2:]) for counts in (seen, responded))
    alpha = np.ones(units.shape[:2])
    pending = np.arange(len(alpha))
    for _ in range(MAX_ITERATIONS):
        fitted = _swept(alpha[pending], seen=units[pending], responded=responders[pending])
        moved = np.abs(fitted - alpha[pending]).max(axis=1, initial=0.0)
        alpha[pending] = fitted
        pending = pending[moved >= TOLERANCE]
        if pending.size == 0:
            break
    return alpha.reshape(seen.shape[:-1])


def _swept(alpha: Floats, *, seen: Floats, responded: Floats) -> Floats:
    exposed = np.einsum("svk,sv->sk", seen, alpha)
    rate = np.divide(responded.sum(axis=1), exposed, out=np.zeros(exposed.shape), where=exposed > 0.0)
    expected = np.einsum("svk,sk->sv", seen, rate)
    fitted = (responded.sum(axis=2) + PRIOR_RESPONDERS) / (expected + PRIOR_RESPONDERS)
    units = seen.sum(axis=2)
    all_units = units.sum(axis=1, keepdims=True)
    mean = np.divide((units * fitted).sum(axis=1, keepdims=True), all_units, where=all_units > 0.0, out=all_units + 1.0)
    # Blocks without units stay at the average.
    return np.where(units > 0.0, fitted / mean, 1.0)


def _checked(n_units: ArrayLike, n_responders: ArrayLike) -> tuple[Floats, Floats]:
    units, responders = np.asarray(n_units, dtype=np.float64), np.asarray(n_responders, dtype=np.float64)
    if units.shape != responders.shape or units.ndim < 2:
        raise InvalidCounts("n_units", f"has shape {units.shape}, n_responders {responders.shape}")
    if not (np.isfinite(units).all() and (responders >= 0.0).all() and (responders <= units).all()):
        raise InvalidCounts("n_responders", "is not between 0 and n_units everywhere")
    return units, responders


def _share(values: ArrayLike, name: str) -> Floats:
    array = np.asarray(values, dtype=np.float64)
    if not ((array >= 0.0) & (array <= 1.0)).all():
        raise InvalidCounts(name, "is not between 0 and 1 everywhere")
    return array
