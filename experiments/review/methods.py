"""The difference from control by three methods: plain, by inverse propensity, and adaptively weighted."""

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from experiments.review.answer import LEVEL, number, pair
from experiments.review.estimates import expected_before
from experiments.review.strata import Strata
from optimizer.bandit_estimates import REASONS, BanditEstimates, Difference, bandit_estimates, lies_apart
from optimizer.standardise import across_segments

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]

_METHODS = ("naive", "inverse_propensity", "adaptive")
_Z = 1.959963984540054


@dataclass(frozen=True, slots=True)
class Methods:
    """By segment and over all (the last row), shapes (n_segments + 1, n_variants); NaN where not estimable.

    Over all, segments are weighed by all of their units, by each method.

    Attributes:
        by_method: The differences, by the method's name.
        disagree: Where the plain one lies further from the adaptive one than noise explains.
        reason: Why nothing is estimable, else "".
    """

    by_method: dict[str, Difference]
    disagree: Flags
    reason: NDArray[np.str_]

    @classmethod
    def of(cls, matured: Strata, *, is_binary: bool) -> Self:
        """Estimate from matured units."""
        n = np.where(matured.propensity > 0.0, matured.n_units, 0.0)
        used = n > 0.0
        found = bandit_estimates(
            matured.padded(n),
            matured.padded(np.where(used, matured.total, 0.0)),
            sum_squares=matured.padded(np.where(used, matured.squares, 0.0)),
            propensity=matured.padded(matured.propensity, fill=1.0 / n.shape[1]),
            predicted=matured.padded(expected_before(matured)),
            n_responders=matured.padded(np.minimum(matured.n_responders, n)),
            control_index=matured.control,
            is_binary=is_binary,
            level=LEVEL,
        )
        return cls._with_all(found, mix=matured.by_segment(n).sum(axis=1))

    @classmethod
    def _with_all(cls, found: BanditEstimates, *, mix: Floats) -> Self:
        gap = across_segments(found.gap, found.gap_standard_error**2, mix=mix)
        by_method = {name: _stacked(getattr(found, name), mix=mix) for name in _METHODS}
        own = by_method["adaptive"].standard_error[-1]
        apart = lies_apart(gap.estimate, np.sqrt(gap.variance), standard_error=own)
        reason = np.where(np.isfinite(gap.estimate), "", _first_reason(found.reason))
        return cls(by_method, np.vstack([found.disagree, apart]), np.vstack([found.reason, reason]))

    def said(self, row: int, index: int) -> dict[str, Any]:
        """The ``estimates`` of a variant; None for control."""
        why = str(self.reason[row, index])
        if why == "is_control":
            return {"estimates": None}
        methods = {name: _difference(one, row, index=index) for name, one in self.by_method.items()}
        reason = f"not estimable: {REASONS[why]}" if why else None
        return {"estimates": {**methods, "disagree": bool(self.disagree[row, index]), "reason": reason}}


def _stacked(segments: Difference, *, mix: Floats) -> Difference:
    whole = across_segments(segments.estimate, segments.standard_error**2, mix=mix)
    error = np.sqrt(whole.variance)
    rows = (
        (segments.estimate, whole.estimate),
        (segments.standard_error, error),
        (segments.low, whole.estimate - _Z * error),
        (segments.high, whole.estimate + _Z * error),
    )
    return Difference(*(np.vstack(both) for both in rows))


def _first_reason(reasons: NDArray[np.str_]) -> NDArray[np.str_]:
    """What is said over all where no segment is estimable: what the first one says."""
    return reasons[0] if len(reasons) else np.full(reasons.shape[1], "no_unit")


def _difference(method: Difference, row: int, *, index: int) -> dict[str, Any] | None:
    at = row, index
    if not np.isfinite(method.estimate[at]):
        return None
    return {
        "difference": number(method.estimate[at]),
        "standard_error": number(method.standard_error[at]),
        "interval": pair(method.low[at], method.high[at]),
    }
