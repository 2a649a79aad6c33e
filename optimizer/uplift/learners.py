"""Meta-learners: any scikit-learn regressor or classifier inside, several variants at once against control.

They follow scikit-learn's conventions (``fit``, ``predict``, ``get_params``, ``clone``, pipelines); ``fit`` takes the
variant and the logged propensities of each unit beside X and y. ``predict`` gives the uplift of each variant over
control, shape (n_units, n_variants - 1), in outcome units. Nuisances that a learner needs within its own training
units are fitted on folds, so that no unit's outcome predicts itself.
"""

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, clone, is_classifier
from sklearn.tree import DecisionTreeRegressor
from sklearn.utils.validation import check_is_fitted

from optimizer.errors import InvalidArgument
from optimizer.uplift.policy_value import doubly_robust_scores

Floats = NDArray[np.float64]
Index = NDArray[np.intp]

_ALIKE = 1e-9  # propensities that differ by less are the same
_LARGEST = float(np.finfo(np.float32).max)  # that a tree takes
_NEAR = 0.05  # weights that all differ from 1 by less cost time and change nothing


class UpliftLearner(BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """What all learners share: checks of the training units, folds, predictions of outcomes.

    Args:
        model: Of the outcome: a regressor, or a classifier for outcomes of 0 and 1.
        effect_model: A regressor of effects, where the learner fits any; None takes ``model`` if that is a regressor.
        n_folds: Folds for the nuisances.
    """

    def __init__(self, model: Any, *, effect_model: Any = None, n_folds: int = 3) -> None:
        self.model = model
        self.effect_model = effect_model
        self.n_folds = n_folds

    def fit(
        self,
        X: ArrayLike,  # noqa: N803  # scikit-learn's name
        y: ArrayLike,
        *,
        variant: ArrayLike,
        propensities: ArrayLike,
        fold: ArrayLike | None = None,
    ) -> Self:
        """Learn from units.

        Args:
            X: Attributes as they were at the decision, shape (n_units, n_attributes).
            y: Outcomes, in outcome units, shape (n_units,).
            variant: Index of the variant of each unit, control being 0, shape (n_units,).
            propensities: Of every variant as logged, all > 0, shape (n_units, n_variants).
            fold: Fold of each unit in [0, n_folds), the same for all units of one customer; None: round robin.
        Raises:
            InvalidArgument: Shapes differ, a variant has no units or no propensity, or a model is of the wrong kind.
        """
        units = _Units.of(X, y, variant=variant, propensities=propensities, fold=fold, n_folds=self.n_folds)
        self.n_features_in_ = units.x.shape[1]
        self.n_variants_ = units.propensities.shape[1]
        self._learn(units)
        return self

    def predict(self, X: ArrayLike) -> Floats:  # noqa: N803  # scikit-learn's name
        """The uplift of each variant but control, shape (n_units, n_variants - 1)."""
        check_is_fitted(self, "n_variants_")
        return self._effects(np.asarray(X, dtype=np.float64))

    @abstractmethod
    def _learn(self, units: "_Units") -> None: ...

    @abstractmethod
    def _effects(self, x: Floats) -> Floats: ...

    def _effect_model(self) -> Any:
        chosen = self.model if self.effect_model is None else self.effect_model
        if is_classifier(chosen):
            raise InvalidArgument("effect_model", "must be a regressor, since effects are no classes")
        return clone(chosen)


class SLearner(UpliftLearner):
    """One model of the outcome, with the variant among its attributes.

    Source: Künzel, Sekhon, Bickel & Yu (2019), PNAS 116(10).
    """

    def _learn(self, units: "_Units") -> None:
        x = _with_variant(units.x, units.variant, n=self.n_variants_)
        self.fitted_ = _fitted(self.model, x, units.y, weight=units.weight)

    def _effects(self, x: Floats) -> Floats:
        by_variant = [
            predicted(self.fitted_, _with_variant(x, np.full(len(x), one), n=self.n_variants_))
            for one in range(self.n_variants_)
        ]
        return np.column_stack(by_variant[1:]) - by_variant[0][:, np.newaxis]


class TLearner(UpliftLearner):
    """A model of the outcome for each variant.

    Source: Künzel, Sekhon, Bickel & Yu (2019), PNAS 116(10).
    """

    def _learn(self, units: "_Units") -> None:
        self.fitted_ = _by_variant(self.model, units)

    def _effects(self, x: Floats) -> Floats:
        means = predictions(self.fitted_, x)
        return means[:, 1:] - means[:, :1]


class XLearner(UpliftLearner):
    """Effects imputed on either side from the other side's model, weighed by the mean propensity.

    Source: Künzel, Sekhon, Bickel & Yu (2019), PNAS 116(10).
    """

    def _learn(self, units: "_Units") -> None:
        models = _by_variant(self.model, units)
        means = predictions(models, units.x)  # each side's units have not seen the other's model
        control = units.variant == 0
        self.sides_, self.share_ = [], []
        for one in range(1, self.n_variants_):
            treated = units.variant == one
            gained = _fitted_on(treated, self._effect_model(), units=units, y=units.y - means[:, 0])
            missed = _fitted_on(control, self._effect_model(), units=units, y=means[:, one] - units.y)
            shares = units.propensities[treated | control]
            self.sides_.append((gained, missed))
            self.share_.append(float((shares[:, one] / (shares[:, one] + shares[:, 0])).mean()))

    def _effects(self, x: Floats) -> Floats:
        effects = [
            (1.0 - share) * predicted(gained, x) + share * predicted(missed, x)
            for (gained, missed), share in zip(self.sides_, self.share_, strict=True)
        ]
        return np.column_stack(effects)


class RLearner(UpliftLearner):
    """Effects fitted to what is left of outcome and variant when both have been predicted from the attributes.

    Source: Nie & Wager (2021), Biometrika 108(2); a variant and control at a time, with the logged propensities.
    """

    def _learn(self, units: "_Units") -> None:
        self.fitted_ = [self._one(units.of_two(one)) for one in range(1, self.n_variants_)]

    def _one(self, units: "_Units") -> Any:
        mean = np.empty(units.y.size)
        for inside, outside in units.folds():
            mean[outside] = predicted(_fitted_on(inside, self.model, units=units, y=units.y), units.x[outside])
        left = (units.variant == 1) - units.propensities[:, 1]
        return _fitted(self._effect_model(), units.x, (units.y - mean) / left, weight=left**2)

    def _effects(self, x: Floats) -> Floats:
        return np.column_stack([predicted(one, x) for one in self.fitted_])


class DRLearner(UpliftLearner):
    """Effects fitted to differences of doubly robust scores.

    Where propensities differ, a difference counts by one over how much it varies for that reason.

    Source: Kennedy (2023), Electronic Journal of Statistics 17(2).
    """

    def _learn(self, units: "_Units") -> None:
        means = _cross_fitted_outcomes(self.model, units)
        scores = doubly_robust_scores(units.y, units.variant, propensities=units.propensities, predicted=means)
        self.fitted_ = [
            _fitted(self._effect_model(), units.x, scores[:, one] - scores[:, 0], weight=units.precision(one))
            for one in range(1, self.n_variants_)
        ]

    def _effects(self, x: Floats) -> Floats:
        return np.column_stack([predicted(one, x) for one in self.fitted_])


class _Units:
    """Training units, checked."""

    def __init__(self, x: Floats, y: Floats, *, variant: Index, propensities: Floats, fold: Index) -> None:
        self.x, self.y, self.variant, self.propensities, self.fold = x, y, variant, propensities, fold

    @classmethod
    def of(
        cls,
        x: ArrayLike,
        y: ArrayLike,
        *,
        variant: ArrayLike,
        propensities: ArrayLike,
        fold: ArrayLike | None,
        n_folds: int,
    ) -> "_Units":
        matrix, outcome = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
        index, shares = np.asarray(variant, dtype=np.intp), np.asarray(propensities, dtype=np.float64)
        folds = np.arange(outcome.size) % n_folds if fold is None else np.asarray(fold, dtype=np.intp)
        if matrix.ndim != 2 or outcome.shape != matrix.shape[:1]:
            raise InvalidArgument("y", f"has shape {outcome.shape} for attributes of shape {matrix.shape}")
        for name, array in (("variant", index), ("propensities", shares), ("fold", folds)):
            if array.shape[:1] != outcome.shape:
                raise InvalidArgument(name, f"has shape {array.shape} for {outcome.size} units")
        if shares.ndim != 2 or shares.shape[1] < 2:
            raise InvalidArgument("propensities", f"need two variants at least, not shape {shares.shape}")
        if not (np.isfinite(shares).all() and (shares > 0.0).all()):
            raise InvalidArgument(
                "propensities", "are not positive everywhere: effects of what can't be had are unknown"
            )
        if index.size and not 0 <= index.min() <= index.max() < shares.shape[1]:
            raise InvalidArgument("variant", f"names others than the {shares.shape[1]} that have propensities")
        for one in range(shares.shape[1]):
            for part in range(n_folds):
                if not ((index == one) & (folds != part)).any():
                    raise InvalidArgument("variant", f"{one} has no units outside of fold {part}")
        return cls(matrix, outcome, variant=index, propensities=shares, fold=folds)

    @property
    def is_even(self) -> bool:
        """Whether the propensities of all units are alike."""
        return float(np.ptp(self.propensities, axis=0).max()) < _ALIKE

    @cached_property
    def weight(self) -> Floats | None:
        """What makes those who got a variant stand for all with their attributes; None if all weights are 1.

        The propensity that units with such attributes have on average, over the unit's own: where attributes alone
        decide on propensities all weights are about 1, as none are needed; what time does beside them is made good.
        Source: the stabilised weights of Robins, Hernán & Brumback (2000), Epidemiology 11(5).
        """
        if self.is_even:
            return None
        fewest = max(20, self.y.size // 200)
        expected = DecisionTreeRegressor(min_samples_leaf=fewest, max_leaf_nodes=200, random_state=0)
        rows = np.arange(self.y.size)
        x = np.clip(self.x, -_LARGEST, _LARGEST)
        mean = expected.fit(x, self.propensities).predict(x)[rows, self.variant]
        weight: Floats = mean / self.propensities[rows, self.variant]
        return None if float(np.abs(weight - 1.0).max()) < _NEAR else weight

    def precision(self, one: int) -> Floats | None:
        """Weights of differences of scores between a variant and control; None if propensities are all alike."""
        if self.is_even:
            return None
        precision = 1.0 / (1.0 / self.propensities[:, one] + 1.0 / self.propensities[:, 0])
        return np.asarray(precision / precision.mean(), dtype=np.float64)

    def folds(self) -> Iterator[tuple[NDArray[np.bool_], NDArray[np.bool_]]]:
        """For each fold, which units are outside of it (to learn from) and which are in it (to predict)."""
        for part in np.unique(self.fold):
            yield self.fold != part, self.fold == part

    def of_two(self, one: int) -> "_Units":
        """The units of control and of one variant alone, with their propensities among the two."""
        chosen = (self.variant == 0) | (self.variant == one)
        shares = self.propensities[chosen][:, [0, one]]
        return _Units(
            self.x[chosen],
            self.y[chosen],
            variant=(self.variant[chosen] == one).astype(np.intp),
            propensities=shares / shares.sum(axis=1, keepdims=True),
            fold=self.fold[chosen],
        )


def _fitted(model: Any, x: Floats, y: Floats, *, weight: Floats | None = None) -> Any:  # noqa: PLR0917  # as scikit-learn
    return clone(model).fit(x, y) if weight is None else clone(model).fit(x, y, sample_weight=weight)


def _fitted_on(rows: NDArray[np.bool_], model: Any, *, units: _Units, y: Floats) -> Any:
    weight = units.weight
    return _fitted(model, units.x[rows], y[rows], weight=None if weight is None else weight[rows])


def predicted(model: Any, x: Floats) -> Floats:
    """The mean outcome: of a classifier the chance of 1, also where it has seen but one class."""
    if not is_classifier(model):
        return np.asarray(model.predict(x), dtype=np.float64)
    chances = model.predict_proba(x)
    known = [column for column, value in enumerate(model.classes_) if value == 1]
    return np.asarray(chances[:, known].sum(axis=1), dtype=np.float64)


def predictions(models: Sequence[Any], x: Floats) -> Floats:
    """Of each model, as ``predicted``, shape (n_units, n_models)."""
    return np.column_stack([predicted(model, x) for model in models])


def _by_variant(model: Any, units: _Units) -> list[Any]:
    chosen = [units.variant == one for one in range(units.propensities.shape[1])]
    return [_fitted_on(rows, model, units=units, y=units.y) for rows in chosen]


def _cross_fitted_outcomes(model: Any, units: _Units) -> Floats:
    """Predicted outcomes under every variant, shape (n_units, n_variants), by models of the other folds.

    One model has the variant among its attributes: what variants have in common it learns from all units.
    """
    means = np.empty(units.propensities.shape)
    n = units.propensities.shape[1]
    x = _with_variant(units.x, units.variant, n=n)
    for inside, outside in units.folds():
        weight = None if units.weight is None else units.weight[inside]
        fitted = _fitted(model, x[inside], units.y[inside], weight=weight)
        for one in range(n):
            given = _with_variant(units.x[outside], np.full(int(outside.sum()), one), n=n)
            means[outside, one] = predicted(fitted, given)
    return means


def _with_variant(x: Floats, variant: Index, *, n: int) -> Floats:
    return np.column_stack([x, *((variant == one).astype(np.float64) for one in range(1, n))])
