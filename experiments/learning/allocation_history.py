"""The weights that an experiment has had, and the counts that they came from."""

from typing import Any

from sqlmodel import Session, col, select

from experiments.errors import ExperimentNotFound, FieldError, InvalidInput
from experiments.tables import Allocation, Experiment


def list_allocations(
    session: Session, key: str, *, segment: str | None = None, cursor: str | None = None, limit: int = 100
) -> list[dict[str, Any]]:
    """Allocations of an experiment, the newest versions first, by segment within a version.

    Args:
        session: Reads.
        key: The experiment's.
        segment: Of this one only.
        cursor: ``cursor`` of the last one that the caller has seen.
        limit: At most so many.
    Raises:
        ExperimentNotFound: No such experiment.
        InvalidInput: No such cursor.
    """
    experiment = session.get(Experiment, key)
    if experiment is None:
        raise ExperimentNotFound(key)
    query = select(Allocation).where(Allocation.series == experiment.series)
    if segment is not None:
        query = query.where(Allocation.segment == segment)
    if cursor is not None:
        version, after = _position(cursor)
        same_version = (col(Allocation.version) == version) & (col(Allocation.segment) > after)
        query = query.where((col(Allocation.version) < version) | same_version)
    query = query.order_by(col(Allocation.version).desc(), col(Allocation.segment)).limit(limit)
    return [_shown(row) for row in session.exec(query)]


def _position(cursor: str) -> tuple[int, str]:
    version, _, segment = cursor.partition(":")
    if not (version.isascii() and version.isdigit() and len(version) < 10):
        raise InvalidInput([FieldError("/cursor", "is no cursor of this list")])
    return int(version), segment


def _shown(row: Allocation) -> dict[str, Any]:
    return {
        "segment": row.segment,
        "version": row.version,
        "weights": row.weights,
        "basis": row.basis,
        "reason": row.reason,
        "created_at": row.created_at,
        "cursor": f"{row.version}:{row.segment}",
    }
