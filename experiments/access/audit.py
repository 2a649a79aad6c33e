"""The record of every change: who, when, what, why. Each row hashes the one before: none can change unseen."""

import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final

import orjson
from sqlmodel import Session, col, select

from experiments.database import database_now
from experiments.input.checks import check_json
from experiments.tables import Audit, Workspace

MAX_REASON_BYTES: Final = 8_192
_GENESIS: Final = bytes(32)
_ROWS_AT_ONCE: Final = 1_000


def canonical(value: Any) -> bytes:
    """JSON in one form, whichever database it went through: names sorted, whole floats as integers.

    >>> canonical({"b": 1.0, "a": True})
    b'{"a":true,"b":1}'
    """
    return orjson.dumps(_plain(value), option=orjson.OPT_SORT_KEYS)


def record(
    session: Session,
    *,
    actor: str,
    action: str,
    subject: str,
    reason: str | None = None,
    detail: dict[str, Any] | None = None,
) -> Audit:
    """Append one change to the audit; the chain is locked until the transaction ends.

    Args:
        session: Of the change itself: both are committed, or neither.
        actor: Who: ``key/<name>`` or the command line.
        action: What was done: ``put``, ``start``, ``promote``, …
        subject: To what: ``experiment/<key>``.
        reason: Why, as the actor said.
        detail: JSON of our own making (before, after, versions).
    Raises:
        InvalidInput: The reason is too long, or can't be stored.
    """
    check_json(reason, max_depth=1, max_bytes=MAX_REASON_BYTES, pointer="/reason")
    session.exec(select(Workspace.id).with_for_update()).one()
    last = session.exec(select(Audit.hash).order_by(col(Audit.id).desc()).limit(1)).first()
    row = Audit(
        at=database_now(session),
        actor=actor,
        action=action,
        subject=subject,
        reason=reason,
        detail=detail,
        previous_hash=_GENESIS if last is None else last,
        hash=b"",
    )
    row.hash = _hash(row)
    session.add(row)
    session.flush()
    return row


def verify(session: Session) -> int | None:
    """The id of the first row that was changed, or whose predecessor is gone; None if the chain is whole.

    Rows cut off at the end leave no trace in the chain itself: compare the newest hash with one kept elsewhere.
    """
    previous, after = _GENESIS, 0
    while rows := _rows_after(session, after):
        for row in rows:
            if row.previous_hash != previous or row.hash != _hash(row):
                return row.id
            previous = row.hash
        after = rows[-1].id or 0
    return None


def list_entries(
    session: Session, *, cursor: int | None = None, limit: int = 100, subject: str | None = None
) -> Sequence[Audit]:
    """Entries of the audit, the newest first; ``cursor`` is the id of the last entry that the caller has seen."""
    query = select(Audit).order_by(col(Audit.id).desc()).limit(limit)
    if cursor is not None:
        query = query.where(col(Audit.id) < cursor)
    if subject is not None:
        query = query.where(Audit.subject == subject)
    return session.exec(query).all()


def _rows_after(session: Session, id_: int) -> Sequence[Audit]:
    query = select(Audit).where(col(Audit.id) > id_).order_by(col(Audit.id)).limit(_ROWS_AT_ONCE)
    return session.exec(query).all()


def _hash(row: Audit) -> bytes:
    said = [_timestamp(row.at), row.actor, row.action, row.subject, row.reason, row.detail]
    return hashlib.sha256(row.previous_hash + canonical(said)).digest()


def _timestamp(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="microseconds")


def _plain(value: Any) -> Any:
    if isinstance(value, float) and value.is_integer() and -(2**63) <= value < 2**64:
        return int(Decimal(repr(value)))  # as NUMERIC keeps it
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value
