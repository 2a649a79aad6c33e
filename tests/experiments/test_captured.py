"""Covariates from an experiment's definition to the decision's row: what may be one, and what is captured of whom."""

from collections.abc import Iterator
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import Engine
from sqlmodel import Session, select

from experiments.catalog import definition_store, lifecycle
from experiments.config import Config
from experiments.database import reading, transaction
from experiments.errors import InvalidDefinition
from experiments.series import PinnedCovariate
from experiments.tables import Decision, Series, TallyCovariate
from experiments.tallies.recount import all_series, recount
from experiments.worker import Worker
from tests.experiments.shop import ACTOR, PLACEMENT, put_experiment, put_shop

RATIO = {"event": "purchase", "kind": "ratio", "denominator": {"event": "purchase"}}


def put_attribute(session: Session, key: str, **payload: Any) -> None:
    """Declare an attribute."""
    definition_store.put_attribute(session, key, payload=payload, actor=ACTOR)


@pytest.fixture
def shop(session: Session) -> Session:
    put_shop(session)
    put_attribute(session, "orders", type="number")
    put_attribute(session, "member", type="boolean")
    put_attribute(session, "secret", type="number", stored=False)
    return session


@pytest.mark.parametrize(
    ("attribute", "detail"),
    [
        ("age", "there is no attribute 'age'"),
        ("country", "must be of type number or boolean, and 'country' is of type string"),
        ("secret", "must be stored with decisions, and 'secret' is declared not to be"),
    ],
)
def test_a_covariate_is_a_stored_number_or_boolean(shop: Session, attribute: str, detail: str) -> None:
    with pytest.raises(InvalidDefinition) as refused:
        put_experiment(shop, covariate={"attribute": attribute})
    assert [(one.pointer, one.detail) for one in refused.value.fields] == [("/covariate/attribute", detail)]


def test_what_makes_a_covariate_impossible_since_it_was_defined_is_found_at_the_start(shop: Session) -> None:
    put_experiment(shop, covariate={"attribute": "orders"})
    put_attribute(shop, "orders", type="string")
    with pytest.raises(InvalidDefinition):
        lifecycle.start(shop, "subject-1", actor=ACTOR)


def test_starting_pins_the_covariate_whole_and_for_the_experiment_alone(shop: Session) -> None:
    put_experiment(shop, covariate={"attribute": "member", "missing": 0.25})
    lifecycle.start(shop, "subject-1", actor=ACTOR)
    pinned = {row.kind: row.covariate for row in shop.exec(select(Series))}
    assert pinned == {"experiment": {"attribute": "member", "missing": 0.25}, "programme": None}


@pytest.mark.parametrize(
    ("change", "pointer"), [({"type": "string"}, "/type"), ({"type": "number", "stored": False}, "/stored")]
)
def test_the_covariate_of_an_experiment_that_goes_on_stays_one(
    shop: Session, change: dict[str, Any], pointer: str
) -> None:
    put_experiment(shop, covariate={"attribute": "orders"})
    lifecycle.start(shop, "subject-1", actor=ACTOR)
    lifecycle.pause(shop, "subject-1", actor=ACTOR)
    with pytest.raises(InvalidDefinition, match="covariate of the experiment 'subject-1'") as refused:
        put_attribute(shop, "orders", **change)
    assert [one.pointer for one in refused.value.fields] == [pointer]
    lifecycle.conclude(shop, "subject-1", actor=ACTOR)
    put_attribute(shop, "orders", **change)


@pytest.mark.parametrize(("method", "is_refused"), [("thompson", True), ("top_two", True), ("fixed", False)])
def test_no_weights_are_learnt_from_a_ratio(shop: Session, method: str, is_refused: bool) -> None:  # noqa: FBT001  # a parameter
    definition_store.put_metric(shop, "basket", payload=RATIO, actor=ACTOR)
    put_experiment(shop, "other", metrics=["basket"], guardrails=[{"metric": "basket", "max_harm": 1.0}])
    if not is_refused:
        put_experiment(shop, goal="basket", method=method)
        lifecycle.start(shop, "subject-1", actor=ACTOR)
        return
    with pytest.raises(InvalidDefinition) as refused:
        put_experiment(shop, goal="basket", method=method)
    (wrong,) = refused.value.fields
    assert wrong.pointer == "/goal"
    assert wrong.detail.startswith("'basket' is a ratio, from which no weights are learnt")


