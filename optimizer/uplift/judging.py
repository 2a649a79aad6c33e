"""What a study's predictions and policies are worth, on the units that they were not learnt from."""

from dataclasses import dataclass, replace
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from optimizer.errors import NoVariation
from optimizer.uplift.curves import (
    Coefficient,
    CoefficientIntervals,
    Curve,
    auuc,
    coefficient_intervals,
    judged,
    qini,
    qini_curve,
    uplift_curve,
)
from optimizer.uplift.heterogeneity import Calibration, Tenth, by_tenth, calibration
from optimizer.uplift.policies import affordable
from optimizer.uplift.policy_value import (
    SMALLEST_EFFECTIVE_UNITS,
    Estimate,
    difference_of,
    effective_units,
    mean_of,
    stable_weights,
    value_of,
)
from optimizer.uplift.study import Held, Settings

Floats = NDArray[np.float64]
Index = NDArray[np.intp]
Verdict = Literal["personalise", "one_for_all", "undecided"]

CURVE_POINTS: Final = 101
POLICY_POINTS: Final = 21
SMALLEST_GAIN: Final = 0.01  # of control's value: less is not worth a policy of its own
FALSE_ALARMS: Final = 0.05
_FEW_DRAWS_ABOVE: Final = 100_000  # units; a bootstrap of more draws 50 times instead of 200


@dataclass(frozen=True, slots=True)
class VariantJudgement:
    """How well the uplift of one variant over control is predicted.

    Attributes:
        n_units: Units that got either.
        mean: Mean uplift with its interval, in outcome units.
        uplift_curve: Shares treated from 0 to 1, and the gain per unit of all units.
        qini_curve: The same of the Qini curve.
        qini: The coefficient.
        auuc: The area under the uplift curve over random treatment.
        intervals: Of both.
        tenths: Predicted beside observed uplift, the highest predictions first.
        calibration: The line from predicted to true uplift; None where all predictions are alike.
        p_value: Of "no heterogeneity", over all variants at once (Holm); 1 where all predictions are alike.
    """

    n_units: int
    mean: Estimate
    uplift_curve: Curve
    qini_curve: Curve
    qini: Coefficient
    auuc: Coefficient
    intervals: CoefficientIntervals
    tenths: list[Tenth]
    calibration: Calibration | None
    p_value: float


@dataclass(frozen=True, slots=True)
class PolicyJudgement:
    """What a policy is worth.

    Attributes:
        name: "model", "tree", "segment_winners", "best_for_all", or the index of the variant that all get.
        value: Net value per unit.
        gain: Over control for all, paired.
        n_effective: Equally weighted units that its value rests on.
        shares: Of units that get each variant, shape (n_variants,).
        over_simple: The policy's paired difference over each simple policy that keeps to the budget, by its name; empty
            for simple ones.
    """

    name: str
    value: Estimate
    gain: Estimate
    n_effective: float
    shares: Floats
    over_simple: dict[str, Estimate]


@dataclass(frozen=True, slots=True)
class PolicyCurve:
    """Gain per unit over control if the share of units with most to gain gets its best variant, the others control.

    Attributes:
        share: From 0 to 1, shape (n_points,).
        gain: With ``low`` and ``high`` of 95 % each, pointwise.
    """

    share: Floats
    gain: Floats
    low: Floats
    high: Floats


@dataclass(frozen=True, slots=True)
class Judgement:
    """All that a study is judged by.

    Attributes:
        variants: All but control.
        policies: The model's and the tree's, then the simple ones.
        policy_curve: Over all variants.
        distillation: The tree's value less the model's.
        is_stabilised: Whether propensities differ, so that values are weighted means.
        verdict: On targeting by the tree.
        reason: Why.
    """

    variants: list[VariantJudgement]
    policies: list[PolicyJudgement]
    policy_curve: PolicyCurve
    distillation: Estimate
    is_stabilised: bool
    verdict: Verdict
    reason: str


