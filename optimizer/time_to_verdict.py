"""How many more units a running experiment needs until it says something, if what it shows now is true."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from optimizer.errors import InvalidArgument
from optimizer.roots import CLOSE, smallest_where
from optimizer.sequential import SMALLEST_RESPONDERS, always_valid_p_value
from optimizer.shared_control import sceptical_effects

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]

_MOST = 1e15  # units; what needs more than that is never reached


@dataclass(frozen=True, slots=True)
class UnitsAhead:
    """Units of all variants still to come; time is that over the traffic.

    Attributes:
        more: Whole numbers, 0 where it is reached already, infinity where it never is (or is not estimable).
        estimable: False where there is no estimate to go on.
        reason: Why the others are not estimable, in words.
    """

    more: Floats
    estimable: Flags
    reason: str


def units_until_clear(
    difference: ArrayLike,
    standard_error: ArrayLike,
    *,
    n_units: ArrayLike,
    n_star: float,
    level: float = 0.95,
    p_value: ArrayLike | None = None,
    unit_sd_ahead: ArrayLike | None = None,
    n_responders: ArrayLike | None = None,
    least_responders: float = SMALLEST_RESPONDERS,
) -> UnitsAhead:
    """Until the always-valid interval excludes zero, if the difference stays as it is estimated.

    A true effect of that size is clear after about so many in the median; chance moves it either way. An estimate
    that was chosen because it is large will take longer.

    Args:
        difference: Estimated differences from control, NaN where there is none, any shape (as a Contrast's).
        standard_error: Of these, the same shape.
        n_units: Units of all variants that they rest on, the same shape (as a Contrast's).
        n_star: Units at which the interval is tightest.
        level: Of the interval.
        p_value: The always-valid one to fall below, where more than the level's is asked for, broadcasts.
        unit_sd_ahead: Standard deviation of the score of a unit to come, > 0, broadcasts, if weights will differ from
            what they were: about sqrt(variance_k / p_k + variance_control / p_control). Units to come are then weighed
            against earlier ones as by `adaptive_contrast`. Default: as so far, standard_error x sqrt(n_units).
        n_responders: (Effective) responders of the scarcer of the two, broadcasts: the interval waits for enough.
        least_responders: How many it waits for.
    Raises:
        InvalidArgument: Shapes that do not fit, negative units, errors or responders, n_star under 1, or a level
            outside (0, 1).
    Source: `optimizer.sequential.always_valid_p_value`, solved for the units by halving.

    >>> units_until_clear(0.1063756, 0.1, n_units=100, n_star=5000).more  # the half width at 1,000 units is .1063755
    array(900.)
    """
    gap, error, n = np.broadcast_arrays(
        *(np.asarray(x, dtype=np.float64) for x in (difference, standard_error, n_units))
    )
    _not_negative(standard_error=error, n_units=n)
    estimable = np.isfinite(gap) & np.isfinite(error) & (error > 0.0) & (n >= 1.0)
    size, units = np.where(estimable, np.abs(gap), 0.0), np.where(estimable, n, 1.0)
    unit_sd = np.where(estimable, error, 1.0) * np.sqrt(units)
    sd_ahead = unit_sd if unit_sd_ahead is None else np.asarray(unit_sd_ahead, dtype=np.float64)
    if not (np.isfinite(sd_ahead) & (sd_ahead > 0.0)).all():
        raise InvalidArgument("unit_sd_ahead", "it is not positive and finite everywhere")

    asked = 1.0 - level if p_value is None else np.asarray(p_value, dtype=np.float64)

    def is_clear(more: Floats) -> Flags:
        later = units + more
        z = size * (units / unit_sd + more / sd_ahead) / np.sqrt(later)
        clear: Flags = always_valid_p_value(z, later, n_star=n_star, level=level) < asked
        return clear

    more = _whole(is_clear, estimable)
    if n_responders is not None:
        more = np.maximum(more, _until_enough(n_responders, units, least=least_responders))
    return UnitsAhead(np.where(estimable, more, np.inf), estimable, "there is no difference that varies yet")


def units_until_alike(
    effect: ArrayLike,
    variance: ArrayLike,
    *,
    control_variance: ArrayLike,
    control_index: int,
    n_units: ArrayLike,
    prior_sd: ArrayLike,
    smallest_effect: float,
    sure: float = 0.95,
    available: ArrayLike = True,
) -> UnitsAhead:
    """Until all variants surely differ from control by less than matters, if effects stay as they are estimated.

    Args:
        effect: Estimated relative effects, NaN where there is none, shape (..., n_variants).
        variance: Their sampling variances, the same shape.
        control_variance: The part of these that is control's own, shape (...).
        control_index: Which variant is the control.
        n_units: Units of all variants so far, >= 1, shape (...).
        prior_sd: Of the sceptical prior, as `sceptical_effects` takes it.
        smallest_effect: Relative size worth having, > 0.
        sure: Posterior probability to be reached by every available variant, in (0, 1).
        available: Variants that count, broadcasts to (..., n_variants).
    Returns:
        Shape (...). Infinity where an available variant's effect is as large as the smallest worth having.
    Raises:
        InvalidArgument: As `sceptical_effects`, or units, smallest effect or probability out of their range.
    Source: `optimizer.shared_control.sceptical_effects`, with variances that fall as 1 / units.

    >>> units_until_alike([0.0, 0.001], [0.0, 4e-4], control_variance=2e-4, control_index=0, n_units=10_000,
    ...     prior_sd=0.05, smallest_effect=0.01).more
    array(148034.)
    """
    effects, variances = np.asarray(effect, dtype=np.float64), np.asarray(variance, dtype=np.float64)
    common, units = np.asarray(control_variance, dtype=np.float64), np.asarray(n_units, dtype=np.float64)
    if units.shape != effects.shape[:-1] or not (np.isfinite(units) & (units >= 1.0)).all():
        raise InvalidArgument("n_units", f"shape {units.shape} is not {effects.shape[:-1]}, or less than 1 somewhere")
    if not smallest_effect > 0.0:
        raise InvalidArgument("smallest_effect", f"{smallest_effect} is not above 0")
    if not 0.0 < sure < 1.0:
        raise InvalidArgument("sure", f"{sure} is not between 0 and 1")
    counts = np.broadcast_to(np.asarray(available, dtype=np.bool_), effects.shape).copy()
    counts[..., control_index] = False
    known = np.isfinite(effects) & np.isfinite(variances)

    def are_alike(more: Floats) -> Flags:
        shrunk = units / (units + more)
        posterior = sceptical_effects(
            effects,
            variances * shrunk[..., np.newaxis],
            control_variance=common * shrunk,
            control_index=control_index,
            prior_sd=prior_sd,
        )
        alike = (posterior.probability_within(smallest_effect) >= sure) | ~counts
        return np.asarray(alike.all(axis=-1))

    estimable = np.asarray((known | ~counts).all(axis=-1) & counts.any(axis=-1))
    return UnitsAhead(_whole(are_alike, estimable), estimable, "an available variant has no effect that varies yet")


def _whole(reached: Callable[[Floats], Flags], estimable: Flags) -> Floats:
    """The smallest whole number at which it is reached: 0 where it is now, infinity where it never is."""
    shape = estimable.shape
    found = smallest_where(reached, least=np.full(shape, 0.5), most=np.full(shape, _MOST))
    more = np.where(reached(np.zeros(shape)), 0.0, np.ceil(found * (1.0 - 2.0 * CLOSE)))
    return np.where(estimable, more, np.inf)


def _until_enough(n_responders: ArrayLike, units: Floats, *, least: float) -> Floats:
    responders = np.asarray(n_responders, dtype=np.float64)
    if not (responders >= 0.0).all():
        raise InvalidArgument("n_responders", "it is negative or not a number somewhere")
    with np.errstate(divide="ignore"):
        return np.ceil(np.maximum(units * (least / responders - 1.0), 0.0))


def _not_negative(**arrays: Floats) -> None:
    for name, values in arrays.items():
        if (values < 0.0).any():
            raise InvalidArgument(name, "it is negative somewhere")
