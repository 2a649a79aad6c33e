"""Policies under a budget, simple ones, and attributes that hang on the variant."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest

from optimizer.errors import InvalidArgument
from optimizer.uplift.balance import imbalance
from optimizer.uplift.folds import chronological_folds
from optimizer.uplift.policies import Purse, policy_tree, segment_winners
from optimizer.uplift.policy_tree import choices, leaves
from optimizer.uplift.policy_value import difference_of, doubly_robust_scores, stable_weights
from tests.optimizer.uplift.worlds import CATEGORY, world


def test_a_budget_is_spent_where_it_gains_most() -> None:
    """By trying all 3^6 choices: no other that costs as little gains as much."""
    rng = np.random.default_rng(1)
    cost = np.array([0.0, 1.0, 2.0])
    gain = np.column_stack([np.zeros(6), rng.random(6) - 0.2, 2.0 * rng.random(6) - 0.2])
    for budget in (0.2, 0.5, 1.0):
        purse = Purse.of(gain, cost, budget=budget)
        choice = purse.choose(gain)
        spent, gained = cost[choice].sum(), gain[np.arange(6), choice].sum()
        assert spent <= 6 * budget + 1e-9
        best = max(
            float(gain[np.arange(6), list(other)].sum())
            for other in product(range(3), repeat=6)
            if cost[list(other)].sum() <= spent + 1e-9
        )
        assert gained == pytest.approx(best)


def test_a_budget_that_does_not_bind_has_no_price_and_one_that_can_not_be_kept_is_refused() -> None:
    gain = np.array([[0.0, 1.0], [0.0, -1.0]])
    assert Purse.of(gain, np.array([0.0, 1.0]), budget=0.5).price == 0.0
    assert Purse.of(gain, np.array([0.0, 1.0]), budget=None).price == 0.0
    assert Purse.of(gain, np.array([0.0, 1.0]), budget=0.0).choose(gain).tolist() == [0, 0]
    with pytest.raises(InvalidArgument, match="even the cheapest"):
        Purse.of(gain, np.array([0.0, 1.0]), budget=-0.5)


def test_a_tree_keeps_to_the_budget_where_it_can_not_tell_who_gains_most() -> None:
    """A tenth gains 10, all others .5, by no attribute; above the cut all gain 1 more. Half may get the variant.

    At the model's price, which is below 1.5, more than half gain in either leaf.
    """
    rng = np.random.default_rng(2)
    x = rng.random((4_000, 1))
    gain = np.column_stack([np.zeros(4_000), np.where(rng.random(4_000) < 0.1, 10.0, 0.5) + (x[:, 0] >= 0.55)])
    purse = Purse.of(gain, np.array([0.0, 1.0]), budget=0.5)
    tree = policy_tree(x, gain, purse=purse, budget=0.5, depth=1, categorical=())
    chosen = choices(tree, x)
    assert 0.4 < chosen.mean() <= 0.5
    assert gain[chosen == 1].mean() > gain[chosen == 0].mean()


def test_some_of_many_units_say_where_a_tree_splits() -> None:
    """Of 200,000 every fourth: .7 x .4 of them gain 1, the others lose it, so .28 a unit is to be had.

    Cuts are tried at every 32nd part of the units: at worst half of one is on the wrong side of each.
    """
    rng = np.random.default_rng(3)
    x = rng.random((200_000, 2))
    net = np.where((x[:, 0] >= 0.3) & (x[:, 1] >= 0.6), 1.0, -1.0) + 0.2 * rng.normal(size=200_000)
    gain = np.column_stack([np.zeros(200_000), net])
    purse = Purse.of(gain, np.array([0.0, 1.0]), budget=None)
    tree = policy_tree(x, gain, purse=purse, budget=None, depth=2, categorical=())
    assert sum(leaf.n_units for leaf in leaves(tree)) == 50_000
    assert gain[np.arange(200_000), choices(tree, x)].mean() > 0.28 - 2.0 / 64.0


def test_segments_winners_keep_to_the_budget() -> None:
    """By hand: variant 1 gains .6 in segment 0 and .3 in segment 1, for .2; a budget of .1 is enough for one."""
    segment, variant = np.repeat([0, 1], 400), np.tile([0, 1], 400)
    worth = np.where(segment == 0, 0.8, 0.5) * variant
    for budget, winners, for_all in ((None, {0: 1, 1: 1}, 1), (0.1, {0: 1, 1: 0}, 0)):
        found = segment_winners(
            worth,
            variant,
            propensities=np.full((800, 2), 0.5),
            cost=np.array([0.0, 0.2]),
            segment=segment,
            budget=budget,
        )
        assert found == (winners, for_all)


def test_segments_have_winners_of_their_own_where_they_have_units() -> None:
    """By hand: in segment 0 variant 1 is better by .5 - .1, in segment 1 control; segment 2 is too small to say."""
    n = 400
    segment = np.repeat([0, 1, 2], [n, n, 20])
    variant = np.tile([0, 1], n + 10)
    worth = np.where((segment == 0) == (variant == 1), 0.5, 0.0)
    winners, for_all = segment_winners(
        worth, variant, propensities=np.full((2 * n + 20, 2), 0.5), cost=np.array([0.0, 0.1]), segment=segment
    )
    assert winners == {0: 1, 1: 0}
    assert for_all == 0


@given(st.lists(st.integers(0, 20), min_size=4, max_size=200), st.integers(1, 4))
@settings(max_examples=200, deadline=None)
def test_customers_share_a_fold_and_earlier_ones_stand_in_earlier_folds(customers: list[int], n_folds: int) -> None:
    known = list(dict.fromkeys(customers))
    if len(known) < n_folds:
        return
    fold = chronological_folds(customers, n_folds=n_folds)
    by_customer = {one: {int(fold[at]) for at, other in enumerate(customers) if other == one} for one in known}
    order = [by_customer[one].copy().pop() for one in known]
    assert all(len(folds) == 1 for folds in by_customer.values())
    assert order == sorted(order)
    assert set(order) == set(range(n_folds))


def test_what_was_known_before_is_rarely_refused_though_weights_move() -> None:
    """400 worlds with a bandit's propensities, whose attributes differ between segments with their own weights.

    At a level of .05 each attribute alarms with at most that chance: 4 x 400 tests, one-sided binomial at .001.
    """
    alarms = 0
    for seed in range(400):
        made = world(np.random.default_rng(seed), n=600, is_bandit=True)
        units = made.units
        x = np.column_stack([units.x[:, :2], units.segment + 0.1 * units.x[:, 2], units.x[:, CATEGORY]])
        p_values = imbalance(x, units.variant, propensities=units.propensities, categorical=(CATEGORY,))
        alarms += int((p_values < 0.05).sum())
    assert binomtest(alarms, 1_600, 0.05, alternative="greater").pvalue > 0.001


@pytest.mark.parametrize("share", [0.01, 0.05, 0.2])
def test_rare_values_are_not_refused_where_a_variant_is_rare(share: float) -> None:
    """60 categories of some 40 units: at a level of .001, two of 60 worlds would be an accident of one in 500."""
    refused = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        category = np.where(rng.random(16_000) < 0.15, rng.integers(1, 61, 16_000), 0).astype(float)
        variant = (rng.random(16_000) < share).astype(int)
        propensities = np.tile([1.0 - share, share], (16_000, 1))
        found = imbalance(category[:, np.newaxis], variant, propensities=propensities, categorical=(0,))
        refused += int(found[0] < 0.001)
    assert refused <= 1


@pytest.mark.parametrize("kind", ["number", "missing", "category"])
def test_what_the_variant_has_changed_is_found(kind: str) -> None:
    rng = np.random.default_rng(3)
    units = world(rng, n=4_000, is_bandit=True).units
    x = units.x.copy()
    touched = (units.variant == 1) & (rng.random(4_000) < 0.3)
    column = {"number": 1, "missing": 2, "category": CATEGORY}[kind]
    x[touched, column] = {"number": x[touched, 1] + 1.0, "missing": np.nan, "category": 3.0}[kind]
    p_values = imbalance(x, units.variant, propensities=units.propensities, categorical=(CATEGORY,))
    assert p_values[column] < 1e-6
    assert np.delete(p_values, column).min() > 1e-3


def test_stable_weights_keep_blocks_alike_and_are_none_where_propensities_are() -> None:
    even = np.full((6, 2), 0.5)
    assert stable_weights(even, np.arange(6), np.zeros(6, dtype=int)) is None
    shares = np.array([[0.5, 0.5]] * 3 + [[0.9, 0.1]] * 3)
    block = np.repeat([0, 1], 3)
    choice = np.ones(6, dtype=int)
    weight = stable_weights(shares, block, choice)
    assert weight is not None
    assert weight[:3] == pytest.approx(weight[0])
    assert weight[0] / weight[3] == pytest.approx(np.sqrt(10.0 / 2.0))  # one over the root of 1/.5 and 1/.1
    assert weight.mean() == pytest.approx(1.0)


def test_differences_cover_the_truth_though_a_bandit_moves_its_weights_by_outcomes() -> None:
    """500 worlds where the better variant soon gets 95 %: the interval must cover the true difference in 95 %.

    One-sided binomial at .001: at least 459 of 500.
    """
    covered = sum(_covers(np.random.default_rng(seed)) for seed in range(500))
    assert binomtest(covered, 500, 0.95, alternative="less").pvalue > 0.001


def _covers(rng: np.random.Generator) -> bool:
    rates, shares, per_block = np.array([0.3, 0.33]), np.array([0.5, 0.5]), 200
    variants, outcomes, propensities = [], [], []
    for _ in range(10):
        variant = (rng.random(per_block) < shares[1]).astype(int)
        outcome = (rng.random(per_block) < rates[variant]).astype(float)
        variants.append(variant)
        outcomes.append(outcome)
        propensities.append(np.tile(shares, (per_block, 1)))
        seen, got = np.concatenate(variants), np.concatenate(outcomes)
        means = [got[seen == one].mean() if (seen == one).any() else 0.0 for one in (0, 1)]
        high = 0.95 if means[1] > means[0] else 0.05
        shares = np.array([1.0 - high, high])
    variant, outcome = np.concatenate(variants), np.concatenate(outcomes)
    logged, block = np.concatenate(propensities), np.repeat(np.arange(10), per_block)
    ones, zeros = np.ones(variant.size, dtype=int), np.zeros(variant.size, dtype=int)
    flat = np.full((variant.size, 2), 0.3)  # fixed beforehand: any that has not seen the outcomes will do
    scores = doubly_robust_scores(outcome, variant, propensities=logged, predicted=flat)
    weight = stable_weights(logged, block, ones, zeros)
    low, high = difference_of(scores, ones, instead_of=zeros, weight=weight).interval
    return bool(low <= rates[1] - rates[0] <= high)