def judge(held: Held, settings: Settings, *, rng: np.random.Generator) -> Judgement:
    """Judge predictions and policies on held-out units.

    Args:
        held: Of ``study``.
        settings: What it was made with: under a budget, targeting need not beat what the budget forbids.
        rng: For the bootstrap.
    """
    variants = [_variant(held, one, rng=rng) for one in range(1, held.units.n_variants)]
    adjusted = holm([one.p_value for one in variants])
    variants = [replace(one, p_value=value) for one, value in zip(variants, adjusted, strict=True)]
    policies = _policies(held, affordable(settings.cost, budget=settings.budget))
    tree = next(one for one in policies if one.name == "tree")
    base = abs(float(held.values[:, 0].mean()))
    verdict, reason = _verdict(tree, policies[0], base=base, p_value=_gains_differ(held))
    return Judgement(
        variants=variants,
        policies=policies,
        policy_curve=_policy_curve(held),
        distillation=_difference(held, held.by_tree, instead_of=held.by_model),
        is_stabilised=stable_weights(held.units.propensities, held.units.block, held.by_tree) is not None,
        verdict=verdict,
        reason=reason,
    )


def holm(p_values: list[float]) -> list[float]:
    """P-values for several tests at once. Source: Holm (1979), Scandinavian Journal of Statistics 6(2).

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    order = np.argsort(p_values, kind="stable")
    stepped = np.maximum.accumulate((len(p_values) - np.arange(len(p_values))) * np.asarray(p_values)[order])
    adjusted = np.empty(len(p_values))
    adjusted[order] = np.minimum(stepped, 1.0)
    return [float(value) for value in adjusted]


def _variant(held: Held, one: int, *, rng: np.random.Generator) -> VariantJudgement:
    units, signal, predicted = held.units, held.scores[:, one] - held.scores[:, 0], held.uplift[:, one - 1]
    weight = _weight_of(held, one)
    line = _line(held, one, signal=signal, predicted=predicted)
    either = (units.variant == 0) | (units.variant == one)
    two = units.among(either)
    order = judged(
        two.outcome,
        _rank(predicted, held.fold)[either],
        is_treated=two.variant == one,
        weight=_curve_weight(two.variant, two.propensities),
    )
    label = np.unique(two.customer, return_inverse=True)[1]
    n_draws = 200 if label.size <= _FEW_DRAWS_ABOVE else 50
    return VariantJudgement(
        n_units=int(either.sum()),
        mean=mean_of(signal, customer=units.customer, weight=weight),
        uplift_curve=_thinned(uplift_curve(order)),
        qini_curve=_thinned(qini_curve(order)),
        qini=qini(order),
        auuc=auuc(order),
        intervals=coefficient_intervals(order, customer=label, rng=rng, n_draws=n_draws),
        tenths=by_tenth(signal, predicted, customer=units.customer, weight=weight),
        calibration=line,
        p_value=_p_value(line),
    )


def _weight_of(held: Held, one: int) -> Floats | None:
    """Of units, where a variant is compared with control."""
    variant = held.units.variant
    return stable_weights(held.units.propensities, held.units.block, np.zeros_like(variant), np.full_like(variant, one))


def _line(held: Held, one: int, *, signal: Floats, predicted: Floats) -> Calibration | None:
    try:
        return calibration(
            signal, predicted, fold=held.fold, customer=held.units.customer, weight=_weight_of(held, one)
        )
    except NoVariation:
        return None


def _p_value(line: Calibration | None) -> float:
    return 1.0 if line is None else line.p_value


def _gains_differ(held: Held) -> float:
    """P-value of "nobody gains more than others by any variant" in net value, which is what policies are chosen by.

    Of a worth that is a multiple of the outcome it is that of uplift. Where responses cost, gains may differ though
    uplift does not.
    """
    lines = [
        _line(held, one, signal=held.values[:, one] - held.values[:, 0], predicted=held.gain[:, one])
        for one in range(1, held.units.n_variants)
    ]
    return min(holm([_p_value(line) for line in lines]))


def _rank(predicted: Floats, fold: Index) -> Floats:
    """Place of each prediction within its fold, in (0, 1]: folds' models differ in level, which orders nobody."""
    place = np.empty(predicted.size)
    for part in np.unique(fold):
        rows = fold == part
        place[rows] = rankdata(predicted[rows]) / rows.sum()
    return place


