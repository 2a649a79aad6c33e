"""Webhooks of email senders, and outcomes of machines.

Revision: 0006
"""

import sqlalchemy as sa
from alembic import op

from experiments.column_types import UtcDateTime, json_type

revision = "0006"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add; nothing that is there changes."""
    op.add_column("outcome", sa.Column("machine", sa.String(), nullable=True))
    op.create_table(
        "intake",
        sa.Column("key", sa.String(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("provider", sa.String(), nullable=False),
        sa.Column("secrets", json_type(), nullable=False),
        sa.Column("events", json_type(), nullable=False),
        sa.Column("tolerance_seconds", sa.Integer(), nullable=False),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_intake")),
        sa.CheckConstraint(
            "provider IN ('sendgrid', 'mailgun', 'postmark', 'customerio')", name=op.f("ck_intake_provider")
        ),
        sa.CheckConstraint("tolerance_seconds > 0", name=op.f("ck_intake_tolerance")),
    )
    _create_memory()


def _create_memory() -> None:
    op.create_table(
        "mail_message",
        sa.Column("id", sa.LargeBinary(), nullable=False),
        sa.Column("delivered_at", UtcDateTime(), nullable=True),
        sa.Column("clicks", json_type(), nullable=False),
        sa.Column("forget_at", UtcDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_mail_message")),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "mail_token",
        sa.Column("id", sa.LargeBinary(), nullable=False),
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.Column("forget_at", UtcDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_mail_token")),
        sqlite_with_rowid=False,
    )
    for table in ("mail_message", "mail_token"):
        op.create_index(op.f(f"ix_{table}_forget_at"), table, ["forget_at"])
