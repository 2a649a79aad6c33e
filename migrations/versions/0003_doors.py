"""What doors for existing clients need.

Revision: 0003
"""

import sqlalchemy as sa
from alembic import op

from experiments.column_types import UtcDateTime, json_type

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add; nothing that is there changes."""
    op.add_column("api_key", sa.Column("origins", json_type(), nullable=True))
    op.add_column("api_key", sa.Column("events", json_type(), nullable=True))
    op.add_column("outcome", sa.Column("placement", sa.String(), nullable=True))
    _create_customers()


def _create_customers() -> None:
    op.add_column("decision", sa.Column("merged", sa.Boolean(), server_default=sa.false(), nullable=False))
    op.create_index(
        op.f("ix_decision_merged"),
        "decision",
        ["id"],
        sqlite_where=sa.text("merged"),
        postgresql_where=sa.text("merged"),
    )
    op.create_table(
        "alias",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("customer_id", sa.Text(), nullable=False),
        sa.Column("anonymous_id", sa.Text(), nullable=False),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_alias")),
        sa.CheckConstraint("id <> customer_id", name=op.f("ck_alias_other")),
        sqlite_with_rowid=False,
    )
    op.create_index(op.f("ix_alias_customer_id"), "alias", ["customer_id"])
    op.create_index(op.f("ix_alias_anonymous_id"), "alias", ["anonymous_id"])
    op.create_table(
        "decision_alias",
        sa.Column("id", sa.LargeBinary(), nullable=False),
        sa.Column("decision_id", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_decision_alias")),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "customer",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("attributes", json_type(), nullable=False),
        sa.Column("updated_at", UtcDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_customer")),
        sqlite_with_rowid=False,
    )
