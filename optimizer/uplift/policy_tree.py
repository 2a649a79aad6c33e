"""A shallow tree that chooses a variant by a few attributes: what a policy can be read and served as.

Each split is the best one when its two sides may split once more: of a tree of depth 2 that is the best there is over
the cuts tried, which a greedy tree misses where two attributes only matter together. Attributes are cut at quantiles;
missing values lie below every cut; categories are ordered by how far the variant that is best for all falls short in
them, so that unknown ones are on that variant's side.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from optimizer.errors import InvalidArgument

Floats = NDArray[np.float64]
Index = NDArray[np.intp]

MAX_CUTS = 32


@dataclass(frozen=True, slots=True)
class Leaf:
    """Units that get one variant.

    Attributes:
        choice: Its index.
        n_units: How many training units are here.
        value: Mean score of each variant over them, shape (n_variants,).
    """

    choice: int
    n_units: int
    value: Floats


@dataclass(frozen=True, slots=True)
class Split:
    """Units parted by one attribute.

    Attributes:
        attribute: Its column.
        threshold: Units whose value is missing or < this go ``below``; None if ``categories`` say.
        categories: Codes of the categories that go ``above``; all others, unknown and missing ones, go ``below``.
        below: What they get.
        above: What the others get.
    """

    attribute: int
    threshold: float | None
    categories: frozenset[int] | None
    below: "Node"
    above: "Node"

    def is_above(self, x: Floats) -> NDArray[np.bool_]:
        """Which rows of attributes go above, shape (n_units,)."""
        values = x[:, self.attribute]
        if self.threshold is None:
            return np.isin(values, list(self.categories or ()))
        return np.asarray(values >= self.threshold, dtype=np.bool_)  # of nan: no


Node = Leaf | Split


def fit_policy_tree(
    x: ArrayLike, scores: ArrayLike, *, depth: int = 2, min_units: int = 100, categorical: tuple[int, ...] = ()
) -> Node:
    """The tree whose leaves' best variants have the highest mean score.

    Args:
        x: Attributes, categories as codes, nan for missing, shape (n_units, n_attributes).
        scores: Score of each unit under each variant, higher is better, shape (n_units, n_variants).
        depth: Splits from the root to a leaf, at most; 0 chooses one variant for all.
        min_units: Units of a leaf, at least.
        categorical: Columns that hold codes of categories.
    Raises:
        InvalidArgument: Shapes differ, scores are not finite, or there are no units.
    Source: Athey & Wager (2021), Econometrica 89(1); Zhou, Athey & Wager (2023), Operations Research 71(1).
    """
    matrix, gamma = np.asarray(x, dtype=np.float64), np.asarray(scores, dtype=np.float64)
    if matrix.ndim != 2 or gamma.ndim != 2 or matrix.shape[0] != gamma.shape[0]:
        raise InvalidArgument("scores", f"has shape {gamma.shape} for attributes of shape {matrix.shape}")
    if gamma.size == 0 or not np.isfinite(gamma).all():
        raise InvalidArgument("scores", "are none, or not finite everywhere")
    if depth < 0 or min_units < 1:
        raise InvalidArgument("depth or min_units", f"is {depth} or {min_units}")
    return _grown(matrix, gamma, depth=depth, min_units=min_units, categorical=categorical)


def choices(tree: Node, x: ArrayLike) -> Index:
    """The variant that a tree chooses for each row of attributes, shape (n_units,)."""
    return np.array([leaf.choice for leaf in leaves(tree)], dtype=np.intp)[leaf_of(tree, x)]


def leaves(tree: Node) -> list[Leaf]:
    """All leaves, from below to above."""
    return [tree] if isinstance(tree, Leaf) else [*leaves(tree.below), *leaves(tree.above)]


def leaf_of(tree: Node, x: ArrayLike) -> Index:
    """Which of ``leaves`` each row of attributes is in, shape (n_units,)."""
    matrix = np.asarray(x, dtype=np.float64)
    if isinstance(tree, Leaf):
        return np.zeros(len(matrix), dtype=np.intp)
    above = len(leaves(tree.below)) + leaf_of(tree.above, matrix)
    return np.where(tree.is_above(matrix), above, leaf_of(tree.below, matrix))


def with_choices(tree: Node, choice: Sequence[int]) -> Node:
    """The same tree with another choice for each of ``leaves``; two of one split that then choose alike become one."""
    if isinstance(tree, Leaf):
        return replace(tree, choice=int(choice[0]))
    n_below = len(leaves(tree.below))
    below, above = with_choices(tree.below, choice[:n_below]), with_choices(tree.above, choice[n_below:])
    if isinstance(below, Leaf) and isinstance(above, Leaf) and below.choice == above.choice:
        n_units = below.n_units + above.n_units
        return Leaf(below.choice, n_units, (below.n_units * below.value + above.n_units * above.value) / n_units)
    return replace(tree, below=below, above=above)


@dataclass(frozen=True, slots=True)
class _Cuts:
    """An attribute cut into bins. ``bin``: of each unit; ``order``: of a categorical one, the categories by bin."""

    bin: Index
    n_bins: int
    thresholds: Floats
    order: tuple[int, ...] | None

    @classmethod
    def of(cls, values: Floats, gamma: Floats, *, is_categorical: bool) -> Self:
        known = np.isfinite(values)
        if is_categorical:
            codes, code = np.unique(values[known], return_inverse=True)
            best = int(gamma.mean(axis=0).argmax())
            falls_short = np.delete(gamma, best, axis=1).max(axis=1) - gamma[:, best]
            order = np.argsort(np.bincount(code, weights=falls_short[known]) / np.bincount(code), kind="stable")
            bins = np.zeros(values.size, dtype=np.intp)
            bins[known] = 1 + np.argsort(order)[code]
            return cls(bins, codes.size + 1, np.zeros(0), tuple(codes[order].astype(int).tolist()))
        shares = np.linspace(0.0, 1.0, MAX_CUTS + 1)
        cuts = np.unique(np.quantile(values[known], shares, method="inverted_cdf")) if known.any() else np.zeros(0)
        bins = np.where(known, np.searchsorted(cuts, values, side="right"), 0)
        return cls(bins.astype(np.intp), cuts.size + 1, cuts, None)


def _grown(x: Floats, gamma: Floats, *, depth: int, min_units: int, categorical: tuple[int, ...]) -> Node:
    mean = gamma.mean(axis=0)
    leaf = Leaf(int(mean.argmax()), len(gamma), mean)
    if depth == 0 or len(gamma) < 2 * min_units or gamma.shape[1] < 2:
        return leaf
    cuts = [_Cuts.of(x[:, one], gamma, is_categorical=one in categorical) for one in range(x.shape[1])]
    best = _best_split(cuts, gamma, min_units=min_units, looks_ahead=depth > 1)
    if best is None or best[0] <= gamma.sum(axis=0).max() + 1e-9 * np.abs(gamma).sum():
        return leaf
    _, attribute, at = best
    above = cuts[attribute].bin >= at
    below_tree, above_tree = (
        _grown(x[rows], gamma[rows], depth=depth - 1, min_units=min_units, categorical=categorical)
        for rows in (~above, above)
    )
    if isinstance(below_tree, Leaf) and isinstance(above_tree, Leaf) and below_tree.choice == above_tree.choice:
        return leaf
    order = cuts[attribute].order
    if order is not None:
        return Split(attribute, None, frozenset(order[at - 1 :]), below_tree, above_tree)
    return Split(attribute, float(cuts[attribute].thresholds[at - 1]), None, below_tree, above_tree)


def _best_split(
    cuts: list[_Cuts], gamma: Floats, *, min_units: int, looks_ahead: bool
) -> tuple[float, int, int] | None:
    """The value, the attribute and the first bin above of the best split; None if no split leaves enough units."""
    found: list[tuple[float, int, int]] = []
    for attribute, one in enumerate(cuts):
        n, sums = _histogram(one.bin, gamma, n_bins=one.n_bins)
        sides = _sides(n, sums)
        value: Floats = sides[0][1].max(axis=1) + sides[1][1].max(axis=1)
        if looks_ahead:
            value = _value_ahead(one, cuts, gamma=gamma, min_units=min_units)
        allowed = (sides[0][0] >= min_units) & (sides[1][0] >= min_units)
        if allowed.any():
            at = int(np.where(allowed, value, -np.inf).argmax())
            found.append((float(value[at]), attribute, at + 1))
    return max(found, key=lambda split: split[0], default=None)


def _value_ahead(first: _Cuts, cuts: list[_Cuts], *, gamma: Floats, min_units: int) -> Floats:
    """Value of each cut of an attribute when each side may split once more, by any attribute."""
    best = None
    for second in cuts:
        code = first.bin * second.n_bins + second.bin
        n, sums = _histogram(code, gamma, n_bins=first.n_bins * second.n_bins)
        table_n = n.reshape(first.n_bins, second.n_bins)
        table = sums.reshape(first.n_bins, second.n_bins, -1)
        below = _best_after(np.cumsum(table_n, axis=0)[:-1], np.cumsum(table, axis=0)[:-1], min_units=min_units)
        above = _best_after(_from_end(table_n)[1:], _from_end(table)[1:], min_units=min_units)
        sides = np.stack([below, above])
        best = sides if best is None else np.maximum(best, sides)
    return np.zeros(first.n_bins - 1) if best is None else np.asarray(best.sum(axis=0), dtype=np.float64)


def _best_after(n: Floats, sums: Floats, *, min_units: int) -> Floats:
    """Best value of rows of bins, whole or cut once; shapes (n_rows, n_bins) and (n_rows, n_bins, n_variants)."""
    whole = sums.sum(axis=1).max(axis=1)
    if n.shape[1] < 2:
        return np.asarray(whole, dtype=np.float64)
    left_n, left = np.cumsum(n, axis=1)[:, :-1], np.cumsum(sums, axis=1)[:, :-1]
    right_n, right = n.sum(axis=1, keepdims=True) - left_n, sums.sum(axis=1, keepdims=True) - left
    allowed = (left_n >= min_units) & (right_n >= min_units)
    cut = np.where(allowed, left.max(axis=2) + right.max(axis=2), -np.inf)
    return np.asarray(np.maximum(whole, cut.max(axis=1)), dtype=np.float64)


def _histogram(code: Index, gamma: Floats, *, n_bins: int) -> tuple[Floats, Floats]:
    """Units of each bin, shape (n_bins,), and the sums of their scores, shape (n_bins, n_variants)."""
    sums = [np.bincount(code, weights=column, minlength=n_bins) for column in gamma.T]
    return np.bincount(code, minlength=n_bins).astype(np.float64), np.column_stack(sums)


def _sides(n: Floats, sums: Floats) -> list[tuple[Floats, Floats]]:
    below_n, below = np.cumsum(n)[:-1], np.cumsum(sums, axis=0)[:-1]
    return [(below_n, below), (n.sum() - below_n, sums.sum(axis=0) - below)]


def _from_end(table: Floats) -> Floats:
    return np.asarray(np.cumsum(table[::-1], axis=0)[::-1], dtype=np.float64)
