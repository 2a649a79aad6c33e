"""Expected values: the chain's rule, SHA-256 over the previous hash and the row, computed here by hand."""

import hashlib
import json
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.exc import DatabaseError
from sqlmodel import Session, col, select, update

from experiments.access import audit
from experiments.database import database_now, reading, transaction
from experiments.errors import InvalidInput
from experiments.tables import Audit


def record(session: Session, action: str, **changes: object) -> Audit:
    return audit.record(session, actor="key/ann", action=action, subject="metric/click", detail=changes or None)


def test_a_row_hashes_the_row_before_and_all_that_it_says(session: Session) -> None:
    first = record(session, "put", version=1.0, body={"b": [1.5, True], "a": "é"})
    second = record(session, "put")
    said = [first.at.isoformat(timespec="microseconds"), "key/ann", "put", "metric/click", None]
    said.append({"body": {"a": "é", "b": [1.5, True]}, "version": 1})  # type: ignore[arg-type]  # JSON
    plain = json.dumps(said, separators=(",", ":"), ensure_ascii=False)
    assert first.hash == hashlib.sha256(bytes(32) + plain.encode()).digest()
    assert second.previous_hash == first.hash


@pytest.mark.parametrize("detail", [{"x": 1e16}, {"x": 1.2345678901234567e16}, {"x": -0.0}, {"x": 1e-7}, {"x": 2**63}])
def test_the_chain_holds_whatever_the_database_makes_of_numbers(engine: Engine, detail: dict[str, float]) -> None:
    with transaction(engine) as session:
        record(session, "put", **detail)
        record(session, "put", **detail)
    with reading(engine) as session:
        assert audit.verify(session) is None


def test_a_changed_row_is_found(engine: Engine) -> None:
    with transaction(engine) as session:
        ids = [record(session, "put", version=i).id for i in range(3)]
        _drop_triggers(session)
        session.exec(update(Audit).where(col(Audit.id) == ids[1]).values(actor="key/eve"))
    with reading(engine) as session:
        assert audit.verify(session) == ids[1]


def test_a_removed_row_is_found(engine: Engine) -> None:
    with transaction(engine) as session:
        ids = [record(session, "put").id for _ in range(3)]
        _drop_triggers(session)
        session.delete(session.get(Audit, ids[0]))
    with reading(engine) as session:
        assert audit.verify(session) == ids[1]


@pytest.mark.parametrize("change", ["UPDATE audit SET actor = 'key/eve'", "DELETE FROM audit"])
def test_the_database_refuses_to_change_the_audit(session: Session, change: str) -> None:
    record(session, "put")
    with pytest.raises(DatabaseError, match="append-only"), session.begin_nested():
        session.connection().execute(text(change))


def test_the_newest_come_first_and_a_cursor_goes_on(session: Session) -> None:
    for action in ("put", "start", "pause"):
        record(session, action)
    audit.record(session, actor="key/ben", action="put", subject="metric/other")
    page = audit.list_entries(session, limit=2, subject="metric/click")
    assert [row.action for row in page] == ["pause", "start"]
    rest = audit.list_entries(session, cursor=page[-1].id, subject="metric/click")
    assert [row.action for row in rest] == ["put"]


def test_a_row_says_when_and_why(session: Session) -> None:
    row = audit.record(session, actor="key/ann", action="stop", subject="experiment/x", reason="broken link")
    stored = session.exec(select(Audit).where(Audit.id == row.id)).one()
    assert stored.reason == "broken link"
    assert stored.at.tzinfo is UTC
    assert abs(stored.at - database_now(session)) < timedelta(seconds=10)
    assert stored.at > datetime(2024, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize("reason", ["a\x00b", "\ud800", "x" * 9_000])
def test_a_reason_can_be_stored(session: Session, reason: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        audit.record(session, actor="key/ann", action="stop", subject="experiment/x", reason=reason)
    assert caught.value.fields[0].pointer == "/reason"


def _drop_triggers(session: Session) -> None:
    """As one would who has the database in his hands."""
    if session.connection().dialect.name == "postgresql":
        session.connection().execute(text("DROP TRIGGER audit_is_append_only ON audit"))
        return
    for change in ("update", "delete"):
        session.connection().execute(text(f"DROP TRIGGER audit_refuses_{change}"))
