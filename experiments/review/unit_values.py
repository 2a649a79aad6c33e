"""What a unit counts with in a review: its total or a ratio's linearised value, less what a covariate foretells."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from experiments.review.strata import Strata
from experiments.series import PinnedMetric
from optimizer.cuped import Unadjusted, covariate_adjusted
from optimizer.ratio import linearised

Floats = NDArray[np.float64]

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
    """Each segment's ratios, and the ratio over all segments, as means of linearised values (the delta method)."""
    by_segment = _linearised(units, group=units.segment)
    return replace(by_segment, overall=_linearised(units, group=np.zeros(units.segment.shape, dtype=np.int64)))


def _linearised(units: Strata, *, group: NDArray[np.int64]) -> Strata:
    more, nothing = units.more, np.zeros(units.n_units.shape)
    denominator = more.get("denominator", nothing)
    found = linearised(
        units.n_units,
        units.total,
        numerator_squares=units.squares,
        denominator=denominator,
        denominator_squares=more.get("denominator_squares", nothing),
        product=more.get("denominator_product", nothing),
        group=group,
    )
    left = dict(more)
    if "covariate" in more:
        left["covariate_product"] = found.product(
            more["covariate"],
            with_numerator=more["covariate_product"],
            with_denominator=more["covariate_denominator"],
        )
    used = (found.estimable & (found.denominator_error <= _LARGEST_DENOMINATOR_ERROR))[group]
    left = {name: np.where(used, values, 0.0) for name, values in left.items()}
    return replace(
        units,
        n_units=np.where(used, units.n_units, 0.0),
        total=np.where(used, found.total, 0.0),
        squares=np.where(used, found.sum_squares, 0.0),
        more=left,
    )


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
