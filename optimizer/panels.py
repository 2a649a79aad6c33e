"""The sure way to compare variants: panels between every posterior's own quantiles, and a bracketed root.

Source: Evans & Swartz (2000), Approximating Integrals via Monte Carlo and Deterministic Methods, for the rules.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special

from optimizer.coordinate import cdf, density, tails
from optimizer.posteriors import Posterior
from optimizer.roots import Level, bracketed_root, centre_and_spread, is_clear, secant_root
from optimizer.rows import chosen, mapped

Floats = NDArray[np.float64]
Index = NDArray[np.intp]

# Panels run between these normal scores of every posterior involved, with Gauss-Legendre nodes inside.
_SCORES = np.array([-7.5, -6.0, -4.7, -3.6, -2.6, -1.7, -0.85, 0.0, 0.85, 1.7, 2.6, 3.6, 4.7, 6.0, 7.5])
_LEVELS = special.ndtr(_SCORES)
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(6)

# The probability of being the best is integrated over the coordinate, between these quantiles and their mirror images.
_BEST_TAILS = np.array([1e-10, 1e-8, 1e-6, 1e-5, 1e-4, 1e-3, 0.01, 0.1, 0.5])
_BEST_NODES, _BEST_WEIGHTS = np.polynomial.legendre.leggauss(16)
_CELLS_AT_ONCE = 300_000  # small enough for the processor's cache


@dataclass(frozen=True, slots=True)
class _Beside:
    """A variant beside control, pair by pair, with the quantiles that the panels run between.

    Attributes:
        control: Posteriors, shape (n_pairs,).
        variant: The same.
        control_edges: Shape (n_edges, n_pairs).
        variant_edges: The same.
    """

    control: Posterior
    variant: Posterior
    control_edges: Floats
    variant_edges: Floats

    @classmethod
    def of(cls, pairs: Posterior) -> "_Beside":
        control, variant = mapped(pairs, lambda values: values[:, 0]), mapped(pairs, lambda values: values[:, 1])
        edges = pairs.ppf(_LEVELS[:, np.newaxis, np.newaxis])
        return cls(control, variant, edges[..., 0], edges[..., 1])

    def at(self, pair: Index) -> "_Beside":
        edges = self.control_edges[:, pair], self.variant_edges[:, pair]
        return _Beside(chosen(self.control, pair), chosen(self.variant, pair), *edges)

    def probability_at_most(self, shift: Floats | float, *, factor: Floats | float) -> Floats:
        """P(variant <= shift + factor * control), the mean over control of the variant's F."""
        slope = np.where(np.equal(factor, 0.0), 1e-300, factor)
        lowest, highest = self.control_edges[0], self.control_edges[-1]
        images = np.clip((self.variant_edges - shift) / slope, lowest, highest)
        edges = np.sort(np.concatenate([self.control_edges, images]), axis=0)
        at, weight = _panels(edges)
        density = self.control.pdf(at)
        part = weight * np.where(np.isfinite(density), density, 0.0)  # a node may round to a pole at 0 or 1
        inside = (part * self.variant.cdf(shift + slope * at)).sum(axis=0)
        mean = np.divide(inside, part.sum(axis=0), out=np.zeros_like(inside), where=inside > 0.0)
        mass = np.diff(self.control.cdf(edges), axis=0)
        below: Floats = (mass * mean).sum(axis=0) / mass.sum(axis=0)
        return below

    def bracket(self, tail: float, *, relative: bool) -> tuple[Floats, Floats]:
        """Bounds that surely hold the quantile, by the union bound on quantiles of both."""
        below, above = tail / 2.0, (1.0 - tail) / 2.0
        low, high = self.variant.ppf(below), self.variant.ppf(1.0 - above)
        if not relative:
            return low - self.control.ppf(1.0 - below), high - self.control.ppf(above)
        least = low / self.control.ppf(np.where(low > 0.0, 1.0 - below, below))
        most = high / self.control.ppf(np.where(high > 0.0, above, 1.0 - above))
        return least, most


def against_control(pairs: Posterior, *, at: tuple[float, float]) -> Floats:
    """P(variant <= control); both quantiles of variant minus control, and of variant over control.

    Args:
        pairs: Control and variant, shape (n_pairs, 2).
        at: The quantiles' probabilities, lower and upper.
    Returns:
        Shape (n_pairs, 5), the last two NaN where control is not clear of zero.
    """
    answers = np.full((len(pairs.mean), 5), np.nan)
    answers[:, 0] = _Beside.of(pairs).probability_at_most(0.0, factor=1.0)
    answers[:, 1:3] = _ends(pairs, at=at, relative=False)
    clear = np.flatnonzero(is_clear(pairs, at))
    answers[clear, 3:] = _ends(chosen(pairs, clear), at=at, relative=True)
    return answers


