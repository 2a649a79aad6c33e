"""Promoting: proven winners become the policy of their segments, which leave the experiment."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlmodel import Session, col, select

from experiments.access import audit
from experiments.catalog.lifecycle import EFFECT_SECONDS
from experiments.catalog.serving import current_policy
from experiments.database import bump_snapshot, database_now
from experiments.errors import ExperimentNotFound, FieldError, InvalidInput, PromotionRefused, WrongState
from experiments.guardrails.pauses import Place, paused_places
from experiments.input.checks import pointer_to, shown
from experiments.input.parsing import parse
from experiments.promote.membership import leave
from experiments.promote.policies import add_version
from experiments.promote.requests import PromotionRequest
from experiments.promote.series import open_policy_series
from experiments.review.reading import STARTED
from experiments.review.results import results
from experiments.tables import Experiment, PolicyVersion, Series, SeriesVariant
from experiments.webhooks.news import tell_of_change, tell_of_promotion


@dataclass(frozen=True, slots=True)
class _Promotion:
    """What is about to be promoted."""

    experiment: Experiment
    series: Series
    variants: Sequence[SeriesVariant]
    winners: Mapping[str, str]
    review: Mapping[str, Any]
    request: PromotionRequest
    now: datetime


def promote(session: Session, key: str, *, request: object, actor: str) -> dict[str, Any]:
    """Make winners the standing policy of their segments; these segments leave the experiment.

    Args:
        session: The caller's transaction.
        key: Of an experiment that has started.
        request: JSON ``{"segments"?: {segment: variant}, "explore"?, "expires_at"?, "as_of"?, "reason", "force"?}``.
            Without segments: every one whose verdict is ``ship`` and that is still with the experiment.
        actor: For the audit.
    Returns:
        placement, version, segments (segment to variant), series, explore, effective_at, concluded, forced.
    Raises:
        ExperimentNotFound: No such experiment.
        WrongState: It has not started.
        InvalidInput: A field that is wrong, among them segments and variants that the experiment doesn't have, and an
            expiry in the past.
        PromotionRefused: The verdict of a segment isn't ``ship``, or its winner is another, or a guardrail has paused
            it there, or the experiment is a send plan, and there is no force; or no segments were named and none is
            proven.
    """
    wanted = parse(PromotionRequest, request)
    bump_snapshot(session)
    promotion = _promotion(session, key, request=wanted)
    policy, number = _stand(session, promotion, actor=actor)
    experiment, was = promotion.experiment, promotion.experiment.status
    concluded = leave(experiment, promotion.series, segments=promotion.winners, at=policy.effective_at)
    session.flush()
    answer = {
        "placement": policy.placement,
        "version": policy.version,
        "segments": dict(promotion.winners),
        "series": number,
        "explore": wanted.explore,
        "effective_at": policy.effective_at.isoformat(),
        "concluded": concluded,
        "forced": wanted.force,
    }
    for subject in (f"experiment/{key}", f"policy/{policy.placement}"):
        audit.record(session, actor=actor, action="promote", subject=subject, reason=wanted.reason, detail=answer)
    tell_of_promotion(session, policy, experiment=key, answer=answer)
    if experiment.status != was:
        at = policy.effective_at
        tell_of_change(session, experiment, action="conclude", actor=actor, reason=wanted.reason, effective_at=at)
    return answer


def _stand(session: Session, promotion: _Promotion, *, actor: str) -> tuple[PolicyVersion, int]:
    """The policy's next version, the winners over what stood before, and the number of their series."""
    series = open_policy_series(
        session,
        promotion.series,
        variants=promotion.variants,
        winners=promotion.winners,
        explore=promotion.request.explore,
        opens_at=promotion.now + timedelta(seconds=EFFECT_SECONDS),
        now=promotion.now,
        paused=paused_places(session, promotion.series.number),
    )
    standing = current_policy(session, series.placement)
    own = {
        segment: _entry(promotion, series.number or 0, variant=variant)
        for segment, variant in promotion.winners.items()
    }
    policy = add_version(
        session,
        series.placement,
        action="promote",
        entries={**({} if standing is None else standing.entries), **own},
        evidence=_evidence(promotion),
        reason=promotion.request.reason,
        actor=actor,
        now=promotion.now,
    )
    return policy, series.number or 0


