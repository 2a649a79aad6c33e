"""Analyses as they are shown: what was asked, how far it is, what came out."""

from collections.abc import Collection
from typing import Any, Final

from sqlalchemy import func
from sqlmodel import Session, col, select, tuple_

from experiments.analyses.errors import AnalysisNotFound
from experiments.database import database_now
from experiments.errors import ExperimentNotFound, FieldError, InvalidInput
from experiments.learning.lease import LEARNING
from experiments.tables import Analysis, Experiment, Lease

_SHOWN: Final = (
    "id",
    "experiment",
    "kind",
    "status",
    "progress",
    "n_attempts",
    "parameters",
    "as_of",
    "error",
    "created_at",
    "created_by",
    "started_at",
    "finished_at",
)
_NOBODY: Final = (
    "It is queued, and no process that runs analyses can be seen: start optimizer serve, optimizer learn or"
    " optimizer analyse."
)


def get_analysis(session: Session, id_: str) -> dict[str, Any]:
    """An analysis with its result (null until it is done), and what it waits for.

    Args:
        session: May be one that only reads.
        id_: The analysis's.
    Raises:
        AnalysisNotFound: No such analysis.
    """
    analysis = session.get(Analysis, id_)
    if analysis is None:
        raise AnalysisNotFound(id_)
    return shown(session, analysis) | {"result": analysis.result}


def shown(session: Session, analysis: Analysis) -> dict[str, Any]:
    """An analysis without its result."""
    return _plain(analysis) | {"waits": _waits(session, analysis) if analysis.status == "queued" else None}


def list_analyses(session: Session, key: str, *, cursor: str | None = None, limit: int = 100) -> list[dict[str, Any]]:
    """An experiment's analyses without their results, the newest first.

    Args:
        session: May be one that only reads.
        key: The experiment's.
        cursor: Id of the last one that the caller has seen.
        limit: At most so many.
    Raises:
        ExperimentNotFound: No such experiment.
        InvalidInput: No such cursor.
    """
    if session.get(Experiment, key) is None:
        raise ExperimentNotFound(key)
    query = select(Analysis).where(Analysis.experiment == key)
    if cursor is not None:
        last = session.get(Analysis, cursor)
        if last is None or last.experiment != key:
            raise InvalidInput([FieldError("/cursor", "is no cursor of this list")])
        query = query.where(tuple_(col(Analysis.created_at), col(Analysis.id)) < (last.created_at, last.id))
    query = query.order_by(col(Analysis.created_at).desc(), col(Analysis.id).desc()).limit(limit)
    return [_plain(row) for row in session.exec(query)]


def ended_by(session: Session, holders: Collection[str]) -> list[dict[str, Any]]:
    """What became of the analyses that these processes ran, the oldest first; without those queued again."""
    query = select(Analysis).where(col(Analysis.holder).in_(holders), col(Analysis.status).in_(("done", "failed")))
    return [_plain(row) for row in session.exec(query.order_by(col(Analysis.created_at), col(Analysis.id)))]


def _plain(analysis: Analysis) -> dict[str, Any]:
    return {name: getattr(analysis, name) for name in _SHOWN}


def _waits(session: Session, analysis: Analysis) -> str:
    """What a queued analysis waits for, in a sentence."""
    if not _somebody_works(session):
        return _NOBODY
    place = tuple_(col(Analysis.created_at), col(Analysis.id)) < (analysis.created_at, analysis.id)
    query = select(func.count()).select_from(Analysis).where(place, col(Analysis.status).in_(("queued", "running")))
    n_before = session.exec(query).one()
    return "It is next." if n_before == 0 else f"{n_before} of all experiments come before it."


def _somebody_works(session: Session) -> bool:
    """Whether the background process shows itself, or an analysis is being run."""
    lease = session.get(Lease, LEARNING)
    if lease is not None and lease.expires_at > database_now(session):
        return True
    return session.exec(select(Analysis.id).where(Analysis.status == "running").limit(1)).first() is not None
