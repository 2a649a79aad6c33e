"""Whether units came in the shares that were asked for, when the weights of variants move."""

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from optimizer.errors import InvalidArgument, InvalidCounts

Floats = NDArray[np.float64]
Status = Literal["ok", "warning", "alarm", "not_estimable"]

ALARM_P_VALUE = 0.001
WARNING_P_VALUE = 0.01
ALARM_GAP = 0.01
SMALLEST_EXPECTED = 5.0


@dataclass(frozen=True, slots=True)
class SampleRatio:
    """Observed against expected units.

    Attributes:
        p_value: None when too few units are expected to tell anything.
        statistic: Quadratic form, chi-squared under the logged weights.
        degrees_of_freedom: Its rank.
        relative_gap: Largest |observed - expected| / expected over variants (small expected counts are merged).
        status: "alarm" at p < 0.001 with a gap of at least 1 %, "warning" at p < 0.01, "not_estimable" without a p.
            This is for one look; `judged` says it for a check that is looked at all the time.
        always_valid_p_value: Of the sequential check, once `judged` has read it.
    """

    p_value: float | None
    statistic: float
    degrees_of_freedom: int
    relative_gap: float
    status: Status
    always_valid_p_value: float | None = None


def sample_ratio(n_units: ArrayLike, weights: ArrayLike) -> SampleRatio:
    """Chi-squared check of the units of each variant, summed over versions, against the summed logged weights.

    Comparing all units with the *current* weights alarms whenever weights moved; each version is held to its own:
    E_k = sum_v n_v p_vk, V_kl = sum_v n_v (p_vk [k = l] - p_vk p_vl). Variants that expect fewer than 5 units are
    merged, smallest first, because the chi-squared approximation fails there.

    Args:
        n_units: Units counted, shape (n_versions, n_variants); a row is one (segment, allocation version), or one
            group of units with equal weights. A vector is one version.
        weights: Logged propensities of that version, rows summing to 1, the same shape.
    Raises:
        InvalidCounts: Counts negative or not finite.
        InvalidArgument: Shapes differ, or a row of weights is no probability vector.
    Source: Fabijan et al. (2019), KDD, "Diagnosing sample ratio mismatch", generalised to versions by summing the
        multinomial means and covariances.

    >>> result = sample_ratio([5000, 5200], [0.5, 0.5])
    >>> round(result.p_value, 7), result.status
    (0.0476704, 'ok')
    """
    units, shares = (np.atleast_2d(np.asarray(values, dtype=np.float64)) for values in (n_units, weights))
    return sample_ratios(units[np.newaxis], shares[np.newaxis])[0]


def sample_ratios(n_units: ArrayLike, weights: ArrayLike) -> list[SampleRatio]:
    """As `sample_ratio`, of several segments at once.

    Args:
        n_units: Shape (n_segments, n_versions, n_variants); versions of a segment may be without units.
        weights: The same shape.
    Raises:
        InvalidCounts: As `sample_ratio`.
        InvalidArgument: As that.
    """
    units, shares = _checked(n_units, weights)
    totals = units.sum(axis=2)
    observed, expected = units.sum(axis=1), np.einsum("sv,svk->sk", totals, shares)
    covariance = expected[:, :, np.newaxis] * np.eye(units.shape[2])
    covariance -= np.swapaxes(shares * totals[..., np.newaxis], 1, 2) @ shares
    cells = np.stack([_merged_cells(one) for one in expected])
    observed, expected = (np.einsum("sck,sk->sc", cells, values) for values in (observed, expected))
    gap = observed - expected
    statistic, rank = _quadratic_forms(gap, covariance=cells @ covariance @ np.swapaxes(cells, 1, 2), scale=expected)
    relative = np.divide(np.abs(gap), expected, out=np.zeros(gap.shape), where=expected > 0.0).max(axis=1)
    never = ((shares == 0.0) & (units > 0.0)).any(axis=(1, 2))
    n_cells = (expected > 0.0).sum(axis=1)
    return [
        _IMPOSSIBLE if never[i] else _read(statistic[i], rank[i], relative_gap=relative[i], n_cells=n_cells[i])
        for i in range(len(units))
    ]


_IMPOSSIBLE = SampleRatio(0.0, np.inf, 0, np.inf, "alarm")  # units of a variant without weight


