"""From a request to what is to be planned: segments with what is known of each, shares, how sure one wants to be."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from sqlmodel import Session

from experiments.catalog.definition_store import get_definition, pin_metric, segment_keys
from experiments.catalog.definitions import EVERYONE, ExperimentDefinition, Gates
from experiments.catalog.experiment_store import get_experiment
from experiments.database import database_now
from experiments.errors import FieldError, InvalidInput, SegmentNotFound
from experiments.learning.allocations import start_weights
from experiments.planning.evidence import Observed, observed_in, together
from experiments.planning.requests import BaselineIn, PlanRequest
from experiments.review.verdict import N_STAR, SMALLEST_EFFECT
from experiments.series import PinnedMetric
from optimizer.planning import Design

_WEEK_DAYS: Final = 7.0
_WEEK_SECONDS: Final = 7 * 24 * 3600.0
_GIVEN: Final = "the request"


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of a segment before the experiment; ``sd`` None: a rate; ``n_units`` None: it was said."""

    mean: float
    sd: float | None
    n_units: float | None
    units_per_week: float | None
    source: str


@dataclass(frozen=True, slots=True)
class Task:
    """What is to be planned.

    Attributes:
        placement: Key; None where only numbers were said.
        metric: Key, as ``placement``.
        segments: Keys in order.
        known: By segment; those of which nothing is known are not in it.
        as_one: What is known of all of these as one segment.
        effect: The smallest relative effect worth having, negative where less is better.
        n_variants: With the control.
        design: Shares, power and level.
        least_weeks: Of matured units, before which there is no verdict.
        waiting_weeks: From a decision until what it brought is known.
    """

    placement: str | None
    metric: str | None
    segments: Sequence[str]
    known: Mapping[str, Known]
    as_one: Known | None
    effect: float
    n_variants: int
    design: Design
    least_weeks: float
    waiting_weeks: float


@dataclass(frozen=True, slots=True)
class _Draft:
    """What an experiment says, or a request in its place."""

    placement: str
    goal: str
    unit: str
    segments: Sequence[str] | None
    smallest_effect: float | None
    n_variants: int
    gates: Gates
    exposure: str | None = None


def task_of(session: Session, request: PlanRequest) -> Task:
    """What a request means, with what the database knows of it; numbers alone need no database.

    Raises:
        ExperimentNotFound, PlacementNotFound, DefinitionNotFound: No such experiment, placement or metric.
        SegmentNotFound: The placement's segmentation has no such segment.
        InvalidDefinition: The experiment can't start as it is.
        InvalidInput: The metric is a ratio, and the request says a baseline without sd.
    """
    if request.experiment is not None:
        return _of_experiment(session, request, key=request.experiment)
    n_variants = request.variants or 2
    weights = dict.fromkeys(map(str, range(n_variants)), 1.0 / n_variants)
    design = _design(request, weights, control="0", level=Gates().interval)
    if request.placement is None or request.metric is None:
        known, as_one = _known({}, request, segments=[EVERYONE], metric=None)
        effect = request.smallest_effect or SMALLEST_EFFECT
        return Task(None, None, [EVERYONE], known, as_one, effect, n_variants, design, 0.0, 0.0)
    draft = _Draft(
        placement=request.placement,
        goal=request.metric,
        unit="customer",
        segments=request.segments,
        smallest_effect=request.smallest_effect,
        n_variants=n_variants,
        gates=Gates(),
    )
    return _of_draft(session, draft, request=request, design=design)


def _of_experiment(session: Session, request: PlanRequest, *, key: str) -> Task:
    definition = ExperimentDefinition.model_validate(get_experiment(session, key).body)
    control = next(variant.key for variant in definition.variants if variant.is_control)
    design = _design(request, start_weights(definition), control=control, level=definition.gates.interval)
    draft = _Draft(
        placement=definition.placement,
        goal=definition.goal,
        unit=definition.unit,
        segments=definition.segments,
        smallest_effect=request.smallest_effect or definition.smallest_effect,
        n_variants=len(definition.variants),
        gates=definition.gates,
        exposure=definition.exposure,
    )
    return _of_draft(session, draft, request=request, design=design)


