"""What more results say of a variant, beside its posterior: each part a function of (row, variant)."""

from typing import Any

from experiments.review.answer import Detail, number, pair
from experiments.review.estimates import estimate
from experiments.review.exposure import decided_detail
from experiments.review.hurdle import hurdle_detail
from experiments.review.methods import NONE_MATURED, Methods
from experiments.review.reading import Reading
from experiments.review.strata import Strata
from experiments.review.verdict import Evidence


def details(reading: Reading, evidence: Evidence, *, methods: Methods, with_hurdle: bool) -> list[Detail]:
    """The parts that apply to a metric."""
    found = [_always_valid(evidence), methods.said]
    if reading.uncapped is not None:
        found.append(_uncapped(reading.uncapped))
    if reading.exposures is not None:
        found.append(decided_detail(reading.exposures, n_segments=len(reading.units.segments)))
    if with_hurdle and reading.metric.kind == "mean":
        plain, better = estimate(reading.units), reading.metric.higher_is_better
        found.append(hurdle_detail(reading.units, plain=plain, higher_is_better=better))
    return found


def _always_valid(evidence: Evidence) -> Detail:
    """The confidence sequence of the difference from control, over matured units."""
    sequence, control = evidence.interval, evidence.matured.control

    def said(row: int, index: int) -> dict[str, Any]:
        if index == control:
            return {"always_valid": None}
        at = row, index
        known = bool(sequence.estimable[at])
        none = not evidence.matured.n_units[row].any()
        reason = NONE_MATURED if none else f"not estimable: {sequence.reason}"
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
