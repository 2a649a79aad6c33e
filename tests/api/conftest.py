"""The service in this process, on both databases: a worker, its app, and a client with a key that may do all."""

from collections.abc import Iterator
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from api.app import create_app
from api.state import give_worker
from experiments.access.keys import create_key
from experiments.catalog import lifecycle
from experiments.config import Config
from experiments.database import transaction
from experiments.tables import Series
from experiments.worker import Worker

PLACEMENT = {
    "channel": "email",
    "format": "text",
    "holdout": {"share": 0.0},
    "default": {"key": "plain", "content": {"text": "Welcome!"}},
}
EXPERIMENT = {
    "placement": "welcome",
    "goal": "click",
    "variants": [
        {"key": "a", "content": {"text": "Hi {{ first_name | default('there') }}"}, "is_control": True},
        {"key": "b", "content": {"text": "A gift inside"}},
    ],
}


class Client:
    """Asks with a key; without one if it is None."""

    def __init__(self, client: FlaskClient, key: str | None) -> None:
        self.flask = client
        self.key = key

    def ask(self, method: str, path: str, **more: Any) -> TestResponse:
        """A request; ``headers`` beside the key's, ``json`` or ``data`` as Flask's test client takes them."""
        headers = dict(more.pop("headers", {}))
        if self.key is not None:
            headers["Authorization"] = f"Bearer {self.key}"
        return self.flask.open(path, method=method, headers=headers, **more)

    def get(self, path: str, **more: Any) -> TestResponse:
        """Read."""
        return self.ask("GET", path, **more)

    def put(self, path: str, body: object, **more: Any) -> TestResponse:
        """Define."""
        return self.ask("PUT", path, json=body, **more)

    def post(self, path: str, body: object = None, **more: Any) -> TestResponse:
        """Do."""
        return self.ask("POST", path, json=body, **more) if body is not None else self.ask("POST", path, **more)

    def decide(self, customer_id: str, **more: Any) -> dict[str, Any]:
        """A decision on the placement ``welcome``."""
        answer = self.post("/v1/decisions", {"placement": "welcome", "customer_id": customer_id} | more)
        assert answer.status_code == 200, answer.text
        return dict(answer.get_json())


@pytest.fixture
def config(database_url: str) -> Config:
    return Config(database_url=database_url)


@pytest.fixture
def worker(config: Config) -> Iterator[Worker]:
    worker = Worker(config, shard=1)
    worker.start()
    yield worker
    worker.close()


@pytest.fixture(scope="session")
def apps() -> dict[int, Flask]:
    """Apps by their largest body, made once: only their worker is another in each test."""
    return {}


@pytest.fixture
def app(config: Config, worker: Worker, apps: dict[int, Flask]) -> Flask:
    app = apps.get(config.max_body_bytes)
    if app is None:
        app = apps[config.max_body_bytes] = create_app(config, worker)
    give_worker(app, worker)
    return app


def make_key(worker: Worker, *scopes: str, name: str = "test") -> str:
    """A key with some scopes."""
    with transaction(worker.engine) as session:
        _, secret = create_key(session, name, scopes=scopes, actor="test")
    return secret


@pytest.fixture
def client(app: Flask, worker: Worker) -> Client:
    return Client(app.test_client(), make_key(worker, "admin"))


@pytest.fixture
def welcome(client: Client) -> Client:
    """A client of a service with the placement ``welcome``."""
    assert client.put("/v1/placements/welcome", PLACEMENT).status_code == 201
    return client


@pytest.fixture
def running(welcome: Client, worker: Worker) -> Client:
    """A client of a service where the experiment ``subject`` runs on ``welcome``."""
    start_now(welcome, worker, EXPERIMENT)
    return welcome


def start_now(client: Client, worker: Worker, definition: dict[str, Any]) -> None:
    """Define and start the experiment ``subject``, in effect at once."""
    assert client.put("/v1/experiments/subject", definition).status_code == 201
    with transaction(worker.engine) as session:
        changed = lifecycle.start(session, "subject", actor="test")
        series = session.get_one(Series, changed.experiment.series)
        series.opens_at = series.created_at  # so that the test needn't wait until it is in effect everywhere
    worker.snapshots.refresh()


def assert_problem(answer: TestResponse, status: int, code: str) -> dict[str, Any]:
    """Assert that an answer is an RFC 9457 problem, and return it."""
    assert (answer.status_code, answer.content_type) == (status, "application/problem+json"), answer.text
    problem = dict(answer.get_json())
    assert problem["status"] == status
    assert problem["code"] == code
    assert problem["type"] == f"/problems/{code}"
    assert {"title", "detail", "instance"} <= problem.keys()
    return problem


def pointers(problem: dict[str, Any]) -> set[str]:
    """The places that a problem names."""
    return {error["pointer"] for error in problem["errors"]}
