"""Exposure apart from decision.

Revision: 0010
"""

import sqlalchemy as sa
from alembic import op

from experiments.column_types import UtcDateTime

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add; nothing that is there changes."""
    op.add_column("series", sa.Column("exposure", sa.String(), nullable=True))
    op.add_column("decision", sa.Column("exposed_at", UtcDateTime(), nullable=True))
    op.create_table(
        "tally_exposure",
        sa.Column("series", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("segment", sa.String(), nullable=False),
        sa.Column("allocation_version", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("variant", sa.String(), nullable=False),
        sa.Column("hour", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("shard", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("n_decided", sa.BigInteger(), nullable=False),
        sa.Column("n_exposed", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint(
            "series", "segment", "allocation_version", "variant", "hour", "shard", name=op.f("pk_tally_exposure")
        ),
        sqlite_with_rowid=False,
    )
