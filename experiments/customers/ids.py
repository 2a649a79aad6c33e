"""What stands for an id: the id of the same person that goes on, or a decision under it; and telling of the first."""

from collections.abc import Collection
from typing import Any

from sqlalchemy import Connection, select, update

from experiments.tables import Alias, DecisionAlias, Workspace

_alias: Any = Alias.__table__  # type: ignore[attr-defined]  # SQLModel's type stub lacks it
_stands_for: Any = DecisionAlias.__table__  # type: ignore[attr-defined]
_workspace: Any = Workspace.__table__  # type: ignore[attr-defined]


def canonical_ids(connection: Connection, ids: Collection[str]) -> dict[str, str]:
    """The id that goes on, of those ids that are another's alias."""
    rows = connection.execute(select(_alias.c.id, _alias.c.customer_id).where(_alias.c.id.in_(ids)))
    return {row[0]: row[1] for row in rows}


def stood_for(connection: Connection, ids: Collection[bytes]) -> dict[bytes, bytes]:
    """The decisions that stand for units which have none of their own."""
    c = _stands_for.c
    return {row[0]: row[1] for row in connection.execute(select(c.id, c.decision_id).where(c.id.in_(ids)))}


def tell_workers(connection: Connection) -> None:
    """Let every worker read a new snapshot: there are people now of whom something is known."""
    connection.execute(update(_workspace).values(snapshot_version=_workspace.c.snapshot_version + 1))
