"""Does an effect differ between units at all, as a model says, or is what it says noise?

All of it on units that the model has not seen, and models that have only seen *earlier* folds. If each half predicts
for the other, chance agrees with itself: what the halves share by accident counts as two findings, and a test at 5 %
alarms in 11 % of worlds without heterogeneity. Each unit's signal is the difference of its doubly robust scores, whose
mean over any units is their mean uplift.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import norm

from optimizer.errors import InvalidArgument, NoVariation
from optimizer.uplift.policy_value import Estimate, mean_of

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Calibration:
    """The best straight line from predicted to true uplift.

    Attributes:
        mean: Mean uplift of all units, in outcome units.
        slope: True uplift per predicted uplift: 1 if predictions are calibrated, 0 if they say nothing.
        slope_error: Standard error of the slope, robust to unequal variances.
        p_value: Of "no heterogeneity that this model finds" against a positive slope.
    """

    mean: float
    slope: float
    slope_error: float
    p_value: float


def calibration(
    signal: ArrayLike,
    predicted: ArrayLike,
    *,
    fold: ArrayLike | None = None,
    customer: ArrayLike | None = None,
    weight: ArrayLike | None = None,
) -> Calibration:
    """Regress the signal on the predictions, within folds: each fold's predictions are of a model of its own.

    Args:
        signal: Difference of doubly robust scores, shape (n_units,), in outcome units.
        predicted: Predicted uplift by a model of earlier folds, shape (n_units,).
        fold: The fold of each unit, shape (n_units,); None: one for all.
        customer: Whole numbers, shape (n_units,): units of one may depend on each other. None: each is one.
        weight: Of ``policy_value.stable_weights``; None: all count alike.
    Raises:
        InvalidArgument: Shapes differ.
        NoVariation: The predictions are all alike, so there is no slope.
    Source: Chernozhukov, Demirer, Duflo & Fernández-Val (2018), "Generic Machine Learning Inference on Heterogeneous
        Treatment Effects", best linear predictor; errors HC1, White (1980), Econometrica 48(4).
    """
    y, x = np.asarray(signal, dtype=np.float64), np.asarray(predicted, dtype=np.float64)
    label = np.zeros(y.size, dtype=np.intp) if fold is None else np.unique(np.asarray(fold), return_inverse=True)[1]
    if y.ndim != 1 or x.shape != y.shape or label.shape != y.shape:
        raise InvalidArgument("predicted", f"has shape {x.shape} for signals of shape {y.shape}")
    w = np.ones(y.size) if weight is None else np.asarray(weight, dtype=np.float64)
    centred_y, centred_x = y - _means(y, label, weight=w), x - _means(x, label, weight=w)
    spread = float((w * centred_x**2).sum())
    if spread <= 1e-12 * max(float((x**2).sum()), 1e-300):
        raise NoVariation(float(y.size))
    slope = float((w * centred_x * centred_y).sum() / spread)
    moment: Floats = w * centred_x * (centred_y - slope * centred_x)
    if customer is not None:
        known = np.unique(np.asarray(customer), return_inverse=True)[1]
        moment = np.bincount(known, weights=moment).astype(np.float64)
    n_spare = moment.size - int(label.max()) - 2
    if n_spare < 1:
        raise InvalidArgument("signal", f"of {moment.size} customers leaves nothing to estimate an error from")
    error = float(np.sqrt(moment.size / n_spare * (moment**2).sum()) / spread)
    p_value = float(norm.sf(slope / error)) if error > 0.0 else float(slope <= 0.0)
    return Calibration(float((w * y).sum() / w.sum()), slope, error, p_value)


@dataclass(frozen=True, slots=True)
class Tenth:
    """Units whose predicted uplift is alike.

    Attributes:
        n_units: How many.
        predicted: Their mean predicted uplift, in outcome units.
        observed: Their mean uplift with its interval.
    """

    n_units: int
    predicted: float
    observed: Estimate


def by_tenth(
    signal: ArrayLike,
    predicted: ArrayLike,
    *,
    n_groups: int = 10,
    customer: ArrayLike | None = None,
    weight: ArrayLike | None = None,
) -> list[Tenth]:
    """Predicted beside observed uplift of groups of equal size, the highest predictions first.

    Units with equal predictions may fall into neighbouring groups, in the order of their rows.

    Args:
        signal: As of ``calibration``.
        predicted: As of ``calibration``.
        n_groups: How many groups; fewer than two units in one are refused.
        customer: As of ``calibration``.
        weight: As of ``calibration``; predictions are plain means.
    Raises:
        InvalidArgument: Shapes differ, or there are too few units.
    """
    y, x = np.asarray(signal, dtype=np.float64), np.asarray(predicted, dtype=np.float64)
    if y.ndim != 1 or x.shape != y.shape:
        raise InvalidArgument("predicted", f"has shape {x.shape} for signals of shape {y.shape}")
    if y.size < 2 * n_groups:
        raise InvalidArgument("n_groups", f"is {n_groups}: {y.size} units are too few")
    known = np.arange(y.size) if customer is None else np.asarray(customer)
    w = np.ones(y.size) if weight is None else np.asarray(weight, dtype=np.float64)
    return [
        Tenth(part.size, float(x[part].mean()), mean_of(y[part], customer=known[part], weight=w[part]))
        for part in np.array_split(np.argsort(-x, kind="stable"), n_groups)
    ]


def _means(values: Floats, label: NDArray[np.intp], *, weight: Floats) -> Floats:
    counts = np.bincount(label, weights=weight)
    return np.asarray((np.bincount(label, weights=weight * values) / counts)[label], dtype=np.float64)
