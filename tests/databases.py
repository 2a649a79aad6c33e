"""Fresh, migrated databases for tests: a file copied from a template, or a database of the run's PostgreSQL.

PostgreSQL takes some tenths of a second to create a database and to drop it again. So those that a test gives back are
cleared and lent again, under another name: what still runs of the last test can't reach them. One whose schema was
changed is dropped.
"""

import fcntl
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, LiteralString
from uuid import uuid4

import psycopg
from psycopg.sql import SQL, Composable, Composed, Identifier, Literal

from experiments.database import migrate, open_engine
from tests import postgres

TEMPLATE = "template_migrated"
SMALL_BYTES = 256 * 1024  # larger tables are truncated: they leave no dead rows behind, and take longer if small
_CUT_OTHERS: LiteralString = (
    "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity "
    "WHERE datname = current_database() AND pid <> pg_backend_pid()"
)
_TABLES: LiteralString = "SELECT tablename FROM pg_tables WHERE schemaname = 'public' ORDER BY tablename"
_SCHEMA: LiteralString = """
    SELECT (SELECT array_agg((oid, relname, relkind, relchecks, reloptions)::text ORDER BY oid)
            FROM pg_class WHERE relnamespace = 'public'::regnamespace),
           (SELECT array_agg((attrelid, attnum, attname, atttypid, attnotnull, attisdropped)::text
                             ORDER BY attrelid, attnum)
            FROM pg_attribute WHERE attrelid IN (SELECT oid FROM pg_class WHERE relnamespace = 'public'::regnamespace)),
           (SELECT array_agg((oid, adrelid, adnum)::text ORDER BY oid) FROM pg_attrdef),
           (SELECT array_agg((oid, conname)::text ORDER BY oid) FROM pg_constraint),
           (SELECT array_agg((oid, tgname, tgenabled)::text ORDER BY oid) FROM pg_trigger),
           (SELECT array_agg((oid, prosrc)::text ORDER BY oid)
            FROM pg_proc WHERE pronamespace = 'public'::regnamespace),
           (SELECT array_agg(nspname::text ORDER BY nspname) FROM pg_namespace WHERE nspname !~ '^pg_'),
           (SELECT array_agg(setconfig::text) FROM pg_db_role_setting)
"""


def copy_of(template: Path, folder: Path) -> str:
    """URL of a copy of a SQLite file."""
    path = folder / f"{uuid4().hex}.db"
    shutil.copyfile(template, path)
    return f"sqlite:///{path}"


def migrate_new(url: str) -> None:
    """Build the schema by the migrations."""
    engine = open_engine(url)
    try:
        migrate(engine)
    finally:
        engine.dispose()


def server_with_template(folder: Path) -> postgres.PostgresServer:
    """The run's PostgreSQL, holding a migrated template; the first process makes both, the others find them."""
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        server = postgres.start(folder / "data", durable=False)
        with connected(server, "postgres") as connection:
            if TEMPLATE not in {name for (name,) in connection.execute("SELECT datname FROM pg_database")}:
                connection.execute("DROP DATABASE IF EXISTS migrating")
                connection.execute("CREATE DATABASE migrating")
                migrate_new(server.url("migrating"))
                connection.execute(f"ALTER DATABASE migrating RENAME TO {TEMPLATE}")
    return server


@contextmanager
def connected(server: postgres.PostgresServer, database: str) -> Iterator[psycopg.Connection]:
    """The administrator's connection, which commits each statement."""
    host = str(server.socket_folder)
    with psycopg.connect(host=host, user="postgres", dbname=database, autocommit=True) as connection:
        yield connection


class LentDatabases:
    """Lends databases of one PostgreSQL to the tests of one process; each is as the migrations leave it."""

    def __init__(self, server: postgres.PostgresServer) -> None:
        self._server = server
        self._free: list[str] = []
        self._schema: dict[str, Any] = {}
        self._clearing: dict[str, Composed] = {}

    @contextmanager
    def one(self) -> Iterator[str]:
        """Lend one; its URL."""
        name = f"test_{uuid4().hex}"
        with connected(self._server, "postgres") as connection:
            if self._free:
                old = self._free.pop()
                connection.execute(SQL("ALTER DATABASE {} RENAME TO {}").format(Identifier(old), Identifier(name)))
                self._schema[name], self._clearing[name] = self._schema.pop(old), self._clearing.pop(old)
            else:
                connection.execute(f"CREATE DATABASE {name} TEMPLATE {TEMPLATE} STRATEGY file_copy")
        if name not in self._schema:
            self._remember(name)
        yield self._server.url(name)
        if self._is_cleared(name):
            self._free.append(name)
        else:
            with connected(self._server, "postgres") as connection:
                connection.execute(f"DROP DATABASE {name} WITH (FORCE)")

    def _remember(self, name: str) -> None:
        with connected(self._server, name) as connection:
            self._schema[name] = connection.execute(_SCHEMA).fetchone()
            self._clearing[name] = _clearing(connection)

    def _is_cleared(self, name: str) -> bool:
        with connected(self._server, name) as connection:
            connection.execute(_CUT_OTHERS)
            if connection.execute(_SCHEMA).fetchone() != self._schema[name]:
                return False
            large = _large_tables(connection)
            with connection.transaction():
                if large:
                    names = SQL(", ").join(map(Identifier, large))
                    connection.execute(SQL("TRUNCATE {} CASCADE").format(names))
                connection.execute(self._clearing[name])
        return True


def _large_tables(connection: psycopg.Connection) -> list[str]:
    found = connection.execute(
        "SELECT relname FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace "
        "AND pg_total_relation_size(oid) > %s",
        [SMALL_BYTES],
    )
    return [name for (name,) in found]


def _clearing(connection: psycopg.Connection) -> Composed:
    """One command that brings back a fresh database's rows and sequences; without triggers and foreign keys."""
    tables = [name for (name,) in connection.execute(_TABLES)]
    sequences = connection.execute("SELECT sequencename, start_value FROM pg_sequences WHERE schemaname = 'public'")
    steps: list[Composable] = [SQL("SET LOCAL session_replication_role = replica")]
    steps += [SQL("DELETE FROM {}").format(Identifier(name)) for name in tables]
    for name in tables:
        for (row,) in connection.execute(SQL("SELECT row_to_json(kept)::text FROM {} kept").format(Identifier(name))):
            fill = SQL("INSERT INTO {table} SELECT * FROM json_populate_record(NULL::{table}, {row})")
            steps.append(fill.format(table=Identifier(name), row=Literal(row)))
    steps += [SQL("SELECT setval({}, {}, false)").format(Literal(name), Literal(start)) for name, start in sequences]
    return SQL("; ").join(steps)
