"""Studies of uplift in worlds whose effects are known."""

from dataclasses import replace

import numpy as np
import pytest

from optimizer.errors import InvalidArgument, NoVariation
from optimizer.uplift.judging import holm, judge
from optimizer.uplift.models import outcome_model
from optimizer.uplift.study import Settings, Study, Units, study
from tests.optimizer.uplift.worlds import CATEGORY, world

FREE = np.zeros(3)


def _settings(**changes: object) -> Settings:
    return replace(Settings(cost=FREE, rounds=20), **changes)  # type: ignore[arg-type]


def _study(units: Units, **changes: object) -> Study:
    return study(units, _settings(**changes))


@pytest.mark.parametrize("learner", ["s", "t", "x", "r", "dr"])
def test_every_learner_finds_who_gains_by_what(learner: str) -> None:
    """A sign decides, and the tree chooses by it for nine in ten of those who gain."""
    made = world(np.random.default_rng(1))
    found = _study(made.units, learner=learner, categorical=(CATEGORY,))
    truth = made.uplift[-found.held.fold.size :]
    rows = np.arange(len(truth))
    right = truth[rows, found.held.by_tree] > 0.0
    assert right[truth[:, 1] != 0.0].mean() > 0.9
    for one in (1, 2):
        assert np.corrcoef(found.held.uplift[:, one - 1], truth[:, one])[0, 1] > 0.4


@pytest.mark.parametrize("is_bandit", [False, True])
def test_targeting_is_worth_it_where_effects_differ(*, is_bandit: bool) -> None:
    """Each customer's right variant gains .15 (but for the twentieth without the attribute), any variant for all 0."""
    made = world(np.random.default_rng(2), is_bandit=is_bandit)
    found = _study(made.units)
    said = judge(found.held, _settings(), rng=np.random.default_rng(3))
    assert said.verdict == "personalise", said.reason
    tree = next(one for one in said.policies if one.name == "tree")
    assert tree.gain.interval[0] < 0.15 * 0.95 < tree.gain.interval[1]
    assert {*tree.over_simple} == {"segment_winners", "best_for_all", "0", "1", "2"}
    assert all(one.p_value < 0.01 for one in said.variants)
    assert said.is_stabilised is is_bandit


def test_targeting_is_not_sold_where_effects_are_alike() -> None:
    """Six worlds without any effect: each would be called worth targeting with a chance of 2.5 % at most."""
    verdicts = []
    for seed in range(6):
        made = world(np.random.default_rng(100 + seed), n=2_000, strength=0.0)
        verdicts.append(judge(_study(made.units, rounds=5).held, _settings(), rng=np.random.default_rng(seed)).verdict)
    assert "personalise" not in verdicts


def test_a_variant_that_costs_more_than_it_brings_is_chosen_for_nobody() -> None:
    made = world(np.random.default_rng(4))
    found = _study(made.units, cost=np.array([0.0, 1.0, 0.0]))
    assert not (found.held.by_model == 1).any()
    assert not (found.held.by_tree == 1).any()
    assert set(np.unique(found.held.by_model)) == {0, 2}


def test_a_budget_bounds_what_is_spent() -> None:
    made = world(np.random.default_rng(5))
    cost = np.array([0.0, 0.02, 0.02])
    free, bound = _study(made.units, cost=cost), _study(made.units, cost=cost, budget=0.005)
    spent = [float(cost[one.held.by_model].mean()) for one in (free, bound)]
    assert spent[0] > 0.01
    assert 0.0025 < spent[1] < 0.006  # the price is that of earlier customers, for whom more seems to be gained
    assert free.price == 0.0
    assert bound.price > 0.0


def test_targeting_need_not_beat_what_the_budget_forbids() -> None:
    """All gain by variant 1, some more: it is best for all, but only every second unit may get it."""
    made = world(np.random.default_rng(13))
    x, draws = made.units.x[:, 0], np.random.default_rng(14).random(4_000)
    chance = np.where(made.units.variant == 1, np.where(x > 0.0, 0.6, 0.3), 0.2)
    outcome = (draws < chance).astype(np.float64)
    units, cost = replace(made.units, outcome=outcome, worth=outcome), np.array([0.0, 0.02, 0.02])
    free, bound = _settings(cost=cost), _settings(cost=cost, budget=0.01)
    forbidden = judge(study(units, free).held, free, rng=np.random.default_rng(1))
    assert forbidden.verdict != "personalise"
    held = study(units, bound).held
    assert cost[held.by_tree].mean() < 0.011
    said = judge(held, bound, rng=np.random.default_rng(1))
    assert said.verdict == "personalise", said.reason
    tree = next(one for one in said.policies if one.name == "tree")
    assert {*tree.over_simple} == {"segment_winners", "best_for_all", "0"}
    assert {one.name for one in said.policies} >= {"0", "1", "2"}


