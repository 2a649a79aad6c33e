"""How soon outcomes arrive: the share of a window's first responses that a unit of some age has already shown."""

from bisect import bisect_right
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from optimizer.errors import InvalidCounts

Floats = NDArray[np.float64]

MINUTE_SECONDS = 60.0
NINETY_DAYS_SECONDS = 90.0 * 86_400.0
N_EDGES = 33
# Responders from cohorts whose window is over, below which no curve is drawn.
MIN_MATURED_RESPONDERS = 20
# Responders that the metric's own curve is worth in each variant's.
SHRINKAGE_RESPONDERS = 50.0

_EDGES = tuple(float(edge) for edge in np.geomspace(MINUTE_SECONDS, NINETY_DAYS_SECONDS, N_EDGES))


@dataclass(frozen=True, slots=True)
class DelayCurve:
    """Share of the window's first responses seen by some age, given that there is one in the window.

    Attributes:
        age_seconds: Ages, ascending, the last one the window, shape (n_points,).
        fraction: In [0, 1], not falling, the last one 1, shape (n_variants, n_points).
    """

    age_seconds: Floats
    fraction: Floats


@dataclass(frozen=True, slots=True)
class DelayNotIdentified:
    """No curve can be drawn yet: too few responders come from cohorts whose window is over."""

    n_matured_responders: float


def age_bin_edges() -> tuple[float, ...]:
    """The 33 edges that all delays are counted by, in seconds, log-spaced from one minute to ninety days."""
    return _EDGES


def age_bin(seconds: float) -> int:
    """Bin of a delay: 0 below one minute (or negative: clocks differ), 33 from ninety days on.

    >>> age_bin(0.0), age_bin(60.0), age_bin(3600.0), age_bin(1e9)
    (0, 1, 12, 33)
    """
    return bisect_right(_EDGES, seconds)


def delay_curve(
    first_responses: ArrayLike, *, age_seconds: ArrayLike, window_seconds: float
) -> DelayCurve | DelayNotIdentified:
    """Each variant's delay curve, from first responses by cohort and delay.

    Young cohorts cannot have shown their late responses yet (right truncation), so time runs backwards: among
    responders of cohorts old enough for a bin, the share whose delay fell into that bin, rather than before it, is its
    reverse hazard, and F(edge) is the product of 1 - hazard over the later bins. Base rates of cohorts cancel.
    A slower variant is not a worse one, so every variant has a curve of its own, shrunk to the metric's: hazards count
    50 responders of all variants together beside the variant's own.

    Args:
        first_responses: Responders by `age_bin` of their delay, shape (n_cohorts, n_variants, 34). Only responses
            inside the window are attributed, so later bins are ignored.
        age_seconds: Age of each cohort's youngest unit, >= 0, shape (n_cohorts,).
        window_seconds: The metric's attribution window.
    Returns:
        The curves, or why there are none: then count units as they are, the same for all variants.
    Raises:
        InvalidCounts: Shapes do not fit, a count is negative or not finite, or the window is not positive.
    Source: Lagakos, Barraj & De Gruttola (1988), Biometrika 75(3), "Nonparametric Analysis of Truncated Survival Data".
    """
    counts, ages = _checked(first_responses, age_seconds)
    if not 0.0 < window_seconds < np.inf:
        raise InvalidCounts("window_seconds", f"is {window_seconds}")
    points = np.array([*(edge for edge in _EDGES if edge < window_seconds), window_seconds])
    within = counts[..., : points.size]
    n_matured = float(within[ages >= window_seconds].sum())
    if n_matured < MIN_MATURED_RESPONDERS:
        return DelayNotIdentified(n_matured)
    # Cohorts old enough to have shown everything up to each point.
    visible = (ages[:, None] >= points).astype(np.float64)
    in_bin = np.einsum("cp,cvp->vp", visible, within)
    up_to = np.einsum("cp,cvp->vp", visible, within.cumsum(axis=2))
    pooled = _share(in_bin.sum(axis=0), up_to.sum(axis=0))
    hazard = (in_bin + SHRINKAGE_RESPONDERS * pooled) / (up_to + SHRINKAGE_RESPONDERS)
    later = np.cumprod(1.0 - hazard[:, :0:-1], axis=1)[:, ::-1]
    return DelayCurve(points, np.hstack([later, np.ones((len(later), 1))]))


def matured_fraction(age_seconds: ArrayLike, curve: DelayCurve) -> Floats:
    """Share of each variant's responses that units of this age have shown, straight lines between the curve's points.

    Args:
        age_seconds: Ages, shape (...,), for instance of blocks.
        curve: From `delay_curve`.
    Returns:
        Shares in [0, 1], 1 from the window on, shape (..., n_variants): `matured` of `exposure`.
    Source: the empirical curve of Lagakos, Barraj & De Gruttola (1988), interpolated.

    >>> curve = DelayCurve(np.array([60.0, 120.0]), np.array([[0.5, 1.0], [0.8, 1.0]]))
    >>> matured_fraction([30.0, 90.0, 500.0], curve)
    array([[0.25, 0.4 ],
           [0.75, 0.9 ],
           [1.  , 1.  ]])
    """
    ages = np.asarray(age_seconds, dtype=np.float64)
    points = np.concatenate([[0.0], curve.age_seconds])
    return np.stack([np.interp(ages, points, np.concatenate([[0.0], row])) for row in curve.fraction], axis=-1)


def _share(part: Floats, whole: Floats) -> Floats:
    return np.divide(part, whole, out=np.zeros(part.shape), where=whole > 0.0)


def _checked(first_responses: ArrayLike, age_seconds: ArrayLike) -> tuple[Floats, Floats]:
    counts = np.asarray(first_responses, dtype=np.float64)
    ages = np.asarray(age_seconds, dtype=np.float64)
    if counts.ndim != 3 or counts.shape[2] != N_EDGES + 1 or ages.shape != counts.shape[:1]:
        raise InvalidCounts("first_responses", f"has shape {counts.shape}, age_seconds {ages.shape}")
    if not (np.isfinite(counts).all() and (counts >= 0.0).all() and (ages >= 0.0).all()):
        raise InvalidCounts("first_responses or age_seconds", "is negative or not finite")
    return counts, ages
