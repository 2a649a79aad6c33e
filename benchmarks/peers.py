"""The two servers that ours is measured beside: an empty Flask endpoint, and a decision by one SQLModel commit."""

import os
from datetime import UTC, datetime
from functools import cache
from hashlib import blake2b
from typing import Any, Final

from flask import Flask, request
from sqlalchemy import Engine, event
from sqlmodel import Field, Session, SQLModel, create_engine

DATABASE: Final = "BENCHMARK_DATABASE_URL"
_VARIANTS: Final = ("a", "b", "c")

empty = Flask("empty")
committing = Flask("committing")


class CommittedDecision(SQLModel, table=True):
    """A decision as a plain SQLModel application would keep it."""

    id: int | None = Field(default=None, primary_key=True)
    placement: str
    customer_id: str = Field(index=True)
    variant: str
    propensity: float
    decided_at: datetime


@empty.post("/v1/decisions")
def answer() -> dict[str, Any]:
    """Read JSON, answer JSON, do nothing."""
    asked = request.get_json()
    return {"customer_id": asked["customer_id"], "variant": "a", "recorded": False}


@committing.post("/v1/decisions")
def commit() -> dict[str, Any]:
    """Choose by a hash, commit one row, answer."""
    asked = request.get_json()
    digest = blake2b(asked["customer_id"].encode(), digest_size=8).digest()
    row = CommittedDecision(
        placement=asked["placement"],
        customer_id=asked["customer_id"],
        variant=_VARIANTS[int.from_bytes(digest, "big") % 3],
        propensity=1 / 3,
        decided_at=datetime.now(UTC),
    )
    with Session(_engine()) as session:
        session.add(row)
        session.commit()
        return {"decision_id": row.id, "customer_id": row.customer_id, "variant": row.variant, "recorded": True}


@cache
def _engine() -> Engine:
    """The engine of this process, opened after the fork."""
    return open_committing(os.environ[DATABASE])


def open_committing(url: str) -> Engine:
    """Connect as that application would: SQLite with a write-ahead log and full synchronisation, as ours."""
    if not url.startswith("sqlite"):
        return create_engine(url)
    engine = create_engine(url, connect_args={"timeout": 10})
    event.listen(engine, "connect", _prepare)
    return engine


def _prepare(connection: Any, _record: object) -> None:
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