def test_nothing_that_judges_has_been_learnt_from() -> None:
    """Other outcomes of the last quarter change no prediction of earlier ones, and none of its own."""
    units = world(np.random.default_rng(6), n=2_000).units
    last = np.arange(2_000) >= 1_500
    turned = np.where(last, 1.0 - units.outcome, units.outcome)
    first, other = _study(units), _study(replace(units, outcome=turned, worth=turned))
    assert np.array_equal(first.held.uplift, other.held.uplift)
    assert np.array_equal(first.held.by_tree, other.held.by_tree)
    assert not np.array_equal(first.held.scores, other.held.scores)


def test_the_same_data_and_seed_give_the_same_study() -> None:
    units = world(np.random.default_rng(7), n=2_000).units
    once, again = _study(units, seed=5), _study(units, seed=5)
    assert np.array_equal(once.held.gain, again.held.gain)
    assert np.array_equal(once.model.uplift(units.x), again.model.uplift(units.x))


def test_money_scales() -> None:
    """In cents instead of euros all values are a hundred times as large, and choices are the same."""
    units = world(np.random.default_rng(8), n=2_000, money=10.0).units
    cost = np.array([0.0, 0.3, 0.1])
    euros, cents = _study(units, cost=cost), _study(replace(units, worth=100.0 * units.worth), cost=100.0 * cost)
    assert np.array_equal(euros.held.by_model, cents.held.by_model)
    assert np.allclose(100.0 * euros.held.values, cents.held.values)


def test_variants_may_change_places() -> None:
    units = world(np.random.default_rng(9), n=2_000).units
    swapped = replace(units, variant=np.array([0, 2, 1])[units.variant], propensities=units.propensities[:, [0, 2, 1]])
    one, two = _study(units, learner="t"), _study(swapped, learner="t")
    assert np.allclose(one.held.uplift, two.held.uplift[:, ::-1])
    assert np.allclose(one.held.values, two.held.values[:, [0, 2, 1]])


def test_worth_that_is_no_multiple_of_the_outcome_has_a_model_of_its_own() -> None:
    """Responses to variant 1 cost what they bring, so nobody gains by it though many respond."""
    units = world(np.random.default_rng(10)).units
    worth = units.outcome - 1.0 * units.outcome * (units.variant == 1)
    found = _study(replace(units, worth=worth))
    assert found.model.worth_learner is not None
    assert (found.held.by_tree == 1).mean() < 0.05
    assert (found.held.by_tree == 2).mean() > 0.3


def test_targeting_is_worth_it_where_responses_cost_more_of_some_than_of_others() -> None:
    """All respond more by .1, who would respond anyway with .8 or .1; a response with the variant costs .2.

    So the first lose .9 x .2 - .1 = .08 by it, and the others gain .1 - .2 x .2 = .06: .03 a unit if only these get it.
    """
    rng, n = np.random.default_rng(15), 8_000
    x, variant = rng.normal(size=(n, 2)), rng.integers(0, 2, n)
    outcome = (rng.random(n) < np.where(x[:, 0] > 0.0, 0.8, 0.1) + 0.1 * variant).astype(np.float64)
    nothing = np.zeros(n, dtype=np.intp)
    units = Units(
        x=x,
        outcome=outcome,
        worth=outcome - 0.2 * outcome * variant,
        variant=variant,
        customer=np.arange(n),
        segment=nothing,
        block=nothing,
        propensities=np.full((n, 2), 0.5),
    )
    given = _settings(cost=np.zeros(2))
    said = judge(study(units, given).held, given, rng=rng)
    assert said.verdict == "personalise", said.reason
    assert said.variants[0].p_value > 0.05
    tree = next(one for one in said.policies if one.name == "tree")
    assert tree.gain.interval[0] < 0.03 < tree.gain.interval[1]


def test_where_propensities_are_alike_all_units_count_alike() -> None:
    """Control's outcomes are learnt as scikit-learn's boosting learns them from control's units, without weights."""
    units = world(np.random.default_rng(16), n=1_000).units
    of_control = units.variant == 0
    plain = outcome_model(is_binary=True, rounds=5, seed=3).fit(units.x[of_control], units.outcome[of_control])
    found = _study(units, rounds=5, seed=3).model.mean(units.x)[:, 0]
    assert np.array_equal(found, plain.predict_proba(units.x)[:, 1])


def test_progress_comes_to_its_end() -> None:
    seen: list[float] = []
    study(world(np.random.default_rng(11), n=1_000).units, _settings(rounds=5), progress=seen.append)
    assert seen == sorted(seen)
    assert seen[-1] == 1.0
    assert len(seen) == 4


def test_outcomes_that_are_all_alike_and_too_few_customers_are_refused() -> None:
    units = world(np.random.default_rng(12), n=1_000).units
    alike = np.ones(1_000)
    with pytest.raises(NoVariation):
        _study(replace(units, outcome=alike, worth=alike))
    with pytest.raises(InvalidArgument, match="n_folds: is 4 for 1 customers"):
        _study(replace(units, customer=np.zeros(1_000, dtype=np.intp)))


def test_holm_is_as_statsmodels_has_it() -> None:
    from statsmodels.stats.multitest import multipletests

    p_values = [0.011, 0.02, 0.5, 0.003, 0.04]
    assert np.allclose(holm(p_values), multipletests(p_values, method="holm")[1])
