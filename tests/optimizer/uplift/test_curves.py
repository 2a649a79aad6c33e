"""Uplift curves. Expected values: scikit-uplift 0.5.1 on the same arrays, and by hand."""

import warnings
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from optimizer.errors import InvalidArgument, NoVariation
from optimizer.uplift.curves import Judged, auuc, judged, qini, qini_curve, uplift_curve

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from sklift import metrics as sklift  # another implementation

pytestmark = pytest.mark.filterwarnings("ignore:.*stable_cumsum:FutureWarning")

SMALL: dict[str, Any] = {
    "outcome": [1, 1, 0, 0, 1, 0, 1, 0],
    "predicted": [0.4, 0.3, 0.3, 0.2, 0.1, 0.1, -0.2, -0.3],
    "is_treated": [1, 0, 1, 1, 0, 1, 0, 0],
}


def _random(seed: int, *, n_scores: int) -> tuple[Any, Any, Any]:
    rng = np.random.default_rng(seed)
    treated = rng.random(400) < 0.5
    predicted = rng.integers(0, n_scores, 400) / 7.0
    return (rng.random(400) < 0.2 + 0.05 * predicted * treated).astype(float), predicted, treated


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("n_scores", [2, 7, 100_000])  # with few scores there are many ties
def test_qini_and_auuc_equal_scikit_uplift(seed: int, n_scores: int) -> None:
    outcome, predicted, treated = _random(seed, n_scores=n_scores)
    units = judged(outcome, predicted, is_treated=treated)
    assert qini(units).normalised == pytest.approx(sklift.qini_auc_score(outcome, predicted, treated), abs=1e-9)
    assert auuc(units).normalised == pytest.approx(sklift.uplift_auc_score(outcome, predicted, treated), abs=1e-9)


@pytest.mark.parametrize("seed", range(5))
def test_curves_equal_scikit_uplift(seed: int) -> None:
    outcome, predicted, treated = _random(seed, n_scores=9)
    units = judged(outcome, predicted, is_treated=treated)
    for ours, theirs in ((qini_curve, sklift.qini_curve), (uplift_curve, sklift.uplift_curve)):
        n_units, gain = theirs(outcome, predicted, treated)
        np.testing.assert_allclose(ours(units).n_units, n_units)
        np.testing.assert_allclose(ours(units).gain, gain, atol=1e-9)


def test_a_qini_curve_by_hand() -> None:
    curve = qini_curve(judged(**SMALL))
    # after 1: 1 treated response; after 3 (a tie): 1 - 1 * 2/1; after 4: 1 - 1 * 3/1; after 6: 1 - 2 * 4/2; …
    np.testing.assert_allclose(curve.n_units, [0, 1, 3, 4, 6, 7, 8])
    np.testing.assert_allclose(curve.gain, [0, 1, -1, -2, -3, -3, -2])


@given(st.permutations(range(8)))
@settings(deadline=None)
def test_the_order_of_rows_says_nothing(order: list[int]) -> None:
    shuffled = judged(**{name: np.asarray(values)[order] for name, values in SMALL.items()})
    assert qini(shuffled) == qini(judged(**SMALL))
    assert auuc(shuffled) == auuc(judged(**SMALL))


def test_scaling_money_scales_the_coefficient() -> None:
    rng = np.random.default_rng(3)
    outcome, predicted = rng.gamma(1.0, 20.0, 300), rng.normal(size=300)
    treated = rng.random(300) < 0.3
    once = qini(judged(outcome, predicted, is_treated=treated))
    in_cents = qini(judged(100.0 * outcome, predicted, is_treated=treated))
    assert in_cents.raw == pytest.approx(100.0 * once.raw)
    assert once.normalised is None


def test_weights_stand_for_repeated_units() -> None:
    repeated = {name: np.repeat(values, 3) for name, values in SMALL.items()}
    weighted = judged(**SMALL, weight=np.full(8, 3.0))
    assert qini(weighted).raw == pytest.approx(qini(judged(**repeated)).raw)
    assert auuc(weighted).normalised == pytest.approx(auuc(judged(**repeated)).normalised)


def test_unequal_propensities_are_undone_by_weights() -> None:
    """One world, decided with constant and with score-dependent propensities: the same curve within its noise."""
    rng = np.random.default_rng(5)
    n = 200_000
    predicted = rng.random(n)
    found = []
    for propensity in (np.full(n, 0.5), 0.2 + 0.6 * predicted):
        treated = rng.random(n) < propensity
        outcome = (rng.random(n) < 0.1 + 0.1 * predicted * treated).astype(float)
        own = np.where(treated, propensity, 1.0 - propensity)
        units = judged(outcome, predicted, is_treated=treated, weight=0.5 / own)
        found.append(qini(units).raw)
    assert found[1] == pytest.approx(found[0], abs=0.0015)  # each is 0.1 / 2 * 1 / 12 = 0.0042


@pytest.mark.parametrize(
    ("change", "name"),
    [({"predicted": [0.1]}, "predicted"), ({"outcome": [np.nan] * 8}, "outcome"), ({"weight": [0.0] * 8}, "weight")],
)
def test_what_cannot_be_judged_is_refused_by_name(change: dict[str, Any], name: str) -> None:
    with pytest.raises(InvalidArgument, match=name):
        judged(**(SMALL | change))


@pytest.mark.parametrize("treated", [True, False])
def test_without_both_sides_there_is_nothing_to_compare(treated: bool) -> None:  # noqa: FBT001  # a parameter
    with pytest.raises(NoVariation):
        judged([1.0, 0.0], [0.1, 0.2], is_treated=[treated, treated])


def test_all_outcomes_alike_are_a_flat_curve_without_a_normalised_coefficient() -> None:
    units: Judged = judged(np.zeros(8), SMALL["predicted"], is_treated=SMALL["is_treated"])
    np.testing.assert_array_equal(uplift_curve(units).gain, 0.0)
    assert (qini(units).raw, qini(units).normalised) == (0.0, None)