def _promotion(session: Session, key: str, *, request: PromotionRequest) -> _Promotion:
    experiment = session.get(Experiment, key, with_for_update=True, populate_existing=True)
    if experiment is None:
        raise ExperimentNotFound(key)
    if experiment.series is None:
        raise WrongState(key, status=experiment.status, allowed=STARTED)
    series = session.get_one(Series, experiment.series, with_for_update=True, populate_existing=True)
    query = select(SeriesVariant).where(SeriesVariant.series == series.number, col(SeriesVariant.retired_at).is_(None))
    variants = session.exec(query.order_by(col(SeriesVariant.position))).all()
    now = database_now(session)
    _check_fields(request, series=series, variants=variants, now=now)
    if series.send_plan is not None and not request.force:
        raise PromotionRefused(key, fields=[FieldError("/force", _NO_STANDING_POLICY)])
    review = results(session, key, as_of=request.as_of, is_brief=True)
    paused = paused_places(session, series.number)
    winners = _winners(key, request, review=review, series=series, paused=paused)
    return _Promotion(experiment, series, variants, winners, review, request, now)


_NO_STANDING_POLICY = "a send plan leaves no standing policy, unless forced: what won a send in hours need not last"


def _check_fields(
    request: PromotionRequest, *, series: Series, variants: Sequence[SeriesVariant], now: datetime
) -> None:
    live = {variant.key for variant in variants}
    wrong = []
    if request.expires_at is not None and request.expires_at <= now:
        wrong.append(FieldError("/expires_at", f"must be in the future, not {request.expires_at.isoformat()}"))
    for segment, variant in (request.segments or {}).items():
        place = pointer_to("/segments", segment)
        if segment not in series.segments:
            wrong.append(FieldError(place, "is no segment of the experiment"))
        elif variant not in live:
            wrong.append(FieldError(place, f"{shown(variant)} is no variant of the experiment, or was retired"))
    if wrong:
        raise InvalidInput(wrong)


def _winners(
    key: str, request: PromotionRequest, *, review: Mapping[str, Any], series: Series, paused: Collection[Place]
) -> Mapping[str, str]:
    rows = {row["segment"]: row for row in review["segments"]}
    if request.segments is None:
        left = [row for segment, row in rows.items() if segment not in series.closed_segments]
        shipped = {row["segment"]: row["winner"] for row in left if row["verdict"] == "ship"}
        winners = {segment: winner for segment, winner in shipped.items() if (segment, winner) not in paused}
        refused = [] if winners else [_refusal(row, row["winner"], paused=paused) for row in left]
    else:
        winners = request.segments
        doubtful = [
            segment
            for segment, variant in winners.items()
            if not request.force and (not _is_proven(rows[segment], variant) or (segment, variant) in paused)
        ]
        refused = [_refusal(rows[segment], winners[segment], paused=paused) for segment in doubtful]
    if refused or not winners:
        raise PromotionRefused(key, fields=refused)
    return winners


def _is_proven(row: Mapping[str, Any], variant: str) -> bool:
    return bool(row["verdict"] == "ship" and row["winner"] == variant)


def _refusal(row: Mapping[str, Any], variant: str | None, *, paused: Collection[Place]) -> FieldError:
    if (row["segment"], variant) in paused:
        return FieldError(pointer_to("/segments", row["segment"]), f"{variant} is paused there by a guardrail")
    another = row["verdict"] == "ship" and variant is not None
    detail = f"the winner is {row['winner']}, not {variant}" if another else f"{row['verdict']}: {row['reason']}"
    return FieldError(pointer_to("/segments", row["segment"]), detail)


def _evidence(promotion: _Promotion) -> dict[str, Any]:
    """The frozen review of each promoted segment."""
    review = promotion.review
    head = {name: review[name] for name in ("experiment", "metric", "as_of", "matured_share")}
    rows = {row["segment"]: row for row in review["segments"]}
    forced = {segment: not _is_proven(rows[segment], variant) for segment, variant in promotion.winners.items()}
    return {
        segment: {**head, **rows[segment], "forced": forced[segment], "checks": review["checks"]}
        for segment in promotion.winners
    }


def _entry(promotion: _Promotion, series: int, *, variant: str) -> dict[str, Any]:
    expires_at = promotion.request.expires_at
    return {
        "series": series,
        "variant": variant,
        "experiment": promotion.experiment.key,
        "explore": promotion.request.explore,
        "expires_at": None if expires_at is None else expires_at.isoformat(),
    }
