"""Money as a chance to pay times the amount that is paid: posteriors that few payers can't make absurd."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from optimizer.coordinate import width
from optimizer.errors import InvalidArgument, InvalidCounts, InvalidPosterior
from optimizer.posteriors import (
    BetaPosterior,
    MeanPrior,
    StudentPosterior,
    beta_posterior,
    mean_posterior,
    weak_mean_prior,
)
from optimizer.roots import Index, Level, bracketed_root, secant_root
from optimizer.rows import chosen, mapped
from optimizer.trapezoid import LONGEST_STEP, TOLERANCE, summed, weighed

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]

# Panels run between these normal scores of the chance, and of the amount, with Gauss-Legendre nodes inside.
_SCORES = np.array([-7.5, -6.0, -4.7, -3.6, -2.6, -1.7, -0.85, 0.0, 0.85, 1.7, 2.6, 3.6, 4.7, 6.0, 7.5])
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(8)
_STEPS = 64  # over the chance, where that is enough
_AT_ONCE = 1_000  # variants: bounds the memory of one pass to some 20 MB


@dataclass(frozen=True, slots=True)
class HurdlePosterior:
    """Posteriors of outcomes per unit, each the product of an independent chance to pay and mean amount of payers.

    Attributes:
        chance: Of a unit to pay, shape (..., n_variants).
        amount: Mean amount of those who pay, in outcome units, the same shape, more than 2 degrees of freedom.
    Raises:
        InvalidPosterior: Shapes differ, or an amount has no standard deviation.

    >>> money = HurdlePosterior(
    ...     BetaPosterior(np.array([10.0]), np.array([90.0])),
    ...     StudentPosterior(np.array([50.0]), np.array([4.0]), np.array([30.0])),
    ... )
    >>> money.mean, np.array(money.interval(0.95)).round(3)
    (array([5.]), array([[2.42 ],
           [8.459]]))
    """

    chance: BetaPosterior
    amount: StudentPosterior

    def __post_init__(self) -> None:
        if self.chance.alpha.shape != self.amount.location.shape:
            raise InvalidPosterior("amount", f"shape {self.amount.location.shape} is not {self.chance.alpha.shape}")
        if (self.amount.degrees_of_freedom <= 2.0).any():
            raise InvalidPosterior("degrees_of_freedom", f"are {self.amount.degrees_of_freedom.min():g}, not above 2")

    @property
    def mean(self) -> Floats:
        """Posterior mean of each variant's outcome per unit."""
        return self.chance.mean * self.amount.mean

    @property
    def sd(self) -> Floats:
        """Posterior standard deviation of each variant's outcome per unit."""
        return sd_of_product((self.chance.mean, self.chance.sd), (self.amount.mean, self.amount.sd))

    def cdf(self, x: ArrayLike) -> Floats:
        """Probability that the outcome per unit is at most x, which broadcasts to the shape of the parameters."""
        at = np.broadcast_to(np.asarray(x, dtype=np.float64), self.mean.shape).reshape(-1)
        flat = self.mapped(lambda values: values.reshape(-1))
        found = [_Product.of(flat.chosen(part)).at_most(at[part]) for part in _parts(at.size)]
        return np.concatenate([np.zeros(0), *found]).reshape(self.mean.shape)

    def interval(self, level: float) -> tuple[Floats, Floats]:
        """Central credible interval at the stated level, as (low, high), by quadrature.

        P(p a <= t) is the mean over p of F_a(t / p). Ends are within 1e-6 standard deviations of those by adaptive
        quadrature in tests, from no payer to a billion units.

        Raises:
            InvalidArgument: A level outside (0, 1).
        """
        if not 0.0 < level < 1.0:
            raise InvalidArgument("level", f"{level} is not between 0 and 1")
        tail = (1.0 - level) / 2.0
        return self._quantile(tail), self._quantile(1.0 - tail)

    def draws(self, n_draws: int, *, rng: np.random.Generator) -> Floats:
        """Posterior draws of the outcomes per unit, shape (n_draws, ..., n_variants)."""
        shape = (n_draws, *self.mean.shape)
        chance = rng.beta(self.chance.alpha, self.chance.beta, size=shape)
        return chance * (
            self.amount.location + self.amount.scale * rng.standard_t(self.amount.degrees_of_freedom, size=shape)
        )

    def mapped(self, change: Callable[[Floats], Floats]) -> "HurdlePosterior":
        """The same posteriors with every parameter array reshaped or selected alike."""
        chance, amount = self.chance, self.amount
        return HurdlePosterior(
            BetaPosterior(change(chance.alpha), change(chance.beta)),
            StudentPosterior(change(amount.location), change(amount.scale), change(amount.degrees_of_freedom)),
        )

    def chosen(self, rows: slice | Index) -> "HurdlePosterior":
        """Some of them."""
        return self.mapped(lambda values: values[rows])

    def _quantile(self, probability: float) -> Floats:
        whole = self.mapped(lambda values: values.reshape(-1))
        mean, sd, found = whole.mean, whole.sd, np.zeros(self.mean.size)
        for part in _parts(mean.size):
            around = mean[part], sd[part]
            flat = whole.chosen(part)
            found[part], trusted = _quick_quantile(flat, probability, around=around)
            left = np.flatnonzero(~trusted)
            if left.size > 0:
                rest = around[0][left], around[1][left]
                found[part][left] = _sure_quantile(flat.chosen(left), probability, around=rest)
        return found.reshape(self.mean.shape)


