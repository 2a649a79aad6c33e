"""What a choice of variants is worth: doubly robust values, and paired differences with intervals by customer.

A unit's scores estimate what it would bring under each variant: the prediction of a model that has not seen it, and
where it got the variant, the prediction's error over the propensity. Their mean over a choice is unbiased if the
propensities are right, whatever the model is.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from optimizer.errors import InvalidArgument

Floats = NDArray[np.float64]
Index = NDArray[np.intp]

_Z95 = 1.959963984540054  # the normal's 97.5 % quantile
SMALLEST_EFFECTIVE_UNITS = 100.0


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean per unit with its 95 % confidence interval, in outcome units.

    Attributes:
        mean: The estimate.
        standard_error: Of it, customers being independent of each other.
        interval: Low and high.
    """

    mean: float
    standard_error: float
    interval: tuple[float, float]


def doubly_robust_scores(
    outcome: ArrayLike, variant: ArrayLike, *, propensities: ArrayLike, predicted: ArrayLike
) -> Floats:
    """Scores of each unit under each variant, shape (n_units, n_variants), in outcome units.

    Args:
        outcome: Shape (n_units,), in outcome units.
        variant: Index of the variant that each unit got, shape (n_units,).
        propensities: Of every variant, as logged, shape (n_units, n_variants); each unit's own is > 0.
        predicted: Predicted outcome under every variant, by a model that has not seen the unit, the same shape.
    Raises:
        InvalidArgument: Shapes differ, something is not finite, or a unit got what there is not or it could not get.
    Source: Robins, Rotnitzky & Zhao (1994), JASA 89; as scores, Dudík et al. (2014), Statistical Science 29(4).

    >>> doubly_robust_scores([1.0, 0.0], [1, 0], propensities=[[0.5, 0.5]] * 2, predicted=[[0.2, 0.4]] * 2)
    array([[ 0.2,  1.6],
           [-0.2,  0.4]])
    """
    values, index = np.asarray(outcome, dtype=np.float64), np.asarray(variant, dtype=np.intp)
    shares, means = np.asarray(propensities, dtype=np.float64), np.asarray(predicted, dtype=np.float64)
    if shares.shape != means.shape or shares.ndim != 2:
        raise InvalidArgument("propensities", f"has shape {shares.shape}, predictions have {means.shape}")
    if not values.shape == index.shape == shares.shape[:1]:
        raise InvalidArgument(
            "outcome or variant", f"has shape {values.shape} or {index.shape} for {len(shares)} units"
        )
    if index.size and not 0 <= index.min() <= index.max() < shares.shape[1]:
        raise InvalidArgument("variant", f"names others than the {shares.shape[1]} that there are")
    if not (np.isfinite(values).all() and np.isfinite(means).all() and np.isfinite(shares).all()):
        raise InvalidArgument("outcome, propensities or predicted", "is not finite everywhere")
    rows = np.arange(values.size)
    own = shares[rows, index]
    if (own <= 0.0).any():
        raise InvalidArgument("propensities", "say that a unit got a variant which it could not get")
    scores = means.copy()
    scores[rows, index] += (values - means[rows, index]) / own
    return scores


def value_of(
    scores: Floats, choice: ArrayLike, *, customer: ArrayLike | None = None, weight: ArrayLike | None = None
) -> Estimate:
    """The mean outcome per unit if each unit got what is chosen for it.

    Args:
        scores: Doubly robust (of net value: times the margin, less the cost), shape (n_units, n_variants).
        choice: Index of a variant for each unit, by a rule that was fixed without these units; shape (n_units,).
        customer: Whole numbers, shape (n_units,): units of one customer may depend on each other. None: each is one.
        weight: Of ``stable_weights``; None: all count alike.
    """
    return mean_of(_chosen(scores, choice), customer=customer, weight=weight)


def difference_of(
    scores: Floats,
    choice: ArrayLike,
    *,
    instead_of: ArrayLike,
    customer: ArrayLike | None = None,
    weight: ArrayLike | None = None,
) -> Estimate:
    """The paired difference in value between two choices: where they agree, it is exactly 0.

    Args:
        scores: As of ``value_of``.
        choice: What is chosen.
        instead_of: What it is compared with.
        customer: As of ``value_of``.
        weight: As of ``value_of``.
    """
    return mean_of(_chosen(scores, choice) - _chosen(scores, instead_of), customer=customer, weight=weight)


