"""The test frame itself: fresh databases, rolled-back sessions, no network, and a PostgreSQL that ends with its run."""

import gc
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Final, LiteralString

import psycopg
import pytest
from sqlalchemy import Engine, make_url, text
from sqlmodel import Session

from experiments.database import transaction
from tests import postgres
from tests.conftest import NetworkForbidden
from tests.databases import LentDatabases, connected

COUNT = text("SELECT snapshot_version FROM workspace")
OID: Final = "SELECT oid FROM pg_database WHERE datname = current_database()"
CHANGE = text("UPDATE workspace SET snapshot_version = 77")


@pytest.mark.parametrize("attempt", [1, 2])
def test_each_test_gets_a_migrated_database_of_its_own(engine: Engine, attempt: int) -> None:
    with transaction(engine) as session:
        assert session.connection().execute(COUNT).scalar_one() != 77, f"attempt {attempt} saw another test's work"
        session.connection().execute(CHANGE)
    with transaction(engine) as session:
        assert session.connection().execute(COUNT).scalar_one() == 77


@pytest.mark.parametrize("attempt", [1, 2])
def test_even_a_committed_session_is_undone_after_the_test(session: Session, attempt: int) -> None:
    assert session.connection().execute(COUNT).scalar_one() != 77, f"attempt {attempt} saw another test's work"
    session.connection().execute(CHANGE)
    session.commit()
    assert session.connection().execute(COUNT).scalar_one() == 77


EVERYTHING = """
    SELECT (SELECT row_to_json(w)::text FROM workspace w), (SELECT count(*) FROM customer),
           (SELECT array_agg(version_num) FROM alembic_version),
           (SELECT array_agg(last_value ORDER BY sequencename) FROM pg_sequences)
"""
FILL = """
    INSERT INTO customer (id, attributes, updated_at) SELECT 'c' || i, '{{}}', now() FROM generate_series(1, {n}) i;
    UPDATE workspace SET snapshot_version = 77;
    DELETE FROM alembic_version;
    SELECT nextval('audit_id_seq')
"""


@pytest.mark.parametrize("n_rows", [3, 20_000])
def test_a_database_that_is_lent_again_is_as_new_and_has_another_name(
    postgres_databases: LentDatabases, postgres_server: postgres.PostgresServer, n_rows: int
) -> None:
    with postgres_databases.one() as url, connected(postgres_server, make_url(url).database or "") as connection:
        new = connection.execute(EVERYTHING).fetchone()
        connection.execute(FILL.format(n=n_rows).encode())
        (oid,) = connection.execute(OID).fetchone() or (None,)
        assert connection.execute(EVERYTHING).fetchone() != new
    with postgres_databases.one() as again, connected(postgres_server, make_url(again).database or "") as connection:
        assert connection.execute(OID).fetchone() == (oid,)
        assert connection.execute(EVERYTHING).fetchone() == new
        assert connection.execute("SELECT pg_relation_size('customer') < 300000").fetchone() == (True,)
    assert again != url


@pytest.mark.parametrize(
    "change",
    [
        "ALTER TABLE audit RENAME TO elsewhere",
        "ALTER TABLE audit DISABLE TRIGGER ALL",
        "ALTER TABLE customer ADD COLUMN more text",
        "CREATE INDEX another ON customer (id)",
    ],
)
def test_a_database_with_a_changed_schema_is_not_lent_again(
    postgres_databases: LentDatabases, postgres_server: postgres.PostgresServer, change: LiteralString
) -> None:
    with postgres_databases.one() as url, connected(postgres_server, make_url(url).database or "") as connection:
        (oid,) = connection.execute(OID).fetchone() or (None,)
        connection.execute(change)
    with connected(postgres_server, "postgres") as connection:
        assert connection.execute("SELECT count(*) FROM pg_database WHERE oid = %s", [oid]).fetchone() == (0,)


def test_garbage_is_not_looked_for_in_what_is_imported() -> None:
    assert gc.get_freeze_count() > 100_000
    assert gc.get_threshold()[0] > 10_000


@pytest.mark.parametrize("address", [("192.0.2.1", 80), ("2001:db8::1", 80)])
def test_the_network_is_off(address: tuple[str, int]) -> None:
    family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
    with socket.socket(family) as client, pytest.raises(NetworkForbidden):
        client.connect(address)


def test_names_are_not_looked_up() -> None:
    with pytest.raises(NetworkForbidden):
        socket.create_connection(("example.com", 80))


def test_this_machine_can_be_reached() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        socket.create_connection(server.getsockname()).close()


def test_postgresql_keeps_what_was_committed_over_a_stop_and_a_start(tmp_path: Path) -> None:
    server = postgres.start(tmp_path / "data")
    address = f"host={server.socket_folder} user=postgres dbname=postgres"
    try:
        with psycopg.connect(address) as connection:
            connection.execute("CREATE TABLE kept AS SELECT 42 AS answer")
        postgres.stop(server.data_folder)
        with pytest.raises(psycopg.OperationalError):
            psycopg.connect(address)
        assert postgres.start(server.data_folder) == server
        with psycopg.connect(address) as connection:
            assert connection.execute("SELECT answer FROM kept").fetchone() == (42,)
    finally:
        postgres.stop(server.data_folder)


def test_the_guard_stops_postgresql_when_its_caller_is_killed(tmp_path: Path) -> None:
    program = (
        "import os, pathlib, sys; from tests import postgres; folder = pathlib.Path(sys.argv[1]); "
        "postgres.guard(folder); postgres.start(folder / 'data', durable=False); os.kill(os.getpid(), 9)"
    )
    folder = tmp_path / "run"
    folder.mkdir()
    root = Path(__file__).parents[2]
    subprocess.run([sys.executable, "-c", program, str(folder)], check=False, cwd=root)
    give_up_at = time.monotonic() + 20
    while folder.exists() and time.monotonic() < give_up_at:
        time.sleep(0.05)
    assert not folder.exists()
