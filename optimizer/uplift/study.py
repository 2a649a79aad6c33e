"""A study of uplift: models and policies from earlier customers, judged on later ones, then fitted to all.

Outcomes are turned so that more is better. Customers stand in folds of time: each fold but the first is predicted, and
its policies are chosen, by what earlier folds have taught; nothing that judges has been learnt from.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from optimizer.errors import InvalidArgument, NoVariation
from optimizer.uplift.folds import chronological_folds
from optimizer.uplift.learners import UpliftLearner, predictions
from optimizer.uplift.models import ROUNDS, learner_of, outcome_model
from optimizer.uplift.policies import Purse, policy_tree, segment_winners
from optimizer.uplift.policy_tree import Node, choices
from optimizer.uplift.policy_value import doubly_robust_scores

Floats = NDArray[np.float64]
Index = NDArray[np.intp]
Progress = Callable[[float], None]


@dataclass(frozen=True, slots=True)
class Units:
    """What happened, in the order of time. Variant 0 is control.

    Attributes:
        x: Attributes as they were at the decision, categories as codes, nan for missing, shape (n_units, n_attributes).
        outcome: More is better, in outcome units, shape (n_units,); so are all that follow but ``propensities``.
        worth: What the unit brought before the cost of its decision, in units of value; more is better.
        variant: Index of the variant.
        customer: Whole numbers from 0 on.
        segment: Index of its segment.
        block: Of time, such as its day.
        propensities: Of every variant, as logged, all > 0, shape (n_units, n_variants).
    """

    x: Floats
    outcome: Floats
    worth: Floats
    variant: Index
    customer: Index
    segment: Index
    block: Index
    propensities: Floats

    @property
    def n_variants(self) -> int:
        """Control among them."""
        return int(self.propensities.shape[1])

    def among(self, rows: NDArray[np.bool_] | Index) -> Self:
        """Some of the units."""
        return type(self)(*(getattr(self, one.name)[rows] for one in fields(self)))


@dataclass(frozen=True, slots=True)
class Settings:
    """How to study.

    Attributes:
        cost: Of a decision for each variant, in units of value, shape (n_variants,).
        categorical: Columns of ``x`` that hold codes.
        learner: "s", "t", "x", "r" or "dr".
        n_folds: Folds of time; the first is learnt from only.
        depth: Of the policy tree.
        budget: Mean cost of a decision over control's, at most; None: whatever pays.
        rounds: Of boosting.
        seed: Of the models.
    """

    cost: Floats
    categorical: tuple[int, ...] = ()
    learner: str = "x"
    n_folds: int = 4
    depth: int = 2
    budget: float | None = None
    rounds: int = ROUNDS
    seed: int = 0

    @property
    def of_models(self) -> dict[str, Any]:
        """What all models take."""
        return {"categorical": self.categorical, "rounds": self.rounds, "seed": self.seed}

    @property
    def of_trees(self) -> dict[str, Any]:
        """What policy trees take."""
        return {"categorical": self.categorical, "depth": self.depth, "budget": self.budget}


@dataclass(frozen=True, slots=True)
class Model:
    """What has been learnt: uplift of outcomes, what that is worth, and outcomes as they would be.

    Attributes:
        learner: Of the outcome.
        worth_learner: Of the worth, where that is not just a multiple of the outcome; else None.
        scale: Worth of one unit of outcome, where it is.
        outcomes: A model of the outcome for each variant, control first; of the final model, of control alone.
        worths: The same of the worth; empty where it is a multiple.
        shift: Worth of no outcome, where it is.
    """

    learner: UpliftLearner
    worth_learner: UpliftLearner | None
    scale: float
    outcomes: tuple[Any, ...]
    worths: tuple[Any, ...] = ()
    shift: float = 0.0

    def uplift(self, x: Floats) -> Floats:
        """Predicted uplift of each variant but control, in outcome units, shape (n_units, n_variants - 1)."""
        return self.learner.predict(x)

    def gain(self, x: Floats, cost: Floats, *, uplift: Floats | None = None) -> Floats:
        """Predicted net value of each variant over control, shape (n_units, n_variants); of control 0.

        Args:
            x: Attributes.
            cost: Of a decision, by variant.
            uplift: As ``uplift`` gave it, if it is at hand.
        """
        if self.worth_learner is not None:
            worth = self.worth_learner.predict(x)
        else:
            worth = self.scale * (self.uplift(x) if uplift is None else uplift)
        return np.column_stack([np.zeros(len(x)), worth - (cost[1:] - cost[0])])

    def mean(self, x: Floats) -> Floats:
        """Predicted outcomes, shape (n_units, n_models)."""
        return predictions(self.outcomes, x)

    def mean_worth(self, x: Floats, mean: Floats) -> Floats:
        """Predicted worth before the cost of decisions, the same shape."""
        return predictions(self.worths, x) if self.worths else self.scale * mean + self.shift


@dataclass(frozen=True, slots=True)
class Held:
    """Predictions and choices for units that no model behind them has seen, one row a unit.

    Attributes:
        units: The units.
        fold: Fold of each, from 1 on.
        uplift: Predicted uplift, shape (n_units, n_variants - 1).
        gain: Predicted net value over control, shape (n_units, n_variants).
        scores: Doubly robust scores of the outcome, the same shape.
        values: Doubly robust scores of the net value, the same shape.
        by_model: What the model chooses.
        by_tree: What the policy tree chooses.
        by_segment: The segments' winners.
        for_all: The one variant that was best for all.
    """

    units: Units
    fold: Index
    uplift: Floats
    gain: Floats
    scores: Floats
    values: Floats
    by_model: Index
    by_tree: Index
    by_segment: Index
    for_all: Index


@dataclass(frozen=True, slots=True)
class Study:
    """What came out: the judged predictions, the model of all units, and its choice as a tree.

    Attributes:
        held: Units of all folds but the first, each predicted by what came before.
        model: Fitted to all units.
        tree: Its choice, distilled.
        price: What a unit of cost must bring for the budget to suffice; 0 without one.
    """

    held: Held
    model: Model
    tree: Node
    price: float


def study(units: Units, settings: Settings, *, progress: Progress = lambda _share: None) -> Study:
    """Learn and judge fold by fold, then learn from all.

    Args:
        units: What happened.
        settings: How to study.
        progress: Told how far it is, from 0 to 1.
    Raises:
        InvalidArgument: Too few units for the folds, or arrays that don't fit.
        NoVariation: The outcomes of a fold's predecessors are all alike.
    """
    fold = chronological_folds(units.customer, n_folds=settings.n_folds)
    shares = [float((fold < part).mean()) for part in range(1, settings.n_folds)] + [1.0]
    done = np.cumsum(shares) / sum(shares)
    parts = []
    for part in range(1, settings.n_folds):
        parts.append(_judged(units.among(fold < part), units.among(fold == part), settings=settings, part=part))
        progress(float(done[part - 1]))
    model = _fitted(units, settings, is_final=True)
    gain = model.gain(units.x, settings.cost)
    purse = Purse.of(gain, settings.cost, budget=settings.budget)
    tree = policy_tree(units.x, gain, purse=purse, **settings.of_trees)
    progress(1.0)
    return Study(_joined(parts), model, tree, purse.price)


def _judged(before: Units, after: Units, *, settings: Settings, part: int) -> Held:
    """What earlier units teach, applied to later ones."""
    model = _fitted(before, settings, is_final=False)
    gain_before = model.gain(before.x, settings.cost)
    purse = Purse.of(gain_before, settings.cost, budget=settings.budget)
    tree = policy_tree(before.x, gain_before, purse=purse, **settings.of_trees)
    uplift = model.uplift(after.x)
    gain, mean = model.gain(after.x, settings.cost, uplift=uplift), model.mean(after.x)
    worth = model.mean_worth(after.x, mean)
    seen = {"propensities": after.propensities}
    winners, for_all = segment_winners(
        before.worth,
        before.variant,
        propensities=before.propensities,
        cost=settings.cost,
        segment=before.segment,
        budget=settings.budget,
    )
    return Held(
        units=after,
        fold=np.full(len(after.x), part, dtype=np.intp),
        uplift=uplift,
        gain=gain,
        scores=doubly_robust_scores(after.outcome, after.variant, predicted=mean, **seen),
        values=doubly_robust_scores(after.worth, after.variant, predicted=worth, **seen) - settings.cost,
        by_model=purse.choose(gain),
        by_tree=choices(tree, after.x),
        by_segment=np.array([winners.get(int(one), for_all) for one in after.segment], dtype=np.intp),
        for_all=np.full(len(after.x), for_all, dtype=np.intp),
    )


def _fitted(units: Units, settings: Settings, *, is_final: bool) -> Model:
    if units.outcome.size == 0 or float(np.ptp(units.outcome)) <= 0.0:
        raise NoVariation(float(units.outcome.size))
    line = _line(units.outcome, units.worth)
    chosen = range(1 if is_final else units.n_variants)
    return Model(
        learner=_learnt(units, units.outcome, settings=settings),
        worth_learner=None if line else _learnt(units, units.worth, settings=settings),
        scale=line[0] if line else 1.0,
        outcomes=tuple(_of_variant(units, units.outcome, one=one, settings=settings) for one in chosen),
        worths=() if line else tuple(_of_variant(units, units.worth, one=one, settings=settings) for one in chosen),
        shift=line[1] if line else 0.0,
    )


def _learnt(units: Units, y: Floats, *, settings: Settings) -> UpliftLearner:
    learner = learner_of(settings.learner, is_binary=_is_binary(y), **settings.of_models)
    fold = units.customer % learner.n_folds  # any split that keeps customers whole
    return learner.fit(units.x, y, variant=units.variant, propensities=units.propensities, fold=fold)


def _of_variant(units: Units, y: Floats, *, one: int, settings: Settings) -> Any:
    rows = units.variant == one
    if not rows.any():
        raise InvalidArgument("variant", f"{one} has no units among the first {rows.size}")
    model = outcome_model(is_binary=_is_binary(y), **settings.of_models)
    weight = 1.0 / units.propensities[rows, one]
    is_even = np.ptp(weight) <= 1e-9 * weight.max()  # scikit-learn takes twenty times as long to bin weighted units
    return model.fit(units.x[rows], y[rows], sample_weight=None if is_even else weight / weight.mean())


def _is_binary(y: Floats) -> bool:
    return bool(((y == 0.0) | (y == 1.0)).all())


def _line(outcome: Floats, worth: Floats) -> tuple[float, float] | None:
    """Slope and offset of worth by outcome, if it is a straight line."""
    low, high = int(outcome.argmin()), int(outcome.argmax())
    slope = float((worth[high] - worth[low]) / (outcome[high] - outcome[low]))
    offset = float(worth[low] - slope * outcome[low])
    return (slope, offset) if np.allclose(worth, slope * outcome + offset, rtol=1e-9, atol=1e-12) else None


def _joined(parts: list[Held]) -> Held:
    names = [one.name for one in fields(Units)]
    units = Units(*(np.concatenate([getattr(part.units, name) for part in parts]) for name in names))
    rest = [one.name for one in fields(Held) if one.name != "units"]
    return Held(units, *(np.concatenate([getattr(part, name) for part in parts]) for name in rest))
