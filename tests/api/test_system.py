"""For operators and programmers: health, metrics, documentation."""

import re

from flask import Flask
from openapi_spec_validator import validate

from tests.api.conftest import Client


def test_it_is_alive_and_ready(app: Flask) -> None:
    client = app.test_client()
    assert client.get("/healthz").get_json() == {"status": "ok"}
    ready = client.get("/readyz")
    assert (ready.status_code, ready.get_json()["checks"]) == (
        200,
        {"database": "ok", "snapshot": "ok", "journal": "ok"},
    )


def test_metrics_count_decisions_and_outcomes(running: Client) -> None:
    def read(name: str) -> float:
        found = re.search(rf"^{re.escape(name)} (\S+)$", running.get("/metrics").text, re.MULTILINE)
        return float(found.group(1)) if found else 0.0

    decisions, outcomes = 'decisions_total{placement="welcome",source="experiment"}', 'outcomes_total{status="waiting"}'
    before = read(decisions), read(outcomes)
    running.decide("c1")
    running.post("/v1/outcomes", {"customer_id": "c2", "event": "click"})
    assert (read(decisions), read(outcomes)) == (before[0] + 1, before[1] + 1)
    assert read("snapshot_age_seconds") < 5
    text = running.get("/metrics").text
    assert 'route="/v1/decisions"' in text
    assert "c1" not in re.findall(r'="([^"]*)"', text)


def test_the_documentation_is_valid_and_has_every_door(app: Flask) -> None:
    document = app.test_client().get("/openapi.json").get_json()
    validate(document)
    assert document["openapi"].startswith("3.1")
    described = {(path, method.upper()) for path, methods in document["paths"].items() for method in methods}
    served = {
        (re.sub(r"<(?:path:)?(\w+)>", r"{\1}", rule.rule), method)
        for rule in app.url_map.iter_rules()
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
        if not rule.rule.startswith(("/docs", "/openapi"))
    }
    assert described == served


def test_every_documented_body_is_one_that_the_door_knows(app: Flask) -> None:
    paths = app.test_client().get("/openapi.json").get_json()["paths"]
    without = {
        path
        for path, methods in paths.items()
        for method, said in methods.items()
        if method in {"put", "post", "patch"} and "requestBody" not in said
    }
    assert without == set()


def test_the_documentation_says_what_a_name_alone_does_not(app: Flask) -> None:
    schemas = app.test_client().get("/openapi.json").get_json()["components"]["schemas"]
    bodies = app.test_client().get("/openapi.json").get_json()["paths"]
    decision = bodies["/v1/decisions"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert "nothing is recorded" in decision["properties"]["preview"]["description"]
    assert "not compared" in schemas["OutcomeReport"]["properties"]["customer_id"]["description"]


def test_the_documentation_asks_no_other_host(app: Flask) -> None:
    client = app.test_client()
    page = client.get("/docs").text
    assert re.findall(r"https?://", page) == []
    for path in re.findall(r'(?:src|href)="([^"]+)"', page):
        with client.get(path) as file:
            assert file.status_code == 200, path
