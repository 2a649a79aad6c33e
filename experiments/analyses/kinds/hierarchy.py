"""Partial pooling: what each segment's variants do, each segment leaning on all the others as far as data say so."""

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray
from sqlmodel import Session

from experiments.analyses.errors import NothingMatured, TooFewSegments, TooManySegments
from experiments.analyses.kinds import Finding, Progress
from experiments.analyses.kinds.hierarchy_answer import Source, answer
from experiments.analyses.queue import Job
from experiments.analyses.requests import HierarchyRequest
from experiments.catalog.definitions import ExperimentDefinition
from experiments.review import reading as of_series
from experiments.review.estimates import Estimates, effective, estimate
from experiments.review.guardrails import find

if TYPE_CHECKING:
    from optimizer.partial_pooling import Responders
    from optimizer.relative_means import RelativeMeans

N_CHAINS: Final = 4
MOST_NUMBERS: Final = 20_000_000  # draws x segments x variants: some copies of 160 MB


@dataclass(frozen=True, slots=True)
class Seen:
    """What the analysis starts from; ``available``: variants that can win, shape (n_segments, n_variants)."""

    source: Source
    available: NDArray[np.bool_]


def read(session: Session, job: Job, *, progress: Progress) -> Seen:  # noqa: ARG001  # there is little to read
    """Read the metric's strata, all of the experiment's segments."""
    request = HierarchyRequest.model_validate(dict(job.parameters) | {"kind": job.kind})
    experiment, series = of_series.started_series(session, job.experiment, segment=None)
    variants = of_series.variants_of_series(session, series.number or 0)
    reading = of_series.read(session, series, metric=request.metric, as_of=job.as_of)
    live = np.array([variant.retired_at is None for variant in variants])
    definition = ExperimentDefinition.model_validate(experiment.body)
    guarded = find(session, series, definition=definition, as_of=job.as_of)
    can_win = guarded.available(live, segments=reading.units.segments)[:-1]
    return Seen(Source(request, reading, job.as_of, series.number or 0, N_CHAINS), can_win)


def compute(data: Seen, *, progress: Progress) -> Finding:
    """Sample the posterior and sum it up.

    Only matured units count. Where weights moved, a segment enters with its adjusted means and as many units as give
    their variances, as in results.

    Raises:
        NothingMatured: No unit has.
        TooFewSegments: Fewer than two have outcomes to compare.
        TooManySegments: More draws than memory is for.
        NotConverged: The chains disagree (of ``optimizer.errors``, as all that ``partial_pooling`` raises).
    """
    began, source, metric = time.monotonic(), data.source, data.source.reading.metric
    found, request = estimate(source.reading.matured), source.request
    _check_size(source, found)
    from optimizer.partial_pooling import partial_pooling  # heavy, and not needed for a refusal

    seen = inputs(found, is_rate=source.reading.is_rate)
    pooled = partial_pooling(
        seen,
        control_index=found.control,
        seed=request.seed or 0,
        available=data.available,
        higher_is_better=metric.higher_is_better,
        average_sd=request.average_sd,
        tau_scale=request.tau_scale,
        level=request.level,
        n_draws=request.draws,
        n_tune=request.tune,
        n_chains=N_CHAINS,
        progress=progress,
    )
    return Finding(answer(source, found, pooled=pooled, seconds=time.monotonic() - began))


def inputs(found: Estimates, *, is_rate: bool) -> "Responders | RelativeMeans":
    """Means by segment, without the last row, which is over all: as counts of a rate, else relative to their base.

    Raises:
        TooFewSegments: Fewer than two whose outcomes vary.
    """
    from optimizer.partial_pooling import Responders
    from optimizer.relative_means import relative_means

    n_units, mean, _ = effective(found, is_rate=is_rate)
    if is_rate:
        return Responders(n_units=n_units[:-1], n_responders=np.minimum(mean * n_units, n_units)[:-1])
    seen = relative_means(found.mean[:-1], found.variance[:-1], n_units=n_units[:-1], control_index=found.control)
    n_compared = int((np.isfinite(seen.estimate).sum(axis=1) > 1).sum())
    if n_compared < 2:
        raise TooFewSegments(n_compared)
    return seen


def _check_size(source: Source, found: Estimates) -> None:
    units = found.n_units[:-1]
    n_segments, n_variants = units.shape
    n_draws = source.request.draws * N_CHAINS
    if not units.sum() > 0.0:
        raise NothingMatured(source.reading.metric.key)
    if n_draws * units.size > MOST_NUMBERS:
        raise TooManySegments(n_segments, n_variants=n_variants, n_draws=n_draws, most=MOST_NUMBERS)
    n_compared = int(((units > 0.0).sum(axis=1) > 1).sum())
    if n_compared < 2:
        raise TooFewSegments(n_compared)
