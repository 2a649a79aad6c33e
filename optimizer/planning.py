"""How many units an experiment needs, what it can see with those it gets, and what looking all the time costs."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from optimizer.errors import InvalidArgument
from optimizer.roots import smallest_where
from optimizer.sequential import half_width

Floats = NDArray[np.float64]

_LEAST, _MOST = 1e-12, 1e18  # effects and units are looked for between these


@dataclass(frozen=True, slots=True)
class Baseline:
    """What control's units answer. ``sd`` None: 0 or 1, so that the mean says it all.

    Attributes:
        mean: Mean outcome of a unit; in (0, 1) if it is a proportion, else not 0; any shape.
        sd: Standard deviation of a unit's outcome, in outcome units, > 0, broadcasts with ``mean``.
    """

    mean: ArrayLike
    sd: ArrayLike | None = None


@dataclass(frozen=True, slots=True)
class Design:
    """How units are shared out, and how sure one wants to be.

    Attributes:
        control_share: Share of the units that gets the control, > 0.
        variant_share: Share of the smallest other variant, > 0.
        n_comparisons: Variants compared with control, over which ``level`` is to hold together (Bonferroni).
        power: P(the interval excludes zero | the effect is there), in [0.5, 1).
        level: Confidence level of the interval, two-sided.
        n_star: Of the always-valid interval (see ``optimizer.sequential``); None: an ordinary one, looked at once.
    """

    control_share: float = 0.5
    variant_share: float = 0.5
    n_comparisons: int = 1
    power: float = 0.8
    level: float = 0.95
    n_star: float | None = None


def units_per_variant(baseline: Baseline, effect: ArrayLike, *, design: Design) -> Floats:
    """Units that the smallest variant needs; all variants together get that over ``variant_share``.

    Args:
        baseline: Of control.
        effect: Relative to the baseline's mean, not 0; negative is a decrease.
        design: Shares, level and power.
    Returns:
        Whole numbers, of the shape that baseline and effect broadcast to.
    Raises:
        InvalidArgument: A baseline, an effect or a design that can't be; a proportion that would leave [0, 1].
    Source: Fleiss, Levin & Paik (2003), Statistical Methods for Rates and Proportions, eq. 4.14 without correction
        (proportions: variance pooled under "no difference"); Guenther (1981), The American Statistician 35(4), 243-244
        (means: a t-test needs z^2 / 4 units more than the normal).

    >>> units_per_variant(Baseline(5.0, 500.0**0.5), 0.05, design=Design())
    array(125583.)
    >>> units_per_variant(Baseline(0.10), 0.2, design=Design())
    array(3841.)
    """
    gap = _gap(baseline, effect, design=design)
    found = _smallest(lambda n: _power(n, gap, design=design), gap.size.shape, target=design.power, most=_MOST)
    return np.asarray(np.ceil(found * (1.0 - 1e-12)))


def power_at(n_units: ArrayLike, baseline: Baseline, *, effect: ArrayLike, design: Design) -> Floats:
    """P(the interval excludes zero) when the smallest variant has so many units (``design.power`` is not used).

    Raises:
        InvalidArgument: As ``units_per_variant``, or units that are not positive.
    Source: As ``units_per_variant``; both tails.

    >>> power_at(4000, Baseline(5.0, 500.0**0.5), effect=0.2, design=Design()).round(4)
    np.float64(0.5159)
    """
    return _power(_positive("n_units", n_units), _gap(baseline, effect, design=design), design=design)


def smallest_effect(n_units: ArrayLike, baseline: Baseline, *, design: Design, is_decrease: bool = False) -> Floats:
    """The smallest relative effect that is seen with ``design.power`` when the smallest variant has so many units.

    Args:
        n_units: > 0, broadcasts with the baseline.
        baseline: Of control.
        design: Shares, level and power.
        is_decrease: Look for a decrease; its size is returned.
    Returns:
        Sizes > 0; infinity where even a proportion of 1 (or of 0) would be missed.
    Raises:
        InvalidArgument: As ``units_per_variant``, or units that are not positive.
    Source: As ``units_per_variant``, solved for the effect.

    >>> smallest_effect(4000, Baseline(5.0, 500.0**0.5), design=Design()).round(4)
    np.float64(0.2802)
    """
    n, mean = _positive("n_units", n_units), np.asarray(baseline.mean, dtype=np.float64)
    sign = -1.0 if is_decrease else 1.0
    most: Floats = np.full(mean.shape, _MOST)
    if baseline.sd is None:
        _check_proportion(mean)
        most = np.ones(mean.shape) if is_decrease else (1.0 - mean) / mean

    def power(effect: Floats) -> Floats:
        return _power(n, _gap(baseline, sign * effect, design=design), design=design)

    return _smallest(power, np.broadcast_shapes(n.shape, mean.shape), target=design.power, most=most)


def price_of_looking(baseline: Baseline, effect: ArrayLike, *, design: Design) -> Floats:
    """How many times the units of one look at the end an always-valid interval needs, at the same level and power.

    Raises:
        InvalidArgument: As ``units_per_variant``, or a design without ``n_star``.

    >>> always = Design(n_star=5_000.0)
    >>> price_of_looking(Baseline(0.10), 0.2, design=always).round(2)
    np.float64(1.98)
    """
    if design.n_star is None:
        raise InvalidArgument("n_star", "an interval that is looked at once has no price of looking")
    once = Design(design.control_share, design.variant_share, design.n_comparisons, design.power, design.level)
    needed = units_per_variant(baseline, effect, design=design)
    price: Floats = needed / units_per_variant(baseline, effect, design=once)
    return price


@dataclass(frozen=True, slots=True)
class _Gap:
    """A difference of means, with the variance of its estimate per unit of the smallest variant."""

    size: Floats
    null_variance: Floats
    variance: Floats
    is_proportion: bool


def _gap(baseline: Baseline, effect: ArrayLike, *, design: Design) -> _Gap:
    _check(design)
    mean, relative = np.broadcast_arrays(
        np.asarray(baseline.mean, dtype=np.float64), np.asarray(effect, dtype=np.float64)
    )
    if not np.isfinite(relative).all() or (relative == 0.0).any():
        raise InvalidArgument("effect", "it is 0 or not finite")
    ratio = design.control_share / design.variant_share
    if baseline.sd is not None:
        sd = _positive("sd", baseline.sd)
        if not np.isfinite(mean).all() or (mean == 0.0).any():
            raise InvalidArgument("mean", "it is 0 or not finite, so nothing can be relative to it")
        size, variance = np.broadcast_arrays(np.abs(mean * relative), sd**2 * (1.0 + 1.0 / ratio))
        return _Gap(size, variance, variance, is_proportion=False)
    _check_proportion(mean)
    treated = mean * (1.0 + relative)
    if (treated < -1e-12).any() or (treated > 1.0 + 1e-12).any():
        raise InvalidArgument("effect", "a proportion would leave the range from 0 to 1")
    treated = np.clip(treated, 0.0, 1.0)
    pooled = (ratio * mean + treated) / (ratio + 1.0)
    variance = treated * (1.0 - treated) + mean * (1.0 - mean) / ratio
    null_variance = pooled * (1.0 - pooled) * (1.0 + 1.0 / ratio)
    return _Gap(np.abs(treated - mean), null_variance, variance, is_proportion=True)


def _power(n: Floats, gap: _Gap, *, design: Design) -> Floats:
    critical = _critical(n / design.variant_share, design)
    reach, sd = critical * np.sqrt(gap.null_variance), np.sqrt(gap.variance)
    both_shares = 1.0 + design.control_share / design.variant_share
    lost = 0.5 * critical**2 / both_shares  # units that it costs a t-test to estimate the variance
    is_normal = gap.is_proportion or design.n_star is not None
    distance = gap.size * np.sqrt(n if is_normal else np.maximum(n - lost, 0.0))
    power: Floats = special.ndtr((distance - reach) / sd) + special.ndtr((-distance - reach) / sd)
    return power


def _critical(n_total: Floats, design: Design) -> Floats:
    """Standard errors from zero at which the interval excludes it, with so many units of all variants."""
    alpha = (1.0 - design.level) / design.n_comparisons
    if design.n_star is None:
        return np.asarray(special.ndtri(1.0 - alpha / 2.0))
    width: Floats = half_width(n_total, n_star=design.n_star, level=1.0 - alpha) * np.sqrt(n_total)
    return width


def _smallest(power: Callable[[Floats], Floats], shape: tuple[int, ...], *, target: float, most: ArrayLike) -> Floats:
    """Where a power that grows reaches the target; infinity if not even at ``most``."""
    end: Floats = np.broadcast_to(np.asarray(most, dtype=np.float64), shape)
    return smallest_where(lambda at: power(at) >= target, least=np.full(shape, _LEAST), most=end)


def _check(design: Design) -> None:
    shares = design.control_share, design.variant_share
    if not min(shares) > 0.0 or sum(shares) > 1.0 + 1e-9:
        raise InvalidArgument("shares", f"{shares[0]:g} and {shares[1]:g} are no shares of the units above 0")
    if design.n_comparisons < 1:
        raise InvalidArgument("n_comparisons", f"{design.n_comparisons} is less than 1")
    if not 0.5 <= design.power < 1.0:
        raise InvalidArgument("power", f"{design.power:g} is not at least 0.5 and below 1")
    if not 0.0 < design.level < 1.0:
        raise InvalidArgument("level", f"{design.level:g} is not between 0 and 1")


def _check_proportion(mean: Floats) -> None:
    if not ((mean > 0.0) & (mean < 1.0)).all():
        raise InvalidArgument("mean", "a proportion must be between 0 and 1 for its variance to be known")


def _positive(name: str, values: ArrayLike) -> Floats:
    array = np.asarray(values, dtype=np.float64)
    if not ((array > 0.0) & np.isfinite(array)).all():
        raise InvalidArgument(name, "it is not positive and finite")
    return array
