"""From estimates to the JSON of an answer: variants, verdicts, uplift; what is not estimable is null."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from experiments.review.estimates import Estimates, posterior_of
from optimizer.comparison import absolute_uplift, expected_loss, probability_beats
from optimizer.probability_best import probability_best

Floats = NDArray[np.float64]

LEVEL = 0.95
_CLEAR = 1.96  # standard errors of control's mean from zero


@dataclass(frozen=True, slots=True)
class Shown:
    """What is shown of every variant by segment and over all (the last row), shapes (n_segments + 1, n_variants)."""

    estimates: Estimates
    low: Floats
    high: Floats
    best: Floats
    beats: Floats
    loss: Floats
    low_uplift: Floats
    high_uplift: Floats


def shown(estimates: Estimates, *, binary: bool, higher_is_better: bool) -> Shown:
    """Posteriors of all units, with a prior that says next to nothing."""
    posterior = posterior_of(estimates, binary=binary)
    if posterior is None:
        return _nothing(estimates)
    low, high = posterior.interval(LEVEL)
    control = estimates.control
    uplift = absolute_uplift(posterior, control_index=control, level=LEVEL)
    return Shown(
        estimates,
        low,
        high,
        best=probability_best(posterior, higher_is_better=higher_is_better),
        beats=probability_beats(posterior, control_index=control, higher_is_better=higher_is_better),
        loss=expected_loss(posterior, higher_is_better=higher_is_better),
        low_uplift=uplift.low,
        high_uplift=uplift.high,
    )


def _nothing(estimates: Estimates) -> Shown:
    empty = np.full(estimates.mean.shape, np.nan)
    return Shown(estimates, empty, empty, best=empty, beats=empty, loss=empty, low_uplift=empty, high_uplift=empty)


def variants_of(
    shown_: Shown, row: int, *, variants: Sequence[str], weights: Mapping[str, float]
) -> list[dict[str, Any]]:
    """The ``variants`` of a segment (or, for the last row, of all)."""
    found = shown_.estimates
    return [
        {
            "variant": key,
            "n_units": int(found.n_units[row, index]),
            "n_responders": int(found.n_responders[row, index]),
            "mean": number(found.mean[row, index]),
            "interval": pair(shown_.low[row, index], shown_.high[row, index]),
            "probability_best": number(shown_.best[row, index]),
            "probability_beats_control": None if index == found.control else number(shown_.beats[row, index]),
            "expected_loss": number(shown_.loss[row, index]),
            "uplift": None if index == found.control else _uplift(shown_, row, index=index),
            "weight": weights.get(key, 0.0),
        }
        for index, key in enumerate(variants)
    ]


def _uplift(shown_: Shown, row: int, *, index: int) -> dict[str, Any]:
    """Against control; the interval is of the absolute uplift, and excludes 0 exactly when the relative one would."""
    found = shown_.estimates
    difference = found.difference[row, index]
    base, base_variance = found.mean[row, found.control], found.variance[row, found.control]
    clear = bool(abs(base) > _CLEAR * np.sqrt(base_variance))  # else a ratio to it has no meaning (Fieller 1954)
    return {
        "absolute": number(difference),
        "relative": number(difference / abs(base)) if clear else None,
        "interval": pair(shown_.low_uplift[row, index], shown_.high_uplift[row, index])
        if np.isfinite(difference)
        else None,
    }


def number(value: float) -> float | None:
    """A number for JSON: null where there is none."""
    return float(value) if np.isfinite(value) else None


def pair(low: float, high: float) -> list[float] | None:
    """An interval for JSON: null where there is none."""
    return [float(low), float(high)] if np.isfinite(low) and np.isfinite(high) else None
