"""Migrations and models agree, constraints and indexes included; migrating twice or at once is harmless."""

import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from importlib.resources import files
from pathlib import Path
from uuid import uuid4

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, Engine, make_url, text
from sqlalchemy.exc import DBAPIError
from sqlmodel import SQLModel, select

from experiments.database import migrate, open_engine, reading, transaction
from experiments.tables import Workspace
from tests.experiments.correcting import contents
from tests.experiments.worlds import clicks, observe, start_experiment

CATALOGUES = {
    "sqlite": "SELECT type || ' ' || name, sql FROM sqlite_master WHERE type IN ('table', 'index') AND sql IS NOT NULL",
    "postgresql": """
        SELECT 'column ' || table_name || '.' || column_name,
               concat_ws(' ', data_type, is_nullable, column_default, numeric_precision)
        FROM information_schema.columns WHERE table_schema = 'public'
        UNION ALL SELECT 'constraint ' || conrelid::regclass || '.' || conname, pg_get_constraintdef(oid)
        FROM pg_constraint WHERE connamespace = 'public'::regnamespace
        UNION ALL SELECT 'index ' || indexname, indexdef FROM pg_indexes WHERE schemaname = 'public'
    """,
}


def _catalogue(connection: Connection) -> dict[str, list[str]]:
    """Every object and its definition, as the database itself tells it; a table's lines in any order."""
    found = connection.execute(text(CATALOGUES[connection.dialect.name]))
    kept = {name: definition for name, definition in found if "alembic_version" not in name}
    return {name: sorted(_lines(definition)) for name, definition in kept.items()}


def _lines(definition: str) -> list[str]:
    """SQLite keeps the text of CREATE TABLE, and puts a column that is added later into the line of another."""
    lines = (line.strip().removesuffix(",") for line in definition.split("\n"))
    return [part for line in lines for part in ([line] if line.startswith("CONSTRAINT") else line.split(", ")) if part]


@pytest.fixture
def from_models(engine: Engine, tmp_path: Path) -> Iterator[Engine]:
    """A database of the same kind, created from the models instead of the migrations."""
    if engine.dialect.name == "sqlite":
        made = open_engine(f"sqlite:///{tmp_path / 'models.db'}")
    else:
        name = f"models_{uuid4().hex}"
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(text(f"CREATE DATABASE {name}"))
        made = open_engine(make_url(engine.url).set(database=name).render_as_string(hide_password=False))
    with made.begin() as connection:
        SQLModel.metadata.create_all(connection)
    yield made
    made.dispose()


def test_migrations_build_exactly_what_the_models_say(engine: Engine, from_models: Engine) -> None:
    with engine.connect() as migrated, from_models.connect() as modelled:
        assert _catalogue(migrated) == _catalogue(modelled)


def test_migrating_again_and_from_many_processes_at_once_changes_nothing(engine: Engine) -> None:
    with reading(engine) as session:
        before = session.exec(select(Workspace)).one().secret
    failures: list[BaseException] = []

    def again() -> None:
        own = open_engine(engine.url.render_as_string(hide_password=False))
        try:
            migrate(own)
        except DBAPIError as error:
            failures.append(error)
        finally:
            own.dispose()

    threads = [threading.Thread(target=again) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with reading(engine) as session:
        assert [row.secret for row in session.exec(select(Workspace))] == [before]
    assert failures == []


def test_tallies_survive_the_change_of_their_key_and_back(engine: Engine) -> None:
    with transaction(engine) as session:
        series = start_experiment(session)
        for hours in (0, 30, 3):
            at = datetime(2026, 3, 2, tzinfo=UTC) + timedelta(hours=hours)
            observe(session.connection(), series, variant="b", n_units=3, values=clicks(2), at=at)
    before = contents(engine)
    for move, to in ((command.downgrade, "0013"), (command.upgrade, "head")):
        with engine.begin() as connection:
            config = Config()
            config.set_main_option("script_location", str(files("migrations")))
            config.attributes["connection"] = connection
            move(config, to)
    assert before["Tally"]
    assert contents(engine) == before


@pytest.mark.parametrize("change", ["UPDATE audit SET actor = 'x'", "DELETE FROM audit"])
def test_the_audit_refuses_changes_in_the_database_itself(engine: Engine, change: str) -> None:
    row = "(at, actor, action, subject, previous_hash, hash)"
    moment = "now()" if engine.dialect.name == "postgresql" else "0"
    with engine.begin() as connection:
        connection.execute(text(f"INSERT INTO audit {row} VALUES ({moment}, 'a', 'b', 'c', '0', '1')"))  # noqa: S608  # ours
    with pytest.raises(DBAPIError, match="append-only"), engine.begin() as connection:
        connection.execute(text(change))
