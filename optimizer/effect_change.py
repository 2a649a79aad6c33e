"""Did an effect change over time? The effect on early units against that on later ones, segment by segment."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from optimizer.errors import InvalidArgument
from optimizer.standardise import across_segments

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class EffectChange:
    """Later effect minus early effect, in outcome units, with a confidence interval; NaN where it is not estimable.

    Attributes:
        estimate: Shape (n_segments + 1, n_variants); the last row is over all segments.
        low: Lower end of the interval, the same shape.
        high: Upper end.
        covered: Share of the mix of units that the last row could be made from, shape (n_variants,).
    """

    estimate: Floats
    low: Floats
    high: Floats
    covered: Floats


def effect_change(
    early: ArrayLike,
    later: ArrayLike,
    *,
    early_variance: ArrayLike,
    later_variance: ArrayLike,
    mix: ArrayLike,
    level: float = 0.95,
) -> EffectChange:
    """Compare effects on units decided early with those on units decided later.

    Units are compared within their segment, and the segments then weighed alike in both periods: a mix of customers
    that shifts can't pass for an effect that fades.

    Args:
        early: Differences from control, NaN where there is none, shape (n_segments, n_variants).
        later: The same of other, later units.
        early_variance: Sampling variances of ``early``, the same shape.
        later_variance: Sampling variances of ``later``, the same shape.
        mix: Weight of each segment in the last row, >= 0, shape (n_segments,).
        level: Of the interval, in (0, 1); it is a normal one, so each effect should rest on many units.
    Raises:
        InvalidArgument: Shapes differ, a negative variance or mix, or a level outside (0, 1).
    Source: the variance of a difference of independent estimates; direct standardisation over segments.

    >>> change = effect_change([[0.0, 0.06]], [[0.0, 0.02]], early_variance=[[0, 9e-4]], later_variance=[[0, 16e-4]],
    ...     mix=[1])
    >>> change.estimate[0].round(3), change.high[0].round(3)  # -0.04 + 1.96 * 0.05
    (array([ 0.  , -0.04]), array([0.   , 0.058]))
    """
    if not 0.0 < level < 1.0:
        raise InvalidArgument("level", f"{level} is not between 0 and 1")
    before, after = np.asarray(early, dtype=np.float64), np.asarray(later, dtype=np.float64)
    if before.shape != after.shape:
        raise InvalidArgument("later", f"shape {after.shape} does not fit early effects of shape {before.shape}")
    variance = np.asarray(early_variance, dtype=np.float64) + np.asarray(later_variance, dtype=np.float64)
    overall = across_segments(after - before, variance, mix=mix)
    change = np.concatenate([after - before, overall.estimate[np.newaxis]])
    margin = special.ndtri((1.0 + level) / 2.0) * np.sqrt(np.concatenate([variance, overall.variance[np.newaxis]]))
    return EffectChange(change + 0.0 * margin, change - margin, change + margin, overall.covered)