def hurdle_posterior(
    n_units: ArrayLike,
    n_payers: ArrayLike,
    *,
    total: ArrayLike,
    sum_squares: ArrayLike,
    prior: MeanPrior | None = None,
) -> HurdlePosterior:
    """Posterior of money per unit from units, payers, sum and sum of squares.

    The chance to pay has a uniform prior. The amount's prior is that of `weak_mean_prior` among payers alone: centred
    on the mean of all payers given here, which is worth one payer, with their variance, which is worth ten. So a
    variant with no payer is expected to be paid what others are, with little certainty, and one with a hundred speaks
    for itself.

    Args:
        n_units: Units, >= 0, may be fractional, shape (..., n_variants).
        n_payers: Units whose outcome is not zero, the same shape. Refunds may make an outcome, or a sum, negative.
        total: Sum of the units' outcomes, the same shape.
        sum_squares: Sum of their squares, the same shape.
        prior: Of the amounts, instead of the one from all payers, with degrees of freedom above 2.
    Raises:
        InvalidCounts: Not finite, negative counts, more payers than units, or sums that contradict each other.
        InvalidPosterior: The prior leaves an amount without a standard deviation.
        NoVariation: Fewer than two payers in all, or all of the same amount: there is no scale to learn. (With one
            price for all, the chance to pay is all there is to compare.)
    Source: Cragg (1971), Econometrica 39(5), for the two parts; Gelman et al., Bayesian Data Analysis, 3rd edition,
        sections 2.4 and 3.3, for each.

    >>> money = hurdle_posterior([100, 98], [1, 0], total=[30, 0], sum_squares=[900, 0],
    ...     prior=MeanPrior(mean=40.0, weight=1.0, variance=100.0, degrees_of_freedom=10.0))
    >>> money.mean  # 2 / 102 of (40 + 30) / 2, and 1 / 100 of 40
    array([0.68627451, 0.4       ])
    """
    payers = np.asarray(n_payers, dtype=np.float64)
    shapes = [np.shape(values) for values in (n_units, total, sum_squares)]
    if any(shape != payers.shape for shape in shapes):
        raise InvalidArgument("n_payers", f"shape {payers.shape} does not fit {shapes}")
    wrong = ~(payers >= 0.0) | (payers > np.asarray(n_units))
    if wrong.any():
        raise InvalidCounts("n_payers", f"is {payers[wrong][0]:g} of {np.asarray(n_units)[wrong][0]:g} n_units")
    chance = beta_posterior(payers, n_units)
    if prior is None:
        prior = weak_mean_prior(payers, total=total, sum_squares=sum_squares, n_responders=payers)
    return HurdlePosterior(chance, mean_posterior(payers, total=total, sum_squares=sum_squares, prior=prior))


