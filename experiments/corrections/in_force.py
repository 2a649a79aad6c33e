"""The corrections of outcomes in force, and the marks that they leave on outcomes that arrive later."""

from collections import Counter
from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, bindparam, select, update

from experiments.corrections.rules import Rule
from experiments.outcomes.attribution import OutcomeRow
from experiments.tables import Correction, Outcome

IN_FORCE = ("applying", "applied")

_correction: Any = Correction.__table__  # type: ignore[attr-defined]  # SQLModel's type stub lacks it
_outcome: Any = Outcome.__table__  # type: ignore[attr-defined]
_c = _correction.c
_RULES = select(_c.id, _c.event, _c.starts_at, _c.ends_at, _c.action == "keep_first").where(
    _c.kind == "outcomes", _c.status.in_(IN_FORCE)
)
_MARKED = update(_outcome).where(_outcome.c.id == bindparam("key"))


def rules_in_force(connection: Connection, *, event: str | None = None) -> list[Rule]:
    """The corrections of outcomes (of one event) in force now, those that are still being applied too."""
    query = _RULES if event is None else _RULES.where(_c.event == event)
    return [Rule(*row[:-1], bool(row[-1])) for row in connection.execute(query)]


def mark_arrivals(
    connection: Connection, rows: Collection[OutcomeRow], *, attributed: Collection[bytes], now: datetime | None = None
) -> dict[bytes, int]:
    """Mark stored outcomes that a correction in force covers; they must not be counted.

    Which of a customer's outcomes is the first takes locks that this transaction hasn't: one that a ``keep_first``
    covers is marked for now, and the background process soon says whether it counts after all. Call it after the
    transaction has written something: whoever walks over what is stored waits for those that may not have seen a
    new correction.

    Args:
        connection: Of the transaction that stores or attributes them.
        rows: Stored outcomes without a mark.
        attributed: Ids of those that are attributed.
        now: When the background process is to look at them; by default when they were received.
    Returns:
        The correction of each that is covered.
    """
    rules = sorted(rules_in_force(connection), key=lambda rule: (rule.keeps_first, rule.id)) if rows else []
    sure: list[dict[str, Any]] = []
    unsure: list[dict[str, Any]] = []
    for row in rows if rules else ():
        by = next((rule for rule in rules if rule.covers(row.event, row.occurred_at)), None)
        if by is not None and not by.keeps_first:
            sure.append({"key": row.id, "by": by.id})
        elif by is not None and row.id in attributed:
            unsure.append({"key": row.id, "by": by.id, "look_at": now or row.received_at})
    if sure:
        connection.execute(_MARKED.values(excluded_by=bindparam("by")), sure)
    if unsure:
        connection.execute(_MARKED.values(excluded_by=bindparam("by"), retry_at=bindparam("look_at")), unsure)
    return {mark["key"]: mark["by"] for mark in sure + unsure}


def add_excluded(connection: Connection, changes: Mapping[int, int]) -> None:
    """Count how many outcomes corrections exclude. The last thing that a transaction locks, in order of id."""
    for id_, n in sorted(changes.items()):
        if n:
            more = _c.n_excluded + n
            connection.execute(update(_correction).where(_c.id == id_).values(n_excluded=more))


def counted(marks: Mapping[bytes, int]) -> Counter[int]:
    """How many outcomes each correction marked."""
    return Counter(marks.values())
