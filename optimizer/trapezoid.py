"""The quick way to compare variants with control: the trapezoidal rule, which says by itself where it can't be trusted.

An integrand that is smooth and fades at both ends is integrated by equal steps with an error that falls like
exp(-(width / step)^2). Rates are taken over their log odds, where posteriors fade at both ends. A row is trusted
where no posterior is narrower than a step, and the changes from every fourth node to every second and to all shrink so
fast that the next one would be next to nothing. A shifted rate has a kink where it meets 0 or 1, which such changes can
miss by chance, so shifts are left to others where the count on that side is small.

Source: Trefethen & Weideman (2014), "The exponentially convergent trapezoidal rule", SIAM Review 56(3).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from optimizer.coordinate import bounds, density, outcome, width
from optimizer.posteriors import Posterior, StudentPosterior
from optimizer.roots import centre_and_spread, is_clear, secant_root
from optimizer.rows import chosen, mapped
from optimizer.score_curve import ScoreCurve

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]
Index = NDArray[np.intp]

EFFORTS = (32, 96)  # steps: few for all rows, more for those that fail
LEAST_TAIL = 1e-3  # of an interval: further out, the mass beyond the range would matter

LONGEST_STEP = 1.2  # standard deviations of the narrowest posterior
TOLERANCE = 1e-8  # of a probability

_SMOOTH = 8.0  # least count of a rate whose F is smooth at 0 and 1: it starts as that power


@dataclass(frozen=True, slots=True)
class _Beside:
    """A variant beside control, pair by pair, with control's nodes.

    Attributes:
        variant: Posteriors, shape (n_pairs, 1).
        at: Control's outcomes at the nodes, shape (n_pairs, n_nodes).
        weight: Their probabilities, which sum to 1, the same shape.
        resolved: Pairs with short enough steps, shape (n_pairs,).
    """

    variant: Posterior
    at: Floats
    weight: Floats
    resolved: Flags

    @classmethod
    def of(cls, pairs: Posterior, n_steps: int) -> "_Beside":
        """Pairs of (control, variant), shape (n_pairs, 2); so many steps over control's range."""
        control, variant = mapped(pairs, lambda values: values[:, :1]), mapped(pairs, lambda values: values[:, 1:])
        first, of = _runs(control)
        at, weight, step = weighed(chosen(control, first), n_steps)
        resolved = ((step[of] <= LONGEST_STEP * width(pairs)) & np.isfinite(pairs.sd)).all(axis=1)
        return cls(variant, at[of], weight[of], np.asarray(resolved))


def against_control(pairs: Posterior, n_steps: int, *, at: tuple[float, float]) -> tuple[Floats, Flags]:
    """What `panels.against_control` gives, and the pairs to trust, shape (n_pairs,)."""
    beside = _Beside.of(pairs, n_steps)
    curve = ScoreCurve.of(beside.variant)
    answers = np.full((len(pairs.mean), 5), np.nan)
    answers[:, 0], error = summed(beside.weight * curve.cdf(beside.at, np.arange(len(answers))))
    trusted = beside.resolved & _smooth(beside.variant) & curve.trusted & (error <= TOLERANCE)
    answers[:, 1:3], reached = _ends(beside, curve, pairs=pairs, at=at, relative=False)
    clear = np.flatnonzero(is_clear(pairs, at))
    among = _Beside(chosen(beside.variant, clear), beside.at[clear], beside.weight[clear], beside.resolved[clear])
    answers[clear, 3:], reached_too = _ends(
        among, curve.chosen(clear), pairs=chosen(pairs, clear), at=at, relative=True
    )
    reached[clear] &= reached_too
    return answers, trusted & reached


def _ends(
    beside: _Beside, curve: ScoreCurve, *, pairs: Posterior, at: tuple[float, float], relative: bool
) -> tuple[Floats, Flags]:
    """Quantiles of variant minus control, or over control, shape (n_pairs, 2), and where they were reached."""
    reached, found = np.ones(len(pairs.mean), dtype=np.bool_), []
    for tail in at:
        error = np.full(reached.shape, np.inf)

        def at_most(end: Floats, pair: Index, *, error: Floats = error) -> Floats:
            control, end = beside.at[pair], end[:, np.newaxis]
            outcomes = end * control if relative else end + control
            level, error[pair] = summed(beside.weight[pair] * curve.cdf(outcomes, pair))
            return level

        end, is_root = secant_root(at_most, tail, around=centre_and_spread(pairs, tail, relative=relative))
        reached &= is_root & (error <= TOLERANCE)
        found.append(end)
    return np.stack(found, axis=-1), reached


def _runs(rows: Posterior) -> tuple[Index, Index]:
    """Where runs of equal rows start, and the run of each row: a control is that of several pairs."""
    is_first = np.ones(len(rows.mean), dtype=np.bool_)
    is_first[1:] = False
    for name in rows.__dataclass_fields__:
        values = getattr(rows, name)
        is_first[1:] |= (values[1:] != values[:-1]).any(axis=1)
    return np.flatnonzero(is_first), np.cumsum(is_first) - 1


def _smooth(variant: Posterior) -> Flags:
    if isinstance(variant, StudentPosterior):
        return np.ones(len(variant.mean), dtype=np.bool_)
    return np.asarray((np.minimum(variant.alpha, variant.beta) >= _SMOOTH)[:, 0])


def weighed(rows: Posterior, n_steps: int) -> tuple[Floats, Floats, Floats]:
    """Outcomes at so many equal steps over nearly all mass, with their probabilities, and the step.

    Args:
        rows: Posteriors, shape (n_rows, 1).
        n_steps: A multiple of 4.
    Returns:
        Outcomes and probabilities of shape (n_rows, n_steps + 1); steps of the coordinate, (n_rows, 1).
    """
    low, high = bounds(rows)
    step = (high - low) / n_steps
    nodes = low + step * np.arange(n_steps + 1.0)
    mass = density(rows, nodes)
    return outcome(rows, nodes), mass / mass.sum(axis=-1, keepdims=True), step


def summed(part: Floats) -> tuple[Floats, Floats]:
    """Sums over the nodes, and bounds of their errors: the last change, times how much changes shrink."""
    whole, half, quarter = part.sum(axis=-1), 2.0 * part[:, ::2].sum(axis=-1), 4.0 * part[:, ::4].sum(axis=-1)
    change, change_before = np.abs(whole - half), np.abs(half - quarter)
    return whole, change * np.minimum(1.0, change / np.maximum(change_before, 1e-300))
