"""Fixtures for every test: databases of both kinds, built by the migrations, and no network.

`database_url` is a fresh database of the test's own (committing is fine); `engine` is opened on it. `session` is
quicker: a Session on a database that the tests of one worker share, in a transaction that is rolled back. Each runs a
test twice, on SQLite and on PostgreSQL. One PostgreSQL serves the whole run; it starts when the first test asks for it.
"""

import gc
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import ip_address
from pathlib import Path

import pytest
from sqlalchemy import Engine
from sqlmodel import Session

from experiments.database import open_engine
from tests import databases, postgres

SHARED_FOLDER = "OPTIMIZER_TEST_FOLDER"
GUARD = pytest.StashKey[subprocess.Popen[bytes]]()


class NetworkForbidden(RuntimeError):
    """A test tried to leave this machine."""

    def __init__(self, host: object) -> None:
        super().__init__(f"Tests must not reach {host!r}: the network is off.")


def _is_local(host: object) -> bool:
    name = host.decode() if isinstance(host, bytes) else host
    if name is None or name in {"", "localhost"}:
        return True
    try:
        address = ip_address(str(name))
    except ValueError:
        return False
    return address.is_loopback or address.is_unspecified


def _forbid_network(event: str, args: tuple[object, ...]) -> None:
    if event in {"socket.connect", "socket.sendto"}:
        address = args[1]
        if isinstance(address, tuple) and not _is_local(address[0]):
            raise NetworkForbidden(address[0])
    elif event == "socket.getaddrinfo" and not _is_local(args[0]):
        raise NetworkForbidden(args[0])


def pytest_configure(config: pytest.Config) -> None:
    """Turn the network off; in the first process, also make the run's folder and the guard of its PostgreSQL."""
    sys.addaudithook(_forbid_network)
    if not hasattr(config, "workerinput"):
        folder = Path(tempfile.mkdtemp(prefix="optimizer-tests-"))
        os.environ[SHARED_FOLDER] = str(folder)  # xdist's workers inherit it
        config.stash[GUARD] = postgres.guard(folder)


def pytest_collection_finish() -> None:
    """Look for garbage seldom, and not in what is imported: a fifth of a test's time went there."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 10, 20)


def pytest_unconfigure(config: pytest.Config) -> None:
    """Stop the run's PostgreSQL and remove its folder."""
    guard = config.stash.get(GUARD, None)
    if guard is not None:
        guard.communicate()


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated SQLite file, to be copied and not to be opened."""
    path = tmp_path_factory.mktemp("template") / "migrated.db"
    databases.migrate_new(f"sqlite:///{path}")
    return path


@pytest.fixture(scope="session")
def postgres_server() -> postgres.PostgresServer:
    """The run's PostgreSQL, holding a migrated template database. Never stop it: fault tests start their own."""
    return databases.server_with_template(Path(os.environ[SHARED_FOLDER]))


@pytest.fixture(scope="session")
def postgres_databases(postgres_server: postgres.PostgresServer) -> databases.LentDatabases:
    """The databases that the tests of this process borrow."""
    return databases.LentDatabases(postgres_server)


@contextmanager
def _new_database(request: pytest.FixtureRequest, *, backend: str, folder: Path) -> Iterator[str]:
    if backend == "sqlite":
        yield databases.copy_of(request.getfixturevalue("sqlite_template"), folder)
        return
    lent: databases.LentDatabases = request.getfixturevalue("postgres_databases")
    with lent.one() as url:
        yield url


@pytest.fixture(scope="session", params=["sqlite", "postgresql"])
def backend(request: pytest.FixtureRequest) -> str:
    """Which of the two databases this run of a test uses."""
    name: str = request.param
    return name


@pytest.fixture
def database_url(request: pytest.FixtureRequest, backend: str, tmp_path: Path) -> Iterator[str]:
    """URL of a fresh, migrated database of the test's own."""
    with _new_database(request, backend=backend, folder=tmp_path) as url:
        yield url


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    """An engine on the test's own database."""
    engine = open_engine(database_url)
    yield engine
    engine.dispose()


@pytest.fixture(scope="session")
def rolled_back_engine(
    request: pytest.FixtureRequest, backend: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Engine]:
    """An engine on a database in which nothing is ever committed; one per worker and backend."""
    with _new_database(request, backend=backend, folder=tmp_path_factory.mktemp("rolled-back")) as url:
        engine = open_engine(url)
        yield engine
        engine.dispose()


@pytest.fixture
def session(rolled_back_engine: Engine) -> Iterator[Session]:
    """A session whose work, even if the test commits it, is undone after the test."""
    with rolled_back_engine.connect() as connection:
        outer = connection.begin()
        with Session(connection, join_transaction_mode="create_savepoint") as session:
            yield session
        outer.rollback()
