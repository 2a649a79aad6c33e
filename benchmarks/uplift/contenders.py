"""The learners that are compared. Each takes attributes, outcomes, who was treated and with which chance."""

from collections.abc import Callable
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from optimizer.uplift.learners import DRLearner, RLearner, SLearner, TLearner, UpliftLearner, XLearner
from optimizer.uplift.models import effect_model, outcome_model

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]
Fit = Callable[[Floats, Floats, Flags, Floats, int], Callable[[Floats], Floats]]  # x, y, treated, propensity, seed


def _models(seed: int) -> tuple[Any, Any]:
    return outcome_model(is_binary=False, seed=seed), effect_model(seed=seed)


def _ours(kind: type[UpliftLearner]) -> Fit:
    def fit(x: Floats, y: Floats, treated: Flags, propensity: Floats, seed: int) -> Callable[[Floats], Floats]:  # noqa: PLR0917
        inside, effect = _models(seed)
        shares = np.column_stack([1.0 - propensity, propensity])
        learner = kind(inside, effect_model=effect)
        learner.fit(x, y, variant=treated.astype(int), propensities=shares)
        return lambda new: learner.predict(new)[:, 0]

    return fit


def _econml(name: str) -> Fit:
    def fit(x: Floats, y: Floats, treated: Flags, propensity: Floats, seed: int) -> Callable[[Floats], Floats]:  # noqa: PLR0917
        from econml.dr import DRLearner as EconDR
        from econml.metalearners import SLearner as EconS
        from econml.metalearners import TLearner as EconT
        from econml.metalearners import XLearner as EconX
        from sklearn.dummy import DummyClassifier
        from sklearn.linear_model import LogisticRegression

        inside, effect = _models(seed)
        chance = DummyClassifier() if np.ptp(propensity) < 1e-9 else LogisticRegression()
        made = {
            "T": lambda: EconT(models=inside),
            "S": lambda: EconS(overall_model=inside),
            "X": lambda: EconX(models=inside, cate_models=effect, propensity_model=chance),
            "DR": lambda: EconDR(
                model_propensity=chance, model_regression=inside, model_final=effect, cv=3, random_state=seed
            ),
        }[name]()
        made.fit(y, treated.astype(int), X=x)
        return lambda new: np.asarray(made.effect(new), dtype=np.float64).ravel()

    return fit


def _causalml(name: str) -> Fit:
    def fit(x: Floats, y: Floats, treated: Flags, propensity: Floats, seed: int) -> Callable[[Floats], Floats]:  # noqa: PLR0917
        from causalml.inference.meta import BaseRRegressor, BaseTRegressor, BaseXRegressor

        inside, effect = _models(seed)
        arms = np.where(treated, "treated", "control")
        given: dict[str, Any] = {} if name == "T" else {"p": {"treated": propensity}}
        made = {
            "T": lambda: BaseTRegressor(learner=inside, control_name="control"),
            "X": lambda: BaseXRegressor(
                control_outcome_learner=inside,
                treatment_outcome_learner=inside,
                control_effect_learner=effect,
                treatment_effect_learner=effect,
                control_name="control",
            ),
            "R": lambda: BaseRRegressor(
                outcome_learner=inside, effect_learner=effect, control_name="control", random_state=seed
            ),
        }[name]()
        made.fit(X=x, treatment=arms, y=y, **given)
        mean = float(propensity.mean())

        def predict(new: Floats) -> Floats:
            more: dict[str, Any] = {"p": {"treated": np.full(len(new), mean)}} if name == "X" else {}
            return np.asarray(made.predict(X=new, **more), dtype=np.float64).ravel()

        return predict

    return fit


def _sklift(name: str) -> Fit:
    def fit(x: Floats, y: Floats, treated: Flags, propensity: Floats, seed: int) -> Callable[[Floats], Floats]:  # noqa: ARG001, PLR0917
        from sklift.models import SoloModel, TwoModels

        if set(np.unique(y)) <= {0.0, 1.0}:  # it asks for classifiers then
            inside, again = (outcome_model(is_binary=True, seed=seed) for _ in range(2))
        else:
            inside, again = (outcome_model(is_binary=False, seed=seed) for _ in range(2))
        made = {
            "S": lambda: SoloModel(inside),
            "T": lambda: TwoModels(estimator_trmnt=inside, estimator_ctrl=again, method="vanilla"),
        }[name]()
        made.fit(x, y, treated.astype(int))
        return lambda new: np.asarray(made.predict(new), dtype=np.float64)

    return fit


CONTENDERS: Final[dict[str, Fit]] = {
    "optimizer S": _ours(SLearner),
    "optimizer T": _ours(TLearner),
    "optimizer X": _ours(XLearner),
    "optimizer R": _ours(RLearner),
    "optimizer DR": _ours(DRLearner),
    "econml S": _econml("S"),
    "econml T": _econml("T"),
    "econml X": _econml("X"),
    "econml DR": _econml("DR"),
    "causalml T": _causalml("T"),
    "causalml X": _causalml("X"),
    "causalml R": _causalml("R"),
    "scikit-uplift S": _sklift("S"),
    "scikit-uplift T": _sklift("T"),
}
