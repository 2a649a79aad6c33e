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
from experiments.errors import FieldError, InvalidInput, PolicyVersionNotFound
from experiments.input.checks import shown
from experiments.input.parsing import parse
from experiments.promote.requests import RollbackRequest
from experiments.tables import PolicyVersion


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

    Args:
        session: The caller's transaction.
        placement: With a policy.
        request: JSON ``{"segments"?: [segment], "to_version"?, "reason"}``; by default all segments and the previous
            version. Version 0 is before the first promotion. Segments that had no entry then have none again.
        actor: For the audit.
    Returns:
        placement, version, to_version, segments (segment to variant, null where nothing stands any more), effective_at.
    Raises:
        PlacementNotFound: No such placement.
        PolicyVersionNotFound: No such version, or the placement has no policy.
        InvalidInput: A field that is wrong, among them a segment that neither version has.
    """
    wanted = parse(RollbackRequest, request)
    get_definition(session, "placement", key=placement)
    bump_snapshot(session)
    current = current_policy(session, placement)
    version = 0 if current is None else current.version
    target = version - 1 if wanted.to_version is None else wanted.to_version
    if current is None or not 0 <= target < version:
        raise PolicyVersionNotFound(placement, version=target)
    then = _entries(session, placement, version=target)
    segments = _segments_to_roll_back(wanted, now=current.entries, then=then)
    kept = {segment: entry for segment, entry in current.entries.items() if segment not in segments}
    policy = add_version(
        session,
        placement,
        action="rollback",
        entries=kept | {segment: then[segment] for segment in segments if segment in then},
        evidence={},
        reason=wanted.reason,
        actor=actor,
        now=database_now(session),
    )
    answer = {
        "placement": placement,
        "version": policy.version,
        "to_version": target,
        "segments": {segment: then[segment]["variant"] if segment in then else None for segment in segments},
        "effective_at": policy.effective_at.isoformat(),
    }
    audit.record(
        session, actor=actor, action="rollback", subject=f"policy/{placement}", reason=wanted.reason, detail=answer
    )
    return answer


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
