"""Policies: by a model's gains under a budget, as a tree, and the simple ones that targeting has to beat."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
from numpy.typing import NDArray

from optimizer.errors import InvalidArgument
from optimizer.uplift.policy_tree import Node, choices, fit_policy_tree, leaf_of, leaves, with_choices

Floats = NDArray[np.float64]
Index = NDArray[np.intp]
Flags = NDArray[np.bool_]

FEWEST_UNITS = 100  # of a leaf, and of a variant in a segment that is to have a winner of its own
LEAF_SHARE = 0.01  # of all units, at least
SEARCHED = 50_000  # units, up to twice as many: so many say where a tree splits


@dataclass(frozen=True, slots=True)
class Purse:
    """Choosing by predicted gains, each unit of cost having to bring ``price`` units of value beside itself.

    Attributes:
        spend: Cost of a decision over control's, by variant, shape (n_variants,).
        price: 0 where no budget binds.
    """

    spend: Floats
    price: float

    @classmethod
    def of(cls, gain: Floats, cost: Floats, *, budget: float | None) -> Self:
        """The smallest price at which choices keep to a budget on average: the fractional knapsack's.

        Args:
            gain: Predicted net value over control, of units like those to come, shape (n_units, n_variants).
            cost: Of a decision, by variant.
            budget: Mean cost of a decision over control's; None: no limit.
        Raises:
            InvalidArgument: Nothing keeps to it.
        """
        spend = cost - cost[0]
        if budget is None or cls(spend, 0.0).spent(gain) <= budget:
            return cls(spend, 0.0)
        if budget < min(0.0, float(spend.min())):
            raise InvalidArgument("budget", f"is {budget:g}: even the cheapest variant for all costs more")
        return cls(spend, _price(lambda price: cls(spend, price).spent(gain), budget=budget, first=1.0, n_steps=60))

    def net(self, gain: Floats) -> Floats:
        """Gains less what their costs must bring."""
        return np.asarray(gain - self.price * self.spend, dtype=np.float64)

    def choose(self, gain: Floats) -> Index:
        """The variant of each unit; of equals the first, control before all."""
        return np.asarray(self.net(gain).argmax(axis=1), dtype=np.intp)

    def spent(self, gain: Floats) -> float:
        """The mean cost of what is chosen, over control's."""
        return float(self.spend[self.choose(gain)].mean())


def policy_tree(
    x: Floats, gain: Floats, *, purse: Purse, budget: float | None, depth: int, categorical: tuple[int, ...]
) -> Node:
    """A model's choice as a shallow tree: of all trees tried, the one whose leaves' choices are predicted to gain most.

    It is grown on some of the units where there are many: time goes with the square of the number of attributes.
    Under a budget it has a price of its own, since a leaf spends on all of its units or on none: the smallest at which
    it keeps to it.

    Args:
        x: Attributes.
        gain: Predicted net value over control, shape (n_units, n_variants).
        purse: Of these gains.
        budget: As of ``Purse.of``.
        depth: Splits from root to leaf, at most.
        categorical: Columns of codes.
    """
    every = max(1, len(x) // SEARCHED)
    some, some_gain = x[::every], gain[::every]
    fewest = max(FEWEST_UNITS, int(LEAF_SHARE * len(some)))

    def grown(price: float) -> Node:
        net = replace(purse, price=price).net(some_gain)
        return fit_policy_tree(some, net, depth=depth, min_units=fewest, categorical=categorical)

    def spent(price: float) -> float:
        return float(purse.spend[choices(grown(price), some)].mean())

    if budget is None:
        return grown(0.0)
    price = 0.0
    if spent(price) > budget:
        first = purse.price or float(np.abs(gain).mean() / np.abs(purse.spend).max())
        price = _price(spent, budget=budget, first=first, n_steps=10)
    return _kept_to(budget, grown(price), purse=purse, x=x, gain=gain)


def _kept_to(budget: float, tree: Node, *, purse: Purse, x: Floats, gain: Floats) -> Node:
    """A tree that spends more than a budget chooses anew in its leaves; any other stays."""
    leaf = leaf_of(tree, x)
    chosen = np.array([one.choice for one in leaves(tree)])
    if purse.spend[chosen[leaf]].mean() <= budget:
        return tree
    n_units = np.bincount(leaf)[:, np.newaxis]
    mean = np.column_stack([np.bincount(leaf, weights=column) for column in gain.T]) / n_units
    return with_choices(tree, Purse.of(mean[leaf], purse.spend, budget=budget).choose(mean).tolist())


def _price(spent: Callable[[float], float], *, budget: float, first: float, n_steps: int) -> float:
    """The smallest price at which what is spent keeps to a budget, where at none it does not: by halving."""
    low, high = 0.0, first
    while spent(high) > budget and high < 1e12:
        low, high = high, 2.0 * high
    for _ in range(n_steps):
        middle = (low + high) / 2.0
        low, high = (middle, high) if spent(middle) > budget else (low, middle)
    return high


def affordable(cost: Floats, *, budget: float | None) -> Flags:
    """Which variants all units could get within a budget, shape (n_variants,); arguments as of ``Purse.of``."""
    return np.ones(cost.size, dtype=np.bool_) if budget is None else cost - cost[0] <= budget


def segment_winners(
    worth: Floats,
    variant: Index,
    *,
    propensities: Floats,
    cost: Floats,
    segment: Index,
    budget: float | None = None,
) -> tuple[dict[int, int], int]:
    """The variant with the highest propensity-weighted net mean in each segment, and over all; both within the budget.

    Segments where a variant has fewer than 100 units have no winner of their own.

    Args:
        worth: Before the cost of decisions, shape (n_units,).
        variant: Index of each unit's.
        propensities: Shape (n_units, n_variants).
        cost: By variant.
        segment: Index of each unit's.
        budget: As of ``Purse.of``.
    """
    n_segments, n_variants = int(segment.max()) + 1, propensities.shape[1]
    weight = 1.0 / propensities[np.arange(variant.size), variant]
    cell = segment * n_variants + variant
    shape, size = (n_segments, n_variants), n_segments * n_variants
    n, counts, totals = (
        np.bincount(cell, weights=one, minlength=size).reshape(shape) for one in (None, weight, weight * worth)
    )
    with np.errstate(invalid="ignore", divide="ignore"):
        net = totals / counts - cost
        overall = totals.sum(axis=0) / counts.sum(axis=0) - cost
    for_all = int(np.nanargmax(np.where(affordable(cost, budget=budget), overall, -np.inf)))
    has_own = n.min(axis=1) >= FEWEST_UNITS
    net[~has_own] = np.where(np.arange(n_variants) == for_all, 0.0, -np.inf)
    best = Purse.of(net[segment], cost, budget=budget).choose(net)
    return {int(row): int(best[row]) for row in np.flatnonzero(has_own)}, for_all
