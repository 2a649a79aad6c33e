"""Meta-learners. Expected values: worlds whose effects are known, algebra, and scikit-learn's own conventions."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils import estimator_checks

from optimizer.errors import InvalidArgument
from optimizer.uplift.learners import DRLearner, RLearner, SLearner, TLearner, UpliftLearner, XLearner

Floats = NDArray[np.float64]
LEARNERS = [SLearner, TLearner, XLearner, RLearner, DRLearner]


class World:
    """Three variants; the effects of the second and third over the first are x0 and 0.5 - x1."""

    def __init__(self, seed: int, *, n: int = 4_000, is_binary: bool = False, noise: float = 0.5) -> None:
        rng = np.random.default_rng(seed)
        self.x = rng.random((n, 3))
        tilt = np.column_stack([np.ones(n), 0.5 + self.x[:, 0], 1.5 - self.x[:, 1]])
        self.propensities = tilt / tilt.sum(axis=1, keepdims=True)
        draws = rng.random(n)[:, np.newaxis] > np.cumsum(self.propensities, axis=1)[:, :-1]
        self.variant = draws.sum(axis=1)
        self.effects = np.column_stack([self.x[:, 0], 0.5 - self.x[:, 1]]) * (0.4 if is_binary else 1.0)
        base = 0.3 + 0.2 * self.x[:, 2]
        mean = np.column_stack([base, base[:, np.newaxis] + self.effects])[np.arange(n), self.variant]
        self.y = (rng.random(n) < mean).astype(float) if is_binary else rng.normal(mean, noise)

    def fit(self, learner: UpliftLearner) -> UpliftLearner:
        return learner.fit(self.x, self.y, variant=self.variant, propensities=self.propensities)


@pytest.mark.parametrize("learner", [TLearner, XLearner, RLearner, DRLearner])  # S has no term for the interaction
def test_linear_effects_are_found_by_linear_models(learner: type[UpliftLearner]) -> None:
    world, other = World(1), World(2)
    found = world.fit(learner(LinearRegression())).predict(other.x)
    assert found.shape == (4_000, 2)
    assert np.sqrt(((found - other.effects) ** 2).mean()) < 0.06  # the effects' deviation is 0.29


@pytest.mark.parametrize("learner", LEARNERS)
def test_boosted_trees_rank_units_by_their_effect(learner: type[UpliftLearner]) -> None:
    world, other = World(3, n=8_000), World(4)
    model = HistGradientBoostingRegressor(max_iter=40, max_depth=3, random_state=0)
    found = world.fit(learner(model)).predict(other.x)
    for one in range(2):
        assert np.corrcoef(found[:, one], other.effects[:, one])[0, 1] > 0.7


@pytest.mark.parametrize("learner", LEARNERS)
def test_a_classifier_predicts_outcomes_of_0_and_1(learner: type[UpliftLearner]) -> None:
    world, other = World(5, is_binary=True, n=8_000), World(6)
    model = HistGradientBoostingClassifier(max_iter=40, max_depth=3, random_state=0)
    effect_model = HistGradientBoostingRegressor(max_iter=40, max_depth=2, random_state=0)
    found = world.fit(learner(model, effect_model=effect_model)).predict(other.x)
    assert np.abs(found).max() <= 1.5
    assert np.corrcoef(found[:, 0], other.x[:, 0])[0, 1] > 0.5


@pytest.mark.parametrize("learner", LEARNERS)
def test_it_follows_the_conventions_of_scikit_learn(learner: type[UpliftLearner]) -> None:
    one = learner(LinearRegression(), n_folds=4)
    assert one.get_params(deep=False)["n_folds"] == 4
    assert clone(one).get_params()["model__fit_intercept"] is True
    with pytest.raises(NotFittedError):
        one.predict(np.zeros((1, 3)))
    assert World(7, n=200).fit(one) is one
    assert one.n_features_in_ == 3


@pytest.mark.parametrize("learner", LEARNERS)
def test_the_same_data_and_seed_give_the_same_model(learner: type[UpliftLearner]) -> None:
    models = [learner(HistGradientBoostingRegressor(max_iter=10, random_state=1)) for _ in range(2)]
    first, second = (World(8, n=500).fit(model).predict(World(9, n=50).x) for model in models)
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("learner", LEARNERS)
def test_missing_attributes_are_no_obstacle(learner: type[UpliftLearner]) -> None:
    world = World(10, n=1_000)
    world.x[::3, 1] = np.nan
    found = world.fit(learner(HistGradientBoostingRegressor(max_iter=10))).predict(world.x)
    assert np.isfinite(found).all()


@pytest.mark.parametrize("learner", LEARNERS)
def test_permuting_variants_permutes_effects(learner: type[UpliftLearner]) -> None:
    world = World(11)
    swapped = World(11)
    swapped.variant = np.array([0, 2, 1])[world.variant]
    swapped.propensities = world.propensities[:, [0, 2, 1]]
    found, mirrored = (one.fit(learner(LinearRegression())).predict(world.x) for one in (world, swapped))
    np.testing.assert_allclose(found, mirrored[:, ::-1], atol=1e-8)


@pytest.mark.parametrize("learner", LEARNERS)
def test_scaling_outcomes_scales_effects(learner: type[UpliftLearner]) -> None:
    world, in_cents = World(12), World(12)
    in_cents.y = 100.0 * world.y
    found, scaled = (one.fit(learner(LinearRegression())).predict(world.x) for one in (world, in_cents))
    np.testing.assert_allclose(scaled, 100.0 * found, rtol=1e-6, atol=1e-6)


def test_an_outcome_of_one_class_has_a_known_chance() -> None:
    world = World(13, n=300)
    world.y = np.ones(300)
    found = world.fit(TLearner(HistGradientBoostingClassifier(max_iter=5))).predict(world.x)
    np.testing.assert_allclose(found, 0.0, atol=1e-6)


def test_no_value_is_too_large_where_propensities_differ() -> None:
    """1e300 does not fit into the 32 bits that scikit-learn's trees compute in; it is as good as any large value."""
    predictions = []
    for largest in (1e300, 1e6):
        world = World(16, n=1_000)
        world.x[7, 0] = largest
        model = HistGradientBoostingRegressor(max_iter=5, random_state=0)
        predictions.append(world.fit(TLearner(model)).predict(World(17, n=100).x))
    assert np.allclose(predictions[0], predictions[1])


