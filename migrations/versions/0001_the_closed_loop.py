"""The closed loop: every table of decide, record, learn, review and promote.

Revision: 0001
"""

import sqlalchemy as sa
from alembic import op

from experiments.column_types import ExactNumber, UtcDateTime, json_type

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

AUTO = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Create everything."""
    op.create_table(
        "api_key",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("secret_hash", sa.LargeBinary(), nullable=False),
        sa.Column("scopes", json_type(), nullable=False),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.Column("expires_at", UtcDateTime(), nullable=True),
        sa.Column("revoked_at", UtcDateTime(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_api_key")),
    )
    op.create_table(
        "attribution",
        sa.Column("decision_id", sa.LargeBinary(), nullable=False),
        sa.Column("outcome_id", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("decision_id", "outcome_id", name=op.f("pk_attribution")),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "audit",
        sa.Column("id", AUTO, nullable=False),
        sa.Column("at", UtcDateTime(), nullable=False),
        sa.Column("actor", sa.String(), nullable=False),
        sa.Column("action", sa.String(), nullable=False),
        sa.Column("subject", sa.String(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("detail", json_type(), nullable=True),
        sa.Column("previous_hash", sa.LargeBinary(), nullable=False),
        sa.Column("hash", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_audit")),
    )
    op.create_table(
        "decision",
        sa.Column("id", sa.LargeBinary(), nullable=False),
        sa.Column("customer_id", sa.Text(), nullable=False),
        sa.Column("occasion_id", sa.Text(), nullable=True),
        sa.Column("segment", sa.String(), nullable=False),
        sa.Column("variant", sa.String(), nullable=False),
        sa.Column("allocation_version", sa.Integer(), nullable=False),
        sa.Column("propensity", sa.Float(precision=53), nullable=False),
        sa.Column("decided_at", UtcDateTime(), nullable=False),
        sa.Column("attributes", json_type(), nullable=True),
        sa.Column("lacks_attribute", sa.Boolean(), nullable=False),
        sa.Column("late", sa.Boolean(), nullable=False),
        sa.Column("contradicted", sa.Boolean(), nullable=False),
        sa.CheckConstraint("propensity > 0 AND propensity <= 1", name=op.f("ck_decision_propensity")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_decision")),
        sqlite_with_rowid=False,
    )
    op.create_index(op.f("ix_decision_customer_id_decided_at"), "decision", ["customer_id", "decided_at"], unique=False)
    op.create_table(
        "definition",
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("key", sa.String(), nullable=False),
        sa.Column("version", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("body", json_type(), nullable=False),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.Column("created_by", sa.String(), nullable=False),
        sa.CheckConstraint(
            "kind IN ('attribute', 'segmentation', 'placement', 'metric')", name=op.f("ck_definition_kind")
        ),
        sa.CheckConstraint("version >= 1", name=op.f("ck_definition_version")),
        sa.PrimaryKeyConstraint("kind", "key", "version", name=op.f("pk_definition")),
    )
    op.create_table(
        "lease",
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("holder", sa.String(), nullable=False),
        sa.Column("token", sa.BigInteger(), nullable=False),
        sa.Column("expires_at", UtcDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_lease")),
    )
    op.create_table(
        "outcome",
        sa.Column("id", sa.LargeBinary(), nullable=False),
        sa.Column("source", sa.String(), nullable=False),
        sa.Column("outcome_id", sa.Text(), nullable=True),
        sa.Column("decision_id", sa.LargeBinary(), nullable=True),
        sa.Column("customer_id", sa.Text(), nullable=True),
        sa.Column("occasion_id", sa.Text(), nullable=True),
        sa.Column("event", sa.String(), nullable=False),
        sa.Column("value", ExactNumber(), nullable=True),
        sa.Column("occurred_at", UtcDateTime(), nullable=False),
        sa.Column("received_at", UtcDateTime(), nullable=False),
        sa.Column("status", sa.String(), nullable=False),
        sa.Column("retry_at", UtcDateTime(), nullable=True),
        sa.Column("n_duplicates", sa.Integer(), nullable=False),
        sa.CheckConstraint(
            "status IN ('attributed', 'waiting', 'unattributed', 'future', 'late')", name=op.f("ck_outcome_status")
        ),
        sa.CheckConstraint("decision_id IS NOT NULL OR customer_id IS NOT NULL", name=op.f("ck_outcome_who")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_outcome")),
    )
    op.create_index(
        op.f("ix_outcome_retry_at"),
        "outcome",
        ["retry_at"],
        unique=False,
        sqlite_where=sa.text("retry_at IS NOT NULL"),
        postgresql_where=sa.text("retry_at IS NOT NULL"),
    )
    op.create_table(
        "override",
        sa.Column("placement", sa.String(), nullable=False),
        sa.Column("customer_id", sa.Text(), nullable=False),
        sa.Column("variant", sa.String(), nullable=False),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.Column("created_by", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("placement", "customer_id", name=op.f("pk_override")),
    )
    op.create_table(
        "policy_version",
        sa.Column("placement", sa.String(), nullable=False),
        sa.Column("version", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("action", sa.String(), nullable=False),
        sa.Column("entries", json_type(), nullable=False),
        sa.Column("evidence", json_type(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.Column("created_by", sa.String(), nullable=False),
        sa.Column("effective_at", UtcDateTime(), nullable=False),
        sa.CheckConstraint("action IN ('promote', 'rollback')", name=op.f("ck_policy_version_action")),
        sa.PrimaryKeyConstraint("placement", "version", name=op.f("pk_policy_version")),
    )
    op.create_table(
        "response",
        sa.Column("decision_id", sa.LargeBinary(), nullable=False),
        sa.Column("metric", sa.String(), nullable=False),
        sa.Column("n_outcomes", sa.Integer(), nullable=False),
        sa.Column("total", ExactNumber(), nullable=False),
        sa.Column("first_at", UtcDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("decision_id", "metric", name=op.f("pk_response")),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "series",
        sa.Column("number", AUTO, nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("placement", sa.String(), nullable=False),
        sa.Column("experiment", sa.String(), nullable=True),
        sa.Column("unit", sa.String(), nullable=False),
        sa.Column("hash_version", sa.Integer(), nullable=False),
        sa.Column("segmentation", sa.String(), nullable=False),
        sa.Column("segmentation_version", sa.Integer(), nullable=False),
        sa.Column("segments", json_type(), nullable=False),
        sa.Column("metrics", json_type(), nullable=False),
        sa.Column("opens_at", UtcDateTime(), nullable=False),
        sa.Column("closes_at", UtcDateTime(), nullable=True),
        sa.Column("closed_segments", json_type(), nullable=False),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.CheckConstraint("kind IN ('experiment', 'policy', 'programme')", name=op.f("ck_series_kind")),
        sa.CheckConstraint("unit IN ('customer', 'occasion', 'period')", name=op.f("ck_series_unit")),
        sa.CheckConstraint("number BETWEEN 1 AND 4294967295", name=op.f("ck_series_number")),
        sa.PrimaryKeyConstraint("number", name=op.f("pk_series")),
    )
    op.create_index(op.f("ix_series_placement"), "series", ["placement"], unique=False)
    op.create_table(
        "tally",
        sa.Column("series", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("segment", sa.String(), nullable=False),
        sa.Column("allocation_version", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("variant", sa.String(), nullable=False),
        sa.Column("hour", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("shard", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("n_units", sa.BigInteger(), nullable=False),
        sa.Column("n_lacking", sa.BigInteger(), nullable=False),
        sa.Column("decided_seconds", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint(
            "series", "segment", "allocation_version", "variant", "hour", "shard", name=op.f("pk_tally")
        ),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "tally_age",
        sa.Column("series", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("metric", sa.String(), nullable=False),
        sa.Column("variant", sa.String(), nullable=False),
        sa.Column("day", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("age_bin", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("shard", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("n_first", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("series", "metric", "variant", "day", "age_bin", "shard", name=op.f("pk_tally_age")),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "tally_response",
        sa.Column("series", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("segment", sa.String(), nullable=False),
        sa.Column("allocation_version", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("variant", sa.String(), nullable=False),
        sa.Column("hour", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("metric", sa.String(), nullable=False),
        sa.Column("shard", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("n_responders", sa.BigInteger(), nullable=False),
        sa.Column("total", ExactNumber(), nullable=False),
        sa.Column("total_squares", ExactNumber(), nullable=False),
        sa.Column("capped_total", ExactNumber(), nullable=False),
        sa.Column("capped_squares", ExactNumber(), nullable=False),
        sa.PrimaryKeyConstraint(
            "series",
            "segment",
            "allocation_version",
            "variant",
            "hour",
            "metric",
            "shard",
            name=op.f("pk_tally_response"),
        ),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "workspace",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("secret", sa.LargeBinary(), nullable=False),
        sa.Column("holdout_secret", sa.LargeBinary(), nullable=False),
        sa.Column("snapshot_version", sa.BigInteger(), nullable=False),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.CheckConstraint("id = 1", name=op.f("ck_workspace_single")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_workspace")),
    )
    op.create_table(
        "allocation",
        sa.Column("series", sa.BigInteger(), nullable=False),
        sa.Column("segment", sa.String(), nullable=False),
        sa.Column("version", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("weights", json_type(), nullable=False),
        sa.Column("basis", json_type(), nullable=False),
        sa.Column("reason", sa.String(), nullable=False),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.CheckConstraint("version >= 1", name=op.f("ck_allocation_version")),
        sa.ForeignKeyConstraint(["series"], ["series.number"], name=op.f("fk_allocation_series")),
        sa.PrimaryKeyConstraint("series", "segment", "version", name=op.f("pk_allocation")),
    )
    op.create_table(
        "experiment",
        sa.Column("key", sa.String(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("status", sa.String(), nullable=False),
        sa.Column("placement", sa.String(), nullable=False),
        sa.Column("body", json_type(), nullable=False),
        sa.Column("series", sa.BigInteger(), nullable=True),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.Column("started_at", UtcDateTime(), nullable=True),
        sa.Column("ended_at", UtcDateTime(), nullable=True),
        sa.CheckConstraint("(status = 'draft') = (series IS NULL)", name=op.f("ck_experiment_series")),
        sa.CheckConstraint("status IN ('draft', 'running', 'paused', 'concluded')", name=op.f("ck_experiment_status")),
        sa.ForeignKeyConstraint(["series"], ["series.number"], name=op.f("fk_experiment_series")),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_experiment")),
    )
    op.create_index(op.f("ix_experiment_placement"), "experiment", ["placement"], unique=False)
    op.create_table(
        "series_variant",
        sa.Column("series", sa.BigInteger(), nullable=False),
        sa.Column("key", sa.String(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("content", json_type(), nullable=False),
        sa.Column("cost", json_type(), nullable=True),
        sa.Column("is_control", sa.Boolean(), nullable=False),
        sa.Column("deliver", sa.Boolean(), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("added_at", UtcDateTime(), nullable=False),
        sa.Column("retired_at", UtcDateTime(), nullable=True),
        sa.ForeignKeyConstraint(["series"], ["series.number"], name=op.f("fk_series_variant_series")),
        sa.PrimaryKeyConstraint("series", "key", name=op.f("pk_series_variant")),
    )

    _make_audit_append_only()


def _make_audit_append_only() -> None:
    if op.get_bind().dialect.name == "postgresql":
        op.execute(
            "CREATE FUNCTION refuse_audit_change() RETURNS trigger LANGUAGE plpgsql AS "
            "$$ BEGIN RAISE EXCEPTION 'The audit is append-only.'; END $$"
        )
        op.execute(
            "CREATE TRIGGER audit_is_append_only BEFORE UPDATE OR DELETE ON audit "
            "FOR EACH ROW EXECUTE FUNCTION refuse_audit_change()"
        )
        return
    for change in ("UPDATE", "DELETE"):
        op.execute(
            f"CREATE TRIGGER audit_refuses_{change.lower()} BEFORE {change} ON audit "
            "BEGIN SELECT RAISE(ABORT, 'The audit is append-only.'); END"
        )
