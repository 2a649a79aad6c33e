"""Starting, pausing, resuming and concluding experiments.

A change takes effect a little later (``effective_at``), when every worker has it; what a worker decides on too
old a snapshot in between is marked by the journal.
"""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from sqlmodel import Session, col, select

from experiments.access import audit
from experiments.catalog import programme
from experiments.catalog.definition_store import LIVE, get_definition, is_key, pin_metric, segment_keys
from experiments.catalog.definitions import ExperimentDefinition, VariantDefinition
from experiments.catalog.experiment_store import ExperimentState, check_experiment, experiment_state
from experiments.database import bump_snapshot, database_now
from experiments.errors import ExperimentNotFound, SegmentTaken, WrongState
from experiments.learning.allocations import add_allocations, start_weights
from experiments.send_plans.pinned import PinnedSendPlan
from experiments.tables import Experiment, Series, SeriesVariant
from experiments.webhooks.news import tell_of_change

EFFECT_SECONDS: Final = 2.0


@dataclass(frozen=True, slots=True)
class Changed:
    """An experiment after a change, and when that change takes effect everywhere."""

    experiment: ExperimentState
    effective_at: datetime


def start(session: Session, key: str, *, actor: str, reason: str | None = None) -> Changed:
    """Start a draft: its definition and those of its metrics and segmentation are pinned, and its series opens.

    Raises:
        ExperimentNotFound: No such experiment.
        WrongState: It is no draft.
        InvalidDefinition: What it names is no longer there.
        SegmentTaken: Another experiment has the placement and segment.
    """
    bump_snapshot(session)
    row = in_state(session, key, allowed=("draft",))
    definition = ExperimentDefinition.model_validate(row.body)
    check_experiment(session, definition)
    opens_at = _effective_at(session)
    series = _new_series(session, key, definition=definition, opens_at=opens_at)
    _refuse_taken(session, series)
    session.add(series)
    session.flush()
    number = series.number or 0
    for position, variant in enumerate(definition.variants):
        session.add(series_variant(variant, series=number, position=position, now=opens_at))
    weights = start_weights(definition)
    add_allocations(
        session, number, weights=dict.fromkeys(series.segments, weights), reason="start", now=series.created_at
    )
    row.series, row.started_at = number, opens_at
    return change(session, row, status="running", effective_at=opens_at, actor=actor, action="start", reason=reason)


def pause(session: Session, key: str, *, actor: str, reason: str | None = None) -> Changed:
    """Pause a running experiment: customers get the policy or the default, outcomes go on counting.

    Raises:
        ExperimentNotFound: No such experiment.
        WrongState: It does not run.
    """
    bump_snapshot(session)
    row = in_state(session, key, allowed=("running",))
    closes_at = _effective_at(session)
    series_of(session, row).closes_at = closes_at
    return change(session, row, status="paused", effective_at=closes_at, actor=actor, action="pause", reason=reason)


def resume(session: Session, key: str, *, actor: str, reason: str | None = None) -> Changed:
    """Let a paused experiment go on; its customers keep their variants.

    Raises:
        ExperimentNotFound: No such experiment.
        WrongState: It is not paused.
        SegmentTaken: Another experiment has the placement and segment.
    """
    bump_snapshot(session)
    row = in_state(session, key, allowed=("paused",))
    series, opens_at = series_of(session, row), _effective_at(session)
    _refuse_taken(session, series)
    series.opens_at, series.closes_at = opens_at, None
    return change(session, row, status="running", effective_at=opens_at, actor=actor, action="resume", reason=reason)


def conclude(session: Session, key: str, *, actor: str, reason: str | None = None) -> Changed:
    """End an experiment for good; outcomes of its decisions go on counting within their windows.

    Raises:
        ExperimentNotFound: No such experiment.
        WrongState: It neither runs nor is paused.
    """
    bump_snapshot(session)
    row = in_state(session, key, allowed=LIVE)
    series, ends_at = series_of(session, row), _effective_at(session)
    series.closes_at = series.closes_at or ends_at
    row.ended_at = ends_at
    return change(session, row, status="concluded", effective_at=ends_at, actor=actor, action="conclude", reason=reason)


