"""Where email senders report to, and what must be remembered of their reports for some days."""

from datetime import datetime

from sqlalchemy import CheckConstraint, LargeBinary, String
from sqlmodel import Field, SQLModel

from experiments.column_types import UtcDateTime, json_type
from experiments.tables.constraints import CLUSTERED, Json, one_of


class Intake(SQLModel, table=True):
    """A sender's webhooks. ``secrets`` are kept as they are where signing needs them: guard the database like them.

    SendGrid's are public keys, Postmark's the SHA-256 of ``user:password``. ``events``: what each kind is called here.
    """

    __table_args__ = (
        one_of("provider", "sendgrid", "mailgun", "postmark", "customerio"),
        CheckConstraint("tolerance_seconds > 0", name="tolerance"),
    )

    key: str = Field(primary_key=True, sa_type=String)
    version: int
    provider: str = Field(sa_type=String)
    secrets: Json = Field(sa_type=json_type())
    events: Json = Field(sa_type=json_type())
    tolerance_seconds: int
    created_at: datetime = Field(sa_type=UtcDateTime)


class MailMessage(SQLModel, table=True):
    """When a message was delivered, or which clicks came before anybody said; ``id``: a hash of intake and message."""

    __tablename__ = "mail_message"
    __table_args__ = (CLUSTERED,)

    id: bytes = Field(primary_key=True, sa_type=LargeBinary)
    delivered_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    clicks: Json = Field(sa_type=json_type())
    forget_at: datetime = Field(sa_type=UtcDateTime, index=True)


class MailToken(SQLModel, table=True):
    """A token that may be used once, and the hash of the body that it came with."""

    __tablename__ = "mail_token"
    __table_args__ = (CLUSTERED,)

    id: bytes = Field(primary_key=True, sa_type=LargeBinary)
    digest: bytes = Field(sa_type=LargeBinary)
    forget_at: datetime = Field(sa_type=UtcDateTime, index=True)
