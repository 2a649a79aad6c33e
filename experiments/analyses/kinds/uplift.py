"""Uplift: whom a variant really moves, and whether it is worth it to target by that."""

import time
from dataclasses import dataclass
from typing import Final

import numpy as np
from sqlmodel import Session

from experiments.analyses.kinds import Finding, Progress
from experiments.analyses.kinds.uplift_answer import Source, answer
from experiments.analyses.queue import Job
from experiments.analyses.requests import UpliftRequest
from experiments.catalog.definitions import ExperimentDefinition
from experiments.review import reading as of_series
from experiments.review.guardrails import find
from experiments.review.money import costs_of
from experiments.uplift.errors import BudgetWithoutCosts
from experiments.uplift.features import categorical
from experiments.uplift.sample import Sample, sample_of
from experiments.uplift.stored import packed
from experiments.uplift.units import UnitsRead, Wanted, read_units
from optimizer.uplift.judging import judge
from optimizer.uplift.study import Settings, study

_READING: Final = 0.2  # of all the work, about


@dataclass(frozen=True, slots=True)
class Seen:
    """What the analysis starts from: what was asked, all units, and those that can be compared."""

    source: Source
    units: UnitsRead
    sample: Sample


def read(session: Session, job: Job, *, progress: Progress) -> Seen:
    """Read the experiment's matured units with their attributes.

    Raises:
        AnalysisRefused: They can't be studied (``experiments.uplift.errors``).
    """
    request = UpliftRequest.model_validate(dict(job.parameters) | {"kind": job.kind})
    experiment, series = of_series.started_series(session, job.experiment, segment=None)
    variants = of_series.variants_of_series(session, series.number or 0)
    metric, goal = of_series.pinned_metric(series, request.metric), of_series.pinned_metric(series, None)
    keys = tuple(variant.key for variant in variants)
    wanted = Wanted(series, metric, goal, keys, job.as_of, request.attributes)
    costs = costs_of([variant.cost for variant in variants])
    definition = ExperimentDefinition.model_validate(experiment.body)
    harmful = find(session, series, definition=definition, as_of=job.as_of).of(None).refused
    gone = {variant.key: "It was retired." for variant in variants if variant.retired_at is not None}
    control = next(variant.key for variant in variants if variant.is_control)
    left_out = {key: why for key, why in (dict(harmful) | gone).items() if key != control}
    units = read_units(session, wanted, progress=lambda share: progress(_READING * share))
    sample = sample_of(
        units,
        wanted,
        live=[key for key in keys if key not in left_out],
        control=control,
        costs=costs,
        margin=request.margin,
    )
    if request.budget_per_1000 is not None and not sample.cost.any():
        raise BudgetWithoutCosts
    return Seen(Source(request, wanted, left_out, units.fingerprint), units, sample)


def compute(data: Seen, *, progress: Progress) -> Finding:
    """Study, judge, and sum up.

    Raises:
        InvalidArgument: The study can't be made (of ``optimizer.errors``, as NoVariation).
    """
    began, request, sample = time.monotonic(), data.source.request, data.sample
    seed = request.seed or 0
    settings = Settings(
        cost=sample.cost,
        categorical=categorical(data.units.features),
        learner=request.learner,
        depth=request.depth,
        budget=None if request.budget_per_1000 is None else request.budget_per_1000 / 1000.0,
        rounds=request.rounds,
        seed=seed,
    )
    found = study(sample.units, settings, progress=lambda share: progress(_READING + (0.9 - _READING) * share))
    judgement = judge(found.held, settings, rng=np.random.default_rng(seed))
    features = data.units.features
    result = answer(data.source, sample, study=found, judgement=judgement, features=features, began=began)
    model = packed(found, features=features, variants=sample.variants, cost=sample.cost)
    progress(1.0)
    return Finding(result, model)
