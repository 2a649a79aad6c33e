"""The queue of analyses, as the processes that run them see it: every step is one UPDATE that only one of them wins.

Times are the database's. A holder is a process, and has one analysis at a time; what it says of one that has passed to
another, or was cancelled, changes nothing.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import ColumnElement, select, update
from sqlmodel import Session

from experiments.database import database_now
from experiments.tables import Analysis

MAX_ATTEMPTS: Final = 3
SILENT_SECONDS: Final = 60.0  # without a heartbeat, and its process is taken for dead
ENDED: Final = "process_ended"
SILENT: Final = "process_silent"

_analysis: Any = Analysis.__table__  # type: ignore[attr-defined]  # SQLModel's type stub lacks it
_c: Final = _analysis.c


@dataclass(frozen=True, slots=True)
class Job:
    """A claimed analysis: all that its process must know."""

    id: str
    experiment: str
    kind: str
    parameters: Mapping[str, Any]
    as_of: datetime


def is_queued(session: Session, *, kinds: Collection[str]) -> bool:
    """Whether an analysis of these kinds waits."""
    return _is_there(session, (_c.status == "queued") & _c.kind.in_(kinds))


def is_silent(session: Session) -> bool:
    """Whether the process of a running analysis has fallen silent."""
    return _is_there(session, _silent(database_now(session)))


def claim(session: Session, *, holder: str, kinds: Collection[str]) -> Job | None:
    """Make the oldest queued analysis of these kinds this holder's; None if there is none.

    Args:
        session: One that may write; the analysis is claimed when it commits.
        holder: Unlike that of any other process.
        kinds: That it can run.
    """
    connection, now = session.connection(), database_now(session)
    oldest = select(_c.id).where(_c.status == "queued", _c.kind.in_(kinds)).order_by(_c.created_at, _c.id).limit(1)
    while (id_ := connection.execute(oldest).scalar()) is not None:
        change = update(_analysis).where(_c.id == id_, _c.status == "queued")
        change = change.values(
            status="running",
            holder=holder,
            n_attempts=_c.n_attempts + 1,
            progress=0.0,
            heartbeat_at=now,
            started_at=now,
            error=None,
        )
        columns = (_c.id, _c.experiment, _c.kind, _c.parameters, _c.as_of)
        claimed = connection.execute(change.returning(*columns)).one_or_none()
        if claimed is not None:
            return Job(*claimed)
    return None


def beat(session: Session, *, holder: str, progress: float) -> bool:
    """Show that the holder lives, and how far it is (0 to 1); False if its analysis is no longer its own."""
    return _change(session, _held_by(holder), heartbeat_at=database_now(session), progress=progress)


def finish(session: Session, *, holder: str, result: Mapping[str, Any]) -> bool:
    """Store a result; False, and nothing is stored, if the analysis is no longer the holder's."""
    now = database_now(session)
    return _change(session, _held_by(holder), status="done", progress=1.0, result=result, error=None, finished_at=now)


def fail(session: Session, *, holder: str, code: str, detail: str) -> bool:
    """End an analysis that another attempt would not help; False as for ``finish``."""
    error, now = {"code": code, "detail": detail}, database_now(session)
    return _change(session, _held_by(holder), status="failed", error=error, finished_at=now)


def give_back(session: Session, *, holder: str) -> bool:
    """Queue again what a holder has that is told to stop; the attempt does not count."""
    return _change(session, _held_by(holder), **_QUEUED, n_attempts=_c.n_attempts - 1)


def retry_ended(session: Session, *, holder: str, detail: str) -> bool:
    """Queue again what a holder had when it ended, or give it up after three attempts; False if it had nothing."""
    return _retry(session, _held_by(holder), code=ENDED, detail=detail)


def retry_silent(session: Session) -> bool:
    """Queue again what processes had that are silent since a minute, or give it up after three attempts."""
    detail = f"Its process gave no sign of life for {SILENT_SECONDS:g} s."
    return _retry(session, _silent(database_now(session)), code=SILENT, detail=detail)


_QUEUED: Final = {"status": "queued", "holder": None, "heartbeat_at": None, "progress": 0.0}


def _retry(session: Session, which: ColumnElement[bool], *, code: str, detail: str) -> bool:
    error = {"code": code, "detail": detail}
    given_up = which & (_c.n_attempts >= MAX_ATTEMPTS)
    failed = _change(session, given_up, status="failed", error=error, finished_at=database_now(session))
    queued = _change(session, which, **_QUEUED, error=error)
    return failed or queued


def _held_by(holder: str) -> ColumnElement[bool]:
    held: ColumnElement[bool] = (_c.status == "running") & (_c.holder == holder)
    return held


def _silent(now: datetime) -> ColumnElement[bool]:
    silent: ColumnElement[bool] = (_c.status == "running") & (_c.heartbeat_at < now - timedelta(seconds=SILENT_SECONDS))
    return silent


def _is_there(session: Session, which: ColumnElement[bool]) -> bool:
    return session.connection().execute(select(_c.id).where(which).limit(1)).first() is not None


def _change(session: Session, which: ColumnElement[bool], **values: Any) -> bool:
    return session.connection().execute(update(_analysis).where(which).values(**values)).rowcount > 0
