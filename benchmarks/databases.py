"""Databases of both kinds for the servers to be measured: one of each is built, the others are copies of it."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psycopg

from benchmarks import world
from tests import postgres

SQLITE: Final = "SQLite"
POSTGRESQL: Final = "PostgreSQL"
_TEMPLATE: Final = "built"


@dataclass(frozen=True, slots=True)
class Databases:
    """The built databases; ``keys`` are the API keys that all copies know."""

    folder: Path
    server: postgres.PostgresServer
    keys: dict[str, str]

    def copy(self, kind: str, name: str, *, empty: bool = False) -> str:
        """URL of a database of its own, with everything defined in it, or with nothing at all."""
        if kind == SQLITE:
            path = self.folder / f"{name}.db"
            if not empty:
                shutil.copyfile(self.folder / f"{_TEMPLATE}.db", path)
            return f"sqlite:///{path}"
        with _administrator(self.server) as connection:
            template = "template1" if empty else _TEMPLATE
            connection.execute(f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY file_copy")
        return self.server.url(name)


@contextmanager
def databases(folder: Path, *, n_preloaded: int) -> Iterator[Databases]:
    """Build them in a new folder, which is removed at the end; both kinds are durable."""
    guard = postgres.guard(folder)
    try:
        server = postgres.start(folder / "data")
        built = Databases(folder, server, keys={})
        for kind in (SQLITE, POSTGRESQL):
            url = built.copy(kind, _TEMPLATE, empty=True)
            built.keys[kind] = world.build(url, n_preloaded=n_preloaded)
        yield built
    finally:
        guard.communicate()


@contextmanager
def _administrator(server: postgres.PostgresServer) -> Iterator[psycopg.Connection]:
    host = str(server.socket_folder)
    with psycopg.connect(host=host, user="postgres", dbname="postgres", autocommit=True) as connection:
        yield connection
