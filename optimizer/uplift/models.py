"""The models inside the learners unless the caller brings others: histogram gradient boosting, held back from noise."""

from typing import Any, Final

from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

from optimizer.errors import InvalidArgument
from optimizer.uplift.learners import DRLearner, RLearner, SLearner, TLearner, UpliftLearner, XLearner

LEARNERS: Final[dict[str, type[UpliftLearner]]] = {
    "s": SLearner,
    "t": TLearner,
    "x": XLearner,
    "r": RLearner,
    "dr": DRLearner,
}

ROUNDS: Final = 100


def outcome_model(*, is_binary: bool, categorical: tuple[int, ...] = (), rounds: int = ROUNDS, seed: int) -> Any:
    """A model of outcomes; of 0 and 1 it gives chances.

    Args:
        is_binary: Whether outcomes are 0 and 1.
        categorical: Columns that hold codes of categories, fewer than 255 of them; missing values are nan.
        rounds: Of boosting.
        seed: The same data and seed give the same model.
    """
    kind = HistGradientBoostingClassifier if is_binary else HistGradientBoostingRegressor
    return kind(
        max_iter=rounds,
        learning_rate=0.1,
        max_leaf_nodes=15,
        min_samples_leaf=50,
        l2_regularization=1.0,
        early_stopping=False,
        categorical_features=list(categorical) or None,
        random_state=seed,
    )


def effect_model(*, categorical: tuple[int, ...] = (), rounds: int = ROUNDS, seed: int) -> Any:
    """A model of effects, which are small beside the noise around them: shallower trees with larger leaves.

    Args:
        categorical: As of ``outcome_model``.
        rounds: As of ``outcome_model``.
        seed: As of ``outcome_model``.
    """
    return HistGradientBoostingRegressor(
        max_iter=rounds,
        learning_rate=0.05,
        max_leaf_nodes=8,
        min_samples_leaf=100,
        l2_regularization=10.0,
        early_stopping=False,
        categorical_features=list(categorical) or None,
        random_state=seed,
    )


def learner_of(
    name: str, *, is_binary: bool, categorical: tuple[int, ...] = (), rounds: int = ROUNDS, seed: int
) -> UpliftLearner:
    """A learner by its short name ("s", "t", "x", "r" or "dr") with the models above.

    Raises:
        InvalidArgument: No such learner.
    """
    kind = LEARNERS.get(name)
    if kind is None:
        raise InvalidArgument("learner", f"is {name!r}; there are {', '.join(LEARNERS)}")
    model = outcome_model(is_binary=is_binary, categorical=categorical, rounds=rounds, seed=seed)
    return kind(model, effect_model=effect_model(categorical=categorical, rounds=rounds, seed=seed))
