"""Letting a variant that guardrails have paused come back."""

from collections.abc import Collection, Mapping, Sequence

from sqlmodel import Session

from experiments.catalog.definitions import ExperimentDefinition
from experiments.catalog.experiment_store import ExperimentState, experiment_state
from experiments.catalog.lifecycle import series_of
from experiments.catalog.variants import (
    find_variant,
    open_experiment,
    refuse_decided,
    store_change,
    with_newcomer,
    without,
)
from experiments.database import database_now
from experiments.errors import FieldError, InvalidInput, VariantNotPaused
from experiments.guardrails.pauses import live_by_segment, live_pauses, to_control
from experiments.input.checks import shown
from experiments.learning.allocations import add_allocations, newest_allocations, start_weights
from experiments.tables import Experiment, VariantPause


def unpause_variant(
    session: Session,
    key: str,
    *,
    variant: str,
    actor: str,
    reason: str,
    segments: Sequence[str] | None = None,
    if_match: int | None = None,
) -> ExperimentState:
    """Give a paused variant weight again, an equal share to begin with (fixed weights: its own); its units get it back.

    All guardrails begin anew with it there: they read only units decided since, so that what paused it does not pause
    it again, and their false-pause rate holds from then on.

    Args:
        session: The caller's transaction.
        key: The experiment's.
        variant: Paused.
        actor: For the audit.
        reason: Not empty.
        segments: Where; by default wherever it is paused.
        if_match: Version that the caller means.
    Raises:
        ExperimentNotFound, ExperimentVariantNotFound: No such experiment or variant.
        WrongState: The experiment neither runs nor is paused.
        PreconditionFailed: It is not at version ``if_match``.
        SendPlanDecided: Its send plan has a winner, which all others are to get.
        InvalidInput: The reason is empty, or the variant is not paused in a segment named.
        VariantNotPaused: It is paused nowhere, or was retired.
    """
    if not reason.strip():
        raise InvalidInput([FieldError("/reason", "must be said")])
    row = open_experiment(session, key, if_match=if_match)
    refuse_decided(session, row, wanted="no variant can come back")
    if find_variant(session, row, key=variant).retired_at is not None:
        raise VariantNotPaused(variant, reason="it was retired")
    pauses = [pause for pause in live_pauses(session, row.series) if pause.variant == variant]
    lifted = _chosen(pauses, segments, variant=variant)
    now = database_now(session)
    for pause in lifted:
        pause.lifted_at, pause.lifted_by = now, actor
    session.flush()
    weights = _weights(session, row, variant=variant, segments=dict.fromkeys(pause.segment for pause in lifted))
    add_allocations(session, row.series or 0, weights=weights, reason="variant_unpaused", now=now)
    detail = {"variant": variant, "segments": list(weights), "metrics": sorted({pause.metric for pause in lifted})}
    return store_change(
        session, row, body=row.body, actor=actor, action="unpause_variant", reason=reason, detail=detail
    )


def _chosen(pauses: Sequence[VariantPause], segments: Sequence[str] | None, *, variant: str) -> Sequence[VariantPause]:
    if not pauses:
        raise VariantNotPaused(variant, reason="no guardrail has paused it")
    if segments is None:
        return pauses
    places = {pause.segment for pause in pauses}
    wrong = [
        FieldError(f"/segments/{i}", f"{shown(variant)} is not paused in {shown(segment)}")
        for i, segment in enumerate(segments)
        if segment not in places
    ]
    if wrong:
        raise InvalidInput(wrong)
    return [pause for pause in pauses if pause.segment in segments]


def _weights(
    session: Session, row: Experiment, *, variant: str, segments: Mapping[str, None]
) -> dict[str, dict[str, float]]:
    """The next weights of segments where a variant comes back."""
    definition = ExperimentDefinition.model_validate(row.body)
    control = next(one.key for one in definition.variants if one.is_control)
    newest, live = newest_allocations(session, row.series or 0), live_by_segment(session, series_of(session, row))
    if definition.method == "fixed":
        fixed = _fixed(definition, retired=_retired(session, row))
        return {segment: _served(fixed, live=live[segment], control=control) for segment in segments}
    least = {control: definition.control_share}
    return {
        segment: with_newcomer(newest[segment].weights, variant, n_live=len(live[segment]), least=least)
        for segment in segments
    }


def _retired(session: Session, row: Experiment) -> set[str]:
    return set(experiment_state(session, row).retired)


def _fixed(definition: ExperimentDefinition, *, retired: Collection[str]) -> dict[str, float]:
    """Weights as the experiment fixes them, those of retired variants shared out."""
    weights = start_weights(definition.model_copy(update={"floor": 0.0}))
    return without(weights, live=[key for key in weights if key not in retired])


def _served(weights: Mapping[str, float], *, live: Collection[str], control: str) -> dict[str, float]:
    return to_control(weights, paused=[key for key in weights if key not in live], control=control)
