"""Promoting a policy of targeting: a study's leaves become segments, and its choices their standing variants."""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

from sqlmodel import Session, col, select

from experiments.access import audit
from experiments.analyses.errors import AnalysisNotFound
from experiments.catalog.definition_store import Defined, current_definitions, put_segmentation
from experiments.catalog.definitions import BUILT_IN_SEGMENTATIONS
from experiments.catalog.lifecycle import EFFECT_SECONDS
from experiments.catalog.serving import current_policy
from experiments.database import bump_snapshot, database_now
from experiments.errors import FieldError, InvalidInput
from experiments.guardrails.pauses import paused_places
from experiments.input.checks import shown
from experiments.input.parsing import parse
from experiments.promote.errors import TargetingRefused
from experiments.promote.membership import leave
from experiments.promote.policies import add_version
from experiments.promote.requests import TargetingRequest
from experiments.promote.series import open_policy_series
from experiments.tables import Analysis, Definition, Experiment, PolicyVersion, Series, SeriesVariant
from experiments.webhooks.news import tell_of_change, tell_of_promotion

_OUTSIDE = "outside"
Leaf = Mapping[str, Any]


def promote_targeting(session: Session, id_: str, *, request: object, actor: str) -> dict[str, Any]:
    """Make the tree of a study of uplift the standing policy of its experiment's segments; these leave the experiment.

    The leaves become a segmentation of their own (by default ``<experiment>-uplift``; a new version where it is there),
    so that serving takes rules alone. Customers of segments that are not the experiment's, or have left it before, are
    not touched.

    Args:
        session: The caller's transaction.
        id_: The analysis's.
        request: JSON ``{"segmentation"?, "explore"?, "expires_at"?, "reason", "force"?}``.
        actor: For the audit.
    Returns:
        placement, version, segmentation (key and version), segments (leaf to variant), series, explore, effective_at,
        concluded, forced, analysis.
    Raises:
        AnalysisNotFound: No such analysis.
        InvalidInput: A field that is wrong.
        TargetingRefused: It is no finished study of uplift; its tree is one leaf; its verdict is not ``personalise``,
            or a variant is paused, or the experiment is a send plan, and there is no force; no segment is left.
        InvalidDefinition: An attribute has changed so that a rule can't be asked any more.
    """
    wanted = parse(TargetingRequest, request)
    bump_snapshot(session)
    analysis = session.get(Analysis, id_)
    if analysis is None:
        raise AnalysisNotFound(id_)
    experiment = session.get_one(Experiment, analysis.experiment, with_for_update=True, populate_existing=True)
    series = session.get_one(Series, experiment.series, with_for_update=True, populate_existing=True)
    now = database_now(session)
    leaves = _leaves(session, analysis, series=series, wanted=wanted)
    own = [key for key in series.segments if key not in series.closed_segments]
    if not own:
        raise TargetingRefused("All segments have left the experiment: their policies stand.")
    if wanted.expires_at is not None and wanted.expires_at <= now:
        detail = f"must be in the future, not {wanted.expires_at.isoformat()}"
        raise InvalidInput([FieldError("/expires_at", detail)])
    split = _segmentation(session, series, leaves=leaves, own=own, key=wanted.segmentation, actor=actor)
    policy, number = _stand(session, analysis, series=series, leaves=leaves, split=split, wanted=wanted, actor=actor)
    was = experiment.status
    concluded = leave(experiment, series, segments=own, at=policy.effective_at)
    session.flush()
    answer = {
        "placement": policy.placement,
        "version": policy.version,
        "segmentation": {"key": split.key, "version": split.version},
        "segments": {leaf["segment"]: leaf["variant"] for leaf in leaves},
        "series": number,
        "explore": wanted.explore,
        "effective_at": policy.effective_at.isoformat(),
        "concluded": concluded,
        "forced": wanted.force,
        "analysis": id_,
    }
    for subject in (f"experiment/{experiment.key}", f"policy/{policy.placement}"):
        audit.record(session, actor=actor, action="promote", subject=subject, reason=wanted.reason, detail=answer)
    tell_of_promotion(session, policy, experiment=experiment.key, answer=answer)
    if experiment.status != was:
        at = policy.effective_at
        tell_of_change(session, experiment, action="conclude", actor=actor, reason=wanted.reason, effective_at=at)
    return answer


def _leaves(session: Session, analysis: Analysis, *, series: Series, wanted: TargetingRequest) -> list[dict[str, Any]]:
    """The leaves that are to be served, their keys unlike those of any other study."""
    if analysis.kind != "uplift" or analysis.status != "done":
        raise TargetingRefused(f"Analysis {analysis.id!r} is no finished study of uplift: {analysis.status}.")
    result: dict[str, Any] = analysis.result
    if len(result["leaves"]) < 2:
        raise TargetingRefused("The tree has one leaf: promote its variant for the experiment's segments instead.")
    if not wanted.force and result["verdict"] != "personalise":
        raise TargetingRefused(f"The verdict is {result['verdict']}: {result['reason']}")
    if not wanted.force and series.send_plan is not None:
        raise TargetingRefused("A send plan leaves no standing policy, unless forced.")
    paused = {variant for _, variant in paused_places(session, series.number)}
    gone = {variant.key for variant in _variants(session, series) if variant.retired_at is not None}
    for leaf in result["leaves"]:
        if leaf["variant"] in gone:
            raise TargetingRefused(f"Variant {leaf['variant']!r} was retired since. Run the analysis again.")
        if leaf["variant"] in paused and not wanted.force:
            raise TargetingRefused(f"Variant {leaf['variant']!r} is paused by a guardrail.")
    return [leaf | {"segment": f"{leaf['segment']}-{analysis.id[:6]}"} for leaf in result["leaves"]]


