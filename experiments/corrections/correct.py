"""Making corrections and taking them back: what is asked for at once, the work is the background process's."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import BigInteger, Table, cast, func
from sqlalchemy import select as select_columns
from sqlmodel import Session, col, select

from experiments.access import audit
from experiments.column_types import to_microseconds
from experiments.corrections.hours import HOUR_MICROSECONDS, LeftOut
from experiments.corrections.in_force import IN_FORCE
from experiments.corrections.requests import CorrectionRequest, RevertRequest
from experiments.database import database_now
from experiments.errors import CorrectionNotFound, CorrectionReverted, FieldError, InvalidInput
from experiments.input.checks import check_id, shown
from experiments.input.parsing import parse
from experiments.tables import Correction, Experiment, Tally

_FIRST = datetime(1980, 1, 1, tzinfo=UTC)
_tally: Table = Tally.__table__  # type: ignore[attr-defined]  # SQLModel's type stub lacks it


def correct(session: Session, *, request: object, actor: str) -> Correction:
    """Make a correction.

    One of decisions is in effect when the session commits; one of outcomes is ``applying`` until the background process
    has reached all that are stored. Those that arrive from now on are marked as they arrive.

    Args:
        session: One that may write.
        request: JSON of a ``CorrectionRequest``.
        actor: Who asks.
    Raises:
        InvalidInput: With all that is wrong.
    """
    asked = parse(CorrectionRequest, request)
    now = database_now(session)
    _check(session, asked, now=now)
    correction = _correction_of(asked, actor=actor, now=now)
    if not asked.is_of_outcomes:
        correction.n_excluded = _n_units(session, correction)
    session.add(correction)
    session.flush()
    _record(session, correction, actor=actor, action="correct", reason=asked.reason)
    return correction


def revert(session: Session, id_: str, *, request: object, actor: str) -> Correction:
    """Take a correction back, even before it is wholly applied.

    Args:
        session: One that may write.
        id_: As the caller wrote it.
        request: JSON of a ``RevertRequest``.
        actor: Who asks.
    Raises:
        InvalidInput: No reason.
        CorrectionNotFound: No such correction.
        CorrectionReverted: It has been taken back already.
    """
    reason = parse(RevertRequest, request).reason
    correction = session.get(Correction, _number(id_), with_for_update=True)
    if correction is None:
        raise CorrectionNotFound(id_)
    if correction.status not in IN_FORCE:
        raise CorrectionReverted(correction.id or 0, status=correction.status)
    _record(session, correction, actor=actor, action="revert", reason=reason)
    correction.status = "reverting" if correction.kind == "outcomes" else "reverted"
    correction.n_excluded = correction.n_excluded if correction.kind == "outcomes" else 0
    correction.cursor = None
    correction.reverted_at, correction.reverted_by = database_now(session), actor
    correction.revert_reason = reason
    session.flush()
    return correction


def get_correction(session: Session, id_: str) -> Correction:
    """A correction by its id as a caller wrote it.

    Raises:
        CorrectionNotFound: No such correction.
    """
    correction = session.get(Correction, _number(id_))
    if correction is None:
        raise CorrectionNotFound(id_)
    return correction


def list_corrections(session: Session, *, cursor: int | None = None, limit: int = 100) -> Sequence[Correction]:
    """Corrections, the newest first; ``cursor`` is the id of the last one that the caller has seen."""
    query = select(Correction).order_by(col(Correction.id).desc()).limit(limit)
    if cursor is not None:
        query = query.where(col(Correction.id) < cursor)
    return session.exec(query).all()


def _number(id_: str) -> int:
    is_number = id_.isascii() and id_.isdigit() and len(id_) <= 18
    return int(id_) if is_number else 0  # no correction has that


def _check(session: Session, asked: CorrectionRequest, *, now: datetime) -> None:
    if asked.event is not None:
        check_id(asked.event, "/event")
    faults = []
    for name in ("occurred_from", "occurred_to", "decided_from", "decided_to"):
        moment = getattr(asked, name)
        if moment is not None and not _FIRST <= moment <= now:
            wrong = "before 1980" if moment < _FIRST else "in the future"
            faults.append(FieldError(f"/{name}", f"must not be {wrong}: {moment.isoformat()}"))
    if asked.experiment is not None:
        experiment = session.get(Experiment, asked.experiment)
        if experiment is None or experiment.series is None:
            detail = "is no experiment" if experiment is None else "has not started"
            faults.append(FieldError("/experiment", f"{shown(asked.experiment)} {detail}"))
    if faults:
        raise InvalidInput(faults)


def _correction_of(asked: CorrectionRequest, *, actor: str, now: datetime) -> Correction:
    is_of_outcomes, (since, until) = asked.is_of_outcomes, asked.times
    return Correction(
        kind="outcomes" if is_of_outcomes else "decisions",
        event=asked.event,
        experiment=asked.experiment,
        starts_at=since,
        ends_at=until,
        action=asked.action,
        reason=asked.reason,
        status="applying" if is_of_outcomes else "applied",
        created_at=now,
        created_by=actor,
    )


def _n_units(session: Session, correction: Correction) -> int:
    """Units decided in the hours of a correction."""
    series = None if correction.experiment is None else session.get_one(Experiment, correction.experiment).series
    first, end = (to_microseconds(at) // HOUR_MICROSECONDS for at in (correction.starts_at, correction.ends_at))
    n_units = cast(func.coalesce(func.sum(_tally.c.n_units), 0), BigInteger)
    query = select_columns(n_units).where(LeftOut(series, first, end).covers(_tally))
    return int(session.connection().execute(query).scalar_one())


def _record(session: Session, correction: Correction, *, actor: str, action: str, reason: str) -> None:
    detail: dict[str, Any] = {
        "kind": correction.kind,
        "event": correction.event,
        "experiment": correction.experiment,
        "from": correction.starts_at.isoformat(),
        "to": correction.ends_at.isoformat(),
        "action": correction.action,
        "n_excluded": correction.n_excluded,
    }
    audit.record(
        session, actor=actor, action=action, subject=f"correction/{correction.id}", reason=reason, detail=detail
    )
