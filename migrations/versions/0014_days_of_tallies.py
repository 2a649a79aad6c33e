"""Tallies summed by the day ahead of reading, how often each day has changed since, and keys of tallies by the hour.

Revision: 0014
"""

import sqlalchemy as sa
from alembic import op

from experiments.column_types import json_type

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None

_TABLES = ("tally", "tally_response", "tally_covariate", "tally_product")
_BEFORE = ("series", "segment", "allocation_version", "variant", "hour")
_AFTER = ("series", "hour", "segment", "allocation_version", "variant")


def upgrade() -> None:
    """Add, and rewrite tallies in the order of their new key. The background process sums the days that are over."""
    op.create_table(
        "tally_change",
        sa.Column("series", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("day", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("shard", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("n_changes", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("series", "day", "shard", name=op.f("pk_tally_change")),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "tally_day",
        sa.Column("series", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("metric", sa.String(), nullable=False),
        sa.Column("day", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("n_changes", sa.BigInteger(), nullable=False),
        sa.Column("segments", json_type(), nullable=False),
        sa.Column("variants", json_type(), nullable=False),
        sa.Column("columns", json_type(), nullable=False),
        sa.Column("numbers", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("series", "metric", "day", name=op.f("pk_tally_day")),
    )
    for table in _TABLES:
        _reorder_key(table, before=_BEFORE, after=_AFTER)


def downgrade() -> None:
    """Take away what was added."""
    for table in _TABLES:
        _reorder_key(table, before=_AFTER, after=_BEFORE)
    op.drop_table("tally_day")
    op.drop_table("tally_change")


def _reorder_key(table: str, *, before: tuple[str, ...], after: tuple[str, ...]) -> None:
    """Move the hour of the primary key; what follows these columns in it stays."""
    connection = op.get_bind()
    rest = (*(("metric",) if table in {"tally_response", "tally_product"} else ()), "shard")
    if connection.dialect.name != "sqlite":
        op.drop_constraint(op.f(f"pk_{table}"), table, type_="primary")
        op.create_primary_key(op.f(f"pk_{table}"), table, [*after, *rest])
        return
    definition = connection.execute(
        sa.text("SELECT sql FROM sqlite_master WHERE type = 'table' AND name = :name"), {"name": table}
    ).scalar_one()
    key = f"PRIMARY KEY ({', '.join(before)}"
    if key not in definition:
        message = f"{table} has another primary key than expected: {definition}"
        raise RuntimeError(message)
    op.rename_table(table, f"{table}_before")
    op.execute(sa.text(definition.replace(key, f"PRIMARY KEY ({', '.join(after)}")))
    op.execute(sa.text(f"INSERT INTO {table} SELECT * FROM {table}_before ORDER BY {', '.join(after)}"))  # noqa: S608
    op.drop_table(f"{table}_before")
