"""Versions of a placement's policy: reading them, adding one, rolling back. None is ever overwritten."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlmodel import Session, col, select

from experiments.access import audit
from experiments.catalog.definition_store import get_definition
from experiments.catalog.lifecycle import EFFECT_SECONDS
from experiments.catalog.serving import current_policy
from experiments.database import bump_snapshot, database_now
from experiments.errors import FieldError, InvalidInput, NothingBefore, PolicyNotFound, PolicyVersionNotFound
from experiments.input.checks import shown
from experiments.input.parsing import parse
from experiments.promote.membership import give_back, leave_again
from experiments.promote.requests import RollbackRequest
from experiments.tables import Experiment, PolicyVersion
from experiments.webhooks.news import tell_of_change, tell_of_rollback


def add_version(
    session: Session,
    placement: str,
    *,
    action: str,
    entries: Mapping[str, Any],
    evidence: Mapping[str, Any],
    reason: str,
    actor: str,
    now: datetime,
) -> PolicyVersion:
    """Write the next version of a policy; ``bump_snapshot``, called before, keeps other changes out."""
    current = current_policy(session, placement)
    policy = PolicyVersion(
        placement=placement,
        version=1 if current is None else current.version + 1,
        action=action,
        entries=dict(entries),
        evidence=dict(evidence),
        reason=reason,
        created_at=now,
        created_by=actor,
        effective_at=now + timedelta(seconds=EFFECT_SECONDS),
    )
    session.add(policy)
    session.flush()
    return policy


def rollback(session: Session, placement: str, *, request: object, actor: str) -> dict[str, Any]:
    """Bring back what stood in an earlier version of a placement's policy, as one more version.

    Segments that had no entry then have none again: they go back to the experiment that they were promoted from, if it
    runs or is paused. Segments whose promotion comes back leave it again.

    Args:
        session: The caller's transaction.
        placement: With a policy.
        request: JSON ``{"segments"?: [segment], "to_version"?, "reason"}``; by default all segments and the version
            before the one that stands, so that undoing again goes back further. Version 0: before the first promotion.
        actor: For the audit.
    Returns:
        placement, version, to_version, segments (segment to variant, null where nothing stands any more), returned and
        left (segment to experiment), effective_at.
    Raises:
        PlacementNotFound: No such placement.
        PolicyNotFound: It has no policy.
        PolicyVersionNotFound: No such version.
        NothingBefore: What stands is from before the first promotion.
        InvalidInput: A field that is wrong, among them a segment that neither version has.
    """
    wanted = parse(RollbackRequest, request)
    get_definition(session, "placement", key=placement)
    bump_snapshot(session)
    current = current_policy(session, placement)
    if current is None:
        raise PolicyNotFound(placement)
    target = (
        _version_before(session, current, segments=wanted.segments) if wanted.to_version is None else wanted.to_version
    )
    if target == current.version:
        raise InvalidInput([FieldError("/to_version", f"is {target}, which stands: say an earlier one")])
    if target > current.version:
        raise PolicyVersionNotFound(placement, version=target)
    then = _entries(session, placement, version=target)
    segments = _segments_to_roll_back(wanted, now=current.entries, then=then)
    return _roll_back(session, current, target=target, segments=segments, then=then, reason=wanted.reason, actor=actor)


def _roll_back(
    session: Session,
    current: PolicyVersion,
    *,
    target: int,
    segments: Sequence[str],
    then: Mapping[str, Any],
    reason: str,
    actor: str,
) -> dict[str, Any]:
    kept = {segment: entry for segment, entry in current.entries.items() if segment not in segments}
    back = {segment: then[segment] for segment in segments if segment in then}
    lost = {segment: current.entries[segment] for segment in segments if segment not in then}
    returned = give_back(session, lost)
    policy = add_version(
        session,
        current.placement,
        action="rollback",
        entries=kept | back,
        evidence={"to_version": target, "returned": returned},
        reason=reason,
        actor=actor,
        now=database_now(session),
    )
    left = leave_again(session, back, at=policy.effective_at)
    answer = {
        "placement": policy.placement,
        "version": policy.version,
        "to_version": target,
        "segments": {segment: then[segment]["variant"] if segment in then else None for segment in segments},
        "returned": returned,
        "left": left,
        "effective_at": policy.effective_at.isoformat(),
    }
    experiments = dict.fromkeys([*returned.values(), *left.values()])
    for subject in (f"policy/{policy.placement}", *(f"experiment/{key}" for key in experiments)):
        audit.record(session, actor=actor, action="rollback", subject=subject, reason=reason, detail=answer)
    _tell(session, policy, answer=answer)
    return answer


def _tell(session: Session, policy: PolicyVersion, *, answer: Mapping[str, Any]) -> None:
    """Tell webhooks of a roll-back, and of experiments that end by their last segment's leaving."""
    tell_of_rollback(session, policy, answer=answer)
    actor, reason, at = policy.created_by, policy.reason, policy.effective_at
    for key in dict.fromkeys(answer["left"].values()):
        experiment = session.get_one(Experiment, key)
        if experiment.status == "concluded":
            tell_of_change(session, experiment, action="conclude", actor=actor, reason=reason, effective_at=at)


