"""Every error is a problem, and tells no secrets."""

import pkgutil
from importlib import import_module

import pytest
from flask import Flask
from sqlalchemy import text

import experiments
from api.app import create_app
from api.errors import STATUS
from experiments.config import Config
from experiments.errors import ExperimentsError
from experiments.worker import Worker
from tests.api.conftest import Client, assert_problem


def _below(kind: type[ExperimentsError]) -> set[type[ExperimentsError]]:
    return {kind}.union(*(_below(one) for one in kind.__subclasses__()))


def test_every_error_of_the_domain_has_a_status() -> None:
    for module in pkgutil.walk_packages(experiments.__path__, "experiments."):
        if not module.name.endswith("__main__"):
            import_module(module.name)
    assert {kind.__name__ for kind in _below(ExperimentsError) - STATUS.keys()} == set()


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/nothing", 404, "not_found"),
        ("GET", "//readyz", 404, "not_found"),
        ("DELETE", "/v1/decisions", 405, "method_not_allowed"),
        ("BREW", "/healthz", 405, "method_not_allowed"),
        ("GET", "/problems/none", 404, "not_found"),
    ],
)
def test_flasks_own_errors_are_problems(app: Flask, method: str, path: str, status: int, code: str) -> None:
    answer = app.test_client().open(path, method=method)
    assert_problem(answer, status, code)
    assert (status != 405) or answer.headers["Allow"]


def test_a_problem_names_its_request(app: Flask) -> None:
    client = app.test_client()
    answer = client.get("/nothing", headers={"X-Request-Id": "abc-1"})
    assert answer.get_json()["instance"] == "urn:request:abc-1"
    assert answer.headers["X-Request-Id"] == "abc-1"
    insane = client.get("/nothing", headers={"X-Request-Id": "a b"})
    assert insane.headers["X-Request-Id"] not in {"a b", ""}


def test_the_type_of_a_problem_says_what_it_means(app: Flask) -> None:
    client = app.test_client()
    meaning = client.get(client.get("/v1/experiments").get_json()["type"]).get_json()
    assert (meaning["code"], meaning["status"]) == ("unauthenticated", 401)


def test_an_unexpected_error_tells_nothing(config: Config, worker: Worker, capsys: pytest.CaptureFixture[str]) -> None:
    app, customer = create_app(config, worker), "Ada Lovelace"

    def broken() -> str:
        raise RuntimeError(customer)

    app.add_url_rule("/broken", view_func=broken)
    answer = app.test_client().get("/broken")
    assert_problem(answer, 500, "internal_error")
    assert customer not in answer.text
    assert customer not in "".join(capsys.readouterr())


def test_without_its_tables_the_service_says_so_without_the_drivers_text(client: Client, worker: Worker) -> None:
    with worker.engine.begin() as connection:
        connection.execute(text("ALTER TABLE audit RENAME TO elsewhere"))
    answer = client.get("/v1/audit")
    assert answer.status_code in {500, 503}
    assert answer.content_type == "application/problem+json"
    assert "audit" not in answer.get_json()["detail"]


def test_a_closed_journal_answers_503_with_retry_after(welcome: Client, worker: Worker) -> None:
    worker.journal.close()
    answer = welcome.post("/v1/decisions", {"placement": "welcome", "customer_id": "c"})
    assert_problem(answer, 503, "busy")
    assert int(answer.headers["Retry-After"]) >= 1
    in_haste = welcome.get("/v1/placements/welcome/decision?customer_id=c")
    assert (in_haste.status_code, in_haste.get_json()["recorded"]) == (200, False)
    assert welcome.flask.get("/readyz").status_code == 503
