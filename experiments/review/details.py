"""What more results say of a variant, beside its posterior: each part a function of (row, variant)."""

from collections.abc import Sequence
from typing import Any

from experiments.review.answer import TOO_FEW_DENOMINATORS, Detail, number, pair
from experiments.review.estimates import estimate
from experiments.review.exposure import decided_detail
from experiments.review.hurdle import hurdle_detail
from experiments.review.methods import NONE_MATURED, Methods
from experiments.review.reading import Reading
from experiments.review.strata import Strata
from experiments.review.verdict import Evidence


def details(reading: Reading, evidence: Evidence, *, methods: Methods, with_hurdle: bool) -> list[Detail]:
    """The parts that apply to a metric."""
    found = [_always_valid(evidence, has_matured=_has_matured(reading.matured_units)), methods.said]
    if reading.uncapped is not None:
        found.append(_uncapped(reading.uncapped))
    if reading.exposures is not None:
        found.append(decided_detail(reading.exposures, n_segments=len(reading.units.segments)))
    if with_hurdle and reading.metric.kind == "mean":
        plain, better = estimate(reading.units), reading.metric.higher_is_better
        found.append(hurdle_detail(reading.units, plain=plain, higher_is_better=better))
    return found


def _has_matured(units: Strata) -> list[bool]:
    """Whether any unit of each segment has, and of all; a ratio's units may have no denominators even so."""
    has = [n > 0.0 for n in units.by_segment(units.n_units).sum(axis=1).tolist()]
    return [*has, any(has)]


def _always_valid(evidence: Evidence, *, has_matured: Sequence[bool]) -> Detail:
    """The confidence sequence of the difference from control, over matured units."""
    sequence, control = evidence.interval, evidence.matured.control

    def said(row: int, index: int) -> dict[str, Any]:
        if index == control:
            return {"always_valid": None}
        at = row, index
        known = bool(sequence.estimable[at])
        reason = f"not estimable: {sequence.reason}"
        if not evidence.matured.n_units[row].any():
            reason = f"not estimable: {TOO_FEW_DENOMINATORS}" if has_matured[row] else NONE_MATURED
        return {
            "always_valid": {
                "interval": pair(sequence.low[at], sequence.high[at]),
                "p_value": float(sequence.p_value[at]) if known else None,
                "reason": None if known else reason,
            }
        }

    return said


def _uncapped(strata: Strata) -> Detail:
    """The mean without the metric's cap."""
    mean = estimate(strata).mean

    def said(row: int, index: int) -> dict[str, Any]:
        return {"uncapped_mean": number(mean[row, index])}

    return said
