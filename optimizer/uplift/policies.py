"""Policies: by a model's gains under a budget, as a tree, and the simple ones that targeting has to beat."""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from optimizer.errors import InvalidArgument
from optimizer.uplift.policy_tree import Node, fit_policy_tree

Floats = NDArray[np.float64]
Index = NDArray[np.intp]

FEWEST_UNITS = 100  # of a leaf, and of a variant in a segment that is to have a winner of its own
LEAF_SHARE = 0.01  # of all units, at least


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
        low, high = 0.0, 1.0
        while cls(spend, high).spent(gain) > budget and high < 1e12:
            low, high = high, 2.0 * high
        for _ in range(60):
            middle = (low + high) / 2.0
            low, high = (middle, high) if cls(spend, middle).spent(gain) > budget else (low, middle)
        return cls(spend, high)

    def net(self, gain: Floats) -> Floats:
        """Gains less what their costs must bring."""
        return np.asarray(gain - self.price * self.spend, dtype=np.float64)

    def choose(self, gain: Floats) -> Index:
        """The variant of each unit; of equals the first, control before all."""
        return np.asarray(self.net(gain).argmax(axis=1), dtype=np.intp)

    def spent(self, gain: Floats) -> float:
        """The mean cost of what is chosen, over control's."""
        return float(self.spend[self.choose(gain)].mean())


def policy_tree(x: Floats, net: Floats, *, depth: int, categorical: tuple[int, ...]) -> Node:
    """A model's choice as a shallow tree: of all trees tried, the one whose leaves' choices are predicted to gain most.

    Args:
        x: Attributes.
        net: Predicted gains, shape (n_units, n_variants).
        depth: Splits from root to leaf, at most.
        categorical: Columns of codes.
    """
    fewest = max(FEWEST_UNITS, int(LEAF_SHARE * len(x)))
    return fit_policy_tree(x, net, depth=depth, min_units=fewest, categorical=categorical)


def segment_winners(
    worth: Floats, variant: Index, *, propensities: Floats, cost: Floats, segment: Index
) -> tuple[dict[int, int], int]:
    """The variant with the highest propensity-weighted net mean in each segment, and over all.

    Segments where a variant has fewer than 100 units have no winner of their own.

    Args:
        worth: Before the cost of decisions, shape (n_units,).
        variant: Index of each unit's.
        propensities: Shape (n_units, n_variants).
        cost: By variant.
        segment: Index of each unit's.
    """
    n_segments, n_variants = int(segment.max()) + 1, propensities.shape[1]
    weight = 1.0 / propensities[np.arange(variant.size), variant]
    cell = segment * n_variants + variant
    shape, size = (n_segments, n_variants), n_segments * n_variants
    n, counts, totals = (
        np.bincount(cell, weights=one, minlength=size).reshape(shape) for one in (None, weight, weight * worth)
    )
    with np.errstate(invalid="ignore", divide="ignore"):
        best = (totals / counts - cost).argmax(axis=1)
        for_all = int(np.nanargmax(totals.sum(axis=0) / counts.sum(axis=0) - cost))
    return {row: int(best[row]) for row in range(n_segments) if n[row].min() >= FEWEST_UNITS}, for_all
