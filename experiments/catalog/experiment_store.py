"""Experiments as analysts define them: put while a draft, get and list at any time (``lifecycle`` starts them)."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlmodel import Session, col, select

from experiments.access import audit
from experiments.catalog.definition_store import (
    Defined,
    check_key,
    check_version,
    find_definition,
    get_definition,
    is_key,
    missing,
    segment_keys,
)
from experiments.catalog.definitions import COVARIATE_TYPES, Covariate, ExperimentDefinition, parse_definition
from experiments.database import bump_snapshot, database_now
from experiments.errors import ExperimentNotDraft, ExperimentNotFound, FieldError, InvalidDefinition
from experiments.guardrails.pauses import live_pauses, pauses_json
from experiments.input.checks import shown
from experiments.learning.allocations import start_weights
from experiments.send_plans.pinned import PinnedSendPlan
from experiments.tables import Experiment, Series, SeriesVariant


@dataclass(frozen=True, slots=True)
class ExperimentState:
    """An experiment as it now is.

    series: Its number; None while it is a draft.
    retired: Since when variants are out, by their keys.
    paused: Where guardrails have paused variants, and why.
    sending: How far its send plan has come; None where it has none, or has not started.
    """

    key: str
    version: int
    status: str
    body: dict[str, Any]
    series: int | None
    created_at: datetime
    started_at: datetime | None
    ended_at: datetime | None
    retired: Mapping[str, datetime]
    paused: Sequence[Mapping[str, Any]]
    sending: Mapping[str, Any] | None


def put_experiment(session: Session, key: str, *, payload: object, actor: str, if_match: int | None = None) -> Defined:
    """Define an experiment while it is a draft.

    Raises:
        ExperimentNotDraft: It has started, and this is not what it says.
        InvalidDefinition: It names what does not exist, or is wrong in itself.
        PreconditionFailed: It is not at version ``if_match``.
    """
    definition = parse_definition(ExperimentDefinition, payload)
    check_key(key)
    bump_snapshot(session)
    row = session.get(Experiment, key)
    check_version(f"experiment/{key}", if_match, current=None if row is None else row.version)
    body = definition.model_dump(mode="json")
    if row is not None and _same(row.body, body):
        return Defined("experiment", key, row.version, row.body)
    if row is not None and row.status != "draft":
        raise ExperimentNotDraft(key, status=row.status)
    check_experiment(session, definition)
    if row is None:
        row = Experiment(key=key, version=0, placement="", body={}, created_at=database_now(session))
        session.add(row)
    row.version, row.placement, row.body = row.version + 1, definition.placement, body
    session.flush()
    detail = {"version": row.version, "body": body}
    audit.record(session, actor=actor, action="put", subject=f"experiment/{key}", detail=detail)
    return Defined("experiment", key, row.version, body, created=row.version == 1)


def _same(stored: dict[str, Any], body: dict[str, Any]) -> bool:
    """Whether a stored definition says the same: it may be from before there were fields that it now has by default."""
    now = ExperimentDefinition.model_validate(stored).model_dump(mode="json")
    return audit.canonical(now) == audit.canonical(body)


def check_experiment(session: Session, definition: ExperimentDefinition) -> None:
    """Check that all that an experiment names exists now.

    Raises:
        InvalidDefinition: With all that does not, a covariate or goal that can't be, or weights that can't be.
    """
    metrics = {"/goal": definition.goal}
    metrics |= {f"/metrics/{i}": metric for i, metric in enumerate(definition.metrics)}
    metrics |= {f"/guardrails/{i}/metric": guardrail.metric for i, guardrail in enumerate(definition.guardrails)}
    wrong = [
        missing(pointer, metric, kind="metric")
        for pointer, metric in metrics.items()
        if find_definition(session, "metric", key=metric) is None
    ]
    placement = find_definition(session, "placement", key=definition.placement)
    if placement is None:
        wrong.append(missing("/placement", definition.placement, kind="placement"))
    else:
        name = placement.body["segmentation"]
        known = segment_keys(get_definition(session, "segmentation", key=name))
        wrong += [
            FieldError(f"/segments/{i}", f"{shown(segment)} is no segment of the placement's segmentation {name!r}")
            for i, segment in enumerate(definition.segments or ())
            if segment not in known
        ]
        wrong += _wrong_guardrails(definition, segments=set(definition.segments or known))
    wrong += _toothless_guardrails(session, definition)
    wrong += [*_goal_errors(session, definition), *_covariate_errors(session, definition.covariate)]
    if wrong:
        raise InvalidDefinition(wrong)
    start_weights(definition)


def _goal_errors(session: Session, definition: ExperimentDefinition) -> list[FieldError]:
    goal = find_definition(session, "metric", key=definition.goal)
    if goal is not None and goal.body["kind"] == "binary" and goal.body["event"] == definition.exposure:
        return [
            FieldError("/exposure", f"{shown(definition.exposure)} is the goal's event: all who count would respond")
        ]
    if definition.method == "fixed" or goal is None or goal.body["kind"] != "ratio":
        return []
    detail = f"{shown(definition.goal)} is a ratio, from which no weights are learnt: say the method fixed, or"
    return [FieldError("/goal", f"{detail} another goal with it among the metrics")]


def _covariate_errors(session: Session, covariate: Covariate | None) -> list[FieldError]:
    """A covariate is a number, or true or false, and is stored, so that what was captured can be looked up."""
    if covariate is None:
        return []
    pointer, attribute = "/covariate/attribute", shown(covariate.attribute)
    found = find_definition(session, "attribute", key=covariate.attribute)
    if found is None:
        return [missing(pointer, covariate.attribute, kind="attribute")]
    wrong = []
    if (type_ := found.body["type"]) not in COVARIATE_TYPES:
        wrong.append(FieldError(pointer, f"must be of type number or boolean, and {attribute} is of type {type_}"))
    if not found.body["stored"]:
        wrong.append(FieldError(pointer, f"must be stored with decisions, and {attribute} is declared not to be"))
    return wrong


def _toothless_guardrails(session: Session, definition: ExperimentDefinition) -> Iterator[FieldError]:
    """A rate can't get worse by 1 or more."""
    for i, guardrail in enumerate(definition.guardrails):
        metric = find_definition(session, "metric", key=guardrail.metric)
        if metric is not None and metric.body["kind"] == "binary" and guardrail.max_harm >= 1.0:
            detail = f"is {guardrail.max_harm:g}, and the rate {shown(guardrail.metric)} can't get worse by that much"
            yield FieldError(f"/guardrails/{i}/max_harm", detail)


