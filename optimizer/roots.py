"""Where a distribution function reaches a probability, elementwise."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy import special

from optimizer.posteriors import Posterior
from optimizer.rows import mapped

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]
Index = NDArray[np.intp]
Level = Callable[[Floats, Index], Floats]  # probabilities at some places, of the elements with these numbers

_SECANTS = 7
_STEPS = 40
_TOLERANCE = 1e-8  # of a normal score
_MOST_UNCLEAR = 0.5  # of control's squared mean: a quantile beyond that has no normal guess
CLOSE = 1e-10  # of a number: where halving ends


def centre_and_spread(pairs: Posterior, probability: float, *, relative: bool) -> tuple[Floats, Floats]:
    """Where variant minus control (or over control) lies, and how widely towards the quantile of a probability.

    Args:
        pairs: Control and variant, shape (n_pairs, 2).
        probability: In (0, 1) and not 0.5: a ratio spreads wider upwards.
        relative: Over control, not minus control.
    Source: Fieller (1954), JRSS B 16(2), for the ratio.
    """
    (control, variant), (own, other) = pairs.mean.T, pairs.sd.T
    if not relative:
        return variant - control, np.hypot(own, other)
    ratio, aim = variant / control, float(special.ndtri(probability))
    unclear = np.minimum((aim * own / control) ** 2, _MOST_UNCLEAR)
    away = np.abs(aim / control) * np.hypot(other * np.sqrt(1.0 - unclear), own * ratio)
    return ratio, (away + np.sign(aim) * ratio * unclear) / (1.0 - unclear) / abs(aim)


def is_clear(pairs: Posterior, tails: tuple[float, float]) -> Flags:
    """Whether control is so clear of zero that a ratio to it makes sense, shape (n_pairs,).

    Its mean is as many standard deviations above zero as the tails ask for, and half of the lower tail is above too.

    Args:
        pairs: Control and others, shape (n_pairs, any).
        tails: Lower and upper, of an interval.
    Source: Fieller (1954), JRSS B 16(2), for the condition.
    """
    control = mapped(pairs, lambda values: values[:, 0])
    clear = control.mean > special.ndtri(tails[1]) * control.sd
    return np.asarray(clear & (control.ppf(tails[0] / 2.0) > 0.0))


def secant_root(level: Level, probability: float, *, around: tuple[Floats, Floats]) -> tuple[Floats, Flags]:
    """Roots by secants on normal scores, each from its normal guess, and where they were reached."""
    aim = float(special.ndtri(probability))
    centre, spread = around
    usable = np.isfinite(centre) & np.isfinite(spread)
    root, reached = np.where(usable, centre + aim * spread, 0.0), np.zeros(centre.shape, dtype=np.bool_)
    moving = np.flatnonzero(usable)
    last, gap_last = centre.copy(), np.full(centre.shape, -aim)
    for _ in range(_SECANTS):
        at, before = root[moving], last[moving]
        gap = _score(level(at, moving)) - aim
        reached[moving] = np.abs(gap) <= _TOLERANCE
        rise = gap - gap_last[moving]
        step = gap * np.divide(at - before, rise, out=spread[moving], where=rise != 0.0)
        last[moving], gap_last[moving] = at, gap
        going = ~reached[moving]
        root[moving] = np.where(going, at - np.clip(step, -spread[moving], spread[moving]), at)
        moving = moving[going]
        if moving.size == 0:
            break
    return root, reached


def bracketed_root(level: Level, probability: float, *, low: Floats, high: Floats) -> Floats:
    """Roots between bounds that surely hold them (Illinois rule on normal scores)."""
    everything = np.arange(low.size)

    def gap(at: Floats) -> Floats:
        return _score(level(at, everything)) - float(special.ndtri(probability))

    low, high = low.copy(), high.copy()
    gap_low, gap_high = gap(low), gap(high)
    root, sides, found = low, np.zeros(low.shape), high <= low
    for _ in range(_STEPS):
        slope = gap_high - gap_low
        secant = (low * gap_high - high * gap_low) / np.where(slope > 0.0, slope, 1.0)
        between = np.where((secant > low) & (secant < high), secant, (low + high) / 2.0)
        root = np.where(found, root, between)
        gap_root = gap(root)
        found |= np.abs(gap_root) < _TOLERANCE
        if found.all():
            break
        side = np.sign(gap_root)
        kept = np.where(side == sides, 0.5, 1.0)  # an end that stays twice counts half
        above, sides = side > 0.0, side
        gap_low, gap_high = np.where(above, gap_low * kept, gap_root), np.where(above, gap_root, gap_high * kept)
        low, high = np.where(above, low, root), np.where(above, root, high)
    return root


def smallest_where(reached: Callable[[Floats], Flags], *, least: Floats, most: Floats) -> Floats:
    """The smallest positive number from which on something is reached, by halving on the logarithm, elementwise.

    Args:
        reached: Of some numbers, False below the one that is looked for and True above; a number is found to `CLOSE`.
        least: Where to begin, > 0; returned where it is reached there already.
        most: Where to end, the same shape; infinity is returned where it is not reached even there.
    """
    low, high = np.log(least), np.log(most)
    while (high - low > CLOSE).any():
        middle = 0.5 * (low + high)
        enough = reached(np.exp(middle))
        low, high = np.where(enough, low, middle), np.where(enough, middle, high)
    return np.where(reached(most), np.exp(high), np.inf)


def _score(level: Floats) -> Floats:
    return np.asarray(special.ndtri(np.clip(level, 1e-15, 1.0 - 1e-15)))
