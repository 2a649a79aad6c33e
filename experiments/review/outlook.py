"""How long until a verdict is likely, if what matured units show now is true and traffic stays as it is."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from experiments.review.verdict import N_STAR, SURE_OF_NO_DIFFERENCE, Evidence, Rules, relative_effects
from optimizer.time_to_verdict import units_until_alike, units_until_clear

Floats = NDArray[np.float64]

_NO_TRAFFIC = "not estimable: less than a day of decisions, so there is no present rate"
_NO_EFFECT = "not estimable: nothing varies yet"
_NEVER = (
    "at this rate none is in sight: the leader's effect, as shrunk, is too small to prove and too large to rule out"
)
_OTHER_GATES = "not estimable: what takes longest is there already, and other gates are not passed yet"
LONGEST_DAYS = 3_660.0


def outlooks(evidence: Evidence, *, rules: Rules, per_day: Floats | None) -> list[dict[str, Any]]:
    """By segment and over all (the last): in how many days which verdict is likely, or why that can't be said.

    Of ``ship`` it is the always-valid interval that takes longest (in several segments at the p-value that their
    false-discovery bound asks for); of ``no_difference`` the posterior of all effects.
    Both take effects to stay as they are estimated; one that leads by chance will take longer. The gate ``min_days``
    bounds both.

    Args:
        evidence: From matured units.
        rules: What verdicts demand.
        per_day: Units of all variants that come in a day, shape (n_segments + 1,); None if that is not known.
    """
    if per_day is None:
        return [_said(None, None, reason=_NO_TRAFFIC)] * evidence.days.size
    clear, alike = _until_clear(evidence, rules=rules), _until_alike(evidence, rules=rules)
    with np.errstate(divide="ignore", invalid="ignore"):
        days = np.array([clear, alike]) / np.maximum(per_day, 1e-300)
    waiting = np.maximum(rules.gates.min_days - evidence.days, 0.0)
    return [
        _outlook(days[:, row], wait=float(waiting[row]), known=_is_known(evidence, row)) for row in range(clear.size)
    ]


def _outlook(days: Floats, *, wait: float, known: bool) -> dict[str, Any]:
    if not known:
        return _said(None, None, reason=_NO_EFFECT)
    soonest = int(days.argmin())
    if not days[soonest] <= LONGEST_DAYS:
        return _said(None, None, reason=_NEVER)
    verdict, left = ("ship", "no_difference")[soonest], max(float(days[soonest]), wait)
    return _said(left, verdict, reason=None) if left > 0.0 else _said(None, verdict, reason=_OTHER_GATES)


def _said(days: float | None, verdict: str | None, *, reason: str | None) -> dict[str, Any]:
    return {"days": days, "verdict": verdict, "reason": reason}


def _is_known(evidence: Evidence, row: int) -> bool:
    """Whether something varies, in the leader or (where control leads) in any rival."""
    error, winner = evidence.contrast.standard_error[row], int(evidence.winner[row])
    told = error > 0.0 if winner == evidence.matured.control else error[winner] > 0.0
    return bool(np.isfinite(evidence.base[row]) and np.any(told))


def _until_clear(evidence: Evidence, *, rules: Rules) -> Floats:
    """Units until the leader's interval (those of all rivals, if control leads) excludes zero, shape (n_rows,)."""
    contrast, control = evidence.contrast, evidence.matured.control
    found = units_until_clear(
        contrast.estimate,
        np.nan_to_num(contrast.standard_error),
        n_units=contrast.n_units,
        n_star=N_STAR,
        level=rules.gates.interval,
        p_value=evidence.discovered.sure_at[:, np.newaxis],
        n_responders=evidence.effective_responders,
        least_responders=evidence.least_responders,
    )
    rivals = evidence.effects.available.copy()
    rivals[:, control] = False
    of_all = np.where(rivals, found.more, 0.0).max(axis=1)
    of_leader = np.take_along_axis(found.more, evidence.winner[:, np.newaxis], axis=1)[:, 0]
    return np.where(evidence.winner == control, of_all, of_leader)


def _until_alike(evidence: Evidence, *, rules: Rules) -> Floats:
    """Units until no variant differs by more than matters, shape (n_rows,)."""
    matured, base = evidence.matured, evidence.base
    effect, variance = relative_effects(matured, base=base)
    found = units_until_alike(
        effect,
        variance,
        control_variance=np.nan_to_num(matured.variance[:, matured.control] / base**2),
        control_index=matured.control,
        n_units=np.maximum(matured.n_units.sum(axis=1), 1.0),
        prior_sd=evidence.prior_sd,
        smallest_effect=rules.smallest_effect,
        sure=SURE_OF_NO_DIFFERENCE,
        available=evidence.effects.available,
    )
    return found.more
