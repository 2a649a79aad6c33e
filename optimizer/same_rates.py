"""Whether units of all variants meet something at the same rate, when weights and times of decisions move."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from optimizer.errors import InvalidCounts

Floats = NDArray[np.float64]
SMALLEST_EXPECTED = 5.0
_NOTHING = 1e-10  # gaps add up to 0 where all variants are in: one direction too many


@dataclass(frozen=True, slots=True)
class SameRates:
    """Units that met something, against what they would be at one rate in each stratum.

    Attributes:
        p_value: None where too few are expected to tell anything.
        statistic: Chi-squared, if rates are the same.
        degrees_of_freedom: Of it.
        relative_gap: Largest |met - expected| / expected over variants that expect at least 5.
    """

    p_value: float | None
    statistic: float
    degrees_of_freedom: int
    relative_gap: float


def same_rates(n_units: ArrayLike, n_met: ArrayLike) -> SameRates:
    """Generalised Cochran-Mantel-Haenszel test of the same rate for all variants within each stratum.

    In a stratum of n units of which m met it, n_k of them of variant k, E_k = m n_k / n, and
    V_kl = m (n - m) / (n^2 (n - 1)) (n n_k [k = l] - n_k n_l); these are summed over strata.

    Args:
        n_units: Units, shape (n_strata, n_variants).
        n_met: Those that met it, the same shape.
    Raises:
        InvalidCounts: Not two-dimensional and of one shape, negative, not finite, or more met than there are.
    Source: Landis, Heyman & Koch (1978), International Statistical Review 46, 237-254.

    >>> found = same_rates([[1000, 1000]], [[300, 360]])
    >>> round(found.statistic, 4), round(found.p_value, 5), round(found.relative_gap, 4)
    (8.137, 0.00434, 0.0909)
    """
    units, met = np.asarray(n_units, dtype=np.float64), np.asarray(n_met, dtype=np.float64)
    if units.ndim != 2 or units.shape != met.shape:
        raise InvalidCounts("n_met", f"has shape {met.shape}, n_units {units.shape}")
    if not (np.isfinite(units).all() and (met >= 0.0).all() and (met <= units).all()):
        raise InvalidCounts("n_met", "must be from 0 to n_units")
    chosen = units.sum(axis=1) > 1.0
    units, met = units[chosen], met[chosen]
    total, all_met = units.sum(axis=1), met.sum(axis=1)
    expected = (all_met / total) @ units
    scale = all_met * (total - all_met) / (total**2 * (total - 1.0))
    covariance = np.diag((scale * total) @ units) - (scale[:, np.newaxis] * units).T @ units
    known = (expected >= SMALLEST_EXPECTED) & (np.diag(covariance) > 0.0)
    if known.sum() < 2:
        return SameRates(None, 0.0, 0, 0.0)
    gap = met.sum(axis=0) - expected
    inside = covariance[np.ix_(known, known)]
    rank = int(np.linalg.matrix_rank(inside, hermitian=True, rtol=_NOTHING))
    statistic = float(gap[known] @ np.linalg.pinv(inside, hermitian=True, rtol=_NOTHING) @ gap[known])
    relative = float((np.abs(gap[known]) / expected[known]).max())
    return SameRates(float(special.chdtrc(rank, statistic)), statistic, rank, relative)