def _quick_quantile(
    money: HurdlePosterior, probability: float, *, around: tuple[Floats, Floats]
) -> tuple[Floats, Flags]:
    """Quantiles of flat posteriors by few equal steps over the chance, and those to trust, shape (n_variants,)."""
    chance, amount = (mapped(factor, lambda values: values[:, np.newaxis]) for factor in (money.chance, money.amount))
    at, weight, step = weighed(chance, _STEPS)
    error = np.full(at.shape[0], np.inf)

    def at_most(end: Floats, row: Index) -> Floats:
        level, error[row] = summed(weight[row] * chosen(amount, row).cdf(end[:, np.newaxis] / at[row]))
        return level

    end, reached = secant_root(at_most, probability, around=around)
    narrowest = np.minimum(width(chance), amount.sd / np.maximum(np.abs(amount.mean), amount.sd))
    resolved = (step <= LONGEST_STEP * narrowest)[:, 0]
    return end, reached & resolved & (error <= TOLERANCE)


def _sure_quantile(money: HurdlePosterior, probability: float, *, around: tuple[Floats, Floats]) -> Floats:
    product = _Product.of(money)
    end, reached = secant_root(product.level(), probability, around=around)
    left = np.flatnonzero(~reached)
    if left.size > 0:
        low, high = product.chosen(left).bracket(probability)
        end[left] = bracketed_root(product.chosen(left).level(), probability, low=low, high=high)
    return end


@dataclass(frozen=True, slots=True)
class _Product:
    """Some variants, flat, with the quantiles of both factors that the panels run between (n_edges, n_variants)."""

    money: HurdlePosterior
    chance_edges: Floats
    amount_edges: Floats

    @classmethod
    def of(cls, money: HurdlePosterior) -> "_Product":
        levels = special.ndtr(_SCORES)[:, np.newaxis]
        return cls(money, money.chance.ppf(levels), money.amount.ppf(levels))

    def chosen(self, index: Index) -> "_Product":
        return _Product(self.money.chosen(index), self.chance_edges[:, index], self.amount_edges[:, index])

    def level(self) -> Level:
        return lambda at, index: self.chosen(index).at_most(at)

    def at_most(self, x: Floats) -> Floats:
        """P(p a <= x): in each panel the mean of F_a(x / p) weighted by p's density, times p's mass there."""
        chance, amount = self.money.chance, self.money.amount
        lowest, highest = self.chance_edges[0], self.chance_edges[-1]
        images = np.divide(x, self.amount_edges, out=np.ones_like(self.amount_edges), where=self.amount_edges != 0.0)
        edges = np.sort(np.concatenate([self.chance_edges, np.clip(images, lowest, highest)]), axis=0)
        half = np.diff(edges, axis=0) / 2.0
        nodes = edges[:-1] + half + np.multiply.outer(_NODES, half)
        part = np.multiply.outer(_WEIGHTS, half) * chance.pdf(nodes)
        inside, whole = (part * amount.cdf(x / nodes)).sum(axis=0), part.sum(axis=0)
        mean = np.divide(inside, whole, out=np.zeros_like(inside), where=whole > 0.0)
        mass = np.diff(chance.cdf(edges), axis=0)
        below: Floats = (mass * mean).sum(axis=0) / mass.sum(axis=0)
        return below

    def bracket(self, probability: float) -> tuple[Floats, Floats]:
        """Bounds that surely hold the quantile, by the union bound on quantiles of both factors."""
        below, above = probability / 2.0, (1.0 - probability) / 2.0
        chance, amount = self.money.chance, self.money.amount
        least, most = amount.ppf(below), amount.ppf(1.0 - above)
        low = least * np.where(least > 0.0, chance.ppf(below), chance.ppf(1.0 - below))
        return low, most * np.where(most > 0.0, chance.ppf(1.0 - above), chance.ppf(above))


def sd_of_product(first: tuple[Floats, Floats], second: tuple[Floats, Floats]) -> Floats:
    """Standard deviation of the product of two independent quantities, each given by its mean and its own.

    >>> sd_of_product((np.array(3.0), np.array(1.0)), (np.array(2.0), np.array(1.0))).item() ** 2  # 10 * 5 - 36
    14.0
    """
    (mean, sd), (other_mean, other_sd) = first, second
    spread: Floats = np.sqrt((sd * other_sd) ** 2 + (sd * other_mean) ** 2 + (mean * other_sd) ** 2)
    return spread


def _parts(size: int) -> list[slice]:
    return [slice(start, start + _AT_ONCE) for start in range(0, size, _AT_ONCE)]
