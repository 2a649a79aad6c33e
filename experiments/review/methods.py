"""The difference from control by three methods: plain, by inverse propensity, and adaptively weighted."""

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from scipy import special

from experiments.review.answer import LEVEL, number, pair
from experiments.review.strata import Strata
from optimizer.bandit_estimates import REASONS, BanditEstimates, Difference, bandit_estimates, lies_apart
from optimizer.standardise import across_segments

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]

NONE_MATURED = "not estimable: no unit has matured yet"
_METHODS = ("naive", "inverse_propensity", "adaptive")
_Z = 1.959963984540054


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

    def chosen(name: str) -> tuple[Floats, Floats]:
        one, pooled = getattr(parts, name), getattr(together, name)
        over = across_segments(one.estimate, one.standard_error**2, mix=mix)
        estimate = np.where(in_parts, over.estimate, pooled.estimate[0])
        return estimate, np.where(in_parts, np.sqrt(over.variance), pooled.standard_error[0])

    gap = across_segments(parts.gap, parts.gap_standard_error**2, mix=mix)
    gaps = np.where(in_parts, gap.estimate, together.gap[0])
    errors = np.where(in_parts, np.sqrt(gap.variance), together.gap_standard_error[0])
    found = {name: chosen(name) for name in _METHODS}
    apart = lies_apart(gaps, errors, standard_error=found["adaptive"][1])
    return _Whole(**found, disagree=apart, reason=np.where(in_parts, "", together.reason[0]))


@dataclass(frozen=True, slots=True)
class _Whole:
    """Estimates and standard errors over all segments by method, and where they disagree, shapes (n_variants,)."""

    naive: tuple[Floats, Floats]
    inverse_propensity: tuple[Floats, Floats]
    adaptive: tuple[Floats, Floats]
    disagree: Flags
    reason: NDArray[np.str_]


def _stacked(segments: Difference, whole: tuple[Floats, Floats]) -> Difference:
    estimate, error = whole
    rows = (
        (segments.estimate, estimate),
        (segments.standard_error, error),
        (segments.low, estimate - _Z * error),
        (segments.high, estimate + _Z * error),
    )
    return Difference(*(np.vstack(both) for both in rows))


def _difference(method: Difference, row: int, *, index: int) -> dict[str, Any] | None:
    at = row, index
    if not np.isfinite(method.estimate[at]):
        return None
    return {
        "difference": number(method.estimate[at]),
        "standard_error": number(method.standard_error[at]),
        "interval": pair(method.low[at], method.high[at]),
        "p_value": _p_value(method.estimate[at], method.standard_error[at]),
    }


def _p_value(estimate: float, standard_error: float) -> float:
    """Two-sided, for one look, normal."""
    return float(2.0 * special.ndtr(-abs(estimate) / standard_error))
