"""Comparisons that moving weights can't turn round: inside blocks of time first, over a fixed mix of segments then."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from optimizer.errors import InvalidArgument, InvalidCounts

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Standardised:
    """Estimates after standardisation, with the share of the weight they could be made from.

    Attributes:
        estimate: In outcome units; NaN where `estimable` is False.
        variance: Sampling variance of the estimate; NaN where `estimable` is False.
        covered: Share of the intended mix (or of units, for differences) that had data, in [0, 1]. Under 1 two
            estimates may rest on different strata: compare them by their difference, or say so.
    """

    estimate: Floats
    variance: Floats
    covered: Floats

    @property
    def estimable(self) -> NDArray[np.bool_]:
        """Where both an estimate and its variance exist."""
        return np.isfinite(self.estimate) & np.isfinite(self.variance)


def block_differences(
    n_units: ArrayLike, total: ArrayLike, *, sum_squares: ArrayLike, control_index: int
) -> Standardised:
    """Mantel-Haenszel difference of each variant from control, compared inside blocks of time only.

    A block weighs n_vk n_vc / (n_vk + n_vc): small when either side is small, and never an estimated inverse variance,
    which would depend on the outcomes. Blocks where a variant or control had no units say nothing and weigh nothing.

    Args:
        n_units: Units, shape (..., n_blocks, n_variants); a block is at most a day of one allocation version.
        total: Sum of the units' outcomes (responders of a binary metric), the same shape.
        sum_squares: Sum of their squares (responders again of a binary metric), the same shape.
        control_index: Which variant is the control.
    Returns:
        Differences in outcome units, shape (..., n_variants); the control's own is 0 with variance 0. `covered` is the
        share of the units of this variant and control that lie in blocks with both.
    Raises:
        InvalidCounts: Not finite, negative, sums without units, or sums that contradict each other.
        InvalidArgument: Shapes differ, fewer than two dimensions, or no such control.
    Source: Greenland & Robins (1985), Biometrics 41(1), risk difference; the unbiased variance of each cell.

    >>> late = block_differences(
    ...     [[90, 10], [10, 90]], [[9, 2], [3, 36]], sum_squares=[[9, 2], [3, 36]], control_index=0
    ... )
    >>> late.estimate.round(3)
    array([0. , 0.1])
    """
    n, mean, spread = checked_cells(n_units, total, sum_squares=sum_squares)
    control = _control(n.shape[-1], control_index)
    n_control, mean_control, spread_control = n[..., control], mean[..., control], spread[..., control]
    both = (n > 0.0) & (n_control > 0.0)
    weight = np.where(both, n * n_control / np.maximum(n + n_control, 1.0), 0.0)
    difference = np.where(both, mean - mean_control, 0.0)
    variance = np.where(both, spread + spread_control, 0.0)
    estimate, error = _weighted(difference, variance, weight=weight)
    units = n + n_control
    covered = _ratio(np.where(both, units, 0.0).sum(axis=-2), units.sum(axis=-2))
    estimate[..., control_index], error[..., control_index] = 0.0, 0.0
    return Standardised(estimate, error, covered)


def block_means(
    n_units: ArrayLike, total: ArrayLike, *, sum_squares: ArrayLike, mix: ArrayLike | None = None
) -> Standardised:
    """Mean outcome of each variant, directly standardised to one mix of blocks.

    Args:
        n_units: Units, shape (..., n_blocks, n_variants).
        total: Sum of the units' outcomes, the same shape.
        sum_squares: Sum of their squares, the same shape.
        mix: Weight of each block, >= 0, shape (..., n_blocks); by default the units of all its variants.
    Returns:
        Means in outcome units, shape (..., n_variants), over the blocks in which the variant had units, whose share of
        the mix is `covered`.
    Raises:
        InvalidCounts: Not finite, negative, sums without units, or sums that contradict each other.
        InvalidArgument: Shapes differ, fewer than two dimensions, or a negative mix.
    Source: direct standardisation; Rothman, Greenland & Lash, Modern Epidemiology, 3rd edition, chapter 3.

    >>> block_means([[80, 20], [20, 80]], [[8, 2], [8, 32]], sum_squares=[[8, 2], [8, 32]]).estimate.round(3)
    array([0.25, 0.25])
    """
    n, mean, spread = checked_cells(n_units, total, sum_squares=sum_squares)
    weight = n.sum(axis=-1) if mix is None else np.asarray(mix, dtype=np.float64)
    return _standardised(mean, np.where(n > 0.0, spread, np.nan), mix=weight)


def across_segments(estimate: ArrayLike, variance: ArrayLike, *, mix: ArrayLike) -> Standardised:
    """Estimates of segments combined by a fixed mix of customers, whatever the traffic each variant got in each.

    Args:
        estimate: Means or differences by segment, NaN where not estimable, shape (..., n_segments, n_variants).
        variance: Their sampling variances, the same shape.
        mix: Weight of each segment, >= 0, shape (..., n_segments): units of all variants, or customers.
    Returns:
        Shape (..., n_variants), over the segments that are estimable, whose share of the mix is `covered`.
    Raises:
        InvalidArgument: Shapes differ, a negative variance, or a negative mix.
    Source: direct standardisation; Rothman, Greenland & Lash, Modern Epidemiology, 3rd edition, chapter 3.

    >>> across_segments([[0.0, 0.1], [0.0, 0.3]], [[0.0, 0.01], [0.0, 0.01]], mix=[3, 1]).estimate
    array([0.  , 0.15])
    """
    estimates, variances = np.asarray(estimate, dtype=np.float64), np.asarray(variance, dtype=np.float64)
    if estimates.shape != variances.shape or estimates.ndim < 2:
        raise InvalidArgument("variance", f"shape {variances.shape} does not fit estimates of shape {estimates.shape}")
    if (variances < 0.0).any():
        raise InvalidArgument("variance", "it is negative somewhere")
    return _standardised(estimates, variances, mix=np.asarray(mix, dtype=np.float64))


def _standardised(estimate: Floats, variance: Floats, *, mix: Floats) -> Standardised:
    if mix.shape != estimate.shape[:-1] or not (np.isfinite(mix).all() and (mix >= 0.0).all()):
        raise InvalidArgument("mix", f"shape {mix.shape} does not fit, or it is negative or not finite")
    known = np.isfinite(estimate) & np.isfinite(variance)
    weight = np.where(known, mix[..., np.newaxis], 0.0)
    combined, error = _weighted(np.where(known, estimate, 0.0), np.where(known, variance, 0.0), weight=weight)
    return Standardised(combined, error, _ratio(weight.sum(axis=-2), mix.sum(axis=-1)[..., np.newaxis]))


def _weighted(values: Floats, variance: Floats, *, weight: Floats) -> tuple[Floats, Floats]:
    total = weight.sum(axis=-2)
    missing = np.where(total > 0.0, 0.0, np.nan)
    estimate = _ratio((weight * values).sum(axis=-2), total) + missing
    error = _ratio((weight**2 * variance).sum(axis=-2), total**2) + missing
    return estimate, error


def checked_cells(n_units: ArrayLike, total: ArrayLike, *, sum_squares: ArrayLike) -> tuple[Floats, Floats, Floats]:
    """Units, mean, and variance of the mean of each cell; a cell of one unit borrows its variant's pooled variance.

    Args:
        n_units: Units, shape (..., n_strata, n_variants).
        total: Sum of their outcomes, the same shape.
        sum_squares: Sum of the squares of these, the same shape.
    Raises:
        InvalidArgument: Shapes differ, or fewer than two dimensions.
        InvalidCounts: Not finite, negative units, sums without units, or sums that contradict each other.
    """
    n, sums, squares = (np.asarray(values, dtype=np.float64) for values in (n_units, total, sum_squares))
    if n.ndim < 2 or n.shape != sums.shape or n.shape != squares.shape:
        raise InvalidArgument("n_units", f"shapes {n.shape}, {sums.shape}, {squares.shape} do not fit together")
    if not (np.isfinite(n).all() and np.isfinite(sums).all() and np.isfinite(squares).all() and (n >= 0.0).all()):
        raise InvalidCounts("n_units, total or sum_squares", "is not finite, or units are negative")
    if ((n == 0.0) & ((sums != 0.0) | (squares != 0.0))).any():
        raise InvalidCounts("total", "is not zero where there are no units")
    within = squares - _ratio(sums**2, n)
    if (within < -1e-9 * squares - 1e-300).any():
        raise InvalidCounts("sum_squares", "is smaller than total squared over units")
    within = np.maximum(within, 0.0)
    several = n > 1.0
    spare = np.where(several, n - 1.0, 0.0)
    pooled = _ratio(np.where(several, within, 0.0).sum(axis=-2), spare.sum(axis=-2))
    pooled = np.where(spare.sum(axis=-2) > 0.0, pooled, np.nan)[..., np.newaxis, :]
    variance = np.where(several, _ratio(within, spare), pooled)
    return n, _ratio(sums, n), np.where(n > 0.0, variance / np.maximum(n, 1.0), 0.0)


def _ratio(top: Floats, bottom: Floats) -> Floats:
    ratio: Floats = np.divide(top, bottom, out=np.zeros(np.broadcast(top, bottom).shape), where=bottom > 0.0)
    return ratio


def _control(n_variants: int, control_index: int) -> slice:
    if not 0 <= control_index < n_variants:
        raise InvalidArgument("control_index", f"{control_index} is none of {n_variants} variants")
    return slice(control_index, control_index + 1)
