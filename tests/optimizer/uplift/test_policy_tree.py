"""Policy trees. Expected values: worlds built from a tree, and an exhaustive search written out in the test."""

from itertools import product
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from optimizer.errors import InvalidArgument
from optimizer.uplift.policy_tree import Leaf, Node, Split, choices, fit_policy_tree, leaf_of, leaves, with_choices

Floats = NDArray[np.float64]


def _value(tree: Node, x: Floats, scores: Floats) -> float:
    return float(scores[np.arange(len(x)), choices(tree, x)].sum())


def test_a_world_of_one_cut_is_found() -> None:
    rng = np.random.default_rng(1)
    x = rng.random((4_000, 3))
    scores = np.column_stack([np.zeros(4_000), np.where(x[:, 1] >= 0.5, 1.0, -1.0) + rng.normal(size=4_000)])
    tree = fit_policy_tree(x, scores, depth=1)
    assert isinstance(tree, Split)
    assert tree.attribute == 1
    assert tree.threshold == pytest.approx(0.5, abs=0.05)
    assert isinstance(tree.above, Leaf)
    assert isinstance(tree.below, Leaf)
    assert (tree.below.choice, tree.above.choice) == (0, 1)


def test_two_attributes_that_matter_only_together_are_found() -> None:
    """Exclusive or: no first split gains anything by itself."""
    rng = np.random.default_rng(2)
    x = rng.random((8_000, 4))
    gain = np.where((x[:, 0] >= 0.5) == (x[:, 2] >= 0.5), 1.0, -1.0)
    scores = np.column_stack([np.zeros(8_000), gain + rng.normal(size=8_000)])
    tree = fit_policy_tree(x, scores, depth=2)
    right = np.where(gain > 0, 1, 0)
    assert (choices(tree, x) == right).mean() > 0.9


def _exhaustive(x: Floats, scores: Floats, *, min_units: int) -> float:
    """The best value of any tree of depth 2, by trying every cut between values."""

    def best_of(rows: NDArray[np.bool_]) -> float:
        found = [scores[rows].sum(axis=0).max()]
        for column in range(x.shape[1]):
            for cut in np.unique(x[rows, column]):
                above = rows & (x[:, column] >= cut)
                below = rows & ~above
                if min(above.sum(), below.sum()) >= min_units:
                    found.append(scores[above].sum(axis=0).max() + scores[below].sum(axis=0).max())
        return float(max(found))

    everyone = np.ones(len(x), dtype=np.bool_)
    found = [best_of(everyone)]
    for column, cut in ((c, v) for c in range(x.shape[1]) for v in np.unique(x[:, c])):
        above = x[:, column] >= cut
        if min(above.sum(), (~above).sum()) >= min_units:
            found.append(best_of(above) + best_of(~above))
    return max(found)


@pytest.mark.parametrize("seed", range(10))
def test_depth_two_is_the_best_there_is(seed: int) -> None:
    rng = np.random.default_rng(seed)
    x = rng.integers(0, 5, (60, 3)).astype(float)
    scores = rng.normal(size=(60, 3))
    tree = fit_policy_tree(x, scores, depth=2, min_units=3)
    assert _value(tree, x, scores) == pytest.approx(_exhaustive(x, scores, min_units=3))


def test_more_depth_is_never_worse_in_training() -> None:
    rng = np.random.default_rng(3)
    x, scores = rng.random((500, 4)), rng.normal(size=(500, 3))
    values = [_value(fit_policy_tree(x, scores, depth=depth, min_units=10), x, scores) for depth in range(4)]
    assert values == sorted(values)


def test_categories_are_parted_as_sets() -> None:
    rng = np.random.default_rng(4)
    codes = rng.integers(0, 6, 3_000).astype(float)
    scores = np.column_stack([np.zeros(3_000), np.where(np.isin(codes, (1, 4)), 1.0, -1.0)])
    tree = fit_policy_tree(codes[:, np.newaxis], scores, depth=1, categorical=(0,))
    assert isinstance(tree, Split)
    assert tree.categories == frozenset({1, 4})
    assert list(choices(tree, np.array([[1.0], [0.0], [np.nan], [99.0]]))) == [1, 0, 0, 0]


