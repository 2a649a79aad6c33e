"""Who may do what, who did what, and what is being worked on: keys, the audit, leases, corrections, analyses."""

from datetime import datetime

from sqlalchemy import BigInteger, CheckConstraint, Float, Index, LargeBinary, String, Text
from sqlmodel import Field, SQLModel

from experiments.column_types import UtcDateTime, json_type
from experiments.tables.constraints import AUTO, Json, one_of


class ApiKey(SQLModel, table=True):
    """A key of the HTTP doors; only the SHA-256 of its secret is kept.

    A publishable one has ``origins`` (of the pages that may use it) and the ``events`` that they may report.
    """

    __tablename__ = "api_key"

    id: str = Field(primary_key=True, sa_type=String)
    name: str = Field(sa_type=String)
    secret_hash: bytes = Field(sa_type=LargeBinary)
    scopes: Json = Field(sa_type=json_type())
    origins: Json = Field(default=None, nullable=True, sa_type=json_type())
    events: Json = Field(default=None, nullable=True, sa_type=json_type())
    created_at: datetime = Field(sa_type=UtcDateTime)
    expires_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    revoked_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    rate_limit: str | None = Field(default=None, sa_type=String)


class Idempotency(SQLModel, table=True):
    """What a caller was answered under an Idempotency-Key, until ``expires_at``; without ``status`` it is under way.

    ``claim``: whose it is to answer. ``fingerprint``: SHA-256 of what was asked.
    """

    __tablename__ = "idempotency"
    __table_args__ = (
        CheckConstraint("(status IS NULL) = (body IS NULL)", name="answer"),
        Index(None, "expires_at"),
    )

    caller: str = Field(primary_key=True, sa_type=String)
    key: str = Field(primary_key=True, sa_type=String)
    claim: bytes = Field(sa_type=LargeBinary)
    expires_at: datetime = Field(sa_type=UtcDateTime)
    fingerprint: bytes | None = Field(default=None, sa_type=LargeBinary)
    status: int | None = None
    headers: Json = Field(default=None, nullable=True, sa_type=json_type())
    body: bytes | None = Field(default=None, sa_type=LargeBinary)


class Audit(SQLModel, table=True):
    """Every change: who, when, why. Append-only by trigger; each row hashes the one before."""

    id: int | None = Field(default=None, primary_key=True, sa_type=AUTO)
    at: datetime = Field(sa_type=UtcDateTime)
    actor: str = Field(sa_type=String)
    action: str = Field(sa_type=String)
    subject: str = Field(sa_type=String)
    reason: str | None = Field(default=None, sa_type=Text)
    detail: Json = Field(default=None, nullable=True, sa_type=json_type())
    previous_hash: bytes = Field(sa_type=LargeBinary)
    hash: bytes = Field(sa_type=LargeBinary)


class Lease(SQLModel, table=True):
    """Who may learn now: held until ``expires_at`` on the database's clock; ``token`` grows with each new holder."""

    name: str = Field(primary_key=True, sa_type=String)
    holder: str = Field(sa_type=String)
    token: int = Field(sa_type=BigInteger)
    expires_at: datetime = Field(sa_type=UtcDateTime)


class Correction(SQLModel, table=True):
    """Outcomes of a time that count no more (``exclude``) or once a customer (``keep_first``), or decisions of hours.

    ``starts_at`` and ``ends_at`` bound the time, the end not included. Of outcomes, ``event`` says which; of decisions,
    ``experiment`` (null: all). ``cursor``: the last outcome looked at while it is being applied or reverted.
    """

    __table_args__ = (
        one_of("kind", "outcomes", "decisions"),
        one_of("action", "exclude", "keep_first"),
        one_of("status", "applying", "applied", "reverting", "reverted"),
        CheckConstraint("(kind = 'outcomes') = (event IS NOT NULL)", name="event"),
        CheckConstraint("starts_at < ends_at", name="time"),
    )

    id: int | None = Field(default=None, primary_key=True, sa_type=AUTO)
    kind: str = Field(sa_type=String)
    event: str | None = Field(default=None, sa_type=String)
    experiment: str | None = Field(default=None, sa_type=String)
    starts_at: datetime = Field(sa_type=UtcDateTime)
    ends_at: datetime = Field(sa_type=UtcDateTime)
    action: str = Field(sa_type=String)
    reason: str = Field(sa_type=Text)
    status: str = Field(sa_type=String)
    n_excluded: int = Field(default=0, sa_type=BigInteger)
    cursor: bytes | None = Field(default=None, sa_type=LargeBinary)
    created_at: datetime = Field(sa_type=UtcDateTime)
    created_by: str = Field(sa_type=String)
    reverted_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    reverted_by: str | None = Field(default=None, sa_type=String)
    revert_reason: str | None = Field(default=None, sa_type=Text)


class Analysis(SQLModel, table=True):
    """Heavy work on an experiment, run in a process of its own: queued, claimed with a heartbeat, tried three times.

    ``as_of``: units decided by then are read. ``error``: {code, detail} of the last attempt that failed.
    """

    __table_args__ = (
        one_of("status", "queued", "running", "done", "failed"),
        CheckConstraint("progress >= 0 AND progress <= 1", name="progress"),
        Index(None, "experiment"),
        Index(None, "status"),
    )

    id: str = Field(primary_key=True, sa_type=String)
    experiment: str = Field(sa_type=String)
    kind: str = Field(sa_type=String)
    parameters: Json = Field(sa_type=json_type())
    as_of: datetime = Field(sa_type=UtcDateTime)
    status: str = Field(sa_type=String)
    progress: float = Field(default=0.0, sa_type=Float(53))
    n_attempts: int = 0
    holder: str | None = Field(default=None, sa_type=String)
    heartbeat_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    result: Json = Field(default=None, nullable=True, sa_type=json_type())
    error: Json = Field(default=None, nullable=True, sa_type=json_type())
    created_at: datetime = Field(sa_type=UtcDateTime)
    created_by: str = Field(sa_type=String)
    started_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    finished_at: datetime | None = Field(default=None, sa_type=UtcDateTime)


class AnalysisModel(SQLModel, table=True):
    """What an analysis learnt, as a file that only known types are read from (``experiments.uplift.stored``)."""

    __tablename__ = "analysis_model"

    analysis: str = Field(primary_key=True, sa_type=String, foreign_key="analysis.id")
    model: bytes = Field(sa_type=LargeBinary)
