"""Changing the variants of an experiment that has started: correct content, append one, retire one."""

from collections.abc import Mapping
from typing import Any

from sqlmodel import Session, select

from experiments.access import audit
from experiments.catalog.definition_store import LIVE, check_version
from experiments.catalog.definitions import ExperimentDefinition, VariantDefinition, parse_definition
from experiments.catalog.experiment_store import ExperimentState, experiment_state
from experiments.catalog.lifecycle import in_state, open_segments, series_of, series_variant
from experiments.database import bump_snapshot, database_now
from experiments.errors import ExperimentVariantNotFound, FieldError, InvalidDefinition, InvalidInput, VariantStays
from experiments.guardrails.pauses import live_by_segment
from experiments.input.checks import shown
from experiments.learning.allocations import add_allocations, newest_allocations
from experiments.send_plans.errors import SendPlanDecided
from experiments.send_plans.pinned import PinnedSendPlan
from experiments.tables import Experiment, SeriesVariant


def correct_content(
    session: Session,
    key: str,
    *,
    variant: str,
    content: object,
    actor: str,
    reason: str,
    if_match: int | None = None,
) -> ExperimentState:
    """Correct what a variant shows, a misspelling say; the audit keeps what it was.

    Raises:
        ExperimentNotFound, ExperimentVariantNotFound: No such experiment or variant.
        WrongState: The experiment neither runs nor is paused.
        PreconditionFailed: The experiment is not at version ``if_match``.
        InvalidInput: The reason is empty.
        InvalidDefinition: The content can't be.
    """
    if not reason.strip():
        raise InvalidInput([FieldError("/reason", "must be said")])
    row = open_experiment(session, key, if_match=if_match)
    found = find_variant(session, row, key=variant)
    bodies = row.body["variants"]
    position = next(i for i, body in enumerate(bodies) if body["key"] == variant)
    corrected = parse_definition(VariantDefinition, {**bodies[position], "content": content})
    detail = {"variant": variant, "before": found.content, "after": corrected.content}
    found.content, found.revision = corrected.content, found.revision + 1
    variants = [*bodies[:position], corrected.model_dump(mode="json"), *bodies[position + 1 :]]
    body = {**row.body, "variants": variants}
    return store_change(session, row, body=body, actor=actor, action="correct", reason=reason, detail=detail)


def append_variant(
    session: Session,
    key: str,
    *,
    payload: object,
    actor: str,
    reason: str | None = None,
    if_match: int | None = None,
) -> ExperimentState:
    """Let one more variant compete, with an equal share to begin with; the shares of the others shrink in proportion.

    Raises:
        ExperimentNotFound: No such experiment.
        WrongState: The experiment neither runs nor is paused.
        PreconditionFailed: The experiment is not at version ``if_match``.
        SendPlanDecided: Its send plan has a winner, which all others are to get.
        InvalidDefinition: The variant can't be, or another has had its key.
    """
    added = parse_definition(VariantDefinition, payload)
    row = open_experiment(session, key, if_match=if_match)
    refuse_decided(session, row, wanted="no variant can be added")
    variants = _variants(session, row)
    wrong = [FieldError("/key", f"{shown(added.key)} is a variant already")] if added.key in variants else []
    if added.is_control:
        wrong.append(FieldError("/is_control", "another variant is the control already"))
    if wrong:
        raise InvalidDefinition(wrong)
    n_live = 1 + sum(variant.retired_at is None for variant in variants.values())
    body = {**row.body, "variants": [*row.body["variants"], added.model_dump(mode="json")]}
    if row.body["weights"] is not None:
        body["weights"] = with_newcomer(row.body["weights"], added.key, n_live=n_live)
    definition = parse_definition(ExperimentDefinition, body)
    control = next(variant.key for variant in definition.variants if variant.is_control)
    least = {control: 0.0 if definition.weights is not None else definition.control_share}
    now = database_now(session)
    live = live_by_segment(session, series_of(session, row))
    session.add(series_variant(added, series=row.series or 0, position=len(variants), now=now))
    weights = {
        segment: with_newcomer(shares, added.key, n_live=len(live[segment]) + 1, least=least)
        for segment, shares in _open_weights(session, row).items()
    }
    add_allocations(session, row.series or 0, weights=weights, reason="variant_added", now=now)
    detail = {"variant": added.key}
    return store_change(session, row, body=body, actor=actor, action="append_variant", reason=reason, detail=detail)


