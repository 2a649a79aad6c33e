"""Whether attributes may have been measured after the decision: what was known before hangs on no variant."""

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

Floats = NDArray[np.float64]
Index = NDArray[np.intp]

_TAIL = 0.005  # beyond these quantiles values are clipped, so that no single one decides


def imbalance(x: Floats, variant: Index, *, propensities: Floats, categorical: tuple[int, ...] = ()) -> Floats:
    """P-values of "known before the decision" for each attribute, shape (n_attributes,).

    Given everything known before, getting a variant less its propensity is zero on average. So its product with the
    attribute sums to about zero, by however much propensities move; what the variant itself has changed does not.
    Tested for each variant, for the values and for whether they are missing (of categories: for each category), with
    Bonferroni's correction within the attribute.

    Args:
        x: Attributes, nan for missing, shape (n_units, n_attributes).
        variant: Index of each unit's.
        propensities: As logged, shape (n_units, n_variants).
        categorical: Columns of codes.
    """
    surprise = (variant[:, np.newaxis] == np.arange(propensities.shape[1])) - propensities
    return np.array(
        [
            _column(x[:, one], surprise, propensities=propensities, is_category=one in categorical)
            for one in range(x.shape[1])
        ]
    )


def _column(values: Floats, surprise: Floats, *, propensities: Floats, is_category: bool) -> float:
    known = np.isfinite(values)
    parts = [known.astype(np.float64)]
    if is_category:
        parts += [(values == code).astype(np.float64) for code in np.unique(values[known])]
    elif known.any():
        low, high = np.quantile(values[known], [_TAIL, 1.0 - _TAIL])
        clipped = np.clip(values, low, high)
        parts.append(np.where(known, clipped, clipped[known].mean()))
    p_values = [
        _p_value(part - part.mean(), column, share=share)
        for part in parts
        for column, share in zip(surprise.T, propensities.T, strict=True)
        if np.ptp(part) > 0.0
    ]
    return min(1.0, len(p_values) * min(p_values)) if p_values else 1.0


def _p_value(centred: Floats, surprise: Floats, *, share: Floats) -> float:
    """By the larger of what squares came to and what propensities make of them.

    Of few units that could rarely get the variant, none did or some did: the first makes squares too small, the second
    is no accident of a normal.
    """
    products = centred * surprise
    squares = max(float((products**2).sum()), float((centred**2 * share * (1.0 - share)).sum()))
    return float(2.0 * norm.sf(abs(float(products.sum())) / np.sqrt(squares))) if squares > 0.0 else 1.0
