"""Every variant's mean at once, compared inside strata only, so that moving weights turn no comparison round."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from optimizer.standardise import checked_cells

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]

_MOST_NUMBERS = 4_000_000  # of (segment, stratum, variant, variant) at once: 32 MB
_SWEEPS = 300


@dataclass(frozen=True, slots=True)
class JointMeans:
    """Means standardised to one mix of strata, and how sure the comparison of any two of them is.

    Attributes:
        estimate: Mean outcome of each variant, NaN without units, shape (..., n_variants), in outcome units.
        variance: Sampling variance of each, the same shape.
        contrast_variance: Sampling variance of the difference of any two, NaN where nothing connects them, shape
            (..., n_variants, n_variants); 0 on the diagonal.
    """

    estimate: Floats
    variance: Floats
    contrast_variance: Floats


def joint_means(n_units: ArrayLike, total: ArrayLike, *, sum_squares: ArrayLike) -> JointMeans:
    """Fit mean_bk = stratum_b + variant_k by least squares, each cell weighted by its units.

    Two variants alone come out as Mantel-Haenszel's difference, weights n_bk n_bl / (n_bk + n_bl). With more, any two
    are compared directly too, not only by way of a control that may have had next to no units. Weights are units, never
    estimated inverse variances; variances are those of the cells, carried through the fit. Variants that no chain of
    strata connects are estimated apart. The mix is that of all units that are connected.

    Args:
        n_units: Units, shape (..., n_strata, n_variants).
        total: Sum of the units' outcomes, the same shape.
        sum_squares: Sum of their squares, the same shape.
    Raises:
        InvalidCounts: Not finite, negative, sums without units, or sums that contradict each other.
        InvalidArgument: Shapes differ, or fewer than two dimensions.
    Source: Greenland & Robins (1985), Biometrics 41(1), for two; the analysis of covariance with strata as blocks,
        Cochran (1957), Biometrics 13(3), for more; sampling variances without equal variances as White (1980).

    >>> found = joint_means([[90, 10], [10, 90]], [[9, 2], [3, 36]], sum_squares=[[9, 2], [3, 36]])
    >>> float((found.estimate[1] - found.estimate[0]).round(3))  # pooled: 0.26
    0.1
    """
    n, mean, spread = checked_cells(n_units, total, sum_squares=sum_squares)
    shape = n.shape
    units, means, spreads = (values.reshape(-1, *shape[-2:]) for values in (n, mean, spread))
    step = max(1, _MOST_NUMBERS // max(shape[-2] * shape[-1] ** 2, 1))
    starts = [slice(i, i + step) for i in range(0, max(len(units), 1), step)]
    parts = [_fitted(units[part], means[part], spread=spreads[part]) for part in starts]
    estimate, variance, contrast = (np.concatenate(values) for values in zip(*parts, strict=True))
    flat = (*shape[:-2], shape[-1])
    return JointMeans(
        estimate.reshape(flat), variance.reshape(flat), contrast.reshape(*shape[:-2], shape[-1], shape[-1])
    )


def _fitted(n: Floats, mean: Floats, *, spread: Floats) -> tuple[Floats, Floats, Floats]:
    """Means, variances and contrast variances of segments, from cells of shape (n_segments, n_strata, n_variants)."""
    per_stratum = n.sum(axis=2, keepdims=True)
    share = np.divide(n, per_stratum, out=np.zeros(n.shape), where=per_stratum > 0.0)
    identity = np.eye(n.shape[2])
    units = n.sum(axis=1)
    laplacian = units[:, :, np.newaxis] * identity - np.einsum("sbk,sbl->skl", n, share)
    connected = _connected(laplacian, units > 0.0)
    inverse = np.linalg.pinv(laplacian, rtol=1e-10, hermitian=True)
    sizes = connected * units[:, np.newaxis, :]
    all_units = np.maximum(sizes.sum(axis=2, keepdims=True), 1e-300)
    shape = (identity - sizes / all_units) @ inverse
    # Each mean is a weighted sum of the cells' means: n_bl / N for the level, the rest for the variant's own effect.
    own = shape[:, np.newaxis] * n[:, :, np.newaxis, :]
    pulled = np.einsum("skm,sbm->sbk", shape, n)
    level = connected / all_units
    weights = own - pulled[..., np.newaxis] * share[:, :, np.newaxis, :] + level[:, np.newaxis] * n[:, :, np.newaxis, :]
    estimate = np.einsum("sbkl,sbl->sk", weights, mean)
    covariance = np.einsum("sbkl,sbl,sbml->skm", weights, np.where(n > 0.0, spread, 0.0), weights, optimize=True)
    variance = np.einsum("skk->sk", covariance)
    contrast = np.maximum(variance[:, :, np.newaxis] + variance[:, np.newaxis, :] - 2.0 * covariance, 0.0)
    missing = np.where(units > 0.0, 0.0, np.nan)
    return estimate + missing, variance + missing, np.where(connected, contrast, np.nan)


def _connected(laplacian: Floats, has_units: Flags) -> Flags:
    """Which variants a chain of strata connects, themselves included, shape (n_segments, n_variants, n_variants)."""
    n_variants = laplacian.shape[2]
    reach = (laplacian < 0.0) | (np.eye(n_variants, dtype=np.bool_) & has_units[:, np.newaxis, :])
    for _ in range(max(n_variants - 1, 1).bit_length()):
        reach = (reach.astype(np.float64) @ reach.astype(np.float64)) > 0.0
    return reach


def quasi_variances(variance: ArrayLike, contrast_variance: ArrayLike) -> Floats:
    """One variance for each variant such that any two add up to about the variance of their difference.

    Errors of means that were standardised together are correlated; methods that take variants as independent get every
    comparison about right from these. Fitted to all pairs by relative error (gamma deviance), multiplicatively, so none
    is negative. Of two variants the sum is exact, shared in proportion to their own variances.

    Args:
        variance: Of each mean, NaN where there is none, shape (..., n_variants).
        contrast_variance: Of the difference of any two, NaN where there is none, shape (..., n_variants, n_variants).
    Returns:
        Shape (..., n_variants); the variant's own variance where it can be compared with no other.
    Source: Firth & de Menezes (2004), Biometrika 91(1), "Quasi-variances"; gamma deviance in place of theirs.

    >>> quasi_variances([0.3, 0.1], [[0.0, 0.2], [0.2, 0.0]])
    array([0.15, 0.05])
    """
    own, pairs = np.asarray(variance, dtype=np.float64), np.asarray(contrast_variance, dtype=np.float64)
    known = np.isfinite(pairs) & (pairs > 0.0) & ~np.eye(own.shape[-1], dtype=np.bool_)
    target = np.where(known, pairs, 1.0)
    start = np.where(np.isfinite(own) & (own > 0.0), own, 1.0)
    found = start
    for _ in range(_SWEEPS):
        fitted = found[..., :, np.newaxis] + found[..., np.newaxis, :]
        top = np.where(known, target / fitted**2, 0.0).sum(axis=-1)
        bottom = np.where(known, 1.0 / fitted, 0.0).sum(axis=-1)
        ratio = np.divide(top, bottom, out=np.ones(found.shape), where=bottom > 0.0)
        found = found * ratio
        if np.abs(ratio - 1.0).max(initial=0.0) < 1e-9:
            break
    return np.where(known.any(axis=-1), found, own)
