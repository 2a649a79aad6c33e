"""Counts and exact sums by (series, segment, allocation version, variant, hour): what learning and reviews read."""

from decimal import Decimal

from sqlalchemy import BigInteger, LargeBinary, PrimaryKeyConstraint, String
from sqlmodel import Field, SQLModel

from experiments.column_types import ExactNumber, json_type
from experiments.tables.constraints import CLUSTERED


def _by_hour(*metric: str) -> PrimaryKeyConstraint:
    """The key with the hour before the segment: reading starts where the days that are summed already end."""
    return PrimaryKeyConstraint("series", "hour", "segment", "allocation_version", "variant", *metric, "shard")


class Tally(SQLModel, table=True):
    """Units decided in one hour (``hour``: whole hours since 1970), counted once each.

    ``decided_seconds`` sums the seconds into the hour at which they were decided, so that ages are known within it.
    Where a series names an exposure event, units count from their exposure on: it stands for the decision here, in the
    hour and seconds, and in all tables below but ``TallyExposure``.
    """

    __table_args__ = (_by_hour(), CLUSTERED)

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
    __table_args__ = (_by_hour("metric"), CLUSTERED)

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


class TallyCovariate(SQLModel, table=True):
    """The covariate of a tally's units: sums with the constant for missing values, and how many were missing.

    Only series with a covariate have rows.
    """

    __tablename__ = "tally_covariate"
    __table_args__ = (_by_hour(), CLUSTERED)

    series: int = Field(primary_key=True, sa_type=BigInteger, sa_column_kwargs={"autoincrement": False})
    segment: str = Field(primary_key=True, sa_type=String)
    allocation_version: int = Field(primary_key=True, sa_column_kwargs={"autoincrement": False})
    variant: str = Field(primary_key=True, sa_type=String)
    hour: int = Field(primary_key=True, sa_column_kwargs={"autoincrement": False})
    shard: int = Field(primary_key=True, sa_column_kwargs={"autoincrement": False})
    n_missing: int = Field(sa_type=BigInteger)
    total: Decimal = Field(sa_type=ExactNumber)
    total_squares: Decimal = Field(sa_type=ExactNumber)


class TallyProduct(SQLModel, table=True):
    """Sums over a tally's units that ratios and covariates need beside ``TallyResponse``; 0 where they don't apply.

    ``denominator``: of a ratio, its square, and its product with the unit's total (plain and capped).
    ``covariate_total``: the covariate times the unit's total (plain and capped); times its denominator.
    """

    __tablename__ = "tally_product"
    __table_args__ = (_by_hour("metric"), CLUSTERED)

    series: int = Field(primary_key=True, sa_type=BigInteger, sa_column_kwargs={"autoincrement": False})
    segment: str = Field(primary_key=True, sa_type=String)
    allocation_version: int = Field(primary_key=True, sa_column_kwargs={"autoincrement": False})
    variant: str = Field(primary_key=True, sa_type=String)
    hour: int = Field(primary_key=True, sa_column_kwargs={"autoincrement": False})
    metric: str = Field(primary_key=True, sa_type=String)
    shard: int = Field(primary_key=True, sa_column_kwargs={"autoincrement": False})
    denominator: Decimal = Field(sa_type=ExactNumber)
    denominator_squares: Decimal = Field(sa_type=ExactNumber)
    denominator_total: Decimal = Field(sa_type=ExactNumber)
    denominator_capped: Decimal = Field(sa_type=ExactNumber)
    covariate_total: Decimal = Field(sa_type=ExactNumber)
    covariate_capped: Decimal = Field(sa_type=ExactNumber)
    covariate_denominator: Decimal = Field(sa_type=ExactNumber)


class TallyExposure(SQLModel, table=True):
    """Units by the hour of their decision: all, and those that met their variant since.

    Only series with an exposure event have rows.
    """

    __tablename__ = "tally_exposure"
    __table_args__ = (CLUSTERED,)

    series: int = Field(primary_key=True, sa_type=BigInteger, sa_column_kwargs={"autoincrement": False})
    segment: str = Field(primary_key=True, sa_type=String)
    allocation_version: int = Field(primary_key=True, sa_column_kwargs={"autoincrement": False})
    variant: str = Field(primary_key=True, sa_type=String)
    hour: int = Field(primary_key=True, sa_column_kwargs={"autoincrement": False})
    shard: int = Field(primary_key=True, sa_column_kwargs={"autoincrement": False})
    n_decided: int = Field(sa_type=BigInteger)
    n_exposed: int = Field(sa_type=BigInteger)


class TallyAge(SQLModel, table=True):
    """First responses by the decision's day (days since 1970) and their age then (``age_bin`` of optimizer.delay)."""

    __tablename__ = "tally_age"
    __table_args__ = (CLUSTERED,)

    series: int = Field(primary_key=True, sa_type=BigInteger, sa_column_kwargs={"autoincrement": False})
    metric: str = Field(primary_key=True, sa_type=String)
    variant: str = Field(primary_key=True, sa_type=String)
    day: int = Field(primary_key=True, sa_column_kwargs={"autoincrement": False})
    age_bin: int = Field(primary_key=True, sa_column_kwargs={"autoincrement": False})
    shard: int = Field(primary_key=True, sa_column_kwargs={"autoincrement": False})
    n_first: int = Field(sa_type=BigInteger)


class TallyChange(SQLModel, table=True):
    """How often tallies of a day (days since 1970) have changed since the day was over: see ``TallyDay``."""

    __tablename__ = "tally_change"
    __table_args__ = (CLUSTERED,)

    series: int = Field(primary_key=True, sa_type=BigInteger, sa_column_kwargs={"autoincrement": False})
    day: int = Field(primary_key=True, sa_column_kwargs={"autoincrement": False})
    shard: int = Field(primary_key=True, sa_column_kwargs={"autoincrement": False})
    n_changes: int = Field(sa_type=BigInteger)


class TallyDay(SQLModel, table=True):
    """A metric's tallies of one day, summed to the day: what they were when its changes numbered ``n_changes``.

    ``numbers`` are 64-bit floats, a row of them for each of ``columns``; segments and variants are positions in lists.
    """

    __tablename__ = "tally_day"

    series: int = Field(primary_key=True, sa_type=BigInteger, sa_column_kwargs={"autoincrement": False})
    metric: str = Field(primary_key=True, sa_type=String)
    day: int = Field(primary_key=True, sa_column_kwargs={"autoincrement": False})
    n_changes: int = Field(sa_type=BigInteger)
    segments: list[str] = Field(sa_type=json_type())
    variants: list[str] = Field(sa_type=json_type())
    columns: list[str] = Field(sa_type=json_type())
    numbers: bytes = Field(sa_type=LargeBinary)
