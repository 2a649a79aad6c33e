"""The real server, for real clients: one for all of them, on a SQLite file, with a placement that splits evenly."""

import shutil
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import timedelta

import pytest
from sqlalchemy import Engine
from sqlmodel import select

from experiments.access.keys import create_key
from experiments.catalog.definition_store import put_placement
from experiments.catalog.experiment_store import put_experiment
from experiments.catalog.lifecycle import EFFECT_SECONDS, start
from experiments.database import open_engine, transaction
from experiments.tables import Series
from tests.server import Client, Server, serving

ACTOR = "test"
PLACEMENT = "hero"
_PLACEMENT = {
    "holdout": {"share": 0.0},
    "default": {"key": "plain", "content": {"text": "Welcome"}},
}
_EXPERIMENT = {
    "placement": PLACEMENT,
    "goal": "click",
    "metrics": ["revenue"],
    "variants": [
        {"key": "a", "content": {"text": "Hi"}, "is_control": True},
        {"key": "b", "content": {"text": "A gift"}},
    ],
}


@dataclass(frozen=True)
class Service:
    """A running service. ``key`` may do all; ``engine`` is on its database."""

    server: Server
    engine: Engine
    key: str

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.server.port}"

    def client(self) -> "closing[Client]":
        """A plain client with the key."""
        return closing(Client(self.server.port, self.key))


@pytest.fixture(scope="session")
def service(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service whose placement ``hero`` has the experiment ``exp`` of variants ``a`` (control) and ``b``."""
    folder = tmp_path_factory.mktemp("clients")
    path = folder / "service.db"
    shutil.copyfile(request.getfixturevalue("sqlite_template"), path)
    engine = open_engine(f"sqlite:///{path}")
    with transaction(engine) as session:
        put_placement(session, PLACEMENT, payload=_PLACEMENT, actor=ACTOR)
        put_experiment(session, "exp", payload=_EXPERIMENT, actor=ACTOR)
        start(session, "exp", actor=ACTOR)
        series = session.exec(select(Series).where(Series.experiment == "exp")).one()
        series.opens_at -= timedelta(seconds=EFFECT_SECONDS)  # a fast server is there before that
        _, key = create_key(session, "client", scopes=["admin"], actor=ACTOR)
    with serving(f"sqlite:///{path}", folder, n_workers=1) as server:
        yield Service(server, engine, key)
    engine.dispose()
