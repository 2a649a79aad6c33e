"""Ratios and covariates over HTTP, from their definition to what a decision says of them."""

from datetime import timedelta
from typing import Any

import pytest
from sqlmodel import select

from experiments.catalog import lifecycle
from experiments.database import reading, transaction
from experiments.tables import Series
from experiments.tallies.recount import all_series, recount
from experiments.worker import Worker
from tests.api.conftest import EXPERIMENT, Client, assert_problem, pointers

BASKET: dict[str, Any] = {
    "event": "purchase",
    "kind": "ratio",
    "aggregate": "sum",
    "denominator": {"event": "purchase", "aggregate": "count"},
    "currency": "EUR",
    "cap": 500,
}
PATH = "/v1/experiments/subject"


@pytest.fixture
def shop(welcome: Client) -> Client:
    """The placement ``welcome``, the metric ``basket`` and the attribute ``orders``."""
    assert welcome.put("/v1/metrics/basket", BASKET).status_code == 201
    assert welcome.put("/v1/attributes/orders", {"type": "number"}).status_code == 201
    return welcome


def test_a_ratio_is_defined_and_read_as_it_was_defined(shop: Client) -> None:
    body = shop.get("/v1/metrics/basket").get_json()
    assert BASKET.items() <= body.items()
    faults: list[tuple[dict[str, Any], str]] = [
        ({"denominator": None}, "/denominator"),
        ({"kind": "mean"}, "/denominator"),
        ({"aggregate": "mean"}, "/aggregate"),
        ({"denominator": {"event": "purchase", "aggregate": "last"}}, "/denominator/aggregate"),
        ({"denominator": {"aggregate": "sum"}}, "/denominator/event"),
    ]
    for wrong, pointer in faults:
        problem = assert_problem(shop.put("/v1/metrics/wrong", BASKET | wrong), 422, "invalid_definition")
        assert pointer in pointers(problem)


def test_only_a_fixed_experiment_has_a_ratio_as_its_goal(shop: Client) -> None:
    problem = assert_problem(shop.put(PATH, EXPERIMENT | {"goal": "basket"}), 422, "invalid_definition")
    assert pointers(problem) == {"/goal"}
    assert "say the method fixed" in problem["errors"][0]["detail"]
    assert shop.put(PATH, EXPERIMENT | {"goal": "basket", "method": "fixed"}).status_code == 201
    started = shop.post(f"{PATH}/start")
    assert started.status_code == 200, started.text
    assert "say a baseline" in started.get_json()["plan"]["segments"][0]["reason"]


def test_a_covariate_that_cannot_be_is_refused(shop: Client) -> None:
    body = EXPERIMENT | {"covariate": {"attribute": "colour"}}
    problem = assert_problem(shop.put(PATH, body), 422, "invalid_definition")
    assert pointers(problem) == {"/covariate/attribute"}
    body = EXPERIMENT | {"covariate": {"attribute": "orders", "missing": "none"}}
    assert pointers(assert_problem(shop.put(PATH, body), 422, "invalid_definition")) == {"/covariate/missing"}


def test_a_decision_says_what_was_captured_and_both_parts_of_a_ratio(shop: Client, worker: Worker) -> None:
    body = EXPERIMENT | {
        "metrics": ["basket"],
        "guardrails": [{"metric": "basket", "max_harm": 5.0}],
        "covariate": {"attribute": "orders", "missing": 1.5},
    }
    assert shop.put(PATH, body).status_code == 201
    with transaction(worker.engine) as session:
        lifecycle.start(session, "subject", actor="test")
        series = session.exec(select(Series).where(Series.experiment == "subject")).one()
        series.opens_at -= timedelta(seconds=lifecycle.EFFECT_SECONDS)
    worker.snapshots.refresh()
    anna, bob = shop.decide("anna", attributes={"orders": 3}), shop.decide("bob")
    outcomes = [
        {"decision_id": anna["decision_id"], "event": "purchase", "value": 12.5},
        {"customer_id": "anna", "event": "purchase", "value": 2.5},
        {"customer_id": "bob", "event": "purchase"},
    ]
    assert shop.post("/v1/outcomes", {"outcomes": outcomes}).get_json()["statuses"] == {"attributed": 3}
    why = [shop.get(f"/v1/decisions/{one['decision_id']}").get_json() for one in (anna, bob)]
    assert [one["covariate"] for one in why] == [3.0, None]
    said = [
        [(row["metric"], row["n_outcomes"], row["total"], row["denominator"]) for row in one["responses"]]
        for one in why
    ]
    assert said == [[("basket", 2, 15.0, 2.0)], [("basket", 1, 0.0, 1.0)]]
    with reading(worker.engine) as session:
        assert [recount(session, number).differences for number in all_series(session)] == [[], []]


def test_the_description_of_the_api_has_ratios_and_covariates(shop: Client) -> None:
    document = shop.get("/openapi.json").get_json()
    metric, experiment = (
        document["paths"][f"/v1/{kind}/{{key}}"]["put"]["requestBody"]["content"]["application/json"]["schema"]
        for kind in ("metrics", "experiments")
    )
    schemas = document["components"]["schemas"]
    assert {"aggregate", "denominator"} <= metric["properties"].keys()
    assert "ratio" in metric["properties"]["kind"]["enum"]
    assert set(schemas["Denominator"]["properties"]) == {"event", "aggregate"}
    assert "covariate" in experiment["properties"]
    assert set(schemas["Covariate"]["properties"]) == {"attribute", "missing"}
