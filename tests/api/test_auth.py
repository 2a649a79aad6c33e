"""Keys and scopes at the doors."""

import base64
from datetime import timedelta

import pytest
from flask import Flask
from werkzeug.test import EnvironBuilder

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


def test_a_key_that_can_only_decide_may_come_in_the_address_of_the_email_door(
    welcome: Client, worker: Worker, capfd: pytest.CaptureFixture[str]
) -> None:
    key, flask = make_key(worker, "decide", name="ampscript"), welcome.flask
    assert flask.get(f"{DOOR}&key={key}").status_code == 200
    assert flask.get(f"{DOOR}&key={key}", headers={"Authorization": "Bearer wrong"}).status_code == 401
    assert_problem(flask.get(f"/v1/placements/welcome/best?key={key}"), 401, "unauthenticated")
    assert_problem(flask.post(f"/v1/decisions?key={key}"), 401, "unauthenticated")
    assert_problem(flask.get(f"{DOOR}&key={key[:-1]}"), 401, "unauthenticated")
    assert_problem(flask.get(f"{DOOR}&key="), 401, "unauthenticated")
    for scopes in (("decide", "record"), ("admin",), ("analyse",)):
        other = make_key(worker, *scopes, name="-".join(scopes))
        assert_problem(flask.get(f"{DOOR}&key={other}"), 403, "key_in_address")
        assert flask.get(f"{DOOR}&key={other}").headers["Cache-Control"] == "private, no-store"
    assert key[-64:] not in "".join(capfd.readouterr())


def test_a_key_in_the_address_is_gone_before_anything_could_log_it(welcome: Client, worker: Worker) -> None:
    key = make_key(worker, "decide", name="ampscript")
    for query in (f"key={key}&customer_id=c", f"customer_id=c&key={key}", f"customer_id=c&key={key}&key={key}"):
        environ = EnvironBuilder("/v1/placements/welcome/decision", query_string=query).get_environ()
        environ |= {"RAW_URI": f"/v1/placements/welcome/decision?{query}"}
        body = b"".join(welcome.flask.application(environ, lambda *_: lambda _: None))
        assert b'"customer_id":"c"' in body, query
        assert key not in str({name: environ[name] for name in ("QUERY_STRING", "RAW_URI", "REQUEST_URI")})


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
