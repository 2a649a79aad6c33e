"""Quotas of keys, and answers kept by their Idempotency-Key.

Revision: 0008
"""

import sqlalchemy as sa
from alembic import op

from experiments.column_types import UtcDateTime, json_type

revision = "0008"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add; nothing that is there changes."""
    op.add_column("api_key", sa.Column("rate_limit", sa.String(), nullable=True))
    op.create_table(
        "idempotency",
        sa.Column("caller", sa.String(), nullable=False),
        sa.Column("key", sa.String(), nullable=False),
        sa.Column("claim", sa.LargeBinary(), nullable=False),
        sa.Column("expires_at", UtcDateTime(), nullable=False),
        sa.Column("fingerprint", sa.LargeBinary(), nullable=True),
        sa.Column("status", sa.Integer(), nullable=True),
        sa.Column("headers", json_type(), nullable=True),
        sa.Column("body", sa.LargeBinary(), nullable=True),
        sa.CheckConstraint("(status IS NULL) = (body IS NULL)", name=op.f("ck_idempotency_answer")),
        sa.PrimaryKeyConstraint("caller", "key", name=op.f("pk_idempotency")),
    )
    op.create_index(op.f("ix_idempotency_expires_at"), "idempotency", ["expires_at"], unique=False)
