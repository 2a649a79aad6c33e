"""guard: pause what does harm. Every pass looks at the guardrails of all live experiments, and writes what must stop.

As for learning, what is read is read on one state of the database, computing holds no transaction, and the transaction
that writes checks that this process still has its lease, and what has changed meanwhile.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import structlog
from sqlalchemy import Engine
from sqlmodel import Session, col, select

from experiments.access import audit
from experiments.catalog.definition_store import LIVE
from experiments.catalog.definitions import ExperimentDefinition
from experiments.catalog.lifecycle import EFFECT_SECONDS, open_segments
from experiments.database import bump_snapshot, database_now, reading, transaction
from experiments.guardrails.pauses import Place, paused_places, to_control
from experiments.learning.allocations import add_allocations, newest_allocations
from experiments.learning.lease import Lease, check
from experiments.review.harm import Harm, harms_of, watch
from experiments.tables import Experiment, Series, SeriesVariant, VariantPause
from experiments.webhooks.news import tell_of_pause
from optimizer.errors import OptimizerError

log = structlog.get_logger(__name__)

ACTOR = "guardrail"


@dataclass(frozen=True, slots=True)
class Guarded:
    """What one pass paused: variants in segments, and in how many experiments."""

    n_experiments: int
    n_pauses: int


def guard(engine: Engine, lease: Lease) -> Guarded:
    """Look at the guardrails of every running or paused experiment once, and pause the variants that do harm.

    A paused experiment is looked at, too: outcomes go on counting, and it must not resume with what does harm.

    Raises:
        LeaseLost: Another process has taken over; what was written before is right and stays.
    """
    n_experiments = n_pauses = 0
    for key in _guarded(engine):
        n_written = _guard_one(engine, lease, key=key)
        n_experiments += n_written > 0
        n_pauses += n_written
    return Guarded(n_experiments, n_pauses)


def _guarded(engine: Engine) -> list[str]:
    with reading(engine) as session:
        query = select(Experiment.key, Experiment.body).where(col(Experiment.status).in_(LIVE))
        return [key for key, body in session.exec(query.order_by(col(Experiment.key))) if body["guardrails"]]


def _guard_one(engine: Engine, lease: Lease, *, key: str) -> int:
    with reading(engine) as session:
        harms = find_harms(session, key)
    if not harms:
        return 0
    with transaction(engine) as session:
        places = pause_variants(session, key, harms=harms, lease=lease)
    for segment, variant in places:
        log.warning("variant_paused", experiment=key, segment=segment, variant=variant)
    return len(places)


def find_harms(session: Session, key: str) -> list[Harm]:
    """What an experiment's guardrails would pause now; nothing of one that is over."""
    experiment = session.get(Experiment, key)
    if experiment is None or experiment.status not in LIVE or experiment.series is None:
        return []
    definition = ExperimentDefinition.model_validate(experiment.body)
    series = session.get_one(Series, experiment.series)
    try:
        found = watch(session, series, definition=definition, as_of=database_now(session))
    except OptimizerError as error:
        log.warning("not_guarded", experiment=key, code=error.code, reason=str(error))
        return []
    return [harm for bounds in found for harm in harms_of(bounds)]


def pause_variants(session: Session, key: str, *, harms: Sequence[Harm], lease: Lease) -> list[Place]:
    """Pause variants where they do harm: their shares go to control. Returns where; nothing that has changed meanwhile.

    Args:
        session: The caller's transaction.
        key: The experiment's.
        harms: As found, none of them paused then.
        lease: Under which they were found.
    Raises:
        LeaseLost: Another process has taken over.
    """
    bump_snapshot(session)  # first: it keeps changes of the lifecycle out until we commit
    check(session, lease)
    experiment = session.get(Experiment, key, with_for_update=True, populate_existing=True)
    if experiment is None or experiment.status not in LIVE or experiment.series is None:
        return []
    series = session.get_one(Series, experiment.series, populate_existing=True)
    new = list(_still_to_pause(session, series, harms=harms))
    if not new:
        return []
    now = database_now(session)
    session.add_all(_pause(experiment.series, harm, now=now) for harm in new)
    session.flush()
    _reweigh(session, series, segments=dict.fromkeys(harm.segment for harm in new), now=now)
    experiment.version += 1
    session.flush()
    _record(session, experiment, harms=new, now=now)
    return list(dict.fromkeys((harm.segment, harm.variant) for harm in new))


def _still_to_pause(session: Session, series: Series, *, harms: Sequence[Harm]) -> Iterator[Harm]:
    paused, still = paused_places(session, series.number), set(open_segments(series))
    query = select(SeriesVariant.key).where(
        SeriesVariant.series == series.number,
        col(SeriesVariant.retired_at).is_(None),
        col(SeriesVariant.is_control).is_(False),
    )
    live = set(session.exec(query))
    for harm in harms:
        if harm.segment in still and harm.variant in live and (harm.segment, harm.variant) not in paused:
            yield harm


def _pause(series: int, harm: Harm, *, now: datetime) -> VariantPause:
    return VariantPause(
        series=series,
        segment=harm.segment,
        variant=harm.variant,
        metric=harm.metric,
        evidence=harm.evidence,
        paused_at=now,
        effective_at=now + timedelta(seconds=EFFECT_SECONDS),
    )


def _reweigh(session: Session, series: Series, *, segments: Mapping[str, None], now: datetime) -> None:
    number = series.number or 0
    newest, paused = newest_allocations(session, number), paused_places(session, number)
    query = select(SeriesVariant.key).where(SeriesVariant.series == number, col(SeriesVariant.is_control))
    control = session.exec(query).one()
    weights = {
        segment: to_control(
            newest[segment].weights, paused=[key for at, key in paused if at == segment], control=control
        )
        for segment in segments
    }
    add_allocations(session, number, weights=weights, reason="guardrail", now=now)


def _record(session: Session, experiment: Experiment, *, harms: Sequence[Harm], now: datetime) -> None:
    """One entry of the audit, and one message, for each variant and guardrail, with the evidence of every segment."""
    together: dict[tuple[str, str], dict[str, object]] = {}
    for harm in harms:
        together.setdefault((harm.variant, harm.metric), {})[harm.segment] = harm.evidence
    effective_at = now + timedelta(seconds=EFFECT_SECONDS)
    for (variant, metric), evidence in together.items():
        detail = {
            "version": experiment.version,
            "variant": variant,
            "metric": metric,
            "segments": evidence,
            "effective_at": effective_at.isoformat(),
        }
        audit.record(
            session,
            actor=ACTOR,
            action="pause_variant",
            subject=f"experiment/{experiment.key}",
            reason=f"The guardrail on {metric} found more harm than max_harm allows.",
            detail=detail,
        )
        tell_of_pause(
            session, experiment, variant=variant, metric=metric, segments=list(evidence), effective_at=effective_at
        )
