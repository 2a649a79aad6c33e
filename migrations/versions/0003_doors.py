"""What doors for existing clients need.

Revision: 0003
"""

import sqlalchemy as sa
from alembic import op

from experiments.column_types import json_type

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add; nothing that is there changes."""
    op.add_column("api_key", sa.Column("origins", json_type(), nullable=True))
    op.add_column("api_key", sa.Column("events", json_type(), nullable=True))
