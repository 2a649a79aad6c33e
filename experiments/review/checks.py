"""Checks on the data itself: whether units came in the shares that were asked for, and with the attributes that rules need."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from experiments.read_tallies import Tallies
from experiments.review.strata import Strata
from optimizer.sample_ratio import ALARM_P_VALUE, SampleRatio, sample_ratio

MAX_LACKING = 0.05


def sample_ratios(strata: Strata) -> tuple[SampleRatio, list[SampleRatio | None]]:
    """The check over all segments, and in each one; None for a segment without units.

    One segment alarms only if its p-value would among all of them (Bonferroni): a thousand segments would else raise
    an alarm for nothing.
    """
    versions = strata.pooled()
    whole = sample_ratio(versions.n_units, versions.propensity) if versions.segment.size else _NOTHING
    n, weights = versions.padded(versions.n_units), versions.padded(versions.propensity)
    ratios: list[SampleRatio | None] = []
    for units, shares in zip(n, weights, strict=True):
        used = units.sum(axis=1) > 0.0
        ratios.append(sample_ratio(units[used], shares[used]) if used.any() else None)
    return whole, [_among(ratio, n_segments=len(ratios)) for ratio in ratios]


_NOTHING = SampleRatio(None, 0.0, 0, 0.0, "not_estimable")


def _among(ratio: SampleRatio | None, *, n_segments: int) -> SampleRatio | None:
    if ratio is None or ratio.status != "alarm" or (ratio.p_value or 0.0) * n_segments < ALARM_P_VALUE:
        return ratio
    return SampleRatio(ratio.p_value, ratio.statistic, ratio.degrees_of_freedom, ratio.relative_gap, "warning")


def is_broken(whole: SampleRatio, segment: SampleRatio | None) -> bool:
    """Whether what a segment shows can't be trusted: the alarm over all, or its own."""
    return whole.status == "alarm" or (segment is not None and segment.status == "alarm")


def checks_of(
    tallies: Tallies, *, whole: SampleRatio, ratios: Sequence[SampleRatio | None]
) -> tuple[dict[str, Any], list[str]]:
    """The ``checks`` of an answer, and a warning in words for each that did not pass."""
    units, lacking = float(tallies.n_units.sum()), float(tallies.n_lacking.sum())
    share = lacking / units if units else 0.0
    conspicuous = {
        key: _said(ratio)
        for key, ratio in zip(tallies.segments, ratios, strict=True)
        if ratio is not None and ratio.status in {"alarm", "warning"}
    }
    missing = "warning" if share > MAX_LACKING else "ok"
    found = {
        "sample_ratio": {**_said(whole), "segments": conspicuous},
        "missing_attributes": {"share": share, "n_units": int(lacking), "threshold": MAX_LACKING, "status": missing},
    }
    return found, list(_warnings(whole, conspicuous, share=share))


def _warnings(whole: SampleRatio, conspicuous: dict[str, Any], *, share: float) -> Sequence[str]:
    words = []
    if whole.status in {"alarm", "warning"}:
        words.append(f"Units did not come in the shares of the weights (p = {whole.p_value:.2g}): see sample_ratio.")
    elif conspicuous:
        words.append(f"In these segments units did not come in the shares of the weights: {', '.join(conspicuous)}.")
    if share > MAX_LACKING:
        words.append(f"{share:.1%} of decisions lacked an attribute that the segments' rules need.")
    return words


def _said(ratio: SampleRatio) -> dict[str, Any]:
    gap = ratio.relative_gap if np.isfinite(ratio.relative_gap) else None
    return {"p_value": ratio.p_value, "status": ratio.status, "relative_gap": gap}