def stable_weights(propensities: ArrayLike, block: ArrayLike, *choices: ArrayLike) -> Floats | None:
    """Weights of units that keep a mean of scores from hanging on the blocks where what is chosen was rare.

    A score's variance grows with one over the propensity of what is chosen. As a bandit moves its weights that differs
    between blocks of time, and a plain mean is then neither normal nor precise. A block counts by one over the root of
    the mean of that over all of its units, whatever they got and whatever they are, so that no kind of unit counts more
    than another within a block. If effects change over time, the weighted mean is of another mix of times.

    Args:
        propensities: As logged, shape (n_units, n_variants).
        block: Of time, of each unit, shape (n_units,).
        choices: What is compared, indices of shape (n_units,) each.
    Returns:
        Shape (n_units,), with mean 1; None if all propensities are alike, where all units count alike.
    Source: Zhan, Hadad, Hirshberg & Athey (2021), "Off-Policy Evaluation via Adaptive Weighting with Data from
        Contextual Bandits", KDD, the weights StableVar; by blocks rather than by units.
    """
    shares = np.asarray(propensities, dtype=np.float64)
    if not shares.size or float(np.ptp(shares, axis=0).max()) < 1e-9:
        return None
    rows, label = np.arange(len(shares)), np.unique(np.asarray(block), return_inverse=True)[1]
    spread = sum(1.0 / shares[rows, np.asarray(choice, dtype=np.intp)] for choice in choices)
    by_block = np.bincount(label, weights=spread) / np.bincount(label)
    weight = 1.0 / np.sqrt(by_block[label])
    return np.asarray(weight / weight.mean(), dtype=np.float64)


def effective_units(variant: ArrayLike, *, propensities: ArrayLike, choice: ArrayLike) -> float:
    """How many equally weighted units the value of a choice rests on (Kish): those that got what is chosen.

    Below ``SMALLEST_EFFECTIVE_UNITS`` an interval is not to be trusted.
    """
    index, chosen = np.asarray(variant, dtype=np.intp), np.asarray(choice, dtype=np.intp)
    shares = np.asarray(propensities, dtype=np.float64)
    followed = index == chosen
    if not followed.any():
        return 0.0
    weight = 1.0 / shares[followed, index[followed]]
    return float(weight.sum() ** 2 / (weight**2).sum())


def _chosen(scores: Floats, choice: ArrayLike) -> Floats:
    index = np.asarray(choice, dtype=np.intp)
    if index.shape != scores.shape[:1]:
        raise InvalidArgument("choice", f"has shape {index.shape} for {scores.shape[0]} units")
    if index.size and not 0 <= index.min() <= index.max() < scores.shape[1]:
        raise InvalidArgument("choice", f"names variants beyond the {scores.shape[1]} that there are")
    return np.asarray(scores[np.arange(index.size), index], dtype=np.float64)


def mean_of(values: Floats, *, customer: ArrayLike | None = None, weight: ArrayLike | None = None) -> Estimate:
    """A mean with its interval; arguments as of ``value_of``.

    Raises:
        InvalidArgument: There are fewer than two units, or all are of one customer.
    """
    if values.size < 2:
        raise InvalidArgument("scores", f"of {values.size} units have no interval")
    counts = np.ones(values.size) if weight is None else np.asarray(weight, dtype=np.float64)
    total = float(counts.sum())
    mean = float((counts * values).sum() / total)
    deviations: Floats = counts * (values - mean)
    if customer is not None:
        _, label = np.unique(np.asarray(customer), return_inverse=True)
        deviations = np.bincount(label, weights=deviations).astype(np.float64)
    n = deviations.size
    if n < 2:
        raise InvalidArgument("customer", "is one for all units, so there is no interval")
    error = float(np.sqrt(n / (n - 1) * (deviations**2).sum()) / total)
    return Estimate(mean, error, (mean - _Z95 * error, mean + _Z95 * error))