def _of_draft(session: Session, draft: _Draft, *, request: PlanRequest, design: Design) -> Task:
    placement = get_definition(session, "placement", key=draft.placement)
    metric = pin_metric(session, draft.goal, channel=placement.body["channel"])
    _refuse_ratio_without_sd(metric, request.baseline)
    segmentation = get_definition(session, "segmentation", key=placement.body["segmentation"])
    keys = segment_keys(segmentation)
    for segment in draft.segments or ():
        if segment not in keys:
            raise SegmentNotFound(segment, subject=f"Placement {draft.placement!r}")
    segments = list(draft.segments or keys)
    observed = observed_in(
        session,
        draft.placement,
        metric=metric,
        segmentation=segmentation.key,
        segments=segments,
        unit=draft.unit,
        held_out=placement.body["holdout"]["share"],
        exposure=draft.exposure,
        now=database_now(session),
    )
    known, as_one = _known(observed, request, segments=segments, metric=metric)
    size = draft.smallest_effect or SMALLEST_EFFECT
    return Task(
        draft.placement,
        draft.goal,
        segments,
        known,
        as_one,
        effect=size if metric.higher_is_better else -size,
        n_variants=draft.n_variants,
        design=design,
        least_weeks=draft.gates.min_days / _WEEK_DAYS,
        waiting_weeks=(metric.window + metric.grace).total_seconds() / _WEEK_SECONDS,
    )


def _refuse_ratio_without_sd(metric: PinnedMetric, baseline: BaselineIn | None) -> None:
    if metric.kind == "ratio" and baseline is not None and baseline.sd is None:
        said = f"must be said: the metric {metric.key!r} is a ratio, and no rate of units; it is the standard deviation"
        formula = "of (numerator - ratio * denominator) / mean denominator over units"
        raise InvalidInput([FieldError("/baseline/sd", f"{said} {formula}")])


def _design(request: PlanRequest, weights: Mapping[str, float], *, control: str, level: float) -> Design:
    """As verdicts look (each variant by itself, always), or once at the end at all variants together."""
    others = [weight for key, weight in weights.items() if key != control and weight > 0.0]
    return Design(
        control_share=weights[control],
        variant_share=min(others, default=0.0),
        n_comparisons=1 if request.looks == "always" else len(weights) - 1,
        power=request.power,
        level=request.level or level,
        n_star=N_STAR if request.looks == "always" else None,
    )


def _known(
    observed: Mapping[str, Observed], request: PlanRequest, *, segments: Sequence[str], metric: PinnedMetric | None
) -> tuple[dict[str, Known], Known | None]:
    """What is known of each segment, and of those as one: what the request says before what tallies say."""
    given, rate = request.baseline, request.units_per_week
    is_rate = metric is None or metric.kind == "binary"
    if given is not None:
        rates = {key: rate or _rate(observed.get(key)) for key in segments}
        known = {key: _said(given, rates[key]) for key in segments}
        total = None if None in rates.values() else sum(one or 0.0 for one in rates.values())
        return known, _said(given, total)
    whole = together(list(observed.values()))
    known = {key: _of(one, rate or one.units_per_week, is_rate=is_rate) for key, one in observed.items()}
    if whole is None:
        return known, None
    total = whole.units_per_week if rate is None else rate * len(known)
    return known, _of(whole, total, is_rate=is_rate)


def _said(given: BaselineIn, rate: float | None) -> Known:
    return Known(given.mean, given.sd, None, rate, _GIVEN)


def _of(observed: Observed, rate: float | None, *, is_rate: bool) -> Known:
    sd = None if is_rate else observed.sd or 0.0
    return Known(observed.mean, sd, observed.n_units, rate, observed.source)


def _rate(observed: Observed | None) -> float | None:
    return None if observed is None else observed.units_per_week