def test_missing_values_go_below_every_cut() -> None:
    rng = np.random.default_rng(5)
    x = rng.random((2_000, 1))
    x[:400] = np.nan
    scores = np.column_stack([np.zeros(2_000), np.where(np.isnan(x[:, 0]), 1.0, -1.0)])
    tree = fit_policy_tree(x, scores, depth=1)
    assert list(choices(tree, np.array([[np.nan], [0.3]]))) == [1, 0]


def test_leaves_may_choose_anew_and_two_of_a_split_that_choose_alike_become_one() -> None:
    """By hand: leaves 0, 1, 2 from below to above; the upper two, of 2 and 6 units, then choose alike."""
    low, middle, high = (Leaf(1, n, np.array([0.0, value])) for n, value in ((3, 5.0), (2, 4.0), (6, 8.0)))
    tree = Split(0, 1.0, None, low, Split(0, 2.0, None, middle, high))
    x = np.array([[2.5], [0.5], [1.5], [np.nan]])
    assert leaf_of(tree, x).tolist() == [2, 0, 1, 0]
    assert choices(with_choices(tree, [0, 1, 0]), x).tolist() == [0, 0, 1, 0]
    joined = with_choices(tree, [1, 0, 0])
    assert [(leaf.choice, leaf.n_units, leaf.value.tolist()) for leaf in leaves(joined)] == [
        (1, 3, [0.0, 5.0]),
        (0, 8, [0.0, 7.0]),
    ]
    assert isinstance(with_choices(tree, [1, 1, 1]), Leaf)


def test_leaves_have_enough_units_and_no_split_is_idle() -> None:
    rng = np.random.default_rng(6)
    x, scores = rng.random((1_000, 3)), rng.normal(size=(1_000, 2))
    found = leaves(fit_policy_tree(x, scores, depth=3, min_units=80))
    assert min(leaf.n_units for leaf in found) >= 80
    assert sum(leaf.n_units for leaf in found) == 1_000


def test_without_differences_there_is_no_split() -> None:
    tree = fit_policy_tree(np.random.default_rng(7).random((500, 2)), np.tile([0.1, 0.3], (500, 1)))
    assert isinstance(tree, Leaf)
    assert tree.choice == 1


def test_permuting_variants_permutes_choices() -> None:
    rng = np.random.default_rng(8)
    x, scores = rng.random((600, 3)), rng.normal(size=(600, 3))
    tree, swapped = fit_policy_tree(x, scores), fit_policy_tree(x, scores[:, [2, 0, 1]])
    np.testing.assert_array_equal(choices(tree, x), np.array([2, 0, 1])[choices(swapped, x)])


@pytest.mark.parametrize(
    "change", [{"scores": np.zeros((3, 2))}, {"scores": np.full((5, 2), np.nan)}, {"depth": -1}, {"min_units": 0}]
)
def test_what_no_tree_can_be_of_is_refused(change: dict[str, Any]) -> None:
    given: dict[str, Any] = {"x": np.zeros((5, 1)), "scores": np.zeros((5, 2))} | change
    with pytest.raises(InvalidArgument, match=next(iter(change))):
        fit_policy_tree(given.pop("x"), given.pop("scores"), **given)


def test_every_combination_of_two_cuts_can_be_reached() -> None:
    for pattern in product([0, 1], repeat=4):
        x = np.array([[a, b] for a in (0.0, 1.0) for b in (0.0, 1.0)]).repeat(10, axis=0)
        wanted = np.array(pattern).repeat(10)
        scores = np.column_stack([1.0 - wanted, wanted]).astype(float)
        np.testing.assert_array_equal(choices(fit_policy_tree(x, scores, min_units=5), x), wanted)
