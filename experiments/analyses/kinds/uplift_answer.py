"""A study of uplift as JSON: all that charts and their captions need.

Uplift is positive where it is better. Where a lower metric is better, outcomes are turned (``is_turned``): of a rate,
what did not happen counts; of anything else its negative.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from experiments.analyses.requests import UpliftRequest
from experiments.review.answer import number, pair
from experiments.uplift.features import Feature
from experiments.uplift.leaves import Found, leaves_of
from experiments.uplift.sample import Sample
from experiments.uplift.units import Wanted
from optimizer.uplift.curves import Coefficient, Curve
from optimizer.uplift.judging import Judgement, PolicyJudgement, VariantJudgement
from optimizer.uplift.policy_value import Estimate
from optimizer.uplift.study import Study

_LIBRARIES: Final = ("numpy", "scikit-learn", "skops")
_SAYS: Final = (
    "Customers stand in the order of their first units. Models and policies of earlier ones are judged on later ones,"
    " with the propensities that were logged; the stored model and its tree are then fitted to all."
)
_CURVE_SAYS: Final = {
    "qini": "outcomes of the treated among those with the highest predicted uplift, less control's scaled to as many;"
    " raw: its area over the line of random treatment, per unit; normalised: over the same of a perfect order",
    "auuc": "difference of the two groups' means among those with the highest predicted uplift, times how many they"
    " are; raw and normalised likewise",
}


@dataclass(frozen=True, slots=True)
class Source:
    """What was asked of which data; ``left_out``: variants that are not compared, and why."""

    request: UpliftRequest
    wanted: Wanted
    left_out: Mapping[str, str]
    fingerprint: str


def answer(
    source: Source,
    sample: Sample,
    *,
    study: Study,
    judgement: Judgement,
    features: Sequence[Feature],
    began: float,
) -> dict[str, Any]:
    """All that a study has found.

    Args:
        source: What was asked.
        sample: What it started from.
        study: What came out.
        judgement: What it is worth.
        features: Columns of attributes.
        began: When the work began (``time.monotonic``).
    """
    held, keys = study.held, sample.variants
    leaves = leaves_of(
        study.tree, features, x=held.units.x, scores=held.scores, values=held.values, customer=held.units.customer
    )
    return {
        "metric": _metric(source),
        "data": _data(source, sample, study=study),
        "model": _model(source, features),
        "verdict": judgement.verdict,
        "reason": _in_words(judgement.reason, keys),
        "variants": [{"variant": key} | _variant(one) for key, one in zip(keys[1:], judgement.variants, strict=True)],
        "definitions": _CURVE_SAYS,
        "policies": [_policy(one, keys) for one in judgement.policies],
        "policy_curve": _policy_curve(judgement),
        "distillation": _estimate(judgement.distillation),
        "budget": None if source.request.budget_per_1000 is None else {"price": study.price},
        "leaves": [_leaf(one, keys, n_units=len(held.fold)) for one in leaves],
        "groups": _groups(leaves, n_units=len(held.fold)),
        "seconds": round(time.monotonic() - began, 1),
    }


def _metric(source: Source) -> dict[str, Any]:
    metric = source.wanted.metric
    return {
        "key": metric.key,
        "version": metric.version,
        "kind": metric.kind,
        "direction": "increase" if metric.higher_is_better else "decrease",
        "currency": metric.currency,
        "is_turned": not metric.higher_is_better,
    }


def _data(source: Source, sample: Sample, *, study: Study) -> dict[str, Any]:
    units = sample.units
    counts = np.bincount(units.variant, minlength=len(sample.variants))
    return {
        "version": source.fingerprint,
        "as_of": source.wanted.as_of.isoformat(),
        "series": source.wanted.series.number,
        "n_units": len(units.outcome),
        "n_customers": int(units.customer.max()) + 1,
        "n_judged": len(study.held.fold),
        "n_left_out": sample.n_left_out,
        "variants": {key: int(n) for key, n in zip(sample.variants, counts, strict=True)},
        "variants_left_out": dict(source.left_out),
    }


def _model(source: Source, features: Sequence[Feature]) -> dict[str, Any]:
    request = source.request
    return {
        "says": _SAYS,
        "learner": request.learner,
        "rounds": request.rounds,
        "depth": request.depth,
        "margin": request.margin,
        "budget_per_1000": request.budget_per_1000,
        "seed": request.seed,
        "features": [one.to_json() | {"values": list(one.values)} for one in features],
        "libraries": {name: version(name) for name in _LIBRARIES},
    }


def _variant(one: VariantJudgement) -> dict[str, Any]:
    line = one.calibration
    return {
        "n_units": one.n_units,
        "uplift": _estimate(one.mean),
        "uplift_curve": _curve(one.uplift_curve),
        "qini_curve": _curve(one.qini_curve),
        "qini": _coefficient(one.qini, raw=one.intervals.qini, normalised=one.intervals.qini_normalised),
        "auuc": _coefficient(one.auuc, raw=one.intervals.auuc, normalised=one.intervals.auuc_normalised),
        "tenths": [
            {"n_units": tenth.n_units, "predicted": number(tenth.predicted), "observed": _estimate(tenth.observed)}
            for tenth in one.tenths
        ],
        "calibration": None
        if line is None
        else {"slope": number(line.slope), "standard_error": number(line.slope_error), "mean": number(line.mean)},
        "no_heterogeneity": {"p_value": number(one.p_value)},
    }


def _policy(one: PolicyJudgement, keys: Sequence[str]) -> dict[str, Any]:
    return {
        "policy": _in_words(one.name, keys, is_name=True),
        "value": _estimate(one.value),
        "gain": _estimate(one.gain),
        "n_effective": number(one.n_effective),
        "shares": {key: number(share) for key, share in zip(keys, one.shares, strict=True)},
        "over": {_in_words(name, keys, is_name=True): _estimate(other) for name, other in one.over_simple.items()},
    }


def _in_words(said: str, keys: Sequence[str], *, is_name: bool = False) -> str:
    """Variants by their keys instead of their places."""
    if is_name:
        return f"all:{keys[int(said)]}" if said.isdigit() else said
    for at, key in enumerate(keys):
        said = said.replace(f"variant {at} for all", f"{key!r} for all")
    return said


def _policy_curve(judgement: Judgement) -> dict[str, Any]:
    curve = judgement.policy_curve
    return {"share": _list(curve.share), "gain": _list(curve.gain), "low": _list(curve.low), "high": _list(curve.high)}


def _leaf(one: Found, keys: Sequence[str], *, n_units: int) -> dict[str, Any]:
    return {
        "segment": one.key,
        "group": one.group,
        "rule": one.rule,
        "variant": keys[one.choice],
        "n_units": one.n_units,
        "share": one.n_units / n_units,
        "control_mean": None if one.base is None else _estimate(one.base),
        "uplift": {
            key: None if found is None else _estimate(found) for key, found in zip(keys[1:], one.uplift, strict=True)
        },
        "gain": None if one.gain is None else _estimate(one.gain),
    }


def _groups(leaves: Sequence[Found], *, n_units: int) -> dict[str, float]:
    names = ("persuadables", "sure-things", "lost-causes", "sleeping-dogs")
    return {name: sum(one.n_units for one in leaves if one.group == name) / n_units for name in names}


def _estimate(one: Estimate) -> dict[str, Any]:
    return {"mean": number(one.mean), "standard_error": number(one.standard_error), "interval": pair(*one.interval)}


def _coefficient(
    one: Coefficient, *, raw: tuple[float, float], normalised: tuple[float, float] | None
) -> dict[str, Any]:
    return {
        "raw": number(one.raw),
        "interval": pair(*raw),
        "normalised": None if one.normalised is None else number(one.normalised),
        "normalised_interval": None if normalised is None else pair(*normalised),
    }


def _curve(curve: Curve) -> dict[str, Any]:
    return {"share": _list(curve.n_units), "gain": _list(curve.gain)}


def _list(values: NDArray[np.float64]) -> list[float]:
    return [float(value) for value in values]
