"""Differences from sums: what units of a variant, of control and of neither add to an estimate and to its error.

Source: Hadad, Hirshberg, Zhan, Wager & Athey (2021), PNAS 118(15), arXiv:1911.02768.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

_ROUNDING = 1e-12  # of the raw squares: less variation is none


@dataclass(frozen=True, slots=True)
class Cells:
    """One side of the pairs, by stratum, shapes (..., n_strata, n_variants); no units where not randomised together.

    Attributes:
        n: Units.
        total: Sum of their outcomes.
        squares: Sum of the squares.
        share: Propensity; 1 where not randomised together.
        predicted: Mean outcome expected before the stratum.
    """

    n: Floats
    total: Floats
    squares: Floats
    share: Floats
    predicted: Floats

    def mean(self, weight: Floats | float) -> tuple[Floats, Floats]:
        """Weighted mean over strata (0 without units), and the summed weight, shapes (..., 1, n_variants)."""
        bottom = (weight * self.n).sum(axis=-2, keepdims=True)
        top = (weight * self.total).sum(axis=-2, keepdims=True)
        return np.divide(top, bottom, out=np.zeros(bottom.shape), where=bottom > 0.0), np.where(
            bottom > 0.0, bottom, 1.0
        )


@dataclass(frozen=True, slots=True)
class Pairs:
    """Every variant beside control, by stratum.

    Attributes:
        own: The variant's side.
        control: Control's.
        everyone: Units of all variants where the two met (else 0), shape (..., n_strata, n_variants).
    """

    own: Cells
    control: Cells
    everyone: Floats


@dataclass(frozen=True, slots=True)
class Line:
    """What a unit of one group adds to an estimate's error: shift + slope x outcome.

    Attributes:
        shift: In the unit of outcomes, broadcasts to (..., n_strata, n_variants).
        slope: A pure number, broadcasts to the same.
    """

    shift: Floats
    slope: Floats

    def squares(self, cells: Cells) -> Floats:
        """Summed over the units of each cell, squared."""
        cross = 2.0 * self.shift * self.slope * cells.total
        square: Floats = cells.n * self.shift**2 + cross + self.slope**2 * cells.squares
        return square

    def effective_units(self, cells: Cells) -> Floats:
        """Kish's number of equally weighted units that are worth as much as these, shape (..., n_variants)."""
        square = self.slope**2
        weighed = cells.n * square
        first, second = weighed.sum(axis=-2), (weighed * square).sum(axis=-2)
        effective: Floats = np.divide(first**2, second, out=np.zeros(first.shape), where=second > 0.0)
        return effective

    def minus(self, other: "Line") -> "Line":
        """What a unit adds to the difference of two estimates."""
        return Line(self.shift - other.shift, self.slope - other.slope)


@dataclass(frozen=True, slots=True)
class Method:
    """An estimate with what a unit adds to its error; a unit is in one of three groups, so squares are summed by group.

    Attributes:
        estimate: Variant minus control, shape (..., n_variants).
        own: Of units in the variant, broadcasts to (..., n_strata, n_variants).
        control: Of units in control.
        neither: Of all other units.
    """

    estimate: Floats
    own: Line
    control: Line
    neither: Floats

    def variance(self, pairs: Pairs) -> Floats:
        """Sum of the squared errors of all units, shape (..., n_variants); 0 where rounding would account for it."""
        others = pairs.everyone - pairs.own.n - pairs.control.n
        squares = self.own.squares(pairs.own) + self.control.squares(pairs.control) + others * self.neither**2
        raw = self.own.slope**2 * pairs.own.squares + self.control.slope**2 * pairs.control.squares
        variance = squares.sum(axis=-2)
        return np.where(variance > _ROUNDING * raw.sum(axis=-2), variance, 0.0)

    def degrees_of_freedom(self, pairs: Pairs) -> Floats:
        """Of the variance, by Welch and Satterthwaite over the effective units of the two variants; at least 1."""
        inverse = np.zeros(self.estimate.shape)
        for line, cells in ((self.own, pairs.own), (self.control, pairs.control)):
            part, units = line.squares(cells).sum(axis=-2), line.effective_units(cells)
            inverse += part**2 / np.maximum(units - 1.0, 1.0)
        most = np.full(inverse.shape, 1e9)
        degrees: Floats = np.divide(self.variance(pairs) ** 2, inverse, out=most, where=inverse > 0.0)
        return degrees.clip(1.0, 1e9)

    def minus(self, other: "Method") -> "Method":
        """The difference of two estimates from the same units, whose errors share what both have in common."""
        own, control = self.own.minus(other.own), self.control.minus(other.control)
        return Method(self.estimate - other.estimate, own, control, self.neither - other.neither)


