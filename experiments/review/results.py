"""Results of an experiment: what is proven, per segment and over all."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from sqlmodel import Session

from experiments.catalog.definitions import ExperimentDefinition
from experiments.corrections.shown import correction_warnings, corrections_of
from experiments.priors import beta_prior
from experiments.review.answer import Detail, Shown, shown, variants_of
from experiments.review.checks import Noted, carried_by_few, checked_ratios, checks_of, ratio_check
from experiments.review.details import details
from experiments.review.estimates import ENOUGH_RESPONDERS, estimate
from experiments.review.exposure import exposure_check
from experiments.review.guardrails import NO_GUARDRAILS, GuardrailFindings, find
from experiments.review.machines import add_machines, has_machines
from experiments.review.methods import Methods
from experiments.review.money import money_of
from experiments.review.outlook import outlooks
from experiments.review.reading import Reading, in_domain_words, moment_of, read, started_series, variants_of_series
from experiments.review.shrinkage import Shrunk
from experiments.review.verdict import SMALLEST_EFFECT, Evidence, Rules, gather, judge
from optimizer.sample_ratio import SampleRatio

Depth = Literal["brief", "plain", "full"]


@in_domain_words()
def results(
    session: Session,
    key: str,
    *,
    metric: str | None = None,
    segment: str | None = None,
    as_of: datetime | None = None,
    is_brief: bool = False,
) -> dict[str, Any]:
    """What an experiment has shown so far.

    The shown means, intervals and probabilities read all units; verdicts and their gates read only matured ones, whose
    window and grace have passed, under a sceptical prior. Means are per unit, in the metric's unit (binary: a rate),
    capped where the metric has a cap. Where weights moved, differences are adjusted for it (``estimates.estimate``),
    and each mean is control's plus that difference.

    Args:
        session: May be one that only reads.
        key: Of an experiment that has started.
        metric: By default the goal; any metric that it pinned.
        segment: Show this segment alone beside ``overall``; verdicts still reckon with all of them.
        as_of: By default now; units decided by then, to the hour, with what they have answered since.
        is_brief: Leave out what no verdict reads: the hurdle, effects shrunk over segments, whether to personalise.
    Returns:
        The results of the HTTP contract.
    Raises:
        ExperimentNotFound: No such experiment.
        WrongState: It has not started.
        MetricNotMeasured: It does not measure the metric.
        SegmentNotFound: It does not cover the segment.
        InvalidInput: ``as_of`` is in the future, or before 1980.
    """
    experiment, series = started_series(session, key, segment=segment)
    moment = moment_of(session, as_of)
    definition = ExperimentDefinition.model_validate(experiment.body)
    reading = read(session, series, metric=metric, as_of=moment)
    live = [variant.retired_at is None for variant in variants_of_series(session, series.number or 0)]
    guarded = find(session, series, definition=definition, as_of=moment)
    available = guarded.available(np.array(live), segments=reading.strata.segments)
    answer = reviewed(
        reading,
        rules=_rules(definition),
        available=available,
        segment=segment,
        guarded=guarded,
        depth="brief" if is_brief else "full",
    )
    other = None
    if has_machines(session, series.number or 0, metric=reading.metric.key):
        both = read(session, series, metric=metric, as_of=moment, machines=True)
        other = reviewed(both, rules=_rules(definition), available=available, segment=segment, depth="brief")
    add_machines(answer, other)
    corrections = corrections_of(session, series)
    answer["warnings"] += _remarks(definition) + correction_warnings(corrections)
    answer["guardrails"] = guarded.shown(segment)
    answer["corrections"] = corrections
    return {"experiment": key, "metric": reading.metric.key, "as_of": moment.isoformat(), **answer}


def _rules(definition: ExperimentDefinition) -> Rules:
    return Rules(definition.gates, definition.smallest_effect or SMALLEST_EFFECT)


def _remarks(definition: ExperimentDefinition) -> list[str]:
    remarks = []
    if definition.unit == "occasion":
        remarks.append("Units are occasions: intervals of a single variant take those of one customer as independent.")
    return remarks


@dataclass(frozen=True, slots=True)
class _Reviewed:
    """All that the rows of an answer are made from."""

    reading: Reading
    rules: Rules
    shown: Shown
    evidence: Evidence
    methods: Methods
    shrunk: Shrunk | None
    whole: SampleRatio
    ratios: Sequence[SampleRatio | None]
    details: Sequence[Detail]
    guarded: GuardrailFindings
    outlooks: Sequence[dict[str, Any]]


def reviewed(
    reading: Reading,
    *,
    rules: Rules,
    available: NDArray[np.bool_],
    segment: str | None = None,
    guarded: GuardrailFindings = NO_GUARDRAILS,
    depth: Depth = "plain",
) -> dict[str, Any]:
    """The part of results that experiments, policies and programmes share.

    Args:
        reading: Of one metric.
        rules: What verdicts demand.
        available: Variants that can win, broadcasts to (n_segments + 1, n_variants).
        segment: Show this one alone.
        guarded: What the experiment's guardrails found.
        depth: ``brief`` for a verdict; ``plain`` also what makes up money; ``full`` also segments with shrinkage.
    """
    review = _review(reading, rules=rules, available=available, guarded=guarded, depth=depth)
    keys = reading.strata.segments
    rows = [_row(review, i) for i, key in enumerate(keys) if segment in {None, key}]
    overall = _row(review, len(keys))
    noted = Noted(n_lacking=reading.n_lacking, n_merged=reading.n_merged)
    checks, warnings = checks_of(reading.units, noted, whole=review.whole, ratios=review.ratios)
    if reading.exposures is not None:
        checks["exposure"], more = exposure_check(reading.exposures, variants=reading.units.variants)
        warnings += more
    return {
        "matured_share": reading.matured_share,
        "segments": rows,
        "overall": {name: value for name, value in overall.items() if name != "segment"},
        **({} if review.shrunk is None else {"personalise": review.shrunk.personalise()}),
        "money": _money(reading, winner=overall["leader"]),
        "covariate": None if reading.covariate is None else asdict(reading.covariate),
        "prior": _priors(reading, rules),
        "checks": checks,
        "warnings": warnings + _caveats(review),
    }


def _review(
    reading: Reading, *, rules: Rules, available: NDArray[np.bool_], guarded: GuardrailFindings, depth: Depth
) -> _Reviewed:
    whole, ratios = checked_ratios(reading.units)
    evidence = gather(
        reading.matured,
        estimate(reading.matured),
        days=reading.days,
        rules=rules,
        kind=reading.metric.kind,
        higher_is_better=reading.metric.higher_is_better,
        available=available,
    )
    methods = Methods.of(reading.matured, is_binary=reading.metric.kind == "binary")
    shrunk = _shrunk(reading, evidence, available=available) if depth == "full" else None
    said = details(reading, evidence, methods=methods, with_hurdle=depth != "brief")
    said += [] if shrunk is None else [shrunk.said]
    ahead = outlooks(evidence, rules=rules, per_day=_per_day(reading))
    return _Reviewed(reading, rules, shown(reading), evidence, methods, shrunk, whole, ratios, said, guarded, ahead)


def _shrunk(reading: Reading, evidence: Evidence, *, available: NDArray[np.bool_]) -> Shrunk:
    return Shrunk.of(
        reading.matured,
        evidence.matured,
        is_rate=reading.is_rate,
        higher_is_better=reading.metric.higher_is_better,
        available=available,
    )


def _row(review: _Reviewed, row: int) -> dict[str, Any]:
    strata, n_segments = review.reading.strata, len(review.reading.strata.segments)
    is_overall = row == n_segments
    ratio = ratio_check(review.whole, None if is_overall else review.ratios[row])
    guarded = review.guarded.of(None if is_overall else strata.segments[row])
    verdict = judge(review.evidence, row, variants=strata.variants, rules=review.rules, ratio=ratio, guarded=guarded)
    weights = _mixed(review.reading) if is_overall else review.reading.weights[strata.segments[row]]
    variants = variants_of(review.shown, row, variants=strata.variants, weights=weights, details=review.details)
    outlook = _DECIDED if verdict["verdict"] in {"ship", "no_difference", "broken"} else review.outlooks[row]
    head = {"segment": None if is_overall else strata.segments[row], **verdict, "outlook": outlook}
    return {**head, "variants": variants}


_DECIDED = {"days": 0.0, "verdict": None, "reason": "there is a verdict"}


def _per_day(reading: Reading) -> NDArray[np.float64] | None:
    """Units a day at the present rate, by segment and over all: the segments share it as they share all units."""
    if reading.monthly_units is None:
        return None
    units = reading.units.by_segment(reading.units.n_units).sum(axis=1)
    mix = units / units.sum()
    return np.append(mix, 1.0) * reading.monthly_units / _MONTH_DAYS


_MONTH_DAYS = 30.0


def _mixed(reading: Reading) -> Mapping[str, float]:
    """The current weights of all segments, by their share of units."""
    units = reading.units.by_segment(reading.units.n_units).sum(axis=1)
    mix = units / units.sum() if units.sum() > 0 else np.full(units.size, 1.0 / max(units.size, 1))
    shares = list(zip(reading.strata.segments, mix, strict=True))
    return {
        variant: float(sum(share * reading.weights[key].get(variant, 0.0) for key, share in shares))
        for variant in reading.strata.variants
    }


def _priors(reading: Reading, rules: Rules) -> dict[str, Any]:
    """What was expected before any unit was seen: by what is shown, and by the verdict."""
    prior, sceptical = reading.metric.prior, rules.gates.effect_sd
    shown_: dict[str, Any] = {"family": "normal", "note": _WEAK}
    if reading.is_rate:
        alpha, beta = beta_prior(prior)
        shown_ = {"family": "beta", "alpha": alpha, "beta": beta}
    elif prior is not None:
        shown_ = {"family": "normal", "mean": prior.mean, "n_units": prior.n_units}
    verdict = {"family": "normal", "on": "relative effect", "mean": 0.0, "sd": sceptical, "note": _WIDENED}
    return {"shown": shown_, "verdict": verdict}


_WIDENED = "where an effect is larger beyond doubt, sd is the largest one less three standard errors"


_WEAK = f"the pooled mean, worth one responder's units, below {ENOUGH_RESPONDERS} responders; next to nothing above"


def _money(reading: Reading, *, winner: str | None) -> dict[str, Any] | None:
    if reading.net is None:
        return None
    return money_of(
        reading.net,
        winner=winner,
        currency=reading.currency,
        metric=reading.money_metric,
        monthly_units=reading.monthly_units,
    )


def _caveats(review: _Reviewed) -> list[str]:
    words = []
    if review.reading.matured_share == 0.0:
        words.append("No unit has matured yet: a verdict waits until window and grace have passed.")
    words += _apart(review)
    words += carried_by_few(review.reading.units) if review.reading.metric.kind in {"count", "mean"} else []
    strata, covered = review.reading.strata, review.shown.estimates.covered
    words += [
        f"Over all segments, {key} is compared with the control on {share:.0%} of the units."
        for index, (key, share) in enumerate(zip(strata.variants, covered, strict=True))
        if index != strata.control and 0.0 < share < 0.995
    ]
    return words


def _apart(review: _Reviewed) -> list[str]:
    """Where weights that moved make the plain difference of means misleading."""
    keys = [*review.reading.strata.segments, "all segments"]
    rows, variants = np.nonzero(review.methods.disagree)
    named = [f"{review.reading.strata.variants[k]} in {keys[row]}" for row, k in zip(rows, variants, strict=True)]
    if not named:
        return []
    return [f"The plain difference of means misleads, since weights moved; read the adaptive one: {', '.join(named)}."]
