"""The quick way to compare variants: the trapezoidal rule, which says by itself where it can't be trusted.

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
from scipy import special

from optimizer.posteriors import BetaPosterior, Posterior, StudentPosterior
from optimizer.roots import centre_and_spread, secant_root
from optimizer.rows import chosen, mapped

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]
Index = NDArray[np.intp]

EFFORTS = (32, 96)  # steps: few for all rows, more for those that fail
LEAST_TAIL = 1e-3  # of an interval: further out, the mass beyond the range would matter

_OUTSIDE = 1e-10  # mass beyond each end of the range
_LONGEST_STEP = 1.2  # standard deviations of the narrowest posterior
_SMOOTH = 8.0  # least count of a rate whose F is smooth at 0 and 1: it starts as that power
_TOLERANCE = 1e-8  # of a probability, and of a loss in units of the widest standard deviation


@dataclass(frozen=True, slots=True)
class Beside:
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
    def of(cls, pairs: Posterior, n_steps: int) -> "Beside":
        """Pairs of (control, variant), shape (n_pairs, 2); so many steps over control's range."""
        control, variant = mapped(pairs, lambda values: values[:, :1]), mapped(pairs, lambda values: values[:, 1:])
        first, of = _runs(control)
        control = chosen(control, first)
        low, high = _range(control)
        nodes, step = _nodes(low, high, n_steps=n_steps)
        density = _density(control, nodes)
        weight = density / density.sum(axis=-1, keepdims=True)
        return cls(variant, _outcome(control, nodes)[of], weight[of], _resolved(pairs, step[of]))

    def probability_at_most(self, shift: Floats, *, factor: Floats, pair: Index | None = None) -> tuple[Floats, Floats]:
        """P(variant <= shift + factor * control) of some pairs, and a bound of its error."""
        at, weight, variant = self.at, self.weight, self.variant
        if pair is not None:
            at, weight, variant = at[pair], weight[pair], chosen(variant, pair)
        return _summed(weight * variant.cdf(shift[:, np.newaxis] + factor[:, np.newaxis] * at))


def at_most_control(pairs: Posterior, n_steps: int) -> tuple[Floats, Flags]:
    """P(variant <= control), shape (n_pairs,), and the pairs to trust."""
    beside = Beside.of(pairs, n_steps)
    ones = np.ones(len(pairs.mean))
    at_most, error = beside.probability_at_most(0.0 * ones, factor=ones)
    return at_most, beside.resolved & (error <= _TOLERANCE)


def ends(pairs: Posterior, n_steps: int, *, tails: tuple[float, float], relative: bool) -> tuple[Floats, Flags]:
    """Quantiles of variant minus control, or over control, shape (n_pairs, 2), and the pairs to trust.

    For the ratio, control must be clear of zero.
    """
    beside = Beside.of(pairs, n_steps)
    trusted, found = beside.resolved & _smooth(beside.variant), []
    for tail in tails:
        error = np.full(trusted.shape, np.inf)

        def at_most(end: Floats, pair: Index, *, error: Floats = error) -> Floats:
            shift, factor = (np.zeros(end.shape), end) if relative else (end, np.ones(end.shape))
            level, error[pair] = beside.probability_at_most(shift, factor=factor, pair=pair)
            return level

        end, reached = secant_root(at_most, tail, around=centre_and_spread(pairs, tail, relative=relative))
        trusted = trusted & reached & (error <= _TOLERANCE)
        found.append(end)
    return np.stack(found, axis=-1), trusted


def loss(rows: Posterior, n_steps: int) -> tuple[Floats, Flags]:
    """Mean outcome given up by shipping each variant instead of the highest, and the rows to trust.

    That of the variant with the highest mean is the integral of its F (1 - the product of the others' F); another's is
    more by the difference of the means.
    """
    best = rows.mean.argmax(axis=1)[:, np.newaxis]
    low, high = _range(rows)
    nodes, step = _nodes(np.take_along_axis(low, best, axis=1), high.max(axis=1, keepdims=True), n_steps=n_steps)
    below = mapped(rows, lambda values: values[..., np.newaxis]).cdf(_outcome(rows, nodes)[:, np.newaxis])
    own = np.take_along_axis(below, best[..., np.newaxis], axis=1)
    np.put_along_axis(below, best[..., np.newaxis], values=1.0, axis=1)
    part = (own[:, 0] * (1.0 - below.prod(axis=1)) * _stretch(rows, nodes)) * step
    least, error = _summed(part)
    lost = least[:, np.newaxis] + np.take_along_axis(rows.mean, best, axis=1) - rows.mean
    trusted: Flags = _resolved(rows, step) & (error <= _TOLERANCE * rows.sd.max(axis=1))
    return lost, trusted


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


def _summed(part: Floats) -> tuple[Floats, Floats]:
    """Sums over the nodes, and bounds of their errors: the last change, times how much changes shrink."""
    whole, half, quarter = part.sum(axis=-1), 2.0 * part[:, ::2].sum(axis=-1), 4.0 * part[:, ::4].sum(axis=-1)
    change, change_before = np.abs(whole - half), np.abs(half - quarter)
    return whole, change * np.minimum(1.0, change / np.maximum(change_before, 1e-300))


def _range(rows: Posterior) -> tuple[Floats, Floats]:
    """Where nearly all mass lies: log odds of a rate, a mean itself."""
    if isinstance(rows, StudentPosterior):
        low = rows.ppf(_OUTSIDE)
        return low, 2.0 * rows.location - low
    return _log_odds(rows), -_log_odds(BetaPosterior(rows.beta, rows.alpha))


def _log_odds(rates: BetaPosterior) -> Floats:
    low: Floats = special.logit(np.maximum(rates.ppf(_OUTSIDE), 1e-300))
    return low


def _nodes(low: Floats, high: Floats, *, n_steps: int) -> tuple[Floats, Floats]:
    """Nodes (n_rows, n_steps + 1) and their step (n_rows, 1)."""
    step = (high - low) / n_steps
    return low + step * np.arange(n_steps + 1.0), step


def _resolved(rows: Posterior, step: Floats) -> Flags:
    width = np.sqrt(1.0 / rows.alpha + 1.0 / rows.beta) if isinstance(rows, BetaPosterior) else rows.scale
    return np.asarray(((step <= _LONGEST_STEP * width) & np.isfinite(rows.sd)).all(axis=1))


def _outcome(rows: Posterior, nodes: Floats) -> Floats:
    return np.asarray(special.expit(nodes)) if isinstance(rows, BetaPosterior) else nodes


def _stretch(rows: Posterior, nodes: Floats) -> Floats:
    """How much outcome there is to one step of the coordinate."""
    if isinstance(rows, StudentPosterior):
        return np.ones(nodes.shape)
    stretch: Floats = special.expit(nodes) * special.expit(-nodes)
    return stretch


def _density(posterior: Posterior, nodes: Floats) -> Floats:
    """Density in the coordinate, up to a factor: x (1 - x) times that of a Beta is a Beta with both counts 1 higher."""
    if isinstance(posterior, StudentPosterior):
        return posterior.pdf(nodes)
    return BetaPosterior(posterior.alpha + 1.0, posterior.beta + 1.0).pdf(special.expit(nodes))
