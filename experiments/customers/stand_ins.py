"""Decisions that stand for units of the same person under other ids."""

from collections.abc import Collection
from typing import Any

from sqlalchemy import Connection, select

from experiments.tables import DecisionAlias

_stands_for: Any = DecisionAlias.__table__  # type: ignore[attr-defined]  # SQLModel's type stub lacks it


def stood_for(connection: Connection, ids: Collection[bytes]) -> dict[bytes, bytes]:
    """The decisions that stand for units which have none of their own."""
    c = _stands_for.c
    return {row[0]: row[1] for row in connection.execute(select(c.id, c.decision_id).where(c.id.in_(ids)))}
