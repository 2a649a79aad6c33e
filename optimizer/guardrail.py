"""Guardrails: the least harm that a variant surely does, however often one looks and however the weights moved."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from optimizer.errors import InvalidArgument, InvalidCounts
from optimizer.sequential import aipw_contrast, half_width

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]

SMALLEST_EVENTS = 20  # that a variant and control should each have had, before a bound says anything
_ROUNDING = 1e-12  # of the raw squares: less variation is none
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
    control_index: int,
    higher_is_better: bool,
    level: float,
) -> HarmBound:
    """One-sided always-valid lower bound of the harm of every variant against control.

    The estimate weighs by propensity (``aipw_contrast``), so it holds for weights that moved; what it expects of a
    stratum is the mean of the stratum's own units, which does not depend on who got what if no variant does harm.

    All units are read, not only matured ones: within a stratum (segment, day, allocation version) the units of all
    variants are equally old, so youth makes the harm smaller, never one-sided. And it may be watched in calendar time:
    if a variant does no harm, the next to respond had been given it or control by a coin of known weights, so in the
    order of responses the weighted sum is one of independent terms of mean zero. Events are therefore its clock: what
    is tightest at 100 events is so for clicks and for unsubscribes. (Further values of a unit that has responded move
    with its earlier ones, which only makes a crossing rarer: Slepian's inequality.)

    The bound is asymptotic, so it stays silent until the variant and control should each have had 20 events: their
    common rate in each stratum times the units of each, as an effective number (Kish) where weights moved. The expected
    number counts, not the true one: control may well have few because it does no harm. But few by chance would also
    make its variance look small, so the standard error is at least what it were if the two were alike.

    Args:
        n_units: All units decided, shape (..., n_strata, n_variants).
        total: Sum of their outcomes so far, the same shape.
        sum_squares: Sum of the squares of these, the same shape.
        n_events: Units that responded (of a rate above one half, those that did not), the same shape.
        propensity: Logged weights of the stratum, rows summing to 1, the same shape.
        control_index: Which variant is the control.
        higher_is_better: Direction of the metric; harm is the other one.
        level: Coverage over all times of one variant's bound, in (0.5, 1).
    Raises:
        InvalidCounts, InvalidArgument: As ``aipw_contrast`` and ``half_width``; or events that can't be.
    Source: Waudby-Smith et al. (2024), Annals of Statistics, arXiv:2103.06476, appendix B (one-sided sequences);
        Kish (1965), Survey Sampling, for the effective number; Slepian (1962), Bell System Technical Journal 41.

    >>> tripled = harm_bound(
    ...     [[9_000, 9_000]], [[18, 54]], sum_squares=[[18, 54]], n_events=[[18, 54]], propensity=[[0.5, 0.5]],
    ...     control_index=0, higher_is_better=False, level=0.95,
    ... )
    >>> tripled.harm.round(4), tripled.bound.round(4), tripled.n_events
    (array([0.   , 0.004]), array([  -inf, 0.0014]), array([ 0., 36.]))
    """
    n, sums, squares, events, share = (
        np.asarray(values, dtype=np.float64) for values in (n_units, total, sum_squares, n_events, propensity)
    )
    if events.shape != n.shape or not (np.isfinite(events) & (events >= 0.0) & (events <= n)).all():
        raise InvalidCounts("n_events", "is of another shape than units, not finite, negative or more than units")
    mean = sums.sum(axis=-1, keepdims=True) / np.maximum(n.sum(axis=-1, keepdims=True), 1.0)
    contrast = aipw_contrast(
        n,
        sums,
        sum_squares=squares,
        propensity=share,
        predicted=np.broadcast_to(mean, n.shape),
        control_index=control_index,
    )
    strata = _Strata(n, share, share[..., control_index : control_index + 1], control_index)
    counted, clock = _events(strata, events)
    error = np.fmax(contrast.standard_error, _error_if_alike(strata, sums, squares=squares))
    harm = -contrast.estimate if higher_is_better else contrast.estimate
    speaks = (counted >= SMALLEST_EVENTS) & np.isfinite(harm) & (error > 0.0)
    ticks = np.where(speaks, clock, 1.0)
    distance = np.sqrt(ticks) * half_width(ticks, n_star=N_STAR_EVENTS, level=level, one_sided=True)
    bound = np.where(speaks, harm - np.where(speaks, error, 0.0) * distance, -np.inf)
    return HarmBound(harm + 0.0, bound, counted, speaks)


@dataclass(frozen=True, slots=True)
class _Strata:
    """Units and weights, shapes (..., n_strata, n_variants)."""

    n_units: Floats
    share: Floats
    of_control: Floats
    control: int

    @property
    def both(self) -> Flags:
        """Where a variant was randomised beside control."""
        return (self.share > 0.0) & (self.of_control > 0.0)

    def with_control(self, values: Floats) -> Floats:
        """A variant's and control's values together."""
        return values + values[..., self.control : self.control + 1]

    def units_of_control(self) -> Floats:
        """Control's units beside every variant."""
        return self.n_units[..., self.control : self.control + 1]


def _events(strata: _Strata, events: Floats) -> tuple[Floats, Floats]:
    """Effective events that the scarcer of each variant and control should have had; and events of both so far."""
    together = np.where(strata.both, strata.with_control(events), 0.0)
    units = strata.with_control(strata.n_units)
    rate = np.divide(together, units, out=np.zeros(units.shape), where=units > 0.0)
    own = _effective(rate * strata.n_units, share=np.where(strata.both, strata.share, 1.0))
    of_control = np.where(strata.both, strata.of_control, 1.0)
    scarcer = np.minimum(own, _effective(rate * strata.units_of_control(), share=of_control))
    clock = together.sum(axis=-2)
    scarcer[..., strata.control], clock[..., strata.control] = 0.0, 0.0
    return scarcer, clock


def _effective(events: Floats, *, share: Floats) -> Floats:
    """As many events of equal weights say as much as these, each weighted by one over its share."""
    weights, squares = (events / share).sum(axis=-2), (events / share**2).sum(axis=-2)
    effective: Floats = np.divide(weights**2, squares, out=np.zeros(weights.shape), where=squares > 0.0)
    return effective


def _error_if_alike(strata: _Strata, sums: Floats, *, squares: Floats) -> Floats:
    """Standard error of each contrast, were the variant's outcomes distributed as control's in every stratum."""
    units = np.maximum(strata.with_control(strata.n_units), 1.0)
    raw = strata.with_control(squares) / units
    variance = raw - (strata.with_control(sums) / units) ** 2
    variance = np.where(variance > _ROUNDING * raw, variance, 0.0)
    n_all = np.where(strata.both, strata.n_units.sum(axis=-1, keepdims=True), 0.0)
    share, of_control = (np.where(strata.both, one, 1.0) for one in (strata.share, strata.of_control))
    spread = (n_all * variance * (1.0 / share + 1.0 / of_control)).sum(axis=-2)
    error: Floats = np.sqrt(spread) / np.maximum(n_all.sum(axis=-2), 1.0)
    error[..., strata.control] = 0.0
    return error