def judged(ratio: SampleRatio, always_valid_p_value: float, *, n_checks: int = 1) -> SampleRatio:
    """The check with its status by both p-values: the chi-squared one may warn, only the always-valid one may alarm.

    A chi-squared p-value holds for one look. Reviews look all the time, and an alarm breaks a verdict, so an alarm
    needs an always-valid p-value below 0.001 and a gap of at least 1 %. A warning is a chi-squared p-value below 0.01,
    or an always-valid one below 0.001 with a smaller gap. Both alarm at once on units of a variant without weight.

    Args:
        ratio: From `sample_ratio`.
        always_valid_p_value: Of the same units, from `sequential_sample_ratio`, in [0, 1].
        n_checks: How many segments are checked at once: both p-values are multiplied by it (Bonferroni).
    Raises:
        InvalidArgument: A p-value outside [0, 1], or no check.

    >>> judged(sample_ratio([5_150, 4_850], [0.5, 0.5]), 0.21).status  # p = .0027, but not if one looks all the time
    'warning'
    """
    if not 0.0 <= always_valid_p_value <= 1.0:
        raise InvalidArgument("always_valid_p_value", f"{always_valid_p_value} is not between 0 and 1")
    if n_checks < 1:
        raise InvalidArgument("n_checks", f"{n_checks} is less than 1")
    is_sure, once = always_valid_p_value * n_checks < ALARM_P_VALUE, ratio.p_value
    status: Status = "ok"
    if is_sure and ratio.relative_gap >= ALARM_GAP:
        status = "alarm"
    elif is_sure or (once is not None and once * n_checks < WARNING_P_VALUE):
        status = "warning"
    elif once is None:
        status = "not_estimable"
    return replace(ratio, status=status, always_valid_p_value=always_valid_p_value)


def _checked(n_units: ArrayLike, weights: ArrayLike) -> tuple[Floats, Floats]:
    units, shares = np.asarray(n_units, dtype=np.float64), np.asarray(weights, dtype=np.float64)
    if units.shape != shares.shape or units.ndim != 3 or units.size == 0:
        raise InvalidArgument("weights", f"shape {shares.shape[1:]} does not fit n_units of shape {units.shape[1:]}")
    if not (np.isfinite(units).all() and (units >= 0.0).all()):
        raise InvalidCounts("n_units", "is negative or not finite")
    if not ((shares >= 0.0).all() and (np.abs(shares.sum(axis=2) - 1.0) < 1e-6).all()):
        raise InvalidArgument("weights", "a row is negative or does not sum to 1")
    return units, shares


def _merged_cells(expected: Floats) -> Floats:
    """0/1 matrix (n_variants, n_variants) that merges the smallest variants until each cell, a row, expects enough.

    Rows that are not needed are 0, and so is one that does not expect enough even so.
    """
    if expected.min() >= SMALLEST_EXPECTED:
        return np.eye(expected.size)
    matrix, row = np.zeros((expected.size, expected.size)), 0
    for variant in np.argsort(expected, kind="stable"):
        if matrix[row] @ expected >= SMALLEST_EXPECTED:
            row += 1
        matrix[row, variant] = 1.0
    matrix[matrix @ expected < SMALLEST_EXPECTED] = 0.0
    return matrix


def _quadratic_forms(gap: Floats, *, covariance: Floats, scale: Floats) -> tuple[Floats, NDArray[np.int64]]:
    """Gaps over their covariances, and the ranks of these, shapes (n_segments,); cells without scale count nothing."""
    root = np.sqrt(np.where(scale > 0.0, scale, 1.0))
    values, vectors = np.linalg.eigh(covariance / (root[:, :, np.newaxis] * root[:, np.newaxis]))
    free = values > 1e-9
    scores = np.einsum("sck,sc->sk", vectors, gap / root)
    parts = np.divide(scores**2, values, out=np.zeros(values.shape), where=free)
    return parts.sum(axis=1), free.sum(axis=1)


def _read(statistic: float, degrees_of_freedom: int, *, relative_gap: float, n_cells: int) -> SampleRatio:
    if n_cells < 2:
        return SampleRatio(None, 0.0, 0, 0.0, "not_estimable")
    p_value = float(special.chdtrc(degrees_of_freedom, statistic)) if degrees_of_freedom else None
    status: Status = "ok"
    if p_value is None:
        status = "not_estimable"
    elif p_value < ALARM_P_VALUE and relative_gap >= ALARM_GAP:
        status = "alarm"
    elif p_value < WARNING_P_VALUE:
        status = "warning"
    return SampleRatio(p_value, float(statistic), int(degrees_of_freedom), float(relative_gap), status)
