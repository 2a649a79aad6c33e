"""Every table of the service. DESIGN words name them; constraints repeat the rules that code checks first.

Hot tables (decision, outcome, attribution, response, tallies) carry no foreign keys: the journal writes them in bulk,
and the series number at the front of each decision id ties them together. Money is exact (``ExactNumber``), times are
aware UTC.
"""

from datetime import datetime
from decimal import Decimal
from typing import Any

from sqlalchemy import BigInteger, CheckConstraint, Float, Index, Integer, LargeBinary, String, Text, text
from sqlmodel import Field, SQLModel

from experiments.column_types import ExactNumber, UtcDateTime, json_type

Json = Any  # a JSON value as stored; its shape is checked by the definitions

NAMING = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s",
    "pk": "pk_%(table_name)s",
}
SQLModel.metadata.naming_convention = NAMING


_AUTO = BigInteger().with_variant(Integer(), "sqlite")  # SQLite counts up only an INTEGER key


_CLUSTERED = {"sqlite_with_rowid": False}  # one B-tree, in key order, as PostgreSQL's CLUSTER would leave it


def _one_of(column: str, *values: str) -> CheckConstraint:
    allowed = ", ".join(f"'{value}'" for value in values)
    return CheckConstraint(f"{column} IN ({allowed})", name=column)


class Workspace(SQLModel, table=True):
    """The one row that every worker polls, and the secrets behind every hash."""

    __table_args__ = (CheckConstraint("id = 1", name="single"),)

    id: int = Field(default=1, primary_key=True, sa_column_kwargs={"autoincrement": False})
    secret: bytes = Field(sa_type=LargeBinary)
    holdout_secret: bytes = Field(sa_type=LargeBinary)
    snapshot_version: int = Field(default=1, sa_type=BigInteger)
    created_at: datetime = Field(sa_type=UtcDateTime)


class ApiKey(SQLModel, table=True):
    """A key of the HTTP doors; only the SHA-256 of its secret is kept."""

    __tablename__ = "api_key"

    id: str = Field(primary_key=True, sa_type=String)
    name: str = Field(sa_type=String)
    secret_hash: bytes = Field(sa_type=LargeBinary)
    scopes: Json = Field(sa_type=json_type())
    created_at: datetime = Field(sa_type=UtcDateTime)
    expires_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    revoked_at: datetime | None = Field(default=None, sa_type=UtcDateTime)


class Definition(SQLModel, table=True):
    """One version of an attribute, segmentation, placement or metric; the highest version is the current one."""

    __table_args__ = (
        _one_of("kind", "attribute", "segmentation", "placement", "metric"),
        CheckConstraint("version >= 1", name="version"),
    )

    kind: str = Field(primary_key=True, sa_type=String)
    key: str = Field(primary_key=True, sa_type=String)
    version: int = Field(primary_key=True, sa_column_kwargs={"autoincrement": False})
    body: Json = Field(sa_type=json_type())
    created_at: datetime = Field(sa_type=UtcDateTime)
    created_by: str = Field(sa_type=String)


class Series(SQLModel, table=True):
    """Anything that randomises: an experiment, the winners of one promotion (policy), a placement's programme.

    It accepts decisions from ``opens_at`` until ``closes_at``; ``closed_segments`` says when single segments left it
    (promotion).
    """

    __table_args__ = (
        _one_of("kind", "experiment", "policy", "programme"),
        _one_of("unit", "customer", "occasion", "period"),
        CheckConstraint("number BETWEEN 1 AND 4294967295", name="number"),
        Index(None, "placement"),
    )

    number: int | None = Field(default=None, primary_key=True, sa_type=_AUTO)
    kind: str = Field(sa_type=String)
    placement: str = Field(sa_type=String)
    experiment: str | None = Field(default=None, sa_type=String)
    unit: str = Field(sa_type=String)
    hash_version: int = Field(default=1)
    segmentation: str = Field(sa_type=String)
    segmentation_version: int
    segments: Json = Field(sa_type=json_type())
    metrics: Json = Field(sa_type=json_type())
    opens_at: datetime = Field(sa_type=UtcDateTime)
    closes_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    closed_segments: Json = Field(default_factory=dict, sa_type=json_type())
    created_at: datetime = Field(sa_type=UtcDateTime)


class SeriesVariant(SQLModel, table=True):
    """A variant of a series, frozen but for content corrections (``revision`` counts them, the audit keeps the old)."""

    __tablename__ = "series_variant"

    series: int = Field(primary_key=True, sa_type=BigInteger, foreign_key="series.number")
    key: str = Field(primary_key=True, sa_type=String)
    position: int
    content: Json = Field(sa_type=json_type())
    cost: Json = Field(default=None, nullable=True, sa_type=json_type())
    is_control: bool
    deliver: bool = True
    revision: int = 1
    added_at: datetime = Field(sa_type=UtcDateTime)
    retired_at: datetime | None = Field(default=None, sa_type=UtcDateTime)


