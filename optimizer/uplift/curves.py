"""Uplift and Qini curves: what treating only those with the highest predicted uplift would gain, share by share.

One variant against control. Units with equal predictions enter together, so that the order of rows says nothing. With
unequal propensities a unit counts by ``weight``, its mean propensity over its own: at constant propensities that is 1.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from optimizer.errors import InvalidArgument, NoVariation

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]
Index = NDArray[np.intp]
Interval = tuple[float, float]

_Z95 = 1.959963984540054  # the normal's 97.5 % quantile


@dataclass(frozen=True, slots=True)
class Curve:
    """Gain by how many of the units, those with the highest predicted uplift first, are treated.

    Attributes:
        n_units: Units treated (weighted), from 0 to all, shape (n_points,).
        gain: What treating them gains over control, summed, in outcome units, shape (n_points,).
    """

    n_units: Floats
    gain: Floats

    @property
    def area(self) -> float:
        """Area between the curve and the straight line to its end: treating at random. Outcome units times units."""
        return float(np.trapezoid(self.gain, self.n_units) - self.n_units[-1] * self.gain[-1] / 2.0)


@dataclass(frozen=True, slots=True)
class Coefficient:
    """The area of a curve over the line of random treatment.

    Attributes:
        raw: The area over the squared number of units: outcome units per unit; 0 for random predictions.
        normalised: The area over that of a perfect order of these very outcomes; None unless they are 0 and 1.
    """

    raw: float
    normalised: float | None


@dataclass(frozen=True, slots=True)
class Judged:
    """Units that a model has not seen, ordered by what it predicts for them: the highest first, equals together.

    Attributes:
        outcome: Shape (n_units,), in outcome units; so are all arrays.
        predicted: Predicted uplift.
        is_treated: Whether the unit got the variant, not control.
        weight: Mean propensity of the unit's variant over the unit's own.
        row: Where the unit stood before.
    """

    outcome: Floats
    predicted: Floats
    is_treated: Flags
    weight: Floats
    row: Index


def judged(
    outcome: ArrayLike, predicted: ArrayLike, *, is_treated: ArrayLike, weight: ArrayLike | None = None
) -> Judged:
    """Units of one variant and of control, checked and put in order.

    Args:
        outcome: In outcome units, shape (n_units,).
        predicted: Predicted uplift of each unit, from a model that has not seen it.
        is_treated: Whether it got the variant (else control).
        weight: > 0; 1 if all propensities are alike.
    Raises:
        InvalidArgument: Shapes differ, or something is not finite, or a weight is not positive.
        NoVariation: Nobody was treated, or nobody got control.
    """
    values = np.asarray(outcome, dtype=np.float64)
    scores, treated = np.asarray(predicted, dtype=np.float64), np.asarray(is_treated, dtype=np.bool_)
    weights = np.ones(values.shape) if weight is None else np.asarray(weight, dtype=np.float64)
    for name, array in (("predicted", scores), ("is_treated", treated), ("weight", weights)):
        if array.shape != values.shape or values.ndim != 1:
            raise InvalidArgument(name, f"has shape {array.shape}, the outcomes have {values.shape}")
    for name, array in (("outcome", values), ("predicted", scores), ("weight", weights)):
        if not np.isfinite(array).all():
            raise InvalidArgument(name, "is not finite everywhere")
    if (weights <= 0.0).any():
        raise InvalidArgument("weight", "is not positive everywhere")
    if treated.all() or not treated.any():
        raise NoVariation(float(values.size))
    order = np.argsort(-scores, kind="stable")
    return Judged(values[order], scores[order], treated[order], weights[order], order)


def uplift_curve(units: Judged) -> Curve:
    """Difference of the two means among the first k units, times k.

    Source: Radcliffe & Surry (2011), "Real-World Uplift Modelling with Significance-Based Uplift Trees".
    """
    n, treated, control = _sums(units)
    mean = [np.divide(total, count, out=np.zeros(n.size), where=count > 0) for count, total in (treated, control)]
    return Curve(n, (mean[0] - mean[1]) * n)


def qini_curve(units: Judged) -> Curve:
    """Outcomes of the treated among the first k units, less control's scaled to as many units.

    Source: Radcliffe (2007), "Using Control Groups to Target on Predicted Lift".

    >>> units = judged([1, 1, 0, 0], [0.3, 0.2, 0.1, 0.0], is_treated=[True, False, True, False])
    >>> qini_curve(units).gain
    array([ 0.,  1.,  0., -1.,  0.])
    """
    n, (n_treated, treated), (n_control, control) = _sums(units)
    ratio = np.divide(n_treated, n_control, out=np.zeros(n.size), where=n_control > 0)
    return Curve(n, treated - control * ratio)


def qini(units: Judged) -> Coefficient:
    """The Qini coefficient; the perfect order has responders to the variant first, and to control last."""
    return _coefficient(units, _perfect_for_qini(units), curve=qini_curve)


def auuc(units: Judged) -> Coefficient:
    """Area under the uplift curve over the random line.

    The perfect order has responders to the variant and non-responders to control first; which of the other two kinds
    comes next is what lifts the curve's middle most.
    """
    return _coefficient(units, _perfect_for_auuc(units), curve=uplift_curve)


@dataclass(frozen=True, slots=True)
class CoefficientIntervals:
    """95 % intervals by bootstrap: how far a coefficient would vary with other customers, the model being as it is.

    Attributes:
        qini: Of the Qini coefficient, raw.
        qini_normalised: None unless outcomes are 0 and 1.
        auuc: Of the area under the uplift curve, raw.
        auuc_normalised: None unless outcomes are 0 and 1.
    """

    qini: Interval
    qini_normalised: Interval | None
    auuc: Interval
    auuc_normalised: Interval | None


def coefficient_intervals(
    units: Judged, *, customer: ArrayLike, rng: np.random.Generator, n_draws: int = 200
) -> CoefficientIntervals:
    """Draw customers again and again, each with all of its units; the coefficient and 1.96 times the draws' spread.

    Args:
        units: Judged.
        customer: Whole numbers from 0 on, in the order in which the units came to ``judged``, shape (n_units,).
        rng: Seeded by the caller.
        n_draws: How often; the spread of 50 is known to a tenth.
    """
    label = np.asarray(customer, dtype=np.intp)
    n_customers = int(label.max()) + 1
    orders = [(units, _perfect_for_qini(units), qini_curve), (units, _perfect_for_auuc(units), uplift_curve)]
    draws: list[list[Coefficient]] = [[], []]
    for _ in range(n_draws):
        times = np.bincount(rng.integers(n_customers, size=n_customers), minlength=n_customers)
        drawn = times[label].astype(np.float64)
        for found, (own, perfect, curve) in zip(draws, orders, strict=True):
            found.append(_coefficient(_weighed(own, drawn), _weighed(perfect, drawn), curve=curve))
    (of_qini, qini_normalised), (of_auuc, auuc_normalised) = (
        _intervals(_coefficient(own, perfect, curve=curve), found)
        for found, (own, perfect, curve) in zip(draws, orders, strict=True)
    )
    return CoefficientIntervals(of_qini, qini_normalised, of_auuc, auuc_normalised)


def _intervals(at: Coefficient, draws: list[Coefficient]) -> tuple[Interval, Interval | None]:
    known = [one.normalised for one in draws if one.normalised is not None]
    raw = _around(at.raw, [one.raw for one in draws])
    return raw, None if at.normalised is None or len(known) < len(draws) else _around(at.normalised, known)


def _around(value: float, draws: list[float]) -> Interval:
    reach = _Z95 * float(np.std(draws, ddof=1))
    return value - reach, value + reach


def _weighed(units: Judged, drawn: Floats) -> Judged:
    return replace(units, weight=units.weight * drawn[units.row])


def _coefficient(units: Judged, perfect: Judged, *, curve: Callable[[Judged], Curve]) -> Coefficient:
    own = curve(units)
    is_binary = bool(((units.outcome == 0.0) | (units.outcome == 1.0)).all())
    best = curve(perfect).area if is_binary else 0.0
    return Coefficient(float(own.area / own.n_units[-1] ** 2), own.area / best if best > 0.0 else None)


def _perfect_for_qini(units: Judged) -> Judged:
    return _reordered(units, np.where(units.is_treated, units.outcome, -units.outcome))


def _perfect_for_auuc(units: Judged) -> Judged:
    is_response = units.outcome > 0
    agrees = is_response == units.is_treated
    n_control_responders = (is_response & ~units.is_treated).sum()
    n_treated_others = (~is_response & units.is_treated).sum()
    second = is_response if n_control_responders > n_treated_others else units.is_treated
    return _reordered(units, 2.0 * agrees + second)


def _reordered(units: Judged, score: Floats) -> Judged:
    again = judged(units.outcome, score, is_treated=units.is_treated, weight=units.weight)
    return replace(again, row=units.row[again.row])


def _sums(units: Judged) -> tuple[Floats, tuple[Floats, Floats], tuple[Floats, Floats]]:
    """Units so far; of the treated and of control: their number and their outcomes so far. Each begins with 0."""
    last = np.append(np.flatnonzero(np.diff(units.predicted)), units.predicted.size - 1)
    weight = np.where(units.is_treated, units.weight, 0.0), np.where(units.is_treated, 0.0, units.weight)
    counts = [np.concatenate([[0.0], np.cumsum(one)[last]]) for one in weight]
    totals = [np.concatenate([[0.0], np.cumsum(one * units.outcome)[last]]) for one in weight]
    return counts[0] + counts[1], (counts[0], totals[0]), (counts[1], totals[1])