def _wrong_guardrails(definition: ExperimentDefinition, *, segments: Collection[str]) -> Iterator[FieldError]:
    """Guardrails watch segments of the experiment."""
    for i, guardrail in enumerate(definition.guardrails):
        for j, segment in enumerate(guardrail.segments or ()):
            if segment not in segments:
                yield FieldError(f"/guardrails/{i}/segments/{j}", f"{shown(segment)} is no segment of the experiment")


def get_experiment(session: Session, key: str) -> ExperimentState:
    """An experiment.

    Raises:
        ExperimentNotFound: No such experiment.
    """
    row = session.get(Experiment, key) if is_key(key) else None
    if row is None:
        raise ExperimentNotFound(key)
    return experiment_state(session, row)


def list_experiments(session: Session, *, cursor: str | None = None, limit: int = 100) -> list[ExperimentState]:
    """Experiments by key; ``cursor`` is the last key that the caller has seen.

    Raises:
        InvalidInput: The cursor can't be.
    """
    query = select(Experiment).order_by(col(Experiment.key)).limit(limit)
    if cursor is not None:
        check_key(cursor)
        query = query.where(col(Experiment.key) > cursor)
    return [experiment_state(session, row) for row in session.exec(query)]


def experiment_state(session: Session, row: Experiment) -> ExperimentState:
    """An experiment's row as others may keep it, beyond the session."""
    retired = select(SeriesVariant.key, SeriesVariant.retired_at).where(
        SeriesVariant.series == row.series, col(SeriesVariant.retired_at).is_not(None)
    )
    return ExperimentState(
        key=row.key,
        version=row.version,
        status=row.status,
        body=row.body,
        series=row.series,
        created_at=row.created_at,
        started_at=row.started_at,
        ended_at=row.ended_at,
        retired={key: at for key, at in session.exec(retired) if at is not None},
        paused=pauses_json(live_pauses(session, row.series)),
        sending=_sending(session, row),
    )


def _sending(session: Session, row: Experiment) -> dict[str, Any] | None:
    if row.series is None or row.body.get("send_plan") is None:
        return None
    plan = PinnedSendPlan.from_json(session.get_one(Series, row.series).send_plan)
    if plan is None:
        return None
    shown = plan.shown()
    return {name: shown[name] for name in ("begun_at", "decide_after", "decided_at", "winners")}
