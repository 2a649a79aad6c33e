"""Models as they are stored: skops files, whose every type is known beforehand, so that loading one runs nothing."""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, Final
from zipfile import ZIP_DEFLATED, BadZipFile

import numpy as np
from numpy.typing import NDArray
from sqlmodel import Session

from experiments.tables import Analysis, AnalysisModel
from experiments.uplift.errors import ModelNotFound, ModelUnreadable
from experiments.uplift.features import Feature
from optimizer.uplift.policies import Purse
from optimizer.uplift.policy_tree import Leaf, Node, Split
from optimizer.uplift.study import Model, Study

VERSION: Final = 1
# Our learners, and what scikit-learn's boosting has inside: nothing else that a file names is loaded.
_TRUSTED: Final = (
    "functools.partial",
    "optimizer.uplift.learners.DRLearner",
    "optimizer.uplift.learners.RLearner",
    "optimizer.uplift.learners.SLearner",
    "optimizer.uplift.learners.TLearner",
    "optimizer.uplift.learners.XLearner",
    "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
    "sklearn.utils.validation.check_array",
)

_NO_MODEL: Final = (ValueError, KeyError, TypeError, AttributeError, ImportError, OSError, BadZipFile)


@dataclass(frozen=True, slots=True)
class Scorer:
    """A stored model with all that scoring a customer takes.

    Attributes:
        model: Predicts.
        features: Its columns.
        variants: Keys, control first.
        cost: Of a decision, by variant.
        purse: Chooses.
        tree: The choice, distilled.
    """

    model: Model
    features: tuple[Feature, ...]
    variants: tuple[str, ...]
    cost: NDArray[np.float64]
    purse: Purse
    tree: Node


def packed(
    study: Study, *, features: tuple[Feature, ...], variants: tuple[str, ...], cost: NDArray[np.float64]
) -> bytes:
    """A study's model as a file, all of a ``Scorer``."""
    from skops.io import dumps  # slow to import, as scikit-learn is

    model = study.model
    return bytes(
        dumps(
            {
                "version": VERSION,
                "scikit-learn": _scikit_learn(),
                "learner": model.learner,
                "worth_learner": model.worth_learner,
                "scale": model.scale,
                "shift": model.shift,
                "outcomes": list(model.outcomes),
                "worths": list(model.worths),
                "features": [one.to_json() | {"values": list(one.values)} for one in features],
                "variants": list(variants),
                "cost": cost,
                "price": study.price,
                "tree": _said(study.tree),
            },
            compression=ZIP_DEFLATED,
        )
    )


def load_scorer(session: Session, id_: str) -> Scorer:
    """The stored model of an analysis.

    Raises:
        ModelNotFound: No such analysis, or it is none of uplift, or it is not done.
        ModelUnreadable: It was written by another version, or holds what no model of ours does.
    """
    row = session.get(AnalysisModel, id_)
    if row is None:
        raise ModelNotFound(id_, why=_why(session.get(Analysis, id_)))
    return unpacked(row.model)


def unpacked(file: bytes) -> Scorer:
    """A scorer from its file.

    Raises:
        ModelUnreadable: As ``load_scorer``.
    """
    from skops.io import loads

    try:
        held: dict[str, Any] = dict(loads(file, trusted=list(_TRUSTED)))
    except _NO_MODEL as error:  # TypeError: a type that is not trusted, or no mapping
        raise ModelUnreadable(str(error)[:200]) from error
    if held.get("version") != VERSION:
        raise ModelUnreadable(f"its version is {held.get('version')!r}, not {VERSION}")
    if held.get("scikit-learn") != _scikit_learn():
        raise ModelUnreadable(f"it was fitted with scikit-learn {held.get('scikit-learn')}, here is {_scikit_learn()}")
    cost = np.asarray(held["cost"], dtype=np.float64)
    model = Model(
        learner=held["learner"],
        worth_learner=held["worth_learner"],
        scale=held["scale"],
        shift=held["shift"],
        outcomes=tuple(held["outcomes"]),
        worths=tuple(held["worths"]),
    )
    features = tuple(Feature.from_json(one) for one in held["features"])
    purse = Purse(cost - cost[0], held["price"])
    return Scorer(model, features, tuple(held["variants"]), cost, purse, _node(held["tree"]))


def _scikit_learn() -> str:
    """The version, as far as the insides of models hang on it."""
    return ".".join(version("scikit-learn").split(".")[:2])


def _why(analysis: Analysis | None) -> str:
    if analysis is None:
        return "there is no such analysis"
    if analysis.kind != "uplift":
        return f"it is of the kind {analysis.kind}"
    return f"it is {analysis.status}"


def _said(node: Node) -> dict[str, Any]:
    if isinstance(node, Leaf):
        return {"choice": node.choice, "n_units": node.n_units, "value": node.value}
    return {
        "attribute": node.attribute,
        "threshold": node.threshold,
        "categories": None if node.categories is None else sorted(node.categories),
        "below": _said(node.below),
        "above": _said(node.above),
    }


def _node(said: Mapping[str, Any]) -> Node:
    if "choice" in said:
        return Leaf(said["choice"], said["n_units"], said["value"])
    codes = said["categories"]
    return Split(
        said["attribute"],
        said["threshold"],
        None if codes is None else frozenset(codes),
        _node(said["below"]),
        _node(said["above"]),
    )
