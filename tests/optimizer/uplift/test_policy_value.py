"""Values of choices. Expected values: by hand, statsmodels' clustered errors, simulated worlds with a known truth."""

from typing import Any

import numpy as np
import pytest
import statsmodels.api as sm
from numpy.typing import NDArray
from scipy.stats import binomtest

from optimizer.errors import InvalidArgument
from optimizer.uplift.policy_value import difference_of, doubly_robust_scores, effective_units, value_of

Floats = NDArray[np.float64]


def test_scores_by_hand() -> None:
    scores = doubly_robust_scores([3.0], [1], propensities=[[0.75, 0.25]], predicted=[[1.0, 2.0]])
    np.testing.assert_allclose(scores, [[1.0, 2.0 + (3.0 - 2.0) / 0.25]])


def test_a_perfect_model_needs_no_outcomes() -> None:
    predicted = np.array([[0.1, 0.5], [0.3, 0.2]])
    scores = doubly_robust_scores([0.5, 0.3], [1, 0], propensities=np.full((2, 2), 0.5), predicted=predicted)
    np.testing.assert_allclose(scores, predicted)


def _world(rng: np.random.Generator, *, n: int = 1_000) -> tuple[Floats, NDArray[np.intp], Floats, Floats]:
    """Outcomes, variants, propensities and x; under variant 1 the mean is x, under control 0.5."""
    x = rng.random(n)
    propensity = 0.2 + 0.6 * x
    variant = (rng.random(n) < propensity).astype(np.intp)
    outcome = rng.normal(np.where(variant == 1, x, 0.5), 0.5)
    return outcome, variant, np.column_stack([1.0 - propensity, propensity]), x


@pytest.mark.parametrize("model", ["none", "wrong", "right"])
def test_intervals_cover_the_truth_whatever_the_model_is(model: str) -> None:
    """False alarm: 1 in 10**6. A true coverage of 0.90 fails with a chance of 97 %."""
    rng = np.random.default_rng(7)
    covered = 0
    for _ in range(1_500):
        outcome, variant, propensities, x = _world(rng)
        predicted = {"none": np.zeros((x.size, 2)), "wrong": np.column_stack([x, -x]), "right": None}[model]
        if predicted is None:
            predicted = np.column_stack([np.full(x.size, 0.5), x])
        scores = doubly_robust_scores(outcome, variant, propensities=propensities, predicted=predicted)
        found = difference_of(scores, (x > 0.5).astype(int), instead_of=np.zeros(x.size, dtype=int))
        covered += found.interval[0] <= 0.125 <= found.interval[1]  # the mean of (x - 0.5) where x > 0.5
    assert binomtest(covered, 1_500, 0.95).pvalue > 1e-6


def test_equal_choices_differ_by_exactly_nothing() -> None:
    outcome, variant, propensities, x = _world(np.random.default_rng(1))
    scores = doubly_robust_scores(outcome, variant, propensities=propensities, predicted=np.zeros((x.size, 2)))
    found = difference_of(scores, variant, instead_of=variant)
    assert (found.mean, found.standard_error) == (0.0, 0.0)


def test_units_of_a_customer_count_together_as_statsmodels_has_it() -> None:
    rng = np.random.default_rng(2)
    customer = np.repeat(np.arange(200), 5)
    scores = np.column_stack([np.zeros(1_000), rng.normal(size=200)[customer] + rng.normal(size=1_000)])
    found = value_of(scores, np.ones(1_000, dtype=int), customer=customer)
    fit = sm.OLS(scores[:, 1], np.ones(1_000)).fit(
        cov_type="cluster", cov_kwds={"groups": customer, "df_correction": False}, use_correction=False
    )
    assert found.mean == pytest.approx(fit.params[0])
    assert found.standard_error == pytest.approx(fit.bse[0], rel=0.01)  # theirs has other corrections of order 1/n
    assert value_of(scores, np.ones(1_000, dtype=int)).standard_error < found.standard_error


def test_effective_units_are_those_that_got_what_is_chosen() -> None:
    even: Any = np.full((4, 2), 0.5)
    assert effective_units([0, 1, 1, 0], propensities=even, choice=[0, 0, 1, 0]) == pytest.approx(3.0)
    assert effective_units([0, 0], propensities=even[:2], choice=[1, 1]) == 0.0
    uneven = [[0.9, 0.1], [0.1, 0.9]]
    weights = np.array([1 / 0.9, 1 / 0.1])
    assert effective_units([0, 0], propensities=uneven, choice=[0, 0]) == pytest.approx(
        weights.sum() ** 2 / (weights**2).sum()
    )


def test_a_unit_cannot_have_got_what_it_could_not_get() -> None:
    with pytest.raises(InvalidArgument, match="could not get"):
        doubly_robust_scores([1.0], [1], propensities=[[1.0, 0.0]], predicted=[[0.0, 0.0]])


@pytest.mark.parametrize(
    ("outcome", "variant"), [([1.0], [0, 1]), ([1.0, 0.0], [0]), ([1.0, 0.0, 1.0], [0, 1]), ([1.0, 0.0], [0, 2])]
)
def test_scores_take_one_outcome_and_one_known_variant_of_each_unit(outcome: list[float], variant: list[int]) -> None:
    with pytest.raises(InvalidArgument, match="variant"):
        doubly_robust_scores(outcome, variant, propensities=[[0.5, 0.5]] * 2, predicted=[[0.0, 0.0]] * 2)


@pytest.mark.parametrize("choice", [[0], [0, 2], [0, -1]])
def test_a_choice_names_a_variant_for_each_unit(choice: list[int]) -> None:
    with pytest.raises(InvalidArgument, match="choice"):
        value_of(np.zeros((2, 2)), choice)
