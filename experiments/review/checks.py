"""Checks on the data itself: did units come in the shares asked for, and with the attributes that rules need?"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from experiments.review.contrasts import amounts_cancel
from experiments.review.estimates import ENOUGH_RESPONDERS
from experiments.review.strata import Strata
from optimizer.sample_ratio import SampleRatio, judged, sample_ratio, sample_ratios
from optimizer.sequential_sample_ratio import sequential_sample_ratio, sequential_sample_ratios

MAX_LACKING = 0.05
MAX_MERGED = 0.01
MIN_EQUAL = 5.0  # below, one unit brings at least a fifth of a sum (of sums that are not negative)
_MOST_NAMED = 5


@dataclass(frozen=True, slots=True)
class RatioCheck:
    """The sample-ratio check as a verdict reads it: by its always-valid p-value."""

    p_value: float | None
    is_broken: bool


def checked_ratios(strata: Strata) -> tuple[SampleRatio, list[SampleRatio | None]]:
    """The check over all segments, and in each one; None for a segment without units.

    Results are looked at all the time, so only an always-valid p-value alarms; that of one look warns. One segment
    alarms only if its p-value would among all of them (Bonferroni): a thousand segments would else raise an alarm for
    nothing.
    """
    versions = strata.pooled()
    if not versions.segment.size:
        return _NOTHING, [None] * len(strata.segments)
    over_all, by_segment = _watched(strata)
    whole = judged(sample_ratio(versions.n_units, versions.propensity), over_all)
    n, some = versions.padded(versions.n_units), 1.0 / versions.n_units.shape[1]
    found = zip(sample_ratios(n, versions.padded(versions.propensity, fill=some)), by_segment, strict=True)
    has_units = (n.sum(axis=(1, 2)) > 0.0).tolist()
    return whole, [
        judged(ratio, p_value, n_checks=len(n)) if used else None
        for (ratio, p_value), used in zip(found, has_units, strict=True)
    ]


_NOTHING = SampleRatio(None, 0.0, 0, 0.0, "not_estimable")


def _watched(strata: Strata) -> tuple[float, list[float]]:
    """Always-valid p-values: over all segments, whose strata of one day came at the same time, and of each."""
    by_day = np.argsort(strata.day, kind="stable")
    n_units, weights = strata.n_units[by_day], strata.propensity[by_day]
    whole = sequential_sample_ratio(n_units, weights, block=strata.day[by_day])
    segments = sequential_sample_ratios(strata.padded(strata.n_units), strata.padded(strata.propensity))
    return whole.p_value, segments.p_value.tolist()


def ratio_check(whole: SampleRatio, segment: SampleRatio | None) -> RatioCheck:
    """What a segment's verdict reads: the alarm over all breaks it as its own does."""
    own = whole if segment is None else segment
    return RatioCheck(own.always_valid_p_value, is_broken="alarm" in {whole.status, own.status})


@dataclass(frozen=True, slots=True)
class Noted:
    """What was noted of units as they were decided or joined.

    Attributes:
        n_lacking: Units that lacked an attribute that their segments' rules need.
        n_merged: Units of persons who, under another id, had an earlier one with another variant.
    """

    n_lacking: float
    n_merged: int


def checks_of(
    strata: Strata, noted: Noted, *, whole: SampleRatio, ratios: Sequence[SampleRatio | None]
) -> tuple[dict[str, Any], list[str]]:
    """The ``checks`` of an answer, and a warning in words for each that did not pass.

    Args:
        strata: Of all units.
        noted: Of these.
        whole: The sample ratio over all segments.
        ratios: That of each segment.
    """
    units = float(strata.n_units.sum())
    lacking, merged = ((n / units if units else 0.0) for n in (noted.n_lacking, noted.n_merged))
    conspicuous = {
        key: _said(ratio)
        for key, ratio in zip(strata.segments, ratios, strict=True)
        if ratio is not None and ratio.status in {"alarm", "warning"}
    }
    found = {
        "sample_ratio": {**_said(whole), "segments": conspicuous},
        "missing_attributes": _share(lacking, n_units=int(noted.n_lacking), threshold=MAX_LACKING),
        "merged": _share(merged, n_units=noted.n_merged, threshold=MAX_MERGED),
    }
    return found, list(_warnings(whole, conspicuous, lacking=lacking, merged=merged))


def _share(share: float, *, n_units: int, threshold: float) -> dict[str, Any]:
    status = "warning" if share > threshold else "ok"
    return {"share": share, "n_units": n_units, "threshold": threshold, "status": status}


def _warnings(whole: SampleRatio, conspicuous: Mapping[str, Any], *, lacking: float, merged: float) -> Iterator[str]:
    if whole.status in {"alarm", "warning"}:
        yield (f"Units did not come in the shares of the weights (p = {whole.p_value:.2g}): see sample_ratio.")
    elif conspicuous:
        yield (f"In these segments units did not come in the shares of the weights: {', '.join(conspicuous)}.")
    if lacking > MAX_LACKING:
        yield (f"{lacking:.1%} of decisions lacked an attribute that the segments' rules need.")
    if merged > MAX_MERGED:
        yield (f"{merged:.1%} of units are of persons who had met another variant under another id.")


def _said(ratio: SampleRatio) -> dict[str, Any]:
    gap = ratio.relative_gap if np.isfinite(ratio.relative_gap) else None
    p_values = {"p_value": ratio.p_value, "always_valid_p_value": ratio.always_valid_p_value}
    return {**p_values, "status": ratio.status, "relative_gap": gap}


def carried_by_few(units: Strata) -> list[str]:
    """A warning where few of many units that responded carry a variant's sum: (sum y)^2 / sum y^2 says how many do.

    The largest y is at least sum y^2 / sum y, if none is negative: one over that number is its least share of the sum.
    Where gains and losses cancel it says nothing.

    Args:
        units: As tallied, capped where the metric has a cap.
    """
    counted = [units.by_segment(values) for values in (units.n_responders, units.total, units.squares)]
    responders, total, squares = (np.vstack([values, values.sum(axis=0)]) for values in counted)
    equal = np.divide(total**2, squares, out=np.full(total.shape, np.inf), where=squares > 0.0)
    whole = [values[np.newaxis] for values in (units.n_responders, units.total)]
    of_segments = amounts_cancel(units.padded(units.n_responders), units.padded(units.total))
    equal[np.append(of_segments, amounts_cancel(whole[0], whole[1]))] = np.inf
    rows, variants = np.nonzero((responders >= ENOUGH_RESPONDERS) & (equal < MIN_EQUAL))
    if not rows.size:
        return []
    keys = [*units.segments, "all segments"]
    found = list(zip(rows.tolist(), variants.tolist(), strict=True))[::-1]  # over all first
    said = [
        f"{units.variants[k]} in {keys[row]} ({responders[row, k]:.0f} responded, worth {equal[row, k]:.1f} equal sums)"
        for row, k in found[:_MOST_NAMED]
    ]
    more = f" and {len(found) - _MOST_NAMED} more" if len(found) > _MOST_NAMED else ""
    return [f"Few units carry much of a sum; look at the largest, a cap would limit them: {', '.join(said)}{more}."]
