"""Quotas at the doors, as draft-ietf-httpapi-ratelimit-headers says them."""

import re

import pytest
from flask import Flask

from experiments.access.keys import create_key
from experiments.config import Config
from experiments.database import transaction
from experiments.errors import InvalidInput
from experiments.worker import Worker
from tests.api.conftest import Client

DOOR = "/v1/placements/welcome/decision?customer_id=c"


@pytest.fixture
def config(database_url: str) -> Config:
    return Config(database_url=database_url, workers=1, rate_limit="1000/hour")


def _limited(app: Flask, worker: Worker, rate_limit: str | None) -> Client:
    with transaction(worker.engine) as session:
        _, key = create_key(session, "shop", scopes=["admin"], actor="test", rate_limit=rate_limit)
    return Client(app.test_client(), key)


def test_beyond_its_quota_a_key_is_told_when_to_come_back(welcome: Client, app: Flask, worker: Worker) -> None:
    shop = _limited(app, worker, "3/minute")
    for n_left in (2, 1, 0):
        answer = shop.post("/v1/decisions", {"placement": "welcome", "customer_id": "c"})
        assert answer.status_code == 200
        assert answer.headers["RateLimit-Policy"] == '"default";q=3;w=60'
        assert re.fullmatch(rf'"default";r={n_left};t=(60|59|58|57)', answer.headers["RateLimit"])
    refused = shop.post("/v1/decisions", {"placement": "welcome", "customer_id": "c"})
    assert (refused.status_code, refused.content_type) == (429, "application/problem+json")
    problem = refused.get_json()
    assert problem["type"] == "https://iana.org/assignments/http-problem-types#quota-exceeded"
    assert (problem["code"], problem["violated-policies"]) == ("rate_limited", ["default"])
    assert 50 <= int(refused.headers["Retry-After"]) <= 60
    assert refused.headers["RateLimit"].startswith('"default";r=0;t=')
    assert shop.get("/v1/experiments").status_code == 429
    assert welcome.get("/v1/experiments").status_code == 200


@pytest.mark.usefixtures("welcome")
def test_email_tools_are_answered_all_the_same(app: Flask, worker: Worker) -> None:
    shop = _limited(app, worker, "1/minute")
    for _ in range(3):
        answer = shop.get(DOOR)
        assert (answer.status_code, answer.headers["RateLimit"].split(";t")[0]) == (200, '"default";r=0')
    assert shop.get("/v1/experiments").status_code == 429


@pytest.mark.usefixtures("welcome")
def test_errors_say_what_is_left_too(app: Flask, worker: Worker) -> None:
    shop = _limited(app, worker, "100/minute")
    answer = shop.post("/v1/decisions", {"placement": "welcome"})
    assert (answer.status_code, answer.headers["RateLimit"].split(";t")[0]) == (422, '"default";r=99')


def test_without_a_quota_of_its_own_a_key_has_that_of_the_setting(welcome: Client, app: Flask, worker: Worker) -> None:
    assert welcome.get("/v1/experiments").headers["RateLimit-Policy"] == '"default";q=1000;w=3600'
    unlimited = _limited(app, worker, "off").get("/v1/experiments")
    assert (unlimited.status_code, "RateLimit" in unlimited.headers) == (200, False)


def test_what_is_no_quota_makes_no_key(worker: Worker) -> None:
    with pytest.raises(InvalidInput, match="100/second"), transaction(worker.engine) as session:
        create_key(session, "shop", scopes=["decide"], actor="test", rate_limit="many")
