"""What others are told: who wants to hear of what, the messages, how their deliveries went, and verdicts told."""

from datetime import datetime

from sqlalchemy import CheckConstraint, Index, Integer, String, Text, text
from sqlmodel import Field, SQLModel

from experiments.column_types import UtcDateTime, json_type
from experiments.tables.constraints import CLUSTERED, Json, one_of

_PENDING = "status = 'pending'"


class Webhook(SQLModel, table=True):
    """Where messages go. ``events``: types that it wants; null: all.

    ``secret`` signs, so it can't be kept as a hash; so does ``previous_secret`` until ``previous_until``.
    ``failing_since``: of the first failure since it last worked; ``slow_until``: nothing is sent before.
    """

    __table_args__ = (
        one_of("status", "active", "disabled"),
        CheckConstraint("(status = 'disabled') = (disabled_at IS NOT NULL)", name="disabled"),
        CheckConstraint("(previous_secret IS NULL) = (previous_until IS NULL)", name="previous"),
    )

    key: str = Field(primary_key=True, sa_type=String)
    version: int
    url: str = Field(sa_type=Text)
    events: Json = Field(default=None, nullable=True, sa_type=json_type())
    description: str | None = Field(default=None, sa_type=Text)
    secret: str = Field(sa_type=String, repr=False)
    previous_secret: str | None = Field(default=None, sa_type=String, repr=False)
    previous_until: datetime | None = Field(default=None, sa_type=UtcDateTime)
    status: str = Field(default="active", sa_type=String)
    disabled_reason: str | None = Field(default=None, sa_type=Text)
    disabled_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    failing_since: datetime | None = Field(default=None, sa_type=UtcDateTime)
    slow_until: datetime | None = Field(default=None, sa_type=UtcDateTime)
    created_at: datetime = Field(sa_type=UtcDateTime)
    created_by: str = Field(sa_type=String)


class WebhookMessage(SQLModel, table=True):
    """Something that happened, written with it. ``id`` grows with time; ``body`` is sent, and signed, as it stands."""

    __tablename__ = "webhook_message"

    id: str = Field(primary_key=True, sa_type=String)
    type: str = Field(sa_type=String)
    body: str = Field(sa_type=Text)
    created_at: datetime = Field(sa_type=UtcDateTime, index=True)


class WebhookDelivery(SQLModel, table=True):
    """A message on its way to a webhook. ``answered``: status of the last answer; ``error``: of the last attempt.

    While it is being sent, ``next_attempt_at`` is when its sender counts as lost.
    """

    __tablename__ = "webhook_delivery"
    __table_args__ = (
        one_of("status", "pending", "delivered", "failed"),
        CheckConstraint(f"({_PENDING}) = (next_attempt_at IS NOT NULL)", name="next_attempt_at"),
        Index(None, "message"),
        Index(None, "next_attempt_at", sqlite_where=text(_PENDING), postgresql_where=text(_PENDING)),
        CLUSTERED,
    )

    webhook: str = Field(primary_key=True, sa_type=String)
    message: str = Field(primary_key=True, sa_type=String)
    status: str = Field(default="pending", sa_type=String)
    n_attempts: int = 0
    next_attempt_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    attempted_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    answered: int | None = Field(default=None, sa_type=Integer)
    error: str | None = Field(default=None, sa_type=String)
    delivered_at: datetime | None = Field(default=None, sa_type=UtcDateTime)


class VerdictsTold(SQLModel, table=True):
    """Verdicts of an experiment by segment ("": over all): as ``seen`` at the last look, and as last ``told``."""

    __tablename__ = "verdicts_told"
    __table_args__ = (CLUSTERED,)

    experiment: str = Field(primary_key=True, sa_type=String, foreign_key="experiment.key")
    looked_at: datetime = Field(sa_type=UtcDateTime)
    seen: Json = Field(sa_type=json_type())
    told: Json = Field(sa_type=json_type())