def retire_variant(
    session: Session, key: str, *, variant: str, actor: str, reason: str | None = None, if_match: int | None = None
) -> ExperimentState:
    """Give a variant to nobody any more: who has it gets the control and stays in its count, the others take its share.

    Raises:
        ExperimentNotFound, ExperimentVariantNotFound: No such experiment or variant.
        WrongState: The experiment neither runs nor is paused.
        PreconditionFailed: The experiment is not at version ``if_match``.
        VariantStays: It is the control, retired already, or one of the last two.
    """
    row = open_experiment(session, key, if_match=if_match)
    found = find_variant(session, row, key=variant)
    live = [other.key for other in _variants(session, row).values() if other.retired_at is None]
    if found.is_control:
        raise VariantStays(variant, reason="it is the control")
    if found.retired_at is not None:
        raise VariantStays(variant, reason="it is retired already")
    if len(live) <= 2:
        raise VariantStays(variant, reason="two variants must remain")
    live.remove(variant)
    found.retired_at = database_now(session)
    session.flush()
    left = live_by_segment(session, series_of(session, row))
    weights = {segment: without(shares, live=left[segment]) for segment, shares in _open_weights(session, row).items()}
    add_allocations(session, row.series or 0, weights=weights, reason="variant_retired", now=found.retired_at)
    body = row.body
    if body["weights"] is not None:
        body = {**body, "weights": without(body["weights"], live=live)}
    detail = {"variant": variant}
    return store_change(session, row, body=body, actor=actor, action="retire_variant", reason=reason, detail=detail)


def with_newcomer(
    weights: Mapping[str, float], key: str, *, n_live: int, least: Mapping[str, float] | None = None
) -> dict[str, float]:
    """Weights with one more variant, which gets an equal share of what those with a least share (the control) leave.

    >>> with_newcomer({"a": 0.5, "b": 0.5}, "c", n_live=4)
    {'a': 0.375, 'b': 0.375, 'c': 0.25}
    """
    share = 1 / n_live
    shrunk = {**{other: weight * (1 - share) for other, weight in weights.items()}, key: share}
    for kept, minimum in (least or {}).items():
        if shrunk[kept] < minimum:
            scale = (1 - minimum) / (1 - shrunk[kept])
            shrunk = {other: minimum if other == kept else weight * scale for other, weight in shrunk.items()}
    return shrunk


def without(weights: Mapping[str, float], *, live: list[str]) -> dict[str, float]:
    """Weights of which only those of live variants remain, in proportion; equal ones if nothing remains.

    >>> without({"a": 0.25, "b": 0.25, "c": 0.5}, live=["a", "b"])
    {'a': 0.5, 'b': 0.5, 'c': 0.0}
    """
    total = sum(weights[key] for key in live)
    if total == 0:
        return {key: 1 / len(live) if key in live else 0.0 for key in weights}
    return {key: weight / total if key in live else 0.0 for key, weight in weights.items()}


def open_experiment(session: Session, key: str, *, if_match: int | None) -> Experiment:
    """Begin a change: a live experiment's row, locked, other changes kept out.

    Raises:
        ExperimentNotFound: No such experiment.
        WrongState: It neither runs nor is paused.
        PreconditionFailed: It is not at version ``if_match``.
    """
    bump_snapshot(session)
    row = in_state(session, key, allowed=LIVE)
    check_version(f"experiment/{key}", if_match, current=row.version)
    return row


def refuse_decided(session: Session, row: Experiment, *, wanted: str) -> None:
    """Keep weights as a send plan has settled them.

    Raises:
        SendPlanDecided: It has a winner.
    """
    plan = PinnedSendPlan.from_json(series_of(session, row).send_plan)
    if plan is not None and plan.decided_at is not None:
        raise SendPlanDecided(row.key, wanted=wanted)


def _variants(session: Session, row: Experiment) -> dict[str, SeriesVariant]:
    found = session.exec(select(SeriesVariant).where(SeriesVariant.series == row.series))
    return {variant.key: variant for variant in found}


def find_variant(session: Session, row: Experiment, *, key: str) -> SeriesVariant:
    """A variant of an experiment that has started.

    Raises:
        ExperimentVariantNotFound: It has none such.
    """
    found = _variants(session, row).get(key)
    if found is None:
        raise ExperimentVariantNotFound(key, experiment=row.key)
    return found


def _open_weights(session: Session, row: Experiment) -> dict[str, dict[str, float]]:
    segments = set(open_segments(series_of(session, row)))
    newest = newest_allocations(session, row.series or 0)
    return {segment: allocation.weights for segment, allocation in newest.items() if segment in segments}


def store_change(
    session: Session,
    row: Experiment,
    *,
    body: dict[str, Any],
    actor: str,
    action: str,
    reason: str | None,
    detail: dict[str, Any],
) -> ExperimentState:
    """End a change: count the experiment's version up and say what was done in the audit."""
    row.body, row.version = body, row.version + 1
    session.flush()
    detail = {"version": row.version, **detail}
    audit.record(session, actor=actor, action=action, subject=f"experiment/{row.key}", reason=reason, detail=detail)
    return experiment_state(session, row)