def _version_before(session: Session, current: PolicyVersion, *, segments: Sequence[str] | None) -> int:
    """The version before the promotion that stands, however often it was brought back."""
    standing = current
    while standing.action == "rollback":
        version = standing.evidence["to_version"]
        if not _same(current.entries, _entries(session, current.placement, version=version), segments=segments):
            detail = f"must be said: version {standing.version} brought back single segments only"
            raise InvalidInput([FieldError("/to_version", detail)])
        if version == 0:
            raise NothingBefore(current.placement)
        standing = session.get_one(PolicyVersion, (current.placement, version))
    return standing.version - 1


def _same(one: Mapping[str, Any], other: Mapping[str, Any], *, segments: Sequence[str] | None) -> bool:
    return all(one.get(key) == other.get(key) for key in ({*one, *other} if segments is None else segments))


def read_policy(session: Session, placement: str) -> dict[str, Any]:
    """A placement's policy: what stands now, every earlier version with its evidence, and warnings.

    Entries that have expired keep standing; a warning says so. Without a policy yet, version is 0.

    Raises:
        PlacementNotFound: No such placement.
    """
    get_definition(session, "placement", key=placement)
    query = select(PolicyVersion).where(PolicyVersion.placement == placement)
    versions = session.exec(query.order_by(col(PolicyVersion.version).desc())).all()
    current = versions[0] if versions else None
    entries = {} if current is None else current.entries
    now = database_now(session)
    expired = {key: entry["expires_at"] for key, entry in entries.items() if _has_expired(entry, now)}
    return {
        "placement": placement,
        "version": 0 if current is None else current.version,
        "entries": entries,
        "history": [_told(version) for version in versions],
        "warnings": [f"The policy of {key!r} expired at {at}; it goes on standing." for key, at in expired.items()],
    }


def _has_expired(entry: Mapping[str, Any], now: datetime) -> bool:
    return entry["expires_at"] is not None and datetime.fromisoformat(entry["expires_at"]) <= now


def _told(version: PolicyVersion) -> dict[str, Any]:
    return {
        "version": version.version,
        "action": version.action,
        "entries": version.entries,
        "evidence": version.evidence,
        "reason": version.reason,
        "created_at": version.created_at.isoformat(),
        "created_by": version.created_by,
        "effective_at": version.effective_at.isoformat(),
    }


def _entries(session: Session, placement: str, *, version: int) -> dict[str, Any]:
    """What stood in a version; nothing before the first."""
    if version == 0:
        return {}
    found = session.get(PolicyVersion, (placement, version))
    if found is None:
        raise PolicyVersionNotFound(placement, version=version)
    entries: dict[str, Any] = found.entries
    return entries


def _segments_to_roll_back(
    request: RollbackRequest, *, now: Mapping[str, Any], then: Mapping[str, Any]
) -> Sequence[str]:
    known = list(dict.fromkeys([*now, *then]))
    if request.segments is None:
        return known
    wrong = [
        FieldError(f"/segments/{i}", f"{shown(key)} has no entry in either version")
        for i, key in enumerate(request.segments)
        if key not in known
    ]
    if wrong:
        raise InvalidInput(wrong)
    return request.segments