@pytest.mark.parametrize("learner", [XLearner, RLearner, DRLearner])
def test_effects_are_no_classes(learner: type[UpliftLearner]) -> None:
    with pytest.raises(InvalidArgument, match="effect_model"):
        World(14, n=400, is_binary=True).fit(learner(LogisticRegression()))


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"variant": np.zeros(60, dtype=int)}, "variant"),
        ({"variant": np.arange(60) % 4}, "variant: names others"),
        ({"variant": np.arange(60) % 4 - 1}, "variant: names others"),
        ({"propensities": np.ones((60, 1))}, "propensities"),
        ({"propensities": np.tile([1.0, 0.0, 0.0], (60, 1))}, "propensities"),
        ({"propensities": np.full((60, 3), np.nan)}, "propensities"),
        ({"fold": np.zeros(3, dtype=int)}, "fold"),
        ({"y": np.zeros(3)}, "y"),
    ],
)
def test_units_that_cannot_be_learnt_from_are_refused_by_name(change: dict[str, Any], name: str) -> None:
    world = World(15, n=60)
    given = {"y": world.y, "variant": world.variant, "propensities": world.propensities} | change
    with pytest.raises(InvalidArgument, match=name):
        DRLearner(LinearRegression()).fit(world.x, given.pop("y"), **given)


@pytest.mark.parametrize("kind", LEARNERS)
@pytest.mark.parametrize(
    "check",
    [
        estimator_checks.check_estimator_repr,
        estimator_checks.check_get_params_invariance,
        estimator_checks.check_no_attributes_set_in_init,
        estimator_checks.check_set_params,
    ],
    ids=lambda check: check.__name__,
)
def test_scikit_learn_s_own_checks_pass_where_they_apply(
    kind: type[UpliftLearner], check: Callable[[str, UpliftLearner], None]
) -> None:
    """All others fit without variants and propensities, which no learner of uplift can do."""
    check(kind.__name__, kind(LinearRegression()))


def test_pipelines_may_stand_inside() -> None:
    """Scaling changes no least-squares fit."""
    world = World(5)
    even = np.full((len(world.y), 3), 1.0 / 3.0)
    given = {"variant": world.variant, "propensities": even}
    plain = TLearner(LinearRegression()).fit(world.x, world.y, **given)
    scaled = TLearner(make_pipeline(StandardScaler(), LinearRegression())).fit(world.x, world.y, **given)
    assert np.allclose(plain.predict(world.x), scaled.predict(world.x))