class Experiment(SQLModel, table=True):
    """An experiment's definition and state; ``version`` counts its changes and is its ETag."""

    __table_args__ = (
        _one_of("status", "draft", "running", "paused", "concluded"),
        CheckConstraint("(status = 'draft') = (series IS NULL)", name="series"),
    )

    key: str = Field(primary_key=True, sa_type=String)
    version: int
    status: str = Field(default="draft", sa_type=String)
    placement: str = Field(sa_type=String, index=True)
    body: Json = Field(sa_type=json_type())
    series: int | None = Field(default=None, sa_type=BigInteger, foreign_key="series.number")
    created_at: datetime = Field(sa_type=UtcDateTime)
    started_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    ended_at: datetime | None = Field(default=None, sa_type=UtcDateTime)


class Allocation(SQLModel, table=True):
    """The weights of a series' variants in one segment; a new version each time, never overwritten.

    ``basis`` holds what the weights were computed from: per variant units, responders, exposure and posterior.
    """

    __table_args__ = (CheckConstraint("version >= 1", name="version"),)

    series: int = Field(primary_key=True, sa_type=BigInteger, foreign_key="series.number")
    segment: str = Field(primary_key=True, sa_type=String)
    version: int = Field(primary_key=True, sa_column_kwargs={"autoincrement": False})
    weights: Json = Field(sa_type=json_type())
    basis: Json = Field(sa_type=json_type())
    reason: str = Field(sa_type=String)
    created_at: datetime = Field(sa_type=UtcDateTime)


class Decision(SQLModel, table=True):
    """The variant chosen for a unit at first contact. ``id``: series number (4 bytes), 12 bytes of the unit's hash."""

    __table_args__ = (
        CheckConstraint("propensity > 0 AND propensity <= 1", name="propensity"),
        Index(None, "customer_id", "decided_at"),
        _CLUSTERED,
    )

    id: bytes = Field(primary_key=True, sa_type=LargeBinary)
    customer_id: str = Field(sa_type=Text)
    occasion_id: str | None = Field(default=None, sa_type=Text)
    segment: str = Field(sa_type=String)
    variant: str = Field(sa_type=String)
    allocation_version: int
    propensity: float = Field(sa_type=Float(53))
    decided_at: datetime = Field(sa_type=UtcDateTime)
    attributes: Json = Field(default=None, nullable=True, sa_type=json_type())
    lacks_attribute: bool = False
    late: bool = False
    contradicted: bool = False


class Outcome(SQLModel, table=True):
    """Something a customer did, as it was reported. ``id`` is a hash of (source, outcome_id), or random without one."""

    __table_args__ = (
        _one_of("status", "attributed", "waiting", "unattributed", "future", "late"),
        CheckConstraint("decision_id IS NOT NULL OR customer_id IS NOT NULL", name="who"),
        Index(
            None, "retry_at", sqlite_where=text("retry_at IS NOT NULL"), postgresql_where=text("retry_at IS NOT NULL")
        ),
    )

    id: bytes = Field(primary_key=True, sa_type=LargeBinary)
    source: str = Field(sa_type=String)
    outcome_id: str | None = Field(default=None, sa_type=Text)
    decision_id: bytes | None = Field(default=None, sa_type=LargeBinary)
    customer_id: str | None = Field(default=None, sa_type=Text)
    occasion_id: str | None = Field(default=None, sa_type=Text)
    event: str = Field(sa_type=String)
    value: Decimal | None = Field(default=None, sa_type=ExactNumber)
    occurred_at: datetime = Field(sa_type=UtcDateTime)
    received_at: datetime = Field(sa_type=UtcDateTime)
    status: str = Field(sa_type=String)
    retry_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    n_duplicates: int = 0


class Attribution(SQLModel, table=True):
    """An outcome counted for a decision: what a recount starts from."""

    __table_args__ = (_CLUSTERED,)

    decision_id: bytes = Field(primary_key=True, sa_type=LargeBinary)
    outcome_id: bytes = Field(primary_key=True, sa_type=LargeBinary)


class Response(SQLModel, table=True):
    """All outcomes of one metric attributed to one decision."""

    __table_args__ = (_CLUSTERED,)

    decision_id: bytes = Field(primary_key=True, sa_type=LargeBinary)
    metric: str = Field(primary_key=True, sa_type=String)
    n_outcomes: int
    total: Decimal = Field(sa_type=ExactNumber)
    first_at: datetime = Field(sa_type=UtcDateTime)


