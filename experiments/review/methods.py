"""The difference from control by three methods: plain, by inverse propensity, and adaptively weighted."""

from dataclasses import dataclass, fields
from math import isfinite
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from experiments.review.answer import LEVEL, number, pair
from experiments.review.strata import Strata
from optimizer.bandit_estimates import REASONS, BanditEstimates, Difference, bandit_estimates, lies_apart
from optimizer.standardise import across_segments

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]

NONE_MATURED = "not estimable: no unit has matured yet"
_METHODS = ("naive", "inverse_propensity", "adaptive")


@dataclass(frozen=True, slots=True)
class Methods:
    """By segment and over all (the last row), shapes (n_segments + 1, n_variants); NaN where not estimable.

    Over all, segments are weighed by all of their units, by each method; where one of them has too few responders,
    the strata of all are taken together.

    Attributes:
        by_method: The differences, by the method's name.
        disagree: Where the plain one lies further from the adaptive one than noise explains.
        reason: Why nothing is estimable, else "".
        has_units: Whether any unit has matured, shape (n_segments + 1,).
    """

    by_method: dict[str, Difference]
    disagree: Flags
    reason: NDArray[np.str_]
    has_units: Flags

    @classmethod
    def of(cls, matured: Strata, *, is_binary: bool) -> Self:
        """Estimate from matured units."""
        segments = _found(matured, matured.layers(), is_binary=is_binary)
        whole = _over_all(matured, segments, is_binary=is_binary)
        by_method = {name: _stacked(getattr(segments, name), getattr(whole, name)) for name in _METHODS}
        disagree, reason = ([*(getattr(one, name) for one in (segments, whole))] for name in ("disagree", "reason"))
        units = matured.by_segment(matured.n_units).sum(axis=1)
        has_units = np.append(units > 0.0, units.sum() > 0.0)
        return cls(by_method, np.vstack(disagree), np.vstack(reason), has_units)

    def said(self, row: int, index: int) -> dict[str, Any]:
        """The ``estimates`` of a variant; None for control."""
        why = str(self.reason[row, index])
        if why == "is_control":
            return {"estimates": None}
        if not self.has_units[row]:
            return {"estimates": dict.fromkeys(_METHODS) | {"disagree": False, "reason": NONE_MATURED}}
        methods = {name: _difference(one, row, index=index) for name, one in self.by_method.items()}
        reason = f"not estimable: {REASONS[why]}" if why else None
        return {"estimates": {**methods, "disagree": bool(self.disagree[row, index]), "reason": reason}}


def _found(matured: Strata, layers: list[Floats], *, is_binary: bool) -> BanditEstimates:
    n_units, total, squares, responders, propensity, predicted = layers
    return bandit_estimates(
        n_units,
        total,
        sum_squares=squares,
        propensity=propensity,
        predicted=predicted,
        n_responders=responders,
        control_index=matured.control,
        is_binary=is_binary,
        level=LEVEL,
    )


def _over_all(matured: Strata, segments: BanditEstimates, *, is_binary: bool) -> "_Whole":
    """Segments weighed by their units; of variants with too few responders in one of them, all strata as one."""
    whole = matured.overall or matured
    parts = segments if whole is matured else _found(whole, whole.layers(), is_binary=is_binary)
    together = _found(whole, [one.reshape(1, -1, one.shape[-1]) for one in whole.layers()], is_binary=is_binary)
    mix = matured.by_segment(matured.n_units).sum(axis=1)
    in_parts = parts.estimable[mix > 0.0].all(axis=0) & bool(mix.any())

    def chosen(name: str) -> Difference:
        one, pooled = getattr(parts, name), getattr(together, name)
        over = across_segments(one.estimate, one.standard_error**2, mix=mix)
        return Difference.of(
            np.where(in_parts, over.estimate, pooled.estimate[0]),
            np.where(in_parts, np.sqrt(over.variance), pooled.standard_error[0]),
            degrees_of_freedom=np.where(in_parts, _degrees_of_freedom(one, mix=mix), pooled.degrees_of_freedom[0]),
            level=LEVEL,
        )

    gap = across_segments(parts.gap, parts.gap_standard_error**2, mix=mix)
    gaps = np.where(in_parts, gap.estimate, together.gap[0])
    errors = np.where(in_parts, np.sqrt(gap.variance), together.gap_standard_error[0])
    found = {name: chosen(name) for name in _METHODS}
    apart = lies_apart(gaps, errors, standard_error=found["adaptive"].standard_error)
    return _Whole(**found, disagree=apart, reason=np.where(in_parts, "", together.reason[0]))


@dataclass(frozen=True, slots=True)
class _Whole:
    """Estimates over all segments by method, and where they disagree, shapes (n_variants,)."""

    naive: Difference
    inverse_propensity: Difference
    adaptive: Difference
    disagree: Flags
    reason: NDArray[np.str_]


def _degrees_of_freedom(parts: Difference, *, mix: Floats) -> Floats:
    """Of the segments' weighted sum, by Welch and Satterthwaite, shape (n_variants,)."""
    shares = np.nan_to_num(mix[:, np.newaxis] ** 2 * parts.standard_error**2)
    inverse = (shares**2 / parts.degrees_of_freedom).sum(axis=0)
    most = np.full(inverse.shape, 1e9)
    degrees: Floats = np.divide(shares.sum(axis=0) ** 2, inverse, out=most, where=inverse > 0.0)
    return degrees


def _stacked(segments: Difference, whole: Difference) -> Difference:
    names = (field.name for field in fields(Difference))
    return Difference(*(np.vstack([getattr(segments, name), getattr(whole, name)]) for name in names))


def _difference(method: Difference, row: int, *, index: int) -> dict[str, Any] | None:
    at = row, index
    if not isfinite(method.estimate[at]):
        return None
    return {
        "difference": number(method.estimate[at]),
        "standard_error": number(method.standard_error[at]),
        "interval": pair(method.low[at], method.high[at]),
        "p_value": number(method.p_value[at]),
    }
