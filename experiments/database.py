"""Opening, migrating and writing to the database: SQLite (a file) or PostgreSQL, with the same rules for both."""

import contextlib
import fcntl
import secrets
import sqlite3
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path
from typing import Any

import orjson
from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, Engine, create_engine, event, make_url, text
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import ArgumentError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlmodel import Session, select

from experiments.errors import UnusableDatabase
from experiments.tables import Workspace
from experiments.tallies.moves import decimal_add

AWAY = (OperationalError, InterfaceError, PoolTimeout, sqlite3.OperationalError, OSError)  # what says so
_MIGRATION_LOCK = 0x6F7074696D697A65  # any constant of our own: the key of PostgreSQL's advisory lock
# A server that vanished without a word is given up within some 10 s, not in the quarter of an hour that TCP takes.
_DEAD_PEER = {"keepalives_idle": 5, "keepalives_interval": 2, "keepalives_count": 3, "tcp_user_timeout": 10_000}


def open_engine(url: str) -> Engine:
    """Connect to a database lazily.

    Args:
        url: ``sqlite:///path/to/file.db`` or ``postgresql://user:password@host/name``.

    Raises:
        UnusableDatabase: No URL, another kind of database, or SQLite without a file in a folder that is there.
    """
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        raise UnusableDatabase("The database's URL is none; write sqlite:///optimizer.db, or postgresql://…") from None
    if parsed.get_backend_name() == "sqlite":
        return _open_sqlite(parsed.database)
    if parsed.get_backend_name() == "postgresql":
        return create_engine(
            parsed.set(drivername="postgresql+psycopg"),
            connect_args={"prepare_threshold": None, "connect_timeout": 2, **_DEAD_PEER},
            pool_pre_ping=True,
            **_common(),
        )
    raise UnusableDatabase(f"{parsed.get_backend_name()!r} is neither sqlite nor postgresql.")


def _common() -> dict[str, Any]:
    return {
        "json_serializer": lambda value: orjson.dumps(value).decode(),
        "json_deserializer": orjson.loads,
        "hide_parameters": True,  # an error's text may reach a log, and parameters are customers' data
    }


def _open_sqlite(path: str | None) -> Engine:
    if not path or path == ":memory:":
        raise UnusableDatabase("SQLite needs a file: sqlite:///optimizer.db")
    if not Path(path).absolute().parent.is_dir():
        raise UnusableDatabase(f"There is no folder for the file {path!r}.")
    engine = create_engine(f"sqlite:///{path}", connect_args={"timeout": 10}, **_common())
    event.listen(engine, "connect", _prepare_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _prepare_sqlite(connection: Any, _record: object) -> None:
    connection.isolation_level = None  # we say BEGIN ourselves
    (mode,) = connection.execute("PRAGMA journal_mode=WAL").fetchone()
    if mode != "wal":
        raise UnusableDatabase("The file system can't hold SQLite's write-ahead log (WAL).")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("PRAGMA foreign_keys=ON")
    connection.execute("PRAGMA wal_autocheckpoint=20000")  # 80 MB: the background process truncates it sooner
    connection.execute("PRAGMA cache_size=-16000")  # 16 MB: random ids touch a page each
    connection.create_function("decimal_add", 2, decimal_add, deterministic=True)
    if sys.platform == "darwin":
        connection.execute("PRAGMA fullfsync=1")


def _begin_sqlite(connection: Connection) -> None:
    """A writer says so at once: upgrading later fails whatever the time-out."""
    reads = connection.get_execution_options().get("reads", False)
    connection.exec_driver_sql("BEGIN" if reads else "BEGIN IMMEDIATE")


@contextlib.contextmanager
def write_queue(engine: Engine) -> Iterator[None]:
    """Stand in the queue of those who write to one SQLite file (a file lock is a fair queue); elsewhere do nothing."""
    if engine.dialect.name != "sqlite":
        yield
        return
    with Path(f"{engine.url.database}.lock").open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def transaction(engine: Engine) -> Iterator[Session]:
    """A session that may write; committed at the end of the block, rolled back on any error."""
    with write_queue(engine), Session(engine) as session:
        yield session
        session.commit()


@contextlib.contextmanager
def reading(engine: Engine) -> Iterator[Session]:
    """A session that only reads, on one consistent state of the database; it holds up no writer."""
    with Session(on_one_state(engine).execution_options(reads=True)) as session:
        yield session


def on_one_state(engine: Engine) -> Engine:
    """The engine for transactions that read one state of the database throughout, as SQLite's always do."""
    return (
        engine.execution_options(isolation_level="REPEATABLE READ") if engine.dialect.name == "postgresql" else engine
    )


def database_now(session: Session | Connection) -> datetime:
    """The time on the database's clock (SQLite has the machine's), aware UTC."""
    connection = session if isinstance(session, Connection) else session.connection()
    if connection.dialect.name == "sqlite":
        return datetime.now(UTC)
    now: datetime = connection.execute(text("SELECT clock_timestamp()")).scalar_one()
    return now.astimezone(UTC)


def upsert(connection: Connection, table: Any) -> postgresql.Insert | sqlite.Insert:
    """An INSERT that knows ON CONFLICT, in the connection's dialect."""
    return postgresql.insert(table) if connection.dialect.name == "postgresql" else sqlite.insert(table)


def migrate(engine: Engine) -> None:
    """Bring the schema to its newest version and create the workspace, one process at a time."""
    with write_queue(engine), engine.begin() as connection:
        if engine.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _MIGRATION_LOCK})
        config = Config()
        config.set_main_option("script_location", str(files("migrations")).replace("%", "%%"))
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
        with Session(bind=connection) as session:
            _create_workspace(session)
            session.flush()


def _create_workspace(session: Session) -> None:
    if session.exec(select(Workspace)).first() is None:
        session.add(
            Workspace(
                secret=secrets.token_bytes(32), holdout_secret=secrets.token_bytes(32), created_at=datetime.now(UTC)
            )
        )


def bump_snapshot(session: Session) -> Workspace:
    """Tell every worker that definitions changed, and serialise such changes: the row stays locked until commit."""
    workspace = session.exec(select(Workspace).with_for_update()).one()
    workspace.snapshot_version += 1
    session.flush()
    return workspace
