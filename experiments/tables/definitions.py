"""What is defined and how it is served: experiments, series, their variants and weights, policies."""

from datetime import datetime

from sqlalchemy import BigInteger, CheckConstraint, Index, LargeBinary, String, Text
from sqlmodel import Field, SQLModel

from experiments.column_types import UtcDateTime, json_type
from experiments.tables.constraints import AUTO, Json, one_of


class Workspace(SQLModel, table=True):
    """The one row that every worker polls, and the secrets behind every hash."""

    __table_args__ = (CheckConstraint("id = 1", name="single"),)

    id: int = Field(default=1, primary_key=True, sa_column_kwargs={"autoincrement": False})
    secret: bytes = Field(sa_type=LargeBinary)
    holdout_secret: bytes = Field(sa_type=LargeBinary)
    snapshot_version: int = Field(default=1, sa_type=BigInteger)
    created_at: datetime = Field(sa_type=UtcDateTime)


class Definition(SQLModel, table=True):
    """One version of an attribute, segmentation, placement or metric; the highest version is the current one."""

    __table_args__ = (
        one_of("kind", "attribute", "segmentation", "placement", "metric"),
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
    (promotion). ``covariate`` is pinned as the experiment defines it: {attribute, missing}; ``exposure`` too: the event
    that says that a unit met its variant, null where every decision is taken as met. ``send_plan`` holds the plan and
    how far it has come (``experiments.send_plans.pinned``).
    """

    __table_args__ = (
        one_of("kind", "experiment", "policy", "programme"),
        one_of("unit", "customer", "occasion", "period"),
        CheckConstraint("number BETWEEN 1 AND 4294967295", name="number"),
        Index(None, "placement"),
    )

    number: int | None = Field(default=None, primary_key=True, sa_type=AUTO)
    kind: str = Field(sa_type=String)
    placement: str = Field(sa_type=String)
    experiment: str | None = Field(default=None, sa_type=String)
    unit: str = Field(sa_type=String)
    hash_version: int = Field(default=1)
    segmentation: str = Field(sa_type=String)
    segmentation_version: int
    segments: Json = Field(sa_type=json_type())
    metrics: Json = Field(sa_type=json_type())
    covariate: Json = Field(default=None, nullable=True, sa_type=json_type())
    send_plan: Json = Field(default=None, nullable=True, sa_type=json_type())
    exposure: str | None = Field(default=None, sa_type=String)
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
        one_of("status", "draft", "running", "paused", "concluded"),
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
    __table_args__ = (one_of("action", "promote", "rollback"),)

    placement: str = Field(primary_key=True, sa_type=String)
    version: int = Field(primary_key=True, sa_column_kwargs={"autoincrement": False})
    action: str = Field(sa_type=String)
    entries: Json = Field(sa_type=json_type())
    evidence: Json = Field(sa_type=json_type())
    reason: str = Field(sa_type=Text)
    created_at: datetime = Field(sa_type=UtcDateTime)
    created_by: str = Field(sa_type=String)
    effective_at: datetime = Field(sa_type=UtcDateTime)


class VariantPause(SQLModel, table=True):
    """A variant that a guardrail paused in a segment: new units get others, those who have it the control.

    ``evidence`` is the bound that said so; ``lifted_at`` ends the pause.
    """

    __tablename__ = "variant_pause"
    __table_args__ = (Index(None, "series"),)

    id: int | None = Field(default=None, primary_key=True, sa_type=AUTO)
    series: int = Field(sa_type=BigInteger, foreign_key="series.number")
    segment: str = Field(sa_type=String)
    variant: str = Field(sa_type=String)
    metric: str = Field(sa_type=String)
    evidence: Json = Field(sa_type=json_type())
    paused_at: datetime = Field(sa_type=UtcDateTime)
    effective_at: datetime = Field(sa_type=UtcDateTime)
    lifted_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    lifted_by: str | None = Field(default=None, sa_type=String)
