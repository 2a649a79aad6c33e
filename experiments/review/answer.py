"""From estimates to the JSON of an answer: variants, verdicts, uplift; what is not estimable is null."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from experiments.review.estimates import Estimates, posterior_of
from optimizer.comparison import Uplift, absolute_uplift, expected_loss, probability_beats, relative_uplift
from optimizer.posteriors import Posterior
from optimizer.probability_best import probability_best

Floats = NDArray[np.float64]

LEVEL = 0.95


@dataclass(frozen=True, slots=True)
class Shown:
    """What is shown of every variant by segment and over all (the last row), shapes (n_segments + 1, n_variants)."""

    estimates: Estimates
    low: Floats
    high: Floats
    best: Floats
    beats: Floats
    loss: Floats
    absolute: Uplift
    relative: Uplift


def shown(estimates: Estimates, *, binary: bool, higher_is_better: bool) -> Shown:
    """Posteriors of all units, with a prior that says next to nothing."""
    posterior = posterior_of(estimates, binary=binary)
    if posterior is None:
        return _nothing(estimates)
    low, high = posterior.interval(LEVEL)
    control = estimates.control
    return Shown(
        estimates,
        low,
        high,
        best=probability_best(posterior, higher_is_better=higher_is_better),
        beats=probability_beats(posterior, control_index=control, higher_is_better=higher_is_better),
        loss=_loss(posterior, higher_is_better=higher_is_better),
        absolute=absolute_uplift(posterior, control_index=control, level=LEVEL),
        relative=relative_uplift(posterior, control_index=control, level=LEVEL),
    )


def _loss(posterior: Posterior, *, higher_is_better: bool) -> Floats:
    return expected_loss(posterior, higher_is_better=higher_is_better)


def _nothing(estimates: Estimates) -> Shown:
    empty = np.full(estimates.mean.shape, np.nan)
    none = Uplift(empty, empty, empty, np.zeros(empty.shape, dtype=np.bool_))
    return Shown(estimates, empty, empty, best=empty, beats=empty, loss=empty, absolute=none, relative=none)


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
    found = shown_.estimates
    difference = found.difference[row, index]
    compared = bool(np.isfinite(difference))
    relative = compared and bool(shown_.relative.estimable[row, index])
    base = found.mean[row, found.control]
    ends = shown_.absolute.low[row, index], shown_.absolute.high[row, index]
    relative_ends = shown_.relative.low[row, index], shown_.relative.high[row, index]
    return {
        "absolute": number(difference),
        "relative": number(difference / base) if relative else None,
        "interval": pair(*ends) if compared else None,
        "relative_interval": pair(*relative_ends) if relative else None,
    }


def number(value: float) -> float | None:
    """A number for JSON: null where there is none."""
    return float(value) if np.isfinite(value) else None


def pair(low: float, high: float) -> list[float] | None:
    """An interval for JSON: null where there is none."""
    return [float(low), float(high)] if np.isfinite(low) and np.isfinite(high) else None
