"""Our default learner on the data of another library's run, whose figures are from benchmarks/uplift, seed 101."""

import numpy as np
import pytest

from benchmarks.uplift.worlds import world
from optimizer.uplift.models import learner_of

N_LEARNT = 4_000


@pytest.mark.parametrize(
    ("kind", "of_x", "of_dr"),
    [("mostly linear", 0.7977, 0.7403), ("by parts", 0.6702, 0.5872), ("unequal propensities", 0.8436, 0.6684)],
    ids=["linear", "parts", "unequal"],
)
def test_the_default_learner_knows_the_effect_as_well_as_theirs(kind: str, of_x: float, of_dr: float) -> None:
    """Correlation with the true effect; theirs: econml 0.17.0, XLearner and DRLearner, with the same boosting inside.

    Other processors sum in another order, which may move the third digit.
    """
    made = world(kind, seed=101)
    learnt = np.arange(len(made.y)) < N_LEARNT
    shares = np.column_stack([1.0 - made.propensity, made.propensity])
    learner = learner_of("x", is_binary=False, seed=101)
    learner.fit(made.x[learnt], made.y[learnt], variant=made.treated[learnt].astype(int), propensities=shares[learnt])
    found = np.corrcoef(learner.predict(made.x[~learnt])[:, 0], made.effect[~learnt])[0, 1]
    assert found > max(of_x, of_dr) - 0.005
