"""What happened: decisions, outcomes, and what was attributed to whom; written in bulk, without foreign keys."""

from datetime import datetime
from decimal import Decimal

from sqlalchemy import BigInteger, CheckConstraint, Float, Index, LargeBinary, String, Text, false, text
from sqlmodel import Field, SQLModel

from experiments.column_types import ExactNumber, UtcDateTime, json_type
from experiments.tables.constraints import CLUSTERED, Json, one_of


class Decision(SQLModel, table=True):
    """The variant chosen for a unit at first contact. ``id``: series number (4 bytes), 12 bytes of the unit's hash.

    ``covariate``: the unit's value of its series' covariate then; null where that was missing, or there is none.
    ``exposed_at``: when the unit first met its variant, as far as reported; null in a series without an exposure event.
    ``merged``: the person turned out to have an earlier decision with another variant, under another id.
    """

    __table_args__ = (
        CheckConstraint("propensity > 0 AND propensity <= 1", name="propensity"),
        Index(None, "customer_id", "decided_at"),
        Index("ix_decision_merged", "id", sqlite_where=text("merged"), postgresql_where=text("merged")),
        CLUSTERED,
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
    covariate: float | None = Field(default=None, sa_type=Float(53))
    merged: bool = Field(default=False, sa_column_kwargs={"server_default": false()})
    exposed_at: datetime | None = Field(default=None, sa_type=UtcDateTime)


class Outcome(SQLModel, table=True):
    """Something a customer did, as it was reported. ``id`` is a hash of (source, outcome_id), or random without one.

    ``excluded_by``: the correction that keeps it from counting; whatever its status, it stays. ``machine``: why it is
    taken for a machine's (null: a person's), which is counted apart.
    """

    __table_args__ = (
        one_of("status", "attributed", "waiting", "unattributed", "future", "late"),
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
    excluded_by: int | None = Field(default=None, sa_type=BigInteger)
    placement: str | None = Field(default=None, sa_type=String)
    machine: str | None = Field(default=None, sa_type=String)


class Attribution(SQLModel, table=True):
    """An outcome counted for a decision: what a recount starts from."""

    __table_args__ = (CLUSTERED,)

    decision_id: bytes = Field(primary_key=True, sa_type=LargeBinary)
    outcome_id: bytes = Field(primary_key=True, sa_type=LargeBinary)


class Response(SQLModel, table=True):
    """All outcomes of one metric attributed to one decision; of a ratio, ``total`` is its numerator.

    Outcomes of machines have a row of their own, whose ``metric`` ends in ``+machine``.
    """

    __table_args__ = (CLUSTERED,)

    decision_id: bytes = Field(primary_key=True, sa_type=LargeBinary)
    metric: str = Field(primary_key=True, sa_type=String)
    n_outcomes: int
    total: Decimal = Field(sa_type=ExactNumber)
    first_at: datetime = Field(sa_type=UtcDateTime)
    denominator: Decimal | None = Field(default=None, sa_type=ExactNumber)


class Alias(SQLModel, table=True):
    """Another id of the person whose ``customer_id`` goes on deciding; ``anonymous_id``: that joined the two."""

    __table_args__ = (CheckConstraint("id <> customer_id", name="other"), CLUSTERED)

    id: str = Field(primary_key=True, sa_type=Text)
    customer_id: str = Field(sa_type=Text, index=True)
    anonymous_id: str = Field(sa_type=Text, index=True)
    created_at: datetime = Field(sa_type=UtcDateTime)


class DecisionAlias(SQLModel, table=True):
    """A unit (by the id that its decision would have) for which a decision under another id of the person stands."""

    __tablename__ = "decision_alias"
    __table_args__ = (CLUSTERED,)

    id: bytes = Field(primary_key=True, sa_type=LargeBinary)
    decision_id: bytes = Field(sa_type=LargeBinary)


class Customer(SQLModel, table=True):
    """Declared attributes that were reported of a customer, as JSON."""

    __table_args__ = (CLUSTERED,)

    id: str = Field(primary_key=True, sa_type=Text)
    attributes: Json = Field(sa_type=json_type())
    updated_at: datetime = Field(sa_type=UtcDateTime)