def in_state(session: Session, key: str, *, allowed: Collection[str]) -> Experiment:
    """An experiment's row, locked.

    Raises:
        ExperimentNotFound: No such experiment.
        WrongState: Its status is none of those allowed.
    """
    row = session.get(Experiment, key, with_for_update=True, populate_existing=True) if is_key(key) else None
    if row is None:
        raise ExperimentNotFound(key)
    if row.status not in allowed:
        raise WrongState(key, status=row.status, allowed=allowed)
    return row


def series_of(session: Session, row: Experiment) -> Series:
    """The series of an experiment that has started."""
    return session.exec(select(Series).where(Series.number == row.series)).one()


def series_variant(variant: VariantDefinition, *, series: int, position: int, now: datetime) -> SeriesVariant:
    """A variant's row, as it is defined."""
    return SeriesVariant(
        series=series,
        key=variant.key,
        position=position,
        content=variant.content,
        cost=None if variant.cost is None else variant.cost.model_dump(mode="json"),
        is_control=variant.is_control,
        deliver=variant.deliver,
        added_at=now,
    )


def change(
    session: Session,
    row: Experiment,
    *,
    status: str,
    effective_at: datetime,
    actor: str,
    action: str,
    reason: str | None,
) -> Changed:
    """Set an experiment's status, count its version up, and say so in the audit and to webhooks."""
    detail = {"version": row.version + 1, "from": row.status, "to": status, "effective_at": effective_at.isoformat()}
    row.status, row.version = status, row.version + 1
    session.flush()
    audit.record(session, actor=actor, action=action, subject=f"experiment/{row.key}", reason=reason, detail=detail)
    tell_of_change(session, row, action=action, actor=actor, reason=reason, effective_at=effective_at)
    return Changed(experiment_state(session, row), effective_at)


def open_segments(series: Series) -> list[str]:
    """The segments that have not left a series (by promotion)."""
    return [segment for segment in series.segments if segment not in series.closed_segments]


def _effective_at(session: Session) -> datetime:
    return database_now(session) + timedelta(seconds=EFFECT_SECONDS)


def _new_series(session: Session, key: str, *, definition: ExperimentDefinition, opens_at: datetime) -> Series:
    placement = get_definition(session, "placement", key=definition.placement)
    segmentation = get_definition(session, "segmentation", key=placement.body["segmentation"])
    names = [definition.goal, *definition.metrics, *(guardrail.metric for guardrail in definition.guardrails)]
    metrics = [pin_metric(session, name, channel=placement.body["channel"]) for name in dict.fromkeys(names)]
    programme.measure(session, placement.key, metrics=metrics, since=opens_at)
    return Series(
        kind="experiment",
        placement=placement.key,
        experiment=key,
        unit=definition.unit,
        segmentation=segmentation.key,
        segmentation_version=segmentation.version,
        segments=list(definition.segments or segment_keys(segmentation)),
        metrics=[metric.to_json() for metric in metrics],
        covariate=None if definition.covariate is None else definition.covariate.model_dump(mode="json"),
        send_plan=None if (plan := PinnedSendPlan.of(definition.send_plan)) is None else plan.to_json(),
        exposure=definition.exposure,
        opens_at=opens_at,
        created_at=database_now(session),
    )


def _refuse_taken(session: Session, series: Series) -> None:
    """Two experiments of one placement never share a segment, nor cut the customers up in different ways."""
    query = select(Experiment.key, Series).join(Series, col(Series.number) == Experiment.series)
    query = query.where(Experiment.placement == series.placement, col(Experiment.status).in_(LIVE))
    for key, other in session.exec(query.where(Experiment.key != series.experiment).order_by(col(Experiment.key))):
        taken, wanted = open_segments(other), open_segments(series)
        shared = [segment for segment in taken if segment in wanted]
        if other.segmentation != series.segmentation:
            shared = taken if wanted else []
        if shared:
            raise SegmentTaken(series.placement, experiment=key, segments=shared)