def test_a_goal_that_became_a_ratio_is_found_at_the_start(shop: Session) -> None:
    put_experiment(shop)
    definition_store.put_metric(shop, "click", payload=RATIO, actor=ACTOR)
    with pytest.raises(InvalidDefinition):
        lifecycle.start(shop, "subject-1", actor=ACTOR)


@pytest.mark.parametrize(
    ("value", "captured"),
    [
        (3, 3.0),
        (-0.125, -0.125),
        (True, 1.0),
        (False, 0.0),
        (10**15, 1e12),
        (-1e300, -1e12),
        (None, None),
        ("7", None),
    ],
)
def test_numbers_are_captured_within_bounds_and_booleans_as_0_or_1(value: object, captured: float | None) -> None:
    found = PinnedCovariate("orders", Decimal(0)).of({"orders": value})
    assert found == captured
    assert found is None or isinstance(found, float)


def test_the_constant_for_missing_values_has_the_digits_of_its_definition() -> None:
    pinned = PinnedCovariate.from_json({"attribute": "orders", "missing": 0.1})
    assert pinned is not None
    assert (pinned.counted(None), pinned.counted(0.2)) == (Decimal("0.1"), Decimal("0.2"))


@pytest.fixture
def worker(engine: Engine) -> Iterator[Worker]:
    """A running experiment on ``welcome-subject`` with the covariate ``orders``, 9 standing for none."""
    with transaction(engine) as session:
        put_shop(session)
        open_to_all = PLACEMENT | {"holdout": {"share": 0.0}}
        definition_store.put_placement(session, "welcome-subject", payload=open_to_all, actor=ACTOR)
        put_attribute(session, "orders", type="number")
        put_experiment(session, unit="customer", segments=None, covariate={"attribute": "orders", "missing": 9.0})
        lifecycle.start(session, "subject-1", actor=ACTOR)
        series = session.exec(select(Series).where(Series.experiment == "subject-1")).one()
        series.opens_at -= timedelta(seconds=lifecycle.EFFECT_SECONDS)
    worker = Worker(Config(database_url=engine.url.render_as_string(hide_password=False)), shard=1)
    worker.start()
    yield worker
    worker.close()
    with reading(engine) as session:
        for number in all_series(session):
            assert recount(session, number).differences == []


def test_the_first_decision_captures_a_units_covariate(worker: Worker) -> None:
    """By hand: 4, -0.5 and twice the constant 9."""
    asked: list[tuple[str, dict[str, object], bool]] = [
        ("anna", {"orders": 4}, False),
        ("anna", {"orders": 5}, False),
        ("bob", {}, False),
        ("carl", {"orders": "-0.5"}, True),
        ("dora", {"orders": "many"}, True),
    ]
    for customer, attributes, text in asked:
        one = worker.decider.ask(customer, attributes=attributes, text=text)
        (decided,) = worker.decider.decide(one, ["welcome-subject"])
        assert decided.source == "experiment"
    with reading(worker.engine) as session:
        number = session.exec(select(Series.number).where(Series.kind == "experiment")).one()
        found = {row.customer_id: row.covariate for row in session.exec(select(Decision))}
        tallies = session.exec(select(TallyCovariate)).all()
    assert found == {"anna": 4.0, "bob": None, "carl": -0.5, "dora": None}
    assert {row.series for row in tallies} == {number}
    assert sum(row.n_missing for row in tallies) == 2
    assert sum(row.total for row in tallies) == Decimal("21.5")
    assert sum(row.total_squares for row in tallies) == Decimal("178.25")