def pairs_of(n: Floats, total: Floats, *, squares: Floats, share: Floats, predicted: Floats, control: int) -> Pairs:
    """Pair every variant with the control, in the strata where both had positive weights.

    Args:
        n: Units, shape (..., n_strata, n_variants), as the following.
        total: Sum of their outcomes.
        squares: Sum of the squares of these.
        share: Propensities.
        predicted: Mean outcome expected before the stratum.
        control: Index of the control.
    """
    beside = slice(control, control + 1)
    together = (share > 0.0) & (share[..., beside] > 0.0)

    def cells(units: Floats, sums: Floats, *, sums_of_squares: Floats, weight: Floats, expected: Floats) -> Cells:
        kept, total_kept, squares_kept = (np.where(together, values, 0.0) for values in (units, sums, sums_of_squares))
        share_kept = np.where(together, weight, 1.0)
        return Cells(kept, total_kept, squares_kept, share_kept, np.broadcast_to(expected, together.shape))

    own = cells(n, total, sums_of_squares=squares, weight=share, expected=predicted)
    of_control = cells(
        n[..., beside],
        total[..., beside],
        sums_of_squares=squares[..., beside],
        weight=share[..., beside],
        expected=predicted[..., beside],
    )
    return Pairs(own, of_control, np.where(together, n.sum(axis=-1, keepdims=True), 0.0))


def difference_of_means(pairs: Pairs, *, own_weight: Floats | float, control_weight: Floats | float) -> Method:
    """Self-normalised weighted means; units of neither add nothing.

    Args:
        pairs: Any.
        own_weight: Of the variant's units: 1 for pooled means, 1 / share for Hajek's; (..., n_strata, n_variants).
        control_weight: Of control's units.
    """
    own_mean, own_units = pairs.own.mean(own_weight)
    control_mean, control_units = pairs.control.mean(control_weight)
    own_slope, control_slope = own_weight / own_units, -control_weight / control_units
    return Method(
        (own_mean - control_mean)[..., 0, :],
        Line(-own_slope * own_mean, own_slope),
        Line(-control_slope * control_mean, control_slope),
        np.zeros(pairs.everyone.shape),
    )


def evaluation_weight(share: Floats, control_share: Floats) -> Floats:
    """One over the standard deviation of a unit's score, but for a factor: the weight that makes all strata alike."""
    weight: Floats = (1.0 / share + 1.0 / control_share) ** -0.5
    return weight


def adaptively_weighted(pairs: Pairs) -> Method:
    """Weighted mean of the scores G_k - G_control (Hadad et al.), with the evaluation weight of each stratum."""
    return mean_score(pairs, evaluation_weight(pairs.own.share, pairs.control.share))


def mean_score(pairs: Pairs, evaluation: Floats) -> Method:
    """Mean of all units' scores G_k - G_control, weighted by stratum.

    Args:
        pairs: Any.
        evaluation: Weight of a unit, fixed before its stratum, > 0, broadcasts to (..., n_strata, n_variants).
    """
    own, control = pairs.own, pairs.control
    weighed = (evaluation * pairs.everyone).sum(axis=-2, keepdims=True)
    weight = evaluation / np.where(weighed > 0.0, weighed, 1.0)
    prior = own.predicted - control.predicted
    of_own = (own.total - own.n * own.predicted) / own.share
    of_control = (control.total - control.n * control.predicted) / control.share
    estimate = (weight * (pairs.everyone * prior + of_own - of_control)).sum(axis=-2)
    gap = prior - estimate[..., np.newaxis, :]
    return Method(
        estimate,
        Line(weight * (gap - own.predicted / own.share), weight / own.share),
        Line(weight * (gap + control.predicted / control.share), -weight / control.share),
        weight * gap,
    )
