"""What a unit counts with in a review: its total or a ratio's linearised value, less what a covariate foretells."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from experiments.review.strata import Strata
from experiments.series import PinnedMetric
from optimizer.cuped import Unadjusted, covariate_adjusted
from optimizer.ratio import linearised

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Flags = NDArray[np.bool_]

WORTH_REMOVING = 0.01  # share of the variance below which a covariate is left out


@dataclass(frozen=True, slots=True)
class CovariateUse:
    """What a covariate does for one metric.

    Attributes:
        attribute: Its key.
        missing_share: Units without it, which count with a constant; None without units.
        theta: Outcome per unit of the covariate, within variants and strata; None where it is not estimable.
        variance_removed: Share of the outcomes' variance that it foretells, in [0, 1]; None likewise.
        is_used: Whether results are adjusted by it.
        reason: Why they are not.
    """

    attribute: str
    missing_share: float | None
    theta: float | None
    variance_removed: float | None
    is_used: bool
    reason: str | None


@dataclass(frozen=True, slots=True)
class UnitValues:
    """Strata whose totals and squares are of what units count with, and what a covariate did to them (if there is one).

    A (segment, variant) whose ratio is not estimable has no units here.
    """

    strata: Strata
    covariate: CovariateUse | None


def unit_values(units: Strata, *, metric: PinnedMetric, covariate: str | None) -> UnitValues:
    """From sums of unit totals to sums of what is compared.

    Args:
        units: As tallied.
        metric: As pinned.
        covariate: Attribute whose sums the strata carry, if any.
    """
    measured = _ratio(units) if metric.kind == "ratio" else units
    if covariate is None or "covariate" not in units.more:
        return UnitValues(measured, None)
    use, adjusted = _adjusted(measured, attribute=covariate)
    if not use.is_used:
        return UnitValues(measured, use)
    if measured.overall is not None:
        adjusted = replace(adjusted, overall=_adjusted(measured.overall, attribute=covariate)[1])
    return UnitValues(adjusted, use)


def _ratio(units: Strata) -> Strata:
    """Each segment's ratios, and the ratio over all segments, as means of linearised values (the delta method).

    Responders become those of the scarcer part: numerators (and, of a ratio between 0 and 1, what they leave of the
    denominators), by their effective number; units with a denominator say nothing of how rare its numerator is.
    """
    by_segment = _linearised(units, group=units.segment)
    return replace(by_segment, overall=_linearised(units, group=np.zeros(units.segment.shape, dtype=np.int64)))


def _linearised(units: Strata, *, group: Ints) -> Strata:
    """Linearised around each variant's own ratio; in groups where weights moved, around that of all at the time.

    There the days of two variants differ, and so would their own ratios if base rates move. One reference for both
    cancels inside a stratum, and it has to be that of the time: else a variant that only brings more denominators in
    days of a high ratio would seem to raise it.
    """
    own, moved = _around_own(units, group=group), _moved(units, group=group)[group][:, np.newaxis]
    if not moved.any():
        return own
    timely = _around_the_time(units, group=group)
    return replace(
        own,
        n_units=np.where(moved, timely.n_units, own.n_units),
        n_responders=np.where(moved, timely.n_responders, own.n_responders),
        total=np.where(moved, timely.total, own.total),
        squares=np.where(moved, timely.squares, own.squares),
        more={name: np.where(moved, timely.more[name], values) for name, values in own.more.items()},
    )


def _moved(units: Strata, *, group: Ints) -> Flags:
    """Whether the units of a group were given variants by more than one weighting, shape (n_groups,)."""
    used = units.n_units.sum(axis=1) > 0.0
    shape = int(group.max(initial=-1)) + 1, units.n_units.shape[1]
    least, most = np.full(shape, np.inf), np.full(shape, -np.inf)
    np.minimum.at(least, group[used], units.propensity[used])
    np.maximum.at(most, group[used], units.propensity[used])
    return np.asarray((most > least + _SAME_WEIGHTS).any(axis=1))


def _around_the_time(units: Strata, *, group: Ints) -> Strata:
    """As ``_around_own``, but each stratum against the ratio of all variants about its time.

    Strata in which only one variant had weight stand apart: nothing is compared there.
    """
    alone = (units.propensity > 0.0).sum(axis=1) < 2
    label = group + alone * (int(group.max(initial=-1)) + 1)
    level, reference = _ratio_of_all(units, label), _ratio_of_all(units, _times(units, alone=alone))
    return _around_own(units, group=label, around=(level[:, np.newaxis], reference[:, np.newaxis]))


def _ratio_of_all(units: Strata, label: Ints) -> Floats:
    """The ratio of all variants together over strata of one label, shape (n_strata,); NaN without denominators."""
    denominator = units.more.get("denominator", np.zeros(units.n_units.shape))
    above, below = (np.bincount(label, weights=values.sum(axis=1)) for values in (units.total, denominator))
    ratio = np.divide(above, below, out=np.full(below.shape, np.nan), where=below > 0.0)
    return np.asarray(ratio[label])


def _times(units: Strata, *, alone: Flags) -> Ints:
    """A number of each stratum's time, shape (n_strata,).

    Strata of a segment follow each other in time. They are put together until their numerators and denominators are
    worth so many equal ones that the ratio is known; what is left over in the end goes to those before.
    """
    nothing = np.zeros(units.n_units.shape)
    denominator = units.more.get("denominator", nothing), units.more.get("denominator_squares", nothing)
    sums = np.stack([values.sum(axis=1) for values in (units.total, units.squares, *denominator)], axis=1)
    times, number = np.zeros(len(sums), dtype=np.int64), 0
    for segment, is_alone in np.unique(np.stack([units.segment, alone], axis=1), axis=0):
        first, so_far = number, np.zeros(4)
        for row in np.flatnonzero((units.segment == segment) & (alone == is_alone)):
            times[row], so_far = number, so_far + sums[row]
            if _kish(so_far[::2], so_far[1::2]).min() >= _ENOUGH_FOR_A_RATIO:
                number, so_far = number + 1, np.zeros(4)
        if number > first:
            times[times == number] = number - 1
        number += 1
    return times


_ENOUGH_FOR_A_RATIO = 100.0


def _around_own(units: Strata, *, group: Ints, around: tuple[Floats, Floats] | None = None) -> Strata:
    more, nothing = units.more, np.zeros(units.n_units.shape)
    denominator, product = more.get("denominator", nothing), more.get("denominator_product", nothing)
    denominator_squares = more.get("denominator_squares", nothing)
    found = linearised(
        units.n_units,
        units.total,
        numerator_squares=units.squares,
        denominator=denominator,
        denominator_squares=denominator_squares,
        product=product,
        group=group,
        around=around,
    )
    left = dict(more)
    if "covariate" in more:
        left["covariate_product"] = found.product(
            more["covariate"],
            with_numerator=more["covariate_product"],
            with_denominator=more["covariate_denominator"],
        )
    used = (found.estimable & (found.denominator_error <= _LARGEST_DENOMINATOR_ERROR))[group]
    responders = _kish(units.total, units.squares)
    rest = _kish(denominator - units.total, denominator_squares - 2.0 * product + units.squares)
    is_share = ((found.ratio > 0.0) & (found.ratio < 1.0))[group]
    responders = np.minimum(units.n_responders, np.where(is_share, np.minimum(responders, rest), responders))

    def kept(values: Floats) -> Floats:
        return np.where(used, values, 0.0)  # zeros of others would dilute a covariate's slope

    return replace(
        units,
        n_units=kept(units.n_units),
        n_responders=kept(responders),
        total=kept(found.total),
        squares=kept(found.sum_squares),
        more={name: kept(values) for name, values in left.items()},
    )


def _kish(total: Floats, squares: Floats) -> Floats:
    """As many equal values say as much: the number of ones, of zeros and ones. Kish (1965), section 11.7."""
    number: Floats = np.divide(total**2, squares, out=np.zeros(total.shape), where=squares > 0.0)
    return number


_SAME_WEIGHTS = 1e-9
_LARGEST_DENOMINATOR_ERROR = 0.25  # relative; above it 95 % intervals of the delta method cover 92 % and fewer


def _adjusted(strata: Strata, *, attribute: str) -> tuple[CovariateUse, Strata]:
    more, n = strata.more, float(strata.n_units.sum())
    found = covariate_adjusted(
        strata.n_units,
        strata.total,
        sum_squares=strata.squares,
        covariate=more["covariate"],
        covariate_squares=more["covariate_squares"],
        product=more["covariate_product"],
    )
    known = found.unadjusted is None
    is_used = known and found.variance_removed >= WORTH_REMOVING
    little = f"it foretells {found.variance_removed:.2%} of the variance, less than {WORTH_REMOVING:.0%}"
    use = CovariateUse(
        attribute=attribute,
        missing_share=float(more["covariate_missing"].sum()) / n if n else None,
        theta=found.theta if known else None,
        variance_removed=found.variance_removed if known else None,
        is_used=is_used,
        reason=None if is_used else little if found.unadjusted is None else _WHY_NOT[found.unadjusted],
    )
    return use, replace(strata, total=found.total, squares=found.sum_squares)


_WHY_NOT = {
    Unadjusted.TOO_FEW_UNITS: "not estimable: too few units",
    Unadjusted.CONSTANT_COVARIATE: "not estimable: the covariate does not vary",
    Unadjusted.CONSTANT_OUTCOME: "not estimable: the outcome does not vary",
}
