"""Guardrails: the least harm that a variant surely does, however often one looks and however the weights moved."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from optimizer.errors import InvalidArgument, InvalidCounts
from optimizer.sequential import aipw_contrast, half_width

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]

SMALLEST_EVENTS = 20  # that a variant and control should each have had, before a bound says anything
N_STAR_EVENTS = 100.0  # of the two together, at which the bound is tightest; never chosen from the data


@dataclass(frozen=True, slots=True)
class HarmBound:
    """How much worse than control each variant is, shapes (..., n_variants).

    Attributes:
        harm: Difference of means in the bad direction, in outcome units; NaN where never randomised beside control.
        bound: It is more than this at all times together, at the level asked for; minus infinity where too early.
        n_events: What is compared with ``SMALLEST_EVENTS``; 0 for control.
        speaks: False where there are too few events, or nothing varies; and for control.
    """

    harm: Floats
    bound: Floats
    n_events: Floats
    speaks: Flags


@dataclass(frozen=True, slots=True)
class SharedLevel:
    """Levels of the bounds of one guardrail, so that all of them together keep its probability.

    Attributes:
        whole: Of a variant's bound over all segments; None with one segment, which is the whole.
        segment: Of a variant's bound in one segment.
    """

    whole: float | None
    segment: float


def shared_level(probability: float, *, n_variants: int, n_segments: int) -> SharedLevel:
    """Share a guardrail's error out (Bonferroni): evenly over variants; of each, half to the whole, half over segments.

    Args:
        probability: 1 - this is the most that the guardrail may ever pause anything falsely, in (0, 1).
        n_variants: Beside control, >= 1.
        n_segments: Watched, >= 1.
    Raises:
        InvalidArgument: One of them is out of its range.

    >>> shared_level(0.95, n_variants=2, n_segments=5)
    SharedLevel(whole=0.9875, segment=0.9975)
    """
    if not 0.0 < probability < 1.0:
        raise InvalidArgument("probability", f"{probability} is not between 0 and 1")
    if n_variants < 1 or n_segments < 1:
        raise InvalidArgument("n_variants or n_segments", f"{n_variants} or {n_segments} is below 1")
    each = (1.0 - probability) / n_variants
    if n_segments == 1:
        return SharedLevel(None, 1.0 - each)
    return SharedLevel(1.0 - each / 2.0, 1.0 - each / 2.0 / n_segments)


def harm_bound(
    n_units: ArrayLike,
    total: ArrayLike,
    *,
    sum_squares: ArrayLike,
    n_events: ArrayLike,
    propensity: ArrayLike,
    predicted: ArrayLike,
    control_index: int,
    higher_is_better: bool,
    level: float,
) -> HarmBound:
    """One-sided always-valid lower bound of the harm of every variant against control.

    The estimate weighs by propensity (``aipw_contrast``), so it holds for weights that moved. All units are read, not
    only matured ones: within a stratum (segment, day, allocation version) the units of all variants are equally old,
    so immature units make the harm smaller, never biased. And it may be watched in calendar time: if the variant
    does no harm, who responds next has been given the variant or control by a coin of known weights, so in the order
    of responses the weighted sum is a sum of independent terms of mean zero. Events are its clock: what is tightest
    at 100 events is so for clicks and for unsubscribes. (Later values of a unit that has responded before correlate
    positively with its earlier ones, which makes crossing rarer: Slepian's inequality.)

    It is an asymptotic bound, so it stays silent until both the variant and control should have had 20 events: their
    common rate in each stratum times the units of each, as an effective number (Kish) where weights moved. What counts
    is the expected number: control may truly have few, because it does no harm; but where it has few units, none at
    all means nothing, and its variance looks smaller than it is.

    Args:
        n_units: All units decided, shape (..., n_strata, n_variants).
        total: Sum of their outcomes so far, the same shape.
        sum_squares: Sum of the squares of these, the same shape.
        n_events: Units that responded (of a rate above one half, those that did not), the same shape.
        propensity: Logged weights of the stratum, rows summing to 1, the same shape.
        predicted: Mean outcome expected of each variant when the stratum began, the same shape.
        control_index: Which variant is the control.
        higher_is_better: Direction of the metric; harm is the other one.
        level: Coverage over all times of one variant's bound, in (0.5, 1).
    Raises:
        InvalidCounts, InvalidArgument: As ``aipw_contrast`` and ``half_width``; or events are negative.
    Source: Waudby-Smith et al. (2024), Annals of Statistics, arXiv:2103.06476, appendix B (one-sided sequences);
        Kish (1965), Survey Sampling, for the effective number; Slepian (1962), Bell System Technical Journal 41.
    """
    events = np.asarray(n_events, dtype=np.float64)
    if not np.isfinite(events).all() or (events < 0.0).any():
        raise InvalidCounts("n_events", "is negative or not finite")
    contrast = aipw_contrast(
        n_units, total, sum_squares=sum_squares, propensity=propensity, predicted=predicted, control_index=control_index
    )
    n, share = np.asarray(n_units, dtype=np.float64), np.asarray(propensity, dtype=np.float64)
    counted, clock = _events(n, events, share=share, control_index=control_index)
    harm = -contrast.estimate if higher_is_better else contrast.estimate + 0.0
    error = contrast.standard_error
    speaks = (counted >= SMALLEST_EVENTS) & np.isfinite(harm) & (error > 0.0)
    ticks = np.where(speaks, clock, 1.0)
    distance = np.sqrt(ticks) * half_width(ticks, n_star=N_STAR_EVENTS, level=level, one_sided=True)
    bound = np.where(speaks, harm - np.where(speaks, error, 0.0) * distance, -np.inf)
    return HarmBound(harm, bound, counted, speaks)


def _events(n: Floats, events: Floats, *, share: Floats, control_index: int) -> tuple[Floats, Floats]:
    """Effective events that the scarcer of each variant and control should have had; and events of both so far."""
    control = slice(control_index, control_index + 1)
    both = (share > 0.0) & (share[..., control] > 0.0)
    together = np.where(both, events + events[..., control], 0.0)
    units = n + n[..., control]
    rate = np.divide(together, units, out=np.zeros(n.shape), where=both & (units > 0.0))
    own = _effective(rate * n, share=np.where(both, share, 1.0))
    of_control = _effective(rate * n[..., control], share=np.where(both, share[..., control], 1.0))
    scarcer, clock = np.minimum(own, of_control), together.sum(axis=-2)
    scarcer[..., control_index], clock[..., control_index] = 0.0, 0.0
    return scarcer, clock


def _effective(events: Floats, *, share: Floats) -> Floats:
    """As many events of equal weights say as much as these, each weighted by one over its share."""
    weights, squares = (events / share).sum(axis=-2), (events / share**2).sum(axis=-2)
    effective: Floats = np.divide(weights**2, squares, out=np.zeros(weights.shape), where=squares > 0.0)
    return effective
