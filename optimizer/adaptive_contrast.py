"""Contrasts weighted so that moving weights leave them normal, and how many responders such an estimate rests on."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from optimizer.errors import InvalidArgument, InvalidCounts
from optimizer.paired_sums import adaptively_weighted, evaluation_weight, pairs_of
from optimizer.sequential import Contrast, checked_sums, contrast_of

Floats = NDArray[np.float64]


def adaptive_contrast(
    n_units: ArrayLike,
    total: ArrayLike,
    *,
    sum_squares: ArrayLike,
    propensity: ArrayLike,
    predicted: ArrayLike,
    control_index: int,
) -> Contrast:
    """As `optimizer.sequential.aipw_contrast`, each unit weighted by h = (1 / p_k + 1 / p_control)^(-1/2).

    h is fixed before the stratum, so confidence sequences stay valid, and the variance of h (G_k - G_control) hardly
    changes as weights move, which their normal approximation needs. If the effect changes over time, its mean is
    weighted by h too.

    Args:
        n_units: Matured units, shape (..., n_strata, n_variants); strata in any order.
        total: Sum of the units' outcomes, the same shape.
        sum_squares: Sum of their squares, the same shape.
        propensity: Logged weights of the stratum, rows summing to 1, the same shape.
        predicted: Mean outcome expected of each variant before the stratum, the same shape.
        control_index: Which variant is the control.
    Returns:
        A Contrast of shape (..., n_variants), to be read with `effective_responders`.
    Raises:
        InvalidCounts: Not finite, negative, or units of a variant whose weight was 0.
        InvalidArgument: Shapes differ, propensities that are no probabilities, or no such control.
    Source: Hadad et al. (2021), PNAS 118(15), arXiv:1911.02768, "constant allocation", for a contrast.
    """
    n, sums, squares, share, m = checked_sums(n_units, total, sum_squares, propensity, predicted)
    if not 0 <= control_index < n.shape[-1]:
        raise InvalidArgument("control_index", f"{control_index} is none of {n.shape[-1]} variants")
    pairs = pairs_of(n, sums, squares=squares, share=share, predicted=m, control=control_index)
    return contrast_of(adaptively_weighted(pairs), pairs, control_index=control_index)


def effective_responders(
    n_responders: ArrayLike,
    n_units: ArrayLike,
    *,
    propensity: ArrayLike,
    control_index: int,
    is_binary: bool = False,
) -> Floats:
    """Equally weighted responders that an adaptive contrast is worth, of the variant or of control, the fewer.

    A responder who came by a weight of 1 % counts much more than one who came by 50 %, so a few of them may carry the
    estimate. Kish's number is (sum w)^2 / sum w^2 over responders, with w = h / p: the plain number if weights stay.

    Args:
        n_responders: Units that responded, shape (..., n_strata, n_variants).
        n_units: Units, the same shape.
        propensity: Logged weights, the same shape. Strata where either had weight 0 do not count.
        control_index: Which variant is the control.
        is_binary: Outcomes are 0 or 1: those that did not respond are counted too, and the fewer of both taken.
    Returns:
        Shape (..., n_variants), for `confidence_sequence(n_responders=...)`; infinity for control.
    Raises:
        InvalidCounts: Responders that are negative, not finite, or more than the units.
        InvalidArgument: Shapes differ, or no such control.
    Source: Kish (1965), Survey Sampling, section 11.7.

    >>> effective_responders([[9, 9], [1, 1]], [[50, 50], [99, 1]], propensity=[[0.5, 0.5], [0.99, 0.01]],
    ...     control_index=0).round(2)  # w of the variant: 1 and 9.95, so (9 + 9.95)^2 / (9 + 99)
    array([ inf, 3.32])
    """
    counts, units, share = (np.asarray(values, dtype=np.float64) for values in (n_responders, n_units, propensity))
    if not (counts.shape == units.shape == share.shape and counts.ndim >= 2):
        raise InvalidArgument("n_responders", f"shapes {counts.shape}, {units.shape} and {share.shape} do not fit")
    if not ((counts >= 0.0) & (counts <= units)).all():
        raise InvalidCounts("n_responders", "is negative, not finite, or more than the units")
    own, control = _weights(share, control_index=control_index)
    kinds, beside = (counts, units - counts) if is_binary else (counts,), slice(control_index, control_index + 1)
    numbers = [_kish(kind * own, kind * own**2) for kind in kinds]
    numbers += [_kish(kind[..., beside] * control, kind[..., beside] * control**2) for kind in kinds]
    effective: Floats = np.minimum.reduce(numbers)
    effective[..., control_index] = np.inf
    return effective


def effective_amounts(total: ArrayLike, sum_squares: ArrayLike, *, propensity: ArrayLike, control_index: int) -> Floats:
    """Equal amounts that the outcomes of a variant or of control are worth, the fewer: few large ones are worth few.

    As `effective_responders`, with each unit's amount in its weight: (sum w y)^2 / sum (w y)^2. Of equal amounts it is
    the number of those who responded, of log-normal ones about that times exp(-sd^2 of the logs).

    Args:
        total: Sum of the units' outcomes, shape (..., n_strata, n_variants).
        sum_squares: Sum of their squares, the same shape.
        propensity: Logged weights, the same shape. Strata where either had weight 0 do not count.
        control_index: Which variant is the control.
    Returns:
        Shape (..., n_variants); infinity for control.
    Raises:
        InvalidArgument: Shapes differ, or no such control.
    Source: Kish (1965), Survey Sampling, section 11.7.

    >>> effective_amounts([[9, 9]], [[9, 41]], propensity=[[0.5, 0.5]], control_index=0).round(2)  # two paid 4 and 5
    array([ inf, 1.98])
    """
    sums, squares, share = (np.asarray(values, dtype=np.float64) for values in (total, sum_squares, propensity))
    if not sums.shape == squares.shape == share.shape:
        raise InvalidArgument("total", f"shapes {sums.shape}, {squares.shape} and {share.shape} do not fit")
    own, control = _weights(share, control_index=control_index)
    beside = slice(control_index, control_index + 1)
    sides = ((sums, squares, own), (sums[..., beside], squares[..., beside], control))
    effective: Floats = np.minimum.reduce([_kish(top * w, bottom * w**2) for top, bottom, w in sides])
    effective[..., control_index] = np.inf
    return effective


def rates_if_alike(
    n_responders: ArrayLike, n_units: ArrayLike, *, propensity: ArrayLike, control_index: int
) -> tuple[Floats, Floats]:
    """What an adaptive contrast of rates would rest on, were a variant and control alike, and its error then.

    A variant that nobody answers has no responders because it is bad, not because too few met it. Were it like control,
    it should have had their common rate of its units; where that is enough, and the error is taken to be no smaller
    than it were then, the normal law holds under "no difference", and whichever differs only has more responders.

    Args:
        n_responders: Units that responded, shape (..., n_strata, n_variants).
        n_units: Units, the same shape.
        propensity: Logged weights, the same shape. Strata where either had weight 0 do not count.
        control_index: Which variant is the control.
    Returns:
        Effective responders (or others, the fewer) that the scarcer should have had, infinity for control; and the
        standard error of the adaptive contrast, 0 for control. Shapes (..., n_variants).
    Raises:
        InvalidArgument: No such control.
    Source: own rule, as that of guardrails (`optimizer.guardrail`); the error is that under "no difference" of Fleiss,
        Levin & Paik (2003), Statistical Methods for Rates and Proportions, section 3.1.

    >>> expected, error = rates_if_alike([[0, 200]], [[200, 200]], propensity=[[0.5, 0.5]], control_index=0)
    >>> expected, error  # a half of 200; sqrt(.25 (1 / 200 + 1 / 200))
    (array([ inf, 100.]), array([0.  , 0.05]))
    """
    counts, units, share = (np.asarray(values, dtype=np.float64) for values in (n_responders, n_units, propensity))
    own, control = _weights(share, control_index=control_index)
    beside = slice(control_index, control_index + 1)
    of_control, both = units[..., beside], units + units[..., beside]
    rate = np.divide(counts + counts[..., beside], both, out=np.zeros(both.shape), where=both > 0.0)
    sides = [(kind * n, w) for kind in (rate, 1.0 - rate) for n, w in ((units, own), (of_control, control))]
    expected: Floats = np.minimum.reduce([_kish(number * w, number * w**2) for number, w in sides])
    everyone = np.where(own > 0.0, units.sum(axis=-1, keepdims=True), 0.0)
    h = own * np.where(own > 0.0, share, 1.0)
    spread, weighed = (everyone * rate * (1.0 - rate)).sum(axis=-2), (h * everyone).sum(axis=-2)
    error = np.divide(np.sqrt(spread), weighed, out=np.zeros(spread.shape), where=weighed > 0.0)
    expected[..., control_index], error[..., control_index] = np.inf, 0.0
    return expected, error


def _weights(share: Floats, *, control_index: int) -> tuple[Floats, Floats]:
    """What a unit of a variant counts with, and one of control beside it; 0 where either had weight 0."""
    if not (share.ndim >= 2 and 0 <= control_index < share.shape[-1]):
        raise InvalidArgument("control_index", f"{control_index} is none of the variants of shape {share.shape}")
    beside = slice(control_index, control_index + 1)
    together = (share > 0.0) & (share[..., beside] > 0.0)
    own, control = (np.where(together, values, 1.0) for values in (share, share[..., beside]))
    h = np.where(together, evaluation_weight(own, control), 0.0)
    return h / own, h / control


def _kish(total: Floats, squares: Floats) -> Floats:
    first, second = total.sum(axis=-2), squares.sum(axis=-2)
    number: Floats = np.divide(first**2, second, out=np.zeros(first.shape), where=second > 0.0)
    return number
