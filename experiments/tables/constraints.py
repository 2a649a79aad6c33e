"""What all tables share: names of constraints, keys that count up, clustered tables, JSON."""

from typing import Any

from sqlalchemy import BigInteger, CheckConstraint, Integer
from sqlmodel import SQLModel

Json = Any  # a JSON value as stored; its shape is checked by the definitions

SQLModel.metadata.naming_convention = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s",
    "pk": "pk_%(table_name)s",
}

AUTO = BigInteger().with_variant(Integer(), "sqlite")  # SQLite counts up only an INTEGER key

CLUSTERED = {"sqlite_with_rowid": False}  # one B-tree, in key order, as PostgreSQL's CLUSTER would leave it


def one_of(column: str, *values: str) -> CheckConstraint:
    """The values that a column may have."""
    allowed = ", ".join(f"'{value}'" for value in values)
    return CheckConstraint(f"{column} IN ({allowed})", name=column)
