"""Means of segments whose base rates differ, on the one scale on which their effects can be pooled."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from optimizer.errors import InvalidArgument, InvalidCounts

Floats = NDArray[np.float64]

_SWEEPS = 50
_STILL = 1e-14  # relative change of the factors: sweeping on would change nothing
_USUAL_GAP = 0.05  # of control's mean, between what segments' variants make it and what it is


@dataclass(frozen=True, slots=True)
class RelativeMeans:
    """Every variant's mean outcome in units of its segment's base; differences of a row are relative effects.

    Attributes:
        estimate: Mean over base, NaN where the variant or the segment says nothing, shape (n_segments, n_variants).
        variance: Sampling variance of the estimate, > 0, NaN in the same places, the same shape.
        base: Size of control's mean outcome, in outcome units, > 0; NaN where nothing varies, shape (n_segments,).
    """

    estimate: Floats
    variance: Floats
    base: Floats


def relative_means(mean: ArrayLike, variance: ArrayLike, *, n_units: ArrayLike, control_index: int) -> RelativeMeans:
    """Divide by control's mean, read off all variants of a segment so that its noise does not pass for effects.

    Control's own mean of a small segment would do harm: 1 / mean is biased upwards, by 18 % at 50 units of a 10 % rate,
    for all effects at once. So bases and average effects are fitted as mean_sk = base_s average_k, weighted by
    units; the base moves on to control's own mean as units make that certain, and is then taken as known. Sampling
    variances likewise are rebuilt from variances of a unit fitted as spread_s factor_k: a cell's own variance goes up
    and down with its own mean, so that 1 / variance would favour low means, and is 0 for a cell without responders.

    Args:
        mean: Of every variant, NaN without units, shape (n_segments, n_variants), in outcome units.
        variance: Sampling variance of each mean, NaN without units, the same shape.
        n_units: Units; where weights moved, as many as give the variance. The same shape.
        control_index: Which variant is the control.
    Returns:
        Estimates with their variances, and the bases. Segments in which no outcome varies, or whose base is 0, say
        nothing about effects: their row is NaN. Effects of a negative base are relative to its size.
    Raises:
        InvalidArgument: Shapes differ, fewer than two dimensions, a negative variance, or no such control.
        InvalidCounts: Units that are negative or not finite.
    Source: Deming & Stephan (1940) for the fitting; Greenland & Robins (1985) against weights estimated from outcomes.

    >>> means, units = [[0.1, 0.12], [0.2, 0.24]], [[100, 100], [100, 100]]
    >>> found = relative_means(means, [[9e-4, 9e-4], [9e-4, 9e-4]], n_units=units, control_index=0)
    >>> found.estimate.round(3).tolist(), found.base.round(3).tolist()
    ([[1.0, 1.2], [1.0, 1.2]], [0.1, 0.2])
    """
    means, variances, units = (np.asarray(values, dtype=np.float64) for values in (mean, variance, n_units))
    if means.ndim != 2 or means.shape != variances.shape or means.shape != units.shape:
        raise InvalidArgument("mean", f"shapes {means.shape}, {variances.shape}, {units.shape} do not fit together")
    if not 0 <= control_index < means.shape[1]:
        raise InvalidArgument("control_index", f"{control_index} is none of {means.shape[1]} variants")
    if (variances < 0.0).any():
        raise InvalidArgument("variance", "it is negative somewhere")
    if not (np.isfinite(units).all() and (units >= 0.0).all()):
        raise InvalidCounts("n_units", "is negative or not finite somewhere")
    known = np.isfinite(means) & np.isfinite(variances) & (units > 0.0)
    weight = np.where(known, units, 0.0)
    base = _base(np.where(known, means, 0.0), weight=weight, control_index=control_index)
    spread, factor = _product(np.where(known, variances * units, 0.0), weight=weight)
    unit_variance = spread[:, np.newaxis] * factor
    base = _nearer_own(
        base, means[:, control_index], unit_variance=unit_variance[:, control_index], n_units=weight[:, control_index]
    )
    usable = known & (np.isfinite(base) & (spread > 0.0))[:, np.newaxis]
    size = np.where(usable.any(axis=1), np.abs(base), np.nan)
    sampling = np.divide(unit_variance, units, out=np.full(means.shape, np.nan), where=usable & (unit_variance > 0.0))
    relative = sampling / size[:, np.newaxis] ** 2
    return RelativeMeans(np.where(np.isfinite(relative), means / size[:, np.newaxis], np.nan), relative, size)


def _base(means: Floats, *, weight: Floats, control_index: int) -> Floats:
    """Control's fitted mean by segment; the segment's own pooled mean where the fit makes no sense (mixed signs)."""
    base, average = _product(means, weight=weight)
    own = _ratio((weight * means).sum(axis=1), weight.sum(axis=1))
    control = average[control_index]
    fits = control > 0.0 and (average[weight.sum(axis=0) > 0.0] > 0.0).all()
    fitted = base * control if fits else own
    return np.where(np.abs(fitted) > 0.0, fitted, np.nan)


def _nearer_own(base: Floats, own: Floats, *, unit_variance: Floats, n_units: Floats) -> Floats:
    """The fitted base moved to control's own mean as far as that is more certain than a gap usual between segments."""
    gap = n_units * (_USUAL_GAP * np.nan_to_num(base)) ** 2
    pull = _ratio(gap, gap + unit_variance)
    moved: Floats = base + np.where(pull > 0.0, pull * (own - base), 0.0)
    return np.where(moved * base > 0.0, moved, base)


def _product(values: Floats, *, weight: Floats) -> tuple[Floats, Floats]:
    """Row and column factors whose product has the weighted sums of the values; columns average 1 over the weight."""
    sums, of_column, whole = weight * values, weight.sum(axis=0), weight.sum()
    of_row, total = sums.sum(axis=1), sums.sum(axis=0)
    columns = np.ones(values.shape[1])
    for _ in range(_SWEEPS):
        rows, before = _ratio(of_row, weight @ columns), columns
        columns = _ratio(total, rows @ weight)
        columns = columns * _ratio(whole, of_column @ columns, otherwise=1.0)
        if (np.abs(columns - before) <= _STILL * np.abs(columns)).all():
            break
    return rows, columns


def _ratio(top: Floats | float, bottom: Floats | float, *, otherwise: float = 0.0) -> Floats:
    shape = np.broadcast(top, bottom).shape
    ratio: Floats = np.divide(top, bottom, out=np.full(shape, otherwise), where=np.not_equal(bottom, 0.0))
    return ratio
