"""A policy tree in words and rules: its leaves named as the field names customers, and said as segments."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from experiments.uplift.features import Feature
from optimizer.uplift.policy_tree import Leaf, Node, Split
from optimizer.uplift.policy_value import Estimate, mean_of

Group = Literal["persuadables", "sure-things", "lost-causes", "sleeping-dogs"]
Rule = dict[str, Any]
_Path = tuple[tuple[Split, bool], ...]  # splits from the root, and whether above was taken


@dataclass(frozen=True, slots=True)
class Found:
    """A leaf.

    Attributes:
        key: As a segment.
        group: What its customers are.
        rule: Who they are; None: everyone.
        choice: Index of the variant that is chosen for them.
        n_units: Units in it, of those that judged.
        base: Their mean outcome under control; None, as all that follow, from units of fewer than two customers.
        uplift: Of each variant but control, with intervals.
        gain: Net value of the choice over control.
    """

    key: str
    group: Group
    rule: Rule | None
    choice: int
    n_units: int
    base: Estimate | None
    uplift: Sequence[Estimate | None]
    gain: Estimate | None


def leaves_of(
    tree: Node,
    features: Sequence[Feature],
    *,
    x: NDArray[np.float64],
    scores: NDArray[np.float64],
    values: NDArray[np.float64],
    customer: NDArray[np.intp],
) -> list[Found]:
    """The leaves with what is observed in them, those with most to gain first.

    Persuadables gain by the choice. Where control is chosen, sleeping dogs are those whom the best other variant
    harms beyond chance; of the rest, sure things do more without any variant than customers do on average, lost causes
    less.

    Args:
        tree: Over the features.
        features: Its columns.
        x: Held-out units' attributes.
        scores: Doubly robust scores of their outcomes, more being better.
        values: The same of their net values.
        customer: Whose they are.
    """
    mean = float(scores[:, 0].mean())
    found = []
    for conditions, leaf in _paths(tree):
        inside = np.ones(len(x), dtype=np.bool_)
        for split, is_above in conditions:
            inside &= split.is_above(x) == is_above
        own, who = scores[inside], customer[inside]
        uplift = [_mean(own[:, one] - own[:, 0], who) for one in range(1, scores.shape[1])]
        gain = _mean(values[inside, leaf.choice] - values[inside, 0], who)
        base = _mean(own[:, 0], who)
        group = _group(leaf.choice, uplift, base=base, mean=mean)
        rules = [_rule(features[split.attribute], split, is_above=above) for split, above in conditions]
        found.append(Found(group, group, _all(rules), leaf.choice, int(inside.sum()), base, uplift, gain))
    ranked = sorted(found, key=lambda one: 0.0 if one.gain is None else -one.gain.mean)
    return [replace(one, key=f"{one.group}-{at}") for at, one in enumerate(ranked, start=1)]


def _mean(values: NDArray[np.float64], customer: NDArray[np.intp]) -> Estimate | None:
    return mean_of(values, customer=customer) if np.unique(customer).size > 1 else None


def _paths(node: Node, path: _Path = ()) -> Iterator[tuple[_Path, Leaf]]:
    if isinstance(node, Leaf):
        yield path, node
        return
    yield from _paths(node.below, (*path, (node, False)))
    yield from _paths(node.above, (*path, (node, True)))


def _group(choice: int, uplift: Sequence[Estimate | None], *, base: Estimate | None, mean: float) -> Group:
    if choice != 0:
        return "persuadables"
    best = max((one for one in uplift if one is not None), key=lambda one: one.mean, default=None)
    if best is not None and best.interval[1] < 0.0:
        return "sleeping-dogs"
    return "sure-things" if base is not None and base.mean >= mean else "lost-causes"


def _rule(feature: Feature, split: Split, *, is_above: bool) -> Rule:
    condition = _above(feature, split)
    return condition if is_above else {"not": condition}


def _above(feature: Feature, split: Split) -> Rule:
    """What sends a customer above: false, like all comparisons, where the attribute is missing."""
    named: Rule = {"attribute": feature.attribute}
    if split.threshold is None:
        listed = [feature.values[code] for code in sorted(split.categories or ())]
        return named | {"in": listed}
    if feature.kind == "number":
        whole = int(split.threshold)
        return named | {"gte": whole if whole == split.threshold else split.threshold}
    if feature.kind == "datetime":
        return named | {"gte": datetime.fromtimestamp(split.threshold, UTC).isoformat()}
    if split.threshold <= 0.0:  # 0 and 1 alike
        return named | {"exists": True}
    return named | ({"eq": True} if feature.kind == "boolean" else {"contains": feature.values[0]})


def _all(rules: Sequence[Rule]) -> Rule | None:
    if not rules:
        return None
    return rules[0] if len(rules) == 1 else {"all": list(rules)}
