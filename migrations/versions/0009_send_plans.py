"""What send plans need: the plan, when it began and what it came to, beside the series.

Revision: 0009
"""

import sqlalchemy as sa
from alembic import op

from experiments.column_types import json_type

revision = "0009"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add; nothing that is there changes."""
    op.add_column("series", sa.Column("send_plan", json_type(), nullable=True))


def downgrade() -> None:
    """Take away what was added; what send plans came to is lost, their decisions stay."""
    op.drop_column("series", "send_plan")
