"""Asking for analyses, and calling them off."""

import secrets
from typing import Any, Final

from sqlmodel import Session, col, func, select

from experiments.access import audit
from experiments.analyses.errors import AnalysisEnded, AnalysisNotFound, TooFewSegments, TooManyAnalyses
from experiments.analyses.kinds import KINDS
from experiments.analyses.requests import SEEDS, AnalysisRequest
from experiments.database import database_now
from experiments.errors import FieldError, InvalidInput
from experiments.input.checks import shown
from experiments.input.parsing import parse
from experiments.series import PinnedMetric
from experiments.tables import Analysis, Experiment

MAX_ACTIVE: Final = 20  # of one experiment
MAX_ACTIVE_IN_ALL: Final = 200
ACTIVE: Final = ("queued", "running")
CANCELLED: Final = "cancelled"


def ask_for(session: Session, key: str, *, request: object, actor: str) -> Analysis:
    """Queue an analysis of an experiment; the one that is there while the same is queued or running.

    Args:
        session: The caller's transaction; one request at a time for an experiment.
        key: Of an experiment that has started.
        request: JSON ``{"kind", "metric"?, "as_of"?, "seed"?, …}``, the rest as the kind says.
        actor: Who asks.
    Raises:
        InvalidInput: An unknown kind, what the kind does not take (metrics too), or ``as_of`` in the future.
        ExperimentNotFound: No such experiment.
        WrongState: It has not started.
        MetricNotMeasured: It does not measure the metric.
        TooFewSegments: It has fewer than the kind takes.
        TooManyAnalyses: 20 of its analyses wait or run already, or 200 of all.
    """
    from experiments.review.reading import moment_of, pinned_metric, started_series  # asking needs it, cancelling not

    asked = parse_request(request)
    session.get(Experiment, key, with_for_update=True)
    _, series = started_series(session, key, segment=None)
    moment = moment_of(session, asked.as_of)
    if len(series.segments) < KINDS[asked.kind].least_segments:
        raise TooFewSegments(len(series.segments))
    metric = _taken(pinned_metric(series, asked.metric), kind=asked.kind)
    said = asked.model_dump(mode="json", exclude={"kind"}) | {"metric": metric.key}
    active = session.exec(select(Analysis).where(Analysis.experiment == key, col(Analysis.status).in_(ACTIVE))).all()
    same = next((row for row in active if _is_same(row, kind=asked.kind, said=said)), None)
    if same is not None:
        return same
    if len(active) >= MAX_ACTIVE:
        raise TooManyAnalyses(f"experiment {key!r}", n_active=len(active))
    n_all = session.exec(select(func.count()).select_from(Analysis).where(col(Analysis.status).in_(ACTIVE))).one()
    if n_all >= MAX_ACTIVE_IN_ALL:
        raise TooManyAnalyses("all experiments", n_active=n_all)
    seed = secrets.randbelow(SEEDS) if asked.seed is None else asked.seed
    analysis = Analysis(
        id=secrets.token_hex(12),
        experiment=key,
        kind=asked.kind,
        parameters=said | {"seed": seed},
        as_of=moment,
        status="queued",
        created_at=database_now(session),
        created_by=actor,
    )
    session.add(analysis)
    session.flush()
    detail = {"id": analysis.id, "kind": asked.kind, "parameters": analysis.parameters}
    audit.record(session, actor=actor, action="analyse", subject=f"experiment/{key}", detail=detail)
    return analysis


def parse_request(request: object) -> AnalysisRequest:
    """The request of a kind.

    Raises:
        InvalidInput: As ``ask_for`` says.
    """
    kind = request.get("kind") if isinstance(request, dict) else None
    if kind is not None and not (isinstance(kind, str) and kind in KINDS):
        raise InvalidInput([FieldError("/kind", f"must be {' or '.join(KINDS)}, not {shown(kind)}")])
    return parse(AnalysisRequest if kind is None else KINDS[kind].request, request)


def cancel(session: Session, id_: str, *, actor: str, reason: str | None = None) -> Analysis:
    """Call off an analysis that waits or runs; one that was called off stays so.

    Raises:
        AnalysisNotFound: No such analysis.
        AnalysisEnded: It is done, or has failed.
    """
    analysis = session.get(Analysis, id_, with_for_update=True)
    if analysis is None:
        raise AnalysisNotFound(id_)
    if analysis.status not in ACTIVE:
        if analysis.error is not None and analysis.error["code"] == CANCELLED:
            return analysis
        raise AnalysisEnded(id_, status=analysis.status)
    analysis.status = "failed"
    analysis.error = {"code": CANCELLED, "detail": f"Cancelled by {actor}" + (f": {reason}" if reason else ".")}
    analysis.finished_at = database_now(session)
    session.flush()
    subject = f"experiment/{analysis.experiment}"
    audit.record(session, actor=actor, action="cancel_analysis", subject=subject, reason=reason, detail={"id": id_})
    return analysis


def _taken(metric: PinnedMetric, *, kind: str) -> PinnedMetric:
    taken = KINDS[kind].metrics
    if metric.kind not in taken:
        detail = f"the analysis {kind!r} takes metrics of the kind {' or '.join(taken)}, not {metric.kind}"
        raise InvalidInput([FieldError("/metric", f"{detail}: {shown(metric.key)}")])
    return metric


def _is_same(row: Analysis, *, kind: str, said: dict[str, Any]) -> bool:
    """Whether an analysis answers what is asked; a seed that is not said may be any."""
    wanted = said if said["seed"] is not None else said | {"seed": row.parameters["seed"]}
    return row.kind == kind and row.parameters == wanted