def _curve_weight(variant: Index, propensities: Floats) -> Floats:
    own = propensities[np.arange(variant.size), variant]
    return np.asarray(propensities.mean(axis=0)[variant] / own, dtype=np.float64)


def _thinned(curve: Curve) -> Curve:
    """A curve at a hundred equal steps, per unit of all units."""
    n = float(curve.n_units[-1])
    share = np.linspace(0.0, 1.0, CURVE_POINTS)
    return Curve(share, np.interp(share * n, curve.n_units, curve.gain) / n)


def _policies(held: Held, is_affordable: NDArray[np.bool_]) -> list[PolicyJudgement]:
    everyone = {str(one): np.full_like(held.for_all, one) for one in range(held.units.n_variants)}
    beyond = {str(one) for one in np.flatnonzero(~is_affordable)}
    simple = {"segment_winners": held.by_segment, "best_for_all": held.for_all} | everyone
    targeted = {"model": held.by_model, "tree": held.by_tree}
    return [
        PolicyJudgement(
            name=name,
            value=value_of(
                held.values,
                choice,
                customer=held.units.customer,
                weight=stable_weights(held.units.propensities, held.units.block, choice),
            ),
            gain=_difference(held, choice, instead_of=everyone["0"]),
            n_effective=effective_units(held.units.variant, propensities=held.units.propensities, choice=choice),
            shares=np.bincount(choice, minlength=held.units.n_variants) / choice.size,
            over_simple={
                key: _difference(held, choice, instead_of=other)
                for key, other in simple.items()
                if name in targeted and key not in beyond
            },
        )
        for name, choice in (targeted | simple).items()
    ]


def _difference(held: Held, choice: Index, *, instead_of: Index) -> Estimate:
    weight = stable_weights(held.units.propensities, held.units.block, choice, instead_of)
    return difference_of(held.values, choice, instead_of=instead_of, customer=held.units.customer, weight=weight)


def _policy_curve(held: Held) -> PolicyCurve:
    best = held.gain.argmax(axis=1)
    place = 1.0 - _rank(held.gain.max(axis=1), held.fold)
    control = np.zeros_like(best)
    share = np.linspace(0.0, 1.0, POLICY_POINTS)
    # The last share is all: nobody's place is above 1.
    found = [_difference(held, np.where(place < at, best, control), instead_of=control) for at in share]
    low, high = zip(*(one.interval for one in found), strict=True)
    return PolicyCurve(share, np.array([one.mean for one in found]), np.array(low), np.array(high))


def _verdict(tree: PolicyJudgement, model: PolicyJudgement, *, base: float, p_value: float) -> tuple[Verdict, str]:
    """Targeting must beat every simple policy; it is not worth it if it can't gain more than 1 % of control's value."""
    least = min(tree.over_simple.items(), key=lambda item: item[1].interval[0])
    said = f"the tree gains {least[1].mean:.4g} a unit over {_named(least[0])}, at least {least[1].interval[0]:.4g}"
    if tree.n_effective < SMALLEST_EFFECTIVE_UNITS:
        return "undecided", f"the tree's value rests on {tree.n_effective:.0f} units; it takes 100."
    if least[1].interval[0] > 0.0 and p_value < FALSE_ALARMS:
        return "personalise", f"{said}, and gains differ as predicted (p = {p_value:.2g})."
    if least[1].interval[0] > 0.0:
        return "undecided", f"{said}, but that gains differ as predicted is not shown (p = {p_value:.2g})."
    most = max(one.over_simple["best_for_all"].interval[1] for one in (tree, model))
    if most < SMALLEST_GAIN * base:
        return "one_for_all", f"targeting gains {most:.4g} a unit over the best variant for all at the very most."
    return "undecided", f"{said}; over the best variant for all, targeting may gain up to {most:.4g}."


def _named(name: str) -> str:
    return {"segment_winners": "the segments' winners", "best_for_all": "the best variant for all"}.get(
        name, "nothing" if name == "0" else f"variant {name} for all"
    )
