"""CUPED: outcomes freed of what was known about the units before, so that the same units tell more."""

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import ArrayLike, NDArray

from optimizer.centred_sums import CentredSums, Index, added, centred, labels_of

Floats = NDArray[np.float64]

# Units beyond one a cell. The slope takes one of them, so the variance after it is too small by a share of 1 / spare.
SMALLEST_SPARE_UNITS = 20
_CONSTANT = 1e-12  # of the raw squares: less variation is rounding


class Unadjusted(StrEnum):
    """Why outcomes were left as they were."""

    TOO_FEW_UNITS = "too_few_units"
    CONSTANT_COVARIATE = "constant_covariate"
    CONSTANT_OUTCOME = "constant_outcome"


@dataclass(frozen=True, slots=True)
class Adjusted:
    """Sums of adjusted outcomes, to be used in place of the plain ones.

    Attributes:
        total: Sum of the units' adjusted outcomes, in outcome units, shape (n_strata, n_variants).
        sum_squares: Sum of their squares, the same shape.
        theta: Outcome units per unit of the covariate; 0 where nothing was adjusted.
        variance_removed: Share of the variance within cells that the covariate explains, in [0, 1].
        unadjusted: Why total and sum_squares are the plain ones; None if they are adjusted.
    """

    total: Floats
    sum_squares: Floats
    theta: float
    variance_removed: float
    unadjusted: Unadjusted | None


def covariate_adjusted(
    n_units: ArrayLike,
    total: ArrayLike,
    *,
    sum_squares: ArrayLike,
    covariate: ArrayLike,
    covariate_squares: ArrayLike,
    product: ArrayLike,
    stratum: ArrayLike | None = None,
) -> Adjusted:
    """Each outcome y becomes y - theta (x - mean of x over all variants of its stratum), computed from sums alone.

    Randomisation gives all variants of a stratum the same expected x, so differences inside a stratum stay unbiased for
    any theta. The best one is the slope of y on x inside cells (a stratum and a variant): neither effects nor base
    rates of strata can leak into it. The mean over all variants of a stratum is left as it was. x must be known before
    the unit met its variant.

    Args:
        n_units: Units, >= 0, may be fractional, shape (n_strata, n_variants).
        total: Sum of the units' outcomes y, the same shape.
        sum_squares: Sum of y squared.
        covariate: Sum of the units' covariates x.
        covariate_squares: Sum of x squared.
        product: Sum of x times y.
        stratum: Label of each row, whole numbers >= 0, shape (n_strata,); rows of equal label are one stratum, as if
            they had been added up before. By default each row is a stratum of its own.
    Raises:
        InvalidArgument: Shapes differ or are not two-dimensional, or labels that are none.
        InvalidCounts: Not finite, negative units, sums without units, or sums that contradict each other.
    Source: Deng, Xu, Kohavi & Walker (2013), WSDM, section 3; the slope within cells is that of the analysis of
        covariance, Cochran (1957), Biometrics 13(3).

    >>> twin = covariate_adjusted([[50, 50]], [[100, 120]], sum_squares=[[400, 500]], covariate=[[60, 40]],
    ...     covariate_squares=[[172, 132]], product=[[170, 146]])
    >>> twin.theta, twin.total  # (50 + 50) / (100 + 100), and 10 units of x more or less than the mean
    (0.5, array([[ 95., 125.]]))
    """
    sums = {
        "total": total,
        "sum_squares": sum_squares,
        "covariate": covariate,
        "covariate_squares": covariate_squares,
        "product": product,
    }
    rows = centred(n_units, **sums)
    label, n_labels = _strata(stratum, n_rows=len(rows.n))
    merged = {name: added(values, label=label, n_labels=n_labels) for name, values in sums.items()}
    cells = centred(added(n_units, label=label, n_labels=n_labels), **merged)
    reason = _reason(cells, squares=merged["sum_squares"], covariate_squares=merged["covariate_squares"])
    if reason is not None:
        return Adjusted(rows.first, np.asarray(sum_squares, dtype=np.float64), 0.0, 0.0, reason)
    theta = float(cells.product.sum() / cells.second_squares.sum())
    n_stratum = cells.n.sum(axis=1)
    mean = np.divide(cells.second.sum(axis=1), n_stratum, out=np.zeros(n_labels), where=n_stratum > 0.0)
    adjusted = rows.first - theta * (rows.second - rows.n * mean[label, np.newaxis])
    about_zero = np.divide(adjusted**2, rows.n, out=np.zeros(rows.n.shape), where=rows.n > 0.0)
    after = cells.squares_of_difference(theta).sum() / cells.first_squares.sum()
    squares = rows.squares_of_difference(theta) + about_zero
    return Adjusted(adjusted, squares, theta, float(np.clip(1.0 - after, 0.0, 1.0)), None)


def _strata(stratum: ArrayLike | None, *, n_rows: int) -> tuple[Index, int]:
    if stratum is None:
        return np.arange(n_rows), n_rows
    known, label = np.unique(labels_of(stratum, name="stratum", n_rows=n_rows), return_inverse=True)
    return label, known.size


def _reason(cells: CentredSums, *, squares: Floats, covariate_squares: Floats) -> Unadjusted | None:
    if np.maximum(cells.n - 1.0, 0.0).sum() < SMALLEST_SPARE_UNITS:
        return Unadjusted.TOO_FEW_UNITS
    if cells.second_squares.sum() <= _CONSTANT * covariate_squares.sum():
        return Unadjusted.CONSTANT_COVARIATE
    if cells.first_squares.sum() <= _CONSTANT * squares.sum():
        return Unadjusted.CONSTANT_OUTCOME
    return None
