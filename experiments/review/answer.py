"""From estimates to the JSON of an answer: variants, verdicts, uplift; what is not estimable is null."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from math import isfinite
from typing import Any

import numpy as np
from numpy.typing import NDArray

from experiments.review.estimates import Estimates, estimate, posterior_of
from experiments.review.reading import Reading
from experiments.review.strata import Strata
from optimizer.comparison import Uplift, against_control, best_and_loss
from optimizer.posteriors import BetaPosterior, Posterior
from optimizer.rows import mapped

Floats = NDArray[np.float64]

LEVEL = 0.95

Detail = Callable[[int, int], dict[str, Any]]  # what more is said of (row, variant)


@dataclass(frozen=True, slots=True)
class Shown:
    """What is shown of every variant by segment and over all (the last row), shapes (n_segments + 1, n_variants).

    ``n_units`` and ``n_responders`` are as tallied: all, also those whose ratio is not estimable.
    """

    estimates: Estimates
    n_units: Floats
    n_responders: Floats
    low: Floats
    high: Floats
    best: Floats
    beats: Floats
    loss: Floats
    absolute: Uplift
    relative: Uplift
    is_ratio: bool


def shown(reading: Reading) -> Shown:
    """Posteriors of all units."""
    estimates, higher_is_better = estimate(reading.strata), reading.metric.higher_is_better
    counts = _with_all(reading.units, reading.units.n_units), _with_all(reading.units, reading.units.n_responders)
    posterior = posterior_of(estimates, is_rate=reading.is_rate, prior=reading.metric.prior)
    if posterior is None:
        return _nothing(estimates, counts, is_ratio=reading.metric.kind == "ratio")
    levels = posterior_of(estimates, is_rate=reading.is_rate, prior=reading.metric.prior, of_levels=True) or posterior
    known, control = np.isfinite(estimates.mean), estimates.control
    low, high = level_intervals(levels, estimates.mean)
    best, loss = among_known(posterior, known, higher_is_better=higher_is_better)
    against = against_control(posterior, control_index=control, level=LEVEL, higher_is_better=higher_is_better)
    return Shown(
        estimates,
        *counts,
        low,
        high,
        best=best,
        beats=np.where(known & known[:, [control]], against.beats, np.nan),
        loss=loss,
        absolute=against.absolute,
        relative=against.relative,
        is_ratio=reading.metric.kind == "ratio",
    )


def level_intervals(levels: Posterior, mean: Floats) -> tuple[Floats, Floats]:
    """Intervals of means, NaN where there is no mean; a rate of 0 or 1 lies at an end of its own.

    Source: Brown, Cai & DasGupta (2001), Statistical Science 16(2), who cut Jeffreys' intervals so.
    """
    known = np.isfinite(mean)
    low, high = (np.where(known, end, np.nan) for end in levels.interval(LEVEL))
    if isinstance(levels, BetaPosterior):
        low, high = np.where(mean <= 0.0, 0.0, low), np.where(mean >= 1.0, 1.0, high)
    return low, high


def among_known(posterior: Posterior, known: NDArray[np.bool_], *, higher_is_better: bool) -> tuple[Floats, Floats]:
    """Probability best and expected loss among the variants of each row that have units, two at least; else NaN."""
    best, loss = np.full(known.shape, np.nan), np.full(known.shape, np.nan)
    patterns, pattern_of = np.unique(known, axis=0, return_inverse=True)
    for number_, pattern in enumerate(patterns):
        if pattern.sum() > 1:
            where = np.ix_(np.flatnonzero(pattern_of.reshape(-1) == number_), np.flatnonzero(pattern))
            among = mapped(posterior, partial(_selected, where=where))
            best[where], loss[where] = best_and_loss(among, higher_is_better=higher_is_better)
    return best, loss


def _selected(values: Floats, *, where: tuple[NDArray[np.intp], ...]) -> Floats:
    return values[where]


def _with_all(units: Strata, values: Floats) -> Floats:
    by_segment = units.by_segment(values)
    return np.vstack([by_segment, by_segment.sum(axis=0)])


def _nothing(estimates: Estimates, counts: tuple[Floats, Floats], *, is_ratio: bool) -> Shown:
    empty = np.full(estimates.mean.shape, np.nan)
    none = Uplift(empty, empty, empty, np.zeros(empty.shape, dtype=np.bool_))
    return Shown(
        estimates,
        *counts,
        empty,
        empty,
        best=empty,
        beats=empty,
        loss=empty,
        absolute=none,
        relative=none,
        is_ratio=is_ratio,
    )


def variants_of(
    shown_: Shown,
    row: int,
    *,
    variants: Sequence[str],
    weights: Mapping[str, float],
    details: Sequence[Detail] = (),
) -> list[dict[str, Any]]:
    """The ``variants`` of a segment (or, for the last row, of all)."""
    found = shown_.estimates
    return [
        {
            "variant": key,
            "n_units": int(shown_.n_units[row, index]),
            "n_responders": int(shown_.n_responders[row, index]),
            "mean": number(found.mean[row, index]),
            "interval": pair(shown_.low[row, index], shown_.high[row, index]),
            "reason": _why_none(shown_, row, index=index),
            "probability_best": number(shown_.best[row, index]),
            "probability_beats_control": None if index == found.control else number(shown_.beats[row, index]),
            "expected_loss": number(shown_.loss[row, index]),
            "uplift": None if index == found.control else _uplift(shown_, row, index=index),
            "weight": weights.get(key, 0.0),
            **{name: value for detail in details for name, value in detail(row, index).items()},
        }
        for index, key in enumerate(variants)
    ]


def _why_none(shown_: Shown, row: int, *, index: int) -> str | None:
    """Why a variant has no interval."""
    if isfinite(shown_.low[row, index]):
        return None
    if not shown_.n_units[row, index] > 0.0:
        return "not estimable: no unit"
    if isfinite(shown_.estimates.mean[row, index]):
        return "not estimable: no outcome varies"
    return f"not estimable: {TOO_FEW_DENOMINATORS if shown_.is_ratio else _APART}"


TOO_FEW_DENOMINATORS = "too few denominators, or they don't add up to more than 0"
_APART = "too few units, or none, came while the variant and the control both had weight"


def _uplift(shown_: Shown, row: int, *, index: int) -> dict[str, Any]:
    """Against control; ``interval`` is of the absolute uplift, and excludes 0 when that of the relative one does."""
    found, at = shown_.estimates, (row, index)
    difference, base = found.difference[at], found.mean[row, found.control]
    known = isfinite(difference)
    clear = known and bool(shown_.relative.estimable[at])
    return {
        "absolute": number(difference),
        "interval": pair(shown_.absolute.low[at], shown_.absolute.high[at]) if known else None,
        "relative": number(difference / base) if clear else None,
        "relative_interval": pair(shown_.relative.low[at], shown_.relative.high[at]) if clear else None,
        "reason": None if clear else _why_not(shown_, row, index=index, known=known),
    }


def _why_not(shown_: Shown, row: int, *, index: int, known: bool) -> str:
    """Why there is no uplift, or no relative one."""
    if not known:
        control = shown_.estimates.control
        lacking = [name for name, k in (("variant", index), ("control", control)) if not shown_.n_units[row, k] > 0.0]
        if lacking:
            return f"not estimable: the {lacking[0]} has no unit"
        without = shown_.is_ratio and not np.isfinite(shown_.estimates.mean[row, [control, index]]).all()
        return f"not estimable: {TOO_FEW_DENOMINATORS if without else _APART}"
    if not isfinite(shown_.absolute.low[row, index]):
        return "interval and relative not estimable: no outcome varies"
    return "relative not estimable: control's mean is not clearly above zero"


def number(value: float) -> float | None:
    """A number for JSON: null where there is none."""
    return float(value) if isfinite(value) else None


def pair(low: float, high: float) -> list[float] | None:
    """An interval for JSON: null where there is none."""
    return [float(low), float(high)] if isfinite(low) and isfinite(high) else None