def _ends(pairs: Posterior, *, at: tuple[float, float], relative: bool) -> Floats:
    """Quantiles of variant minus control, or over control if that is clear of zero, shape (n_pairs, 2)."""
    beside, found = _Beside.of(pairs), []
    for tail in at:
        end, reached = secant_root(
            _level(beside, relative=relative), tail, around=centre_and_spread(pairs, tail, relative=relative)
        )
        left = np.flatnonzero(~reached)
        if left.size > 0:
            low, high = beside.at(left).bracket(tail, relative=relative)
            end[left] = bracketed_root(_level(beside.at(left), relative=relative), tail, low=low, high=high)
        found.append(end)
    return np.stack(found, axis=-1)


def _level(beside: _Beside, *, relative: bool) -> Level:
    def at_most(end: Floats, pair: Index) -> Floats:
        shift, factor = (0.0, end) if relative else (end, 1.0)
        return beside.at(pair).probability_at_most(shift, factor=factor)

    return at_most


def best_and_loss(rows: Posterior) -> Floats:
    """P(variant is the highest), and the mean outcome given up by shipping it, shape (n_rows, n_variants, 2)."""
    return np.stack([best(rows), _loss(rows)], axis=-1)


def best(rows: Posterior) -> Floats:
    """P(variant is the highest), shape (n_rows, n_variants): the integral of its density times the others' F."""
    n_rows, n_variants = rows.mean.shape
    row, low, high = _spans(rows)
    won = np.zeros((n_rows, n_variants))
    step = max(1, _CELLS_AT_ONCE // (_BEST_NODES.size * n_variants))
    for start in range(0, row.size, step):
        part = slice(start, start + step)
        half = (high[part, np.newaxis] - low[part, np.newaxis]) / 2.0
        at = (low[part, np.newaxis] + half * (1.0 + _BEST_NODES))[:, np.newaxis]
        each = _over_nodes(chosen(rows, row[part]))
        below = cdf(each, at)  # at least the least tail: it can be divided by
        winning = density(each, at) / below * below.prod(axis=1, keepdims=True)
        np.add.at(won, row[part], (winning * (half * _BEST_WEIGHTS)[:, np.newaxis]).sum(axis=2))
    return won


def _spans(rows: Posterior) -> tuple[Index, Floats, Floats]:
    """The row and both ends of every panel of the coordinate, from where something can win, shape (n_panels,)."""
    lower, upper = tails(_over_nodes(rows), _BEST_TAILS)
    low, high = lower[..., 0].max(axis=1, keepdims=True), upper[..., 0].max(axis=1, keepdims=True)
    edges = np.concatenate([lower, upper], axis=2).reshape(len(low), 2 * lower[0].size)
    edges = np.sort(np.clip(edges, low, high), axis=1)
    row, first = np.nonzero(np.diff(edges, axis=1) > 0.0)
    return row, edges[row, first], edges[row, first + 1]


def _over_nodes(rows: Posterior) -> Posterior:
    return mapped(rows, lambda values: values[..., np.newaxis])


def _loss(posterior: Posterior) -> Floats:
    edges = posterior.ppf(_LEVELS[:, np.newaxis, np.newaxis])
    at, weight = _panels(np.sort(np.concatenate(list(np.moveaxis(edges, -1, 0))), axis=0))
    worse = posterior.cdf(at[..., np.newaxis])
    ones = np.ones_like(worse[..., :1])
    before = np.cumprod(np.concatenate([ones, worse[..., :-1]], axis=-1), axis=-1)
    after = np.cumprod(np.concatenate([ones, worse[..., :0:-1]], axis=-1), axis=-1)[..., ::-1]
    lost: Floats = np.einsum("nps,npsk->sk", weight, worse * (1.0 - before * after))
    return lost


def _panels(edges: Floats) -> tuple[Floats, Floats]:
    """Gauss-Legendre nodes and weights between neighbouring sorted edges, shape (n_nodes, n_panels, ...)."""
    half = np.diff(edges, axis=0) / 2.0
    return edges[:-1] + half + np.multiply.outer(_NODES, half), np.multiply.outer(_WEIGHTS, half)