def _segmentation(
    session: Session,
    series: Series,
    *,
    leaves: Sequence[Leaf],
    own: Sequence[str],
    key: str | None,
    actor: str,
) -> Defined:
    key = key or f"{series.experiment}-uplift"[:128]
    placements = current_definitions(session, "placement")
    users = [row.key for row in placements if row.body["segmentation"] == key]
    if users or key in {series.segmentation, *BUILT_IN_SEGMENTATIONS}:
        detail = f"{shown(key)} is in use by {', '.join(map(repr, users)) or 'the experiment itself'}; name another"
        raise InvalidInput([FieldError("/segmentation", detail)])
    rules = [{"key": leaf["segment"], "rule": leaf["rule"]} for leaf in leaves[:-1]]
    payload = {
        "segments": [*_outside(session, series, own=own), *rules],
        "otherwise": leaves[-1]["segment"],
        "description": f"Leaves of a study of uplift of experiment {series.experiment}.",
    }
    return put_segmentation(session, key, payload=payload, actor=actor)


def _outside(session: Session, series: Series, *, own: Sequence[str]) -> list[dict[str, Any]]:
    """Who is in none of the experiment's own segments, as the first segment; nothing if nobody is."""
    if series.segmentation_version == 0:
        return []  # built in: everyone
    body = session.get_one(Definition, ("segmentation", series.segmentation, series.segmentation_version)).body
    before: list[Any] = []
    others: list[Any] = []
    for segment in body["segments"]:
        if segment["key"] in own:
            before.append(segment["rule"])
        else:
            others.append(_and_not(segment["rule"], before))
    if body["otherwise"] not in own:
        others.append({"not": {"any": [segment["rule"] for segment in body["segments"]]}} if body["segments"] else None)
    found = [rule for rule in others if rule is not None]
    return [{"key": _OUTSIDE, "rule": found[0] if len(found) == 1 else {"any": found}}] if found else []


def _and_not(rule: Any, before: Sequence[Any]) -> Any:
    """A rule, but for whom earlier ones hold: the first that matches wins."""
    return {"all": [rule, {"not": {"any": list(before)}}]} if before else rule


def _stand(
    session: Session,
    analysis: Analysis,
    *,
    series: Series,
    leaves: Sequence[Leaf],
    split: Defined,
    wanted: TargetingRequest,
    actor: str,
) -> tuple[PolicyVersion, int]:
    now = database_now(session)
    winners = {leaf["segment"]: leaf["variant"] for leaf in leaves}
    opened = open_policy_series(
        session,
        series,
        variants=[variant for variant in _variants(session, series) if variant.retired_at is None],
        winners=winners,
        explore=wanted.explore,
        opens_at=now + timedelta(seconds=EFFECT_SECONDS),
        now=now,
        split=(split.key, split.version),
    )
    expires_at = None if wanted.expires_at is None else wanted.expires_at.isoformat()
    rest = {"experiment": analysis.experiment, "explore": wanted.explore, "expires_at": expires_at}
    entries = {leaf: {"series": opened.number, "variant": variant} | rest for leaf, variant in winners.items()}
    policy = add_version(
        session,
        series.placement,
        action="promote",
        entries=_still_standing(session, series.placement, split=split.key) | entries,
        evidence={leaf["segment"]: _evidence(analysis, leaf, forced=wanted.force) for leaf in leaves},
        reason=wanted.reason,
        actor=actor,
        now=now,
    )
    return policy, opened.number or 0


def _still_standing(session: Session, placement: str, *, split: str) -> dict[str, Any]:
    """What stood, but for an earlier study's leaves: these say of all customers what the new ones say."""
    standing = current_policy(session, placement)
    if standing is None:
        return {}
    numbers = {entry["series"] for entry in standing.entries.values()}
    query = select(Series.number).where(col(Series.number).in_(numbers), Series.segmentation == split)
    gone = set(session.exec(query))
    return {segment: entry for segment, entry in standing.entries.items() if entry["series"] not in gone}


def _evidence(analysis: Analysis, leaf: Leaf, *, forced: bool) -> dict[str, Any]:
    result = analysis.result
    head = {name: result[name] for name in ("metric", "data", "verdict", "reason", "policies")}
    return {"analysis": analysis.id, **head, "leaf": dict(leaf), "forced": forced}


def _variants(session: Session, series: Series) -> Sequence[SeriesVariant]:
    query = select(SeriesVariant).where(SeriesVariant.series == series.number)
    return session.exec(query.order_by(col(SeriesVariant.position))).all()
