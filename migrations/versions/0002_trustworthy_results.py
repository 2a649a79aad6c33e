"""What trustworthy results need: ratios, covariates, pauses by guardrails, corrections and analyses.

Revision: 0002
"""

import sqlalchemy as sa
from alembic import op

from experiments.column_types import ExactNumber, UtcDateTime, json_type

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

AUTO = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Add; nothing that is there changes."""
    op.add_column("decision", sa.Column("covariate", sa.Float(precision=53), nullable=True))
    op.add_column("outcome", sa.Column("excluded_by", sa.BigInteger(), nullable=True))
    op.add_column("response", sa.Column("denominator", ExactNumber(), nullable=True))
    op.add_column("series", sa.Column("covariate", json_type(), nullable=True))
    op.create_table(
        "tally_covariate",
        *_tally_key(),
        sa.Column("shard", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("n_missing", sa.BigInteger(), nullable=False),
        sa.Column("total", ExactNumber(), nullable=False),
        sa.Column("total_squares", ExactNumber(), nullable=False),
        sa.PrimaryKeyConstraint(
            "series", "segment", "allocation_version", "variant", "hour", "shard", name=op.f("pk_tally_covariate")
        ),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "tally_product",
        *_tally_key(),
        sa.Column("metric", sa.String(), nullable=False),
        sa.Column("shard", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("denominator", ExactNumber(), nullable=False),
        sa.Column("denominator_squares", ExactNumber(), nullable=False),
        sa.Column("denominator_total", ExactNumber(), nullable=False),
        sa.Column("denominator_capped", ExactNumber(), nullable=False),
        sa.Column("covariate_total", ExactNumber(), nullable=False),
        sa.Column("covariate_capped", ExactNumber(), nullable=False),
        sa.Column("covariate_denominator", ExactNumber(), nullable=False),
        sa.PrimaryKeyConstraint(
            *("series", "segment", "allocation_version", "variant", "hour", "metric", "shard"),
            name=op.f("pk_tally_product"),
        ),
        sqlite_with_rowid=False,
    )
    _create_variant_pause()
    _create_correction()
    _create_analysis()


def _tally_key() -> list[sa.Column[object]]:
    return [
        sa.Column("series", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("segment", sa.String(), nullable=False),
        sa.Column("allocation_version", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("variant", sa.String(), nullable=False),
        sa.Column("hour", sa.Integer(), autoincrement=False, nullable=False),
    ]


def _create_variant_pause() -> None:
    op.create_table(
        "variant_pause",
        sa.Column("id", AUTO, nullable=False),
        sa.Column("series", sa.BigInteger(), nullable=False),
        sa.Column("segment", sa.String(), nullable=False),
        sa.Column("variant", sa.String(), nullable=False),
        sa.Column("metric", sa.String(), nullable=False),
        sa.Column("evidence", json_type(), nullable=False),
        sa.Column("paused_at", UtcDateTime(), nullable=False),
        sa.Column("effective_at", UtcDateTime(), nullable=False),
        sa.Column("lifted_at", UtcDateTime(), nullable=True),
        sa.Column("lifted_by", sa.String(), nullable=True),
        sa.ForeignKeyConstraint(["series"], ["series.number"], name=op.f("fk_variant_pause_series")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_variant_pause")),
    )
    op.create_index(op.f("ix_variant_pause_series"), "variant_pause", ["series"], unique=False)


def _create_correction() -> None:
    op.create_table(
        "correction",
        sa.Column("id", AUTO, nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("event", sa.String(), nullable=True),
        sa.Column("experiment", sa.String(), nullable=True),
        sa.Column("starts_at", UtcDateTime(), nullable=False),
        sa.Column("ends_at", UtcDateTime(), nullable=False),
        sa.Column("action", sa.String(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("status", sa.String(), nullable=False),
        sa.Column("n_excluded", sa.BigInteger(), nullable=False),
        sa.Column("cursor", sa.LargeBinary(), nullable=True),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.Column("created_by", sa.String(), nullable=False),
        sa.Column("reverted_at", UtcDateTime(), nullable=True),
        sa.Column("reverted_by", sa.String(), nullable=True),
        sa.Column("revert_reason", sa.Text(), nullable=True),
        sa.CheckConstraint("kind IN ('outcomes', 'decisions')", name=op.f("ck_correction_kind")),
        sa.CheckConstraint("action IN ('exclude', 'keep_first')", name=op.f("ck_correction_action")),
        sa.CheckConstraint(
            "status IN ('applying', 'applied', 'reverting', 'reverted')", name=op.f("ck_correction_status")
        ),
        sa.CheckConstraint("(kind = 'outcomes') = (event IS NOT NULL)", name=op.f("ck_correction_event")),
        sa.CheckConstraint("starts_at < ends_at", name=op.f("ck_correction_time")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_correction")),
    )


def _create_analysis() -> None:
    op.create_table(
        "analysis",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("experiment", sa.String(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("parameters", json_type(), nullable=False),
        sa.Column("as_of", UtcDateTime(), nullable=False),
        sa.Column("status", sa.String(), nullable=False),
        sa.Column("progress", sa.Float(precision=53), nullable=False),
        sa.Column("n_attempts", sa.Integer(), nullable=False),
        sa.Column("holder", sa.String(), nullable=True),
        sa.Column("heartbeat_at", UtcDateTime(), nullable=True),
        sa.Column("result", json_type(), nullable=True),
        sa.Column("error", json_type(), nullable=True),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.Column("created_by", sa.String(), nullable=False),
        sa.Column("started_at", UtcDateTime(), nullable=True),
        sa.Column("finished_at", UtcDateTime(), nullable=True),
        sa.CheckConstraint("status IN ('queued', 'running', 'done', 'failed')", name=op.f("ck_analysis_status")),
        sa.CheckConstraint("progress >= 0 AND progress <= 1", name=op.f("ck_analysis_progress")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_analysis")),
    )
    op.create_index(op.f("ix_analysis_experiment"), "analysis", ["experiment"], unique=False)
    op.create_index(op.f("ix_analysis_status"), "analysis", ["status"], unique=False)
