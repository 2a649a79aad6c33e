"""From what was read to what a study takes: the variants that are compared, and refusals with their reasons."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from experiments.review.money import Costs
from experiments.uplift.errors import (
    ConstantOutcome,
    FewEffectiveUnits,
    MarginMissing,
    MeasuredAfterwards,
    NoAttributes,
    NoControl,
    PropensitiesUnknown,
    TooFewUnits,
)
from experiments.uplift.features import categorical
from experiments.uplift.units import UnitsRead, Wanted
from optimizer.uplift.balance import imbalance
from optimizer.uplift.policy_value import SMALLEST_EFFECTIVE_UNITS
from optimizer.uplift.study import Units

Floats = NDArray[np.float64]

FEWEST_UNITS: Final = 500  # of each variant: four folds of 125
FALSE_REFUSALS: Final = 0.001  # of attributes that were measured before, over all of them


@dataclass(frozen=True, slots=True)
class Sample:
    """Units that can be compared.

    Attributes:
        units: With control as variant 0.
        variants: Keys, control first.
        cost: Of a decision, by variant, shape (n_variants,).
        n_left_out: Units that could not get all of these variants, or whose propensity is not known.
    """

    units: Units
    variants: tuple[str, ...]
    cost: Floats
    n_left_out: int


def sample_of(
    read: UnitsRead, wanted: Wanted, *, live: Sequence[str], control: str, costs: Costs, margin: float | None
) -> Sample:
    """Choose and check.

    Args:
        read: All matured units.
        wanted: What was read.
        live: Keys of the variants that a policy could choose; control is compared anyway.
        control: Its key.
        costs: By the series' variants.
        margin: Money per unit of the metric; None: not said.
    Raises:
        NoAttributes: Nothing to target by.
        NoControl: Nobody got control.
        PropensitiesUnknown: More than half of the units can't be compared.
        TooFewUnits: A variant has fewer than 500.
        ConstantOutcome: All did the same.
        FewEffectiveUnits: Weighed by propensities they are worth too few.
        MeasuredAfterwards: Attributes hang on the variant.
        MarginMissing: Costs stand against a metric that is no money.
    """
    chosen = [control, *(key for key in wanted.variants if key in live and key != control)]
    at = [wanted.variants.index(key) for key in chosen]
    own = Costs(costs.per_response[at], costs.per_decision[at])
    if not read.features:
        raise NoAttributes(None if wanted.attributes is None else sorted(wanted.attributes))
    shares = read.propensities[:, at]
    comparable = np.isin(read.variant, at) & (shares > 0.0).all(axis=1)
    _check_counts(read, comparable, at=at, keys=chosen)
    place = np.zeros(len(wanted.variants), dtype=np.intp)
    place[at] = np.arange(len(at))
    known = shares[comparable]
    propensities = known / known.sum(axis=1, keepdims=True)
    variant = place[read.variant[comparable]]
    y = read.y[comparable]
    if np.ptp(y) <= 0.0:
        raise ConstantOutcome(wanted.metric.key, float(y[0]))
    check_weights(variant, propensities, keys=chosen)
    x = read.x[comparable]
    _check_balance(read, x, variant=variant, propensities=propensities)
    units = Units(
        x=x,
        outcome=_benefit(y, wanted),
        worth=_signed(y, wanted) * _margin(wanted, own, said=margin)
        - own.per_response[variant] * read.responded[comparable],
        variant=variant,
        customer=np.unique(read.customer[comparable], return_inverse=True)[1].astype(np.intp),
        segment=read.segment[comparable],
        block=read.day[comparable],
        propensities=propensities,
    )
    return Sample(units, tuple(chosen), own.per_decision, int((~comparable).sum()))


def _check_counts(read: UnitsRead, comparable: NDArray[np.bool_], *, at: Sequence[int], keys: Sequence[str]) -> None:
    in_all = {key: int((read.variant == one).sum()) for key, one in zip(keys, at, strict=True)}
    if in_all[keys[0]] == 0:
        raise NoControl(keys[0])
    if min(in_all.values()) < FEWEST_UNITS or len(keys) < 2:
        raise TooFewUnits(in_all, least=FEWEST_UNITS)
    n_left = int((~comparable).sum())
    if 2 * n_left > comparable.size:
        zeros = [key for key, one in zip(keys, at, strict=True) if (read.propensities[:, one] <= 0.0).mean() > 0.5]
        why = f"they could not get {', '.join(zeros)}" if zeros else "their propensities are not those of an allocation"
        raise PropensitiesUnknown(n_left, n_units=comparable.size, why=why)
    left = {key: int((read.variant[comparable] == one).sum()) for key, one in zip(keys, at, strict=True)}
    if min(left.values()) < FEWEST_UNITS:
        raise TooFewUnits(left, least=FEWEST_UNITS)


def check_weights(variant: NDArray[np.intp], propensities: Floats, *, keys: Sequence[str]) -> None:
    """Refuse variants whose units, weighed by one over their propensities, are worth too few (Kish).

    Raises:
        FewEffectiveUnits: Of the first such variant.
    """
    own = 1.0 / propensities[np.arange(variant.size), variant]
    for one, key in enumerate(keys):
        weight = own[variant == one]
        n_effective = float(weight.sum() ** 2 / (weight**2).sum())
        if n_effective < SMALLEST_EFFECTIVE_UNITS:
            raise FewEffectiveUnits(key, n_effective=n_effective, least=SMALLEST_EFFECTIVE_UNITS)


def _check_balance(read: UnitsRead, x: Floats, *, variant: NDArray[np.intp], propensities: Floats) -> None:
    p_values = imbalance(x, variant, propensities=propensities, categorical=categorical(read.features))
    wrong: dict[str, float] = {}
    for feature, p_value in zip(read.features, p_values, strict=True):
        if p_value < FALSE_REFUSALS / len(read.features):
            wrong[feature.attribute] = min(float(p_value), wrong.get(feature.attribute, 1.0))
    if wrong:
        raise MeasuredAfterwards(wrong)


def _benefit(y: Floats, wanted: Wanted) -> Floats:
    """Outcomes turned so that more is better: what is 0 or 1 stays so."""
    if wanted.metric.kind == "binary" and not wanted.metric.higher_is_better:
        return 1.0 - y
    return _signed(y, wanted)


def _signed(y: Floats, wanted: Wanted) -> Floats:
    return y if wanted.metric.higher_is_better else -y


def _margin(wanted: Wanted, costs: Costs, *, said: float | None) -> float:
    """What one unit of the metric is worth: as said; else 1, where that means something."""
    if said is not None:
        return said
    if costs.any and not (wanted.metric.kind == "mean" and wanted.metric.higher_is_better):
        raise MarginMissing(wanted.metric.key)
    return 1.0
