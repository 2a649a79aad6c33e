"""Keys and scopes at the doors."""

import base64
from datetime import timedelta

import pytest
from flask import Flask

from experiments.access.keys import create_key, revoke_key
from experiments.database import database_now, transaction
from experiments.worker import Worker
from tests.api.conftest import Client, assert_problem, make_key

DOOR = "/v1/placements/welcome/decision?customer_id=c"


def _basic(user: str, password: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}


def test_a_key_can_come_in_every_way_that_tools_know(welcome: Client) -> None:
    key = welcome.key or ""
    for headers in (
        {"Authorization": f"Bearer {key}"},
        {"Authorization": f"bearer {key}"},
        {"X-API-Key": key},
        _basic(key, ""),
        _basic("anyone", key),
    ):
        assert welcome.flask.get(DOOR, headers=headers).status_code == 200, headers


def test_without_a_key_that_works_nothing_is_told(welcome: Client) -> None:
    key = welcome.key or ""
    for headers in (
        {},
        {"Authorization": ""},
        {"Authorization": "Bearer"},
        {"Authorization": f"Bearer {key[:-1]}"},
        {"Authorization": f"Bearer {key}x"},
        {"Authorization": "Bearer opt_none_none"},
        {"Authorization": f"Digest {key}"},
        {"X-API-Key": "x" * 10_000},
        {"X-API-Key": "é"},
        _basic("anyone", "wrong"),
    ):
        answer = welcome.flask.get(DOOR, headers=headers)
        assert_problem(answer, 401, "unauthenticated")
        assert "Bearer" in answer.headers["WWW-Authenticate"]
    broken = welcome.flask.get(DOOR, headers={"Authorization": "Basic !"})
    assert_problem(broken, 400, "invalid_header")


@pytest.mark.parametrize(
    ("method", "path", "scope"),
    [
        ("POST", "/v1/decisions", "decide"),
        ("POST", "/v1/decisions/batch", "decide"),
        ("GET", DOOR, "decide"),
        ("GET", "/v1/placements/welcome/best", "decide"),
        ("POST", "/v1/outcomes", "record"),
        ("GET", "/v1/experiments", "analyse"),
        ("GET", "/v1/audit", "analyse"),
        ("GET", "/metrics", "analyse"),
        ("POST", "/v1/experiments/e/promote", "analyse"),
        ("PUT", "/v1/placements/welcome", "admin"),
        ("POST", "/v1/experiments/e/start", "admin"),
    ],
)
def test_a_key_without_the_scope_is_told_which_is_missing(
    app: Flask, worker: Worker, method: str, path: str, scope: str
) -> None:
    others = {"decide", "record", "analyse"} - {scope}
    client = Client(app.test_client(), make_key(worker, *others))
    problem = assert_problem(client.ask(method, path), 403, "missing_scope")
    assert f"'{scope}'" in problem["detail"]


def test_an_expired_or_revoked_key_does_not_work(app: Flask, worker: Worker) -> None:
    with transaction(worker.engine) as session:
        soon = database_now(session) + timedelta(seconds=0.5)
        _, expiring = create_key(session, "expiring", scopes=["admin"], actor="test", expires_at=soon)
        row, revoked = create_key(session, "revoked", scopes=["admin"], actor="test")
        revoke_key(session, row.id, actor="test")
    client = app.test_client()
    assert_problem(client.get("/v1/experiments", headers={"X-API-Key": revoked}), 401, "unauthenticated")
    while worker.snapshots.now() < soon:
        pass
    assert_problem(client.get("/v1/experiments", headers={"X-API-Key": expiring}), 401, "unauthenticated")


def test_the_audit_names_the_key(app: Flask, worker: Worker) -> None:
    client = Client(app.test_client(), make_key(worker, "admin", name="ann"))
    client.put("/v1/attributes/age", {"type": "number"})
    assert client.get("/v1/audit?limit=1").get_json()["items"][0]["actor"] == "key/ann"
