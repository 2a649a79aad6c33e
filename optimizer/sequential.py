"""Contrasts with control, and intervals that stay right however often one looks and however the weights moved."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from optimizer.errors import InvalidArgument, InvalidCounts
from optimizer.paired_sums import Method, Pairs, mean_score, pairs_of

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]

SMALLEST_RESPONDERS = 20
SMALLEST_PAYERS = 50  # of money, whose few large sums make the normal approximation slower to hold


@dataclass(frozen=True, slots=True)
class Contrast:
    """Mean outcome of each variant minus that of control, had everybody got it.

    Attributes:
        estimate: In outcome units, shape (..., n_variants); 0 for control, NaN where never randomised beside control.
        standard_error: In outcome units, the same shape; 0 for control, NaN where the estimate is.
        n_units: Units of all variants in the versions that compare the two, the same shape.
    """

    estimate: Floats
    standard_error: Floats
    n_units: Floats


@dataclass(frozen=True, slots=True)
class ConfidenceSequence:
    """Confidence (not credible) intervals, valid at all times together.

    Attributes:
        low: In outcome units; minus infinity where not estimable.
        high: In outcome units; infinity where not estimable.
        p_value: Always-valid p-value of "no difference"; 1 where not estimable.
        estimable: False where too few units responded, or there is no contrast, or it does not vary.
        reason: Why the others are not estimable, in words.
    """

    low: Floats
    high: Floats
    p_value: Floats
    estimable: Flags
    reason: str

    @property
    def excludes_zero(self) -> Flags:
        """Where the whole interval lies on one side of zero."""
        return (self.low > 0.0) | (self.high < 0.0)


def aipw_contrast(
    n_units: ArrayLike,
    total: ArrayLike,
    *,
    sum_squares: ArrayLike,
    propensity: ArrayLike,
    predicted: ArrayLike,
    control_index: int,
) -> Contrast:
    """Propensity-weighted, augmented contrast of every variant with control, from sums by allocation version.

    With m frozen when a version starts and p its logged weights, each unit of the version has for each variant the
    score G_k = m_k + 1{got k} (y - m_k) / p_k, whose expectation is the mean outcome of k given all that came before.
    The estimate is the mean of G_k - G_control. Its squares are summed over three groups of units (those in k, those in
    control, those in neither), because the two scores of one unit are not independent.

    Args:
        n_units: Matured units, shape (..., n_versions, n_variants). Rows may be (segment, version) pairs.
        total: Sum of the units' outcomes, the same shape.
        sum_squares: Sum of their squares, the same shape.
        propensity: Logged weights of the version, rows summing to 1, the same shape.
        predicted: m, the mean outcome expected of each variant when the version started, from responses that had
            arrived before it, the same shape. Any value that was fixed by then is valid; a good one narrows.
        control_index: Which variant is the control.
    Returns:
        A Contrast of shape (..., n_variants). Versions where a variant or control had weight 0 do not count for it.
    Raises:
        InvalidCounts: Not finite, negative, or units of a variant whose weight was 0.
        InvalidArgument: Shapes differ, propensities that are no probabilities, or no such control.
    Source: Hadad et al. (2021), PNAS 118(15), arXiv:1911.02768, eq. 5, with constant evaluation weights.

    >>> half = aipw_contrast(
    ...     [[100, 100]], [[10, 20]], sum_squares=[[10, 20]], propensity=[[0.5, 0.5]], predicted=[[0.1, 0.2]],
    ...     control_index=0,
    ... )
    >>> half.estimate.round(3), half.standard_error.round(3)
    (array([0. , 0.1]), array([0.  , 0.05]))
    """
    n, sums, squares, share, m = checked_sums(n_units, total, sum_squares, propensity, predicted)
    if not 0 <= control_index < n.shape[-1]:
        raise InvalidArgument("control_index", f"{control_index} is none of {n.shape[-1]} variants")
    pairs = pairs_of(n, sums, squares=squares, share=share, predicted=m, control=control_index)
    return contrast_of(mean_score(pairs, np.ones(n.shape)), pairs, control_index=control_index)


def contrast_of(method: Method, pairs: Pairs, *, control_index: int) -> Contrast:
    """An estimate as a contrast: NaN where never randomised beside control, 0 for control.

    Args:
        method: An estimate.
        pairs: What it was made from.
        control_index: Which variant is the control.
    """
    n_total = pairs.everyone.sum(axis=-2)
    missing = np.where(n_total > 0.0, 0.0, np.nan)
    estimate, error = method.estimate + missing, np.sqrt(method.variance(pairs)) + missing
    estimate[..., control_index], error[..., control_index] = 0.0, 0.0
    return Contrast(estimate, error, n_total)


def confidence_sequence(
    contrast: Contrast,
    *,
    n_responders: ArrayLike,
    control_index: int,
    n_star: float,
    level: float = 0.95,
    least_responders: float = SMALLEST_RESPONDERS,
) -> ConfidenceSequence:
    """Asymptotic confidence sequence of each contrast: look after every unit, the error rate holds over all looks.

    It is asymptotic: below 20 responders in either variant the normal approximation fails badly (31-51 % false
    exclusions at small weights), so there the interval is the whole line. Where weights move by outcomes, use the
    contrast and the responders of `optimizer.adaptive_contrast`, and 50 of them for money: with the plain ones 7-19 %
    of A/A worlds at a floor of 1 % were excluded.

    Args:
        contrast: As from `aipw_contrast` or `adaptive_contrast`, shape (..., n_variants).
        n_responders: Units that responded, of each variant in the same data (of a rate above one half, count those
            that did not), shape (..., n_variants).
        control_index: Which variant is the control.
        n_star: Units at which the interval is to be tightest; fixed in the definition, never chosen from the data.
        level: Coverage over all times, in (0, 1).
        least_responders: How many responders either variant needs; `SMALLEST_PAYERS` for money.
    Returns:
        Intervals of shape (..., n_variants). The control's own entry is not estimable.
    Raises:
        InvalidArgument: Shapes differ, no such control, n_star under 1, or a level outside (0, 1).
    Source: Waudby-Smith, Arbour, Sinha, Kennedy & Ramdas (2024), Annals of Statistics, arXiv:2103.06476, theorem 2.2.
    """
    responders = np.asarray(n_responders, dtype=np.float64)
    if responders.shape != contrast.estimate.shape:
        raise InvalidArgument("n_responders", f"shape {responders.shape} is not {contrast.estimate.shape}")
    if not 0 <= control_index < responders.shape[-1]:
        raise InvalidArgument("control_index", f"{control_index} is none of {responders.shape[-1]} variants")
    scarcer = np.minimum(responders, responders[..., control_index : control_index + 1])
    error, n = contrast.standard_error, contrast.n_units
    estimable = (scarcer >= least_responders) & np.isfinite(contrast.estimate) & (error > 0.0)
    estimable[..., control_index] = False
    unit_sd = np.where(estimable, error * np.sqrt(n), 0.0)
    width = unit_sd * half_width(np.where(estimable, n, 1.0), n_star=n_star, level=level)
    width = np.where(estimable, width, np.inf)
    centre = np.where(estimable, contrast.estimate, 0.0)
    z = np.divide(contrast.estimate, error, out=np.zeros(error.shape), where=estimable)
    p_value = np.where(estimable, always_valid_p_value(z, np.maximum(n, 1.0), n_star=n_star, level=level), 1.0)
    needed = f"{least_responders:g} effective responders (of a frequent rate: units without a response)"
    reason = f"needs at least {needed} of the variant and of control, randomised together, whose outcomes vary"
    return ConfidenceSequence(centre - width, centre + width, p_value, estimable, reason)


def half_width(n_units: ArrayLike, *, n_star: float, level: float = 0.95, one_sided: bool = False) -> Floats:
    """Half width of the asymptotic confidence sequence of a mean whose units have standard deviation 1.

    Args:
        n_units: Units so far, >= 1, any shape.
        n_star: Units at which it is tightest.
        level: Coverage over all times.
        one_sided: The distance of a one-sided bound (for guardrails) instead.
    Raises:
        InvalidArgument: n_star under 1, or a level outside (0, 1).
    Source: Waudby-Smith et al., arXiv:2103.06476, theorem 2.2 and appendix B.2 (choice of rho).

    >>> half_width(1000, n_star=5000).round(7), half_width(1000, n_star=5000, one_sided=True).round(7)
    (np.float64(0.1063755), np.float64(0.0996884))
    """
    alpha = 1.0 - level
    n = np.asarray(n_units, dtype=np.float64)
    intrinsic = n * _rho(2.0 * alpha if one_sided else alpha, n_star=n_star) ** 2
    root = np.sqrt(intrinsic + 1.0)
    log_term = np.log1p(root / (2.0 * alpha)) if one_sided else np.log(root / alpha)
    width: Floats = np.sqrt(2.0 * (intrinsic + 1.0) / (n * intrinsic) * log_term)
    return width


def always_valid_p_value(z: ArrayLike, n_units: ArrayLike, *, n_star: float, level: float = 0.95) -> Floats:
    """The p-value at this look: 1 - level of the widest confidence sequence of this rho that still holds zero.

    Args:
        z: Estimate over standard error, any shape.
        n_units: Units so far, >= 1, the same shape.
        n_star: Units at which the interval is tightest.
        level: Coverage that fixes rho.
    Raises:
        InvalidArgument: n_star under 1, or a level outside (0, 1).
    Source: Waudby-Smith et al., arXiv:2103.06476: the interval of theorem 2.2 solved for alpha.

    >>> always_valid_p_value(3.0, 5000, n_star=5000).round(7)
    np.float64(0.0549476)
    """
    intrinsic = np.asarray(n_units, dtype=np.float64) * _rho(1.0 - level, n_star=n_star) ** 2
    exponent = np.asarray(z, dtype=np.float64) ** 2 * intrinsic / (2.0 * (intrinsic + 1.0))
    p_value: Floats = np.exp(np.minimum(0.0, 0.5 * np.log1p(intrinsic) - exponent))
    return p_value


def _rho(alpha: float, *, n_star: float) -> float:
    if not 0.0 < alpha < 1.0:
        raise InvalidArgument("level", f"an error rate of {alpha:g} is not between 0 and 1")
    if not (np.isfinite(n_star) and n_star >= 1.0):
        raise InvalidArgument("n_star", f"{n_star} is not a number of units")
    log_alpha = -2.0 * np.log(alpha)
    return float(np.sqrt((log_alpha + np.log1p(log_alpha)) / n_star))


def checked_sums(*arrays: ArrayLike) -> tuple[Floats, Floats, Floats, Floats, Floats]:
    """Units, sum, sum of squares, propensity and prediction by version, as `aipw_contrast` takes them.

    Args:
        arrays: These five, all of one shape (..., n_versions, n_variants).
    Raises:
        InvalidCounts: Not finite, negative, or units of a variant whose weight was 0.
        InvalidArgument: Shapes differ, or propensities that are no probabilities.
    """
    n, sums, squares, share, m = (np.asarray(values, dtype=np.float64) for values in arrays)
    for values in (n, sums, squares, share, m):
        if values.shape != n.shape or values.ndim < 2:
            raise InvalidArgument("shapes", f"{values.shape} and {n.shape} differ, or lack a dimension")
        if not np.isfinite(values).all():
            raise InvalidCounts("n_units, total, sum_squares, propensity or predicted", "is not finite")
    if (n < 0.0).any() or ((n > 0.0) & (share == 0.0)).any():
        raise InvalidCounts("n_units", "is negative, or positive where the propensity is 0")
    if (share < 0.0).any() or (np.abs(share.sum(axis=-1) - 1.0) > 1e-6).any():
        raise InvalidArgument("propensity", "a row is negative or does not sum to 1")
    return n, sums, squares, share, m