class Tally(SQLModel, table=True):
    """Units decided in one hour (``hour``: whole hours since 1970), counted once each.

    ``decided_seconds`` sums the seconds into the hour at which they were decided, so that ages are known within it.
    """

    __table_args__ = (_CLUSTERED,)

    series: int = Field(primary_key=True, sa_type=BigInteger, sa_column_kwargs={"autoincrement": False})
    segment: str = Field(primary_key=True, sa_type=String)
    allocation_version: int = Field(primary_key=True, sa_column_kwargs={"autoincrement": False})
    variant: str = Field(primary_key=True, sa_type=String)
    hour: int = Field(primary_key=True, sa_column_kwargs={"autoincrement": False})
    shard: int = Field(primary_key=True, sa_column_kwargs={"autoincrement": False})
    n_units: int = Field(sa_type=BigInteger)
    n_lacking: int = Field(sa_type=BigInteger)
    decided_seconds: int = Field(sa_type=BigInteger)


class TallyResponse(SQLModel, table=True):
    """What the units of a tally answered on one metric: sums and sums of squares of unit totals, plain and capped."""

    __tablename__ = "tally_response"
    __table_args__ = (_CLUSTERED,)

    series: int = Field(primary_key=True, sa_type=BigInteger, sa_column_kwargs={"autoincrement": False})
    segment: str = Field(primary_key=True, sa_type=String)
    allocation_version: int = Field(primary_key=True, sa_column_kwargs={"autoincrement": False})
    variant: str = Field(primary_key=True, sa_type=String)
    hour: int = Field(primary_key=True, sa_column_kwargs={"autoincrement": False})
    metric: str = Field(primary_key=True, sa_type=String)
    shard: int = Field(primary_key=True, sa_column_kwargs={"autoincrement": False})
    n_responders: int = Field(sa_type=BigInteger)
    total: Decimal = Field(sa_type=ExactNumber)
    total_squares: Decimal = Field(sa_type=ExactNumber)
    capped_total: Decimal = Field(sa_type=ExactNumber)
    capped_squares: Decimal = Field(sa_type=ExactNumber)


class TallyAge(SQLModel, table=True):
    """First responses by the decision's day (days since 1970) and their age then (``age_bin`` of optimizer.delay)."""

    __tablename__ = "tally_age"
    __table_args__ = (_CLUSTERED,)

    series: int = Field(primary_key=True, sa_type=BigInteger, sa_column_kwargs={"autoincrement": False})
    metric: str = Field(primary_key=True, sa_type=String)
    variant: str = Field(primary_key=True, sa_type=String)
    day: int = Field(primary_key=True, sa_column_kwargs={"autoincrement": False})
    age_bin: int = Field(primary_key=True, sa_column_kwargs={"autoincrement": False})
    shard: int = Field(primary_key=True, sa_column_kwargs={"autoincrement": False})
    n_first: int = Field(sa_type=BigInteger)


class Override(SQLModel, table=True):
    """A customer who always gets one variant of a placement, for QA; such answers are never counted."""

    placement: str = Field(primary_key=True, sa_type=String)
    customer_id: str = Field(primary_key=True, sa_type=Text)
    variant: str = Field(sa_type=String)
    created_at: datetime = Field(sa_type=UtcDateTime)
    created_by: str = Field(sa_type=String)


class PolicyVersion(SQLModel, table=True):
    """The standing variants of a placement. ``entries``: segment -> {series, variant, explore, expires_at, ...}.

    ``evidence`` is the frozen review of each segment that a promotion changed; of a roll-back, ``to_version`` and the
    segments ``returned`` to experiments. Nothing here is ever overwritten.
    """

    __tablename__ = "policy_version"
    __table_args__ = (_one_of("action", "promote", "rollback"),)

    placement: str = Field(primary_key=True, sa_type=String)
    version: int = Field(primary_key=True, sa_column_kwargs={"autoincrement": False})
    action: str = Field(sa_type=String)
    entries: Json = Field(sa_type=json_type())
    evidence: Json = Field(sa_type=json_type())
    reason: str = Field(sa_type=Text)
    created_at: datetime = Field(sa_type=UtcDateTime)
    created_by: str = Field(sa_type=String)
    effective_at: datetime = Field(sa_type=UtcDateTime)


class Audit(SQLModel, table=True):
    """Every change: who, when, why. Append-only by trigger; each row hashes the one before."""

    id: int | None = Field(default=None, primary_key=True, sa_type=_AUTO)
    at: datetime = Field(sa_type=UtcDateTime)
    actor: str = Field(sa_type=String)
    action: str = Field(sa_type=String)
    subject: str = Field(sa_type=String)
    reason: str | None = Field(default=None, sa_type=Text)
    detail: Json = Field(default=None, nullable=True, sa_type=json_type())
    previous_hash: bytes = Field(sa_type=LargeBinary)
    hash: bytes = Field(sa_type=LargeBinary)


class Lease(SQLModel, table=True):
    """Who may learn now: held until ``expires_at`` on the database's clock; ``token`` grows with each new holder."""

    name: str = Field(primary_key=True, sa_type=String)
    holder: str = Field(sa_type=String)
    token: int = Field(sa_type=BigInteger)
    expires_at: datetime = Field(sa_type=UtcDateTime)
