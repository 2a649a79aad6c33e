"""Models that analyses leave behind.

Revision: 0012
"""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add; nothing that is there changes."""
    op.create_table(
        "analysis_model",
        sa.Column("analysis", sa.String(), nullable=False),
        sa.Column("model", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("analysis", name=op.f("pk_analysis_model")),
        sa.ForeignKeyConstraint(["analysis"], ["analysis.id"], name=op.f("fk_analysis_model_analysis")),
    )


def downgrade() -> None:
    """Take away what was added."""
    op.drop_table("analysis_model")
