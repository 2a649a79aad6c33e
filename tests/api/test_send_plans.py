"""Send plans at the doors: what may be said, and what those who wait are answered."""

import csv
import io
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl
import pytest

from experiments.catalog import lifecycle
from experiments.database import transaction
from experiments.tables import Series
from experiments.worker import Worker
from tests.api.conftest import EXPERIMENT, Client, assert_problem, pointers
from tests.experiments.sending import learn, let_pass

PLAN = {"test_share": 0.2, "winner_after_hours": 4, "if_unclear": "control"}


@pytest.fixture
def sending(welcome: Client, worker: Worker) -> Client:
    """A client of a service where a send plan runs on ``welcome``."""
    assert welcome.put("/v1/experiments/send", EXPERIMENT | {"send_plan": PLAN}).status_code == 201
    with transaction(worker.engine) as session:
        changed = lifecycle.start(session, "send", actor="test")
        series = session.get_one(Series, changed.experiment.series)
        series.opens_at = series.created_at
    worker.snapshots.refresh()
    return welcome


def _first(client: Client, source: str) -> dict[str, Any]:
    """The first customer's answer that is of a source; that none of 200 is: 4 in 10**20 at most."""
    return next(one for i in range(200) if (one := client.decide(f"c{i}"))["source"] == source)


def _end_the_test(worker: Worker) -> None:
    """The background process sees the test begin; four hours pass; it finds the winner."""
    learn(worker)
    let_pass(worker, hours=4)
    learn(worker)


@pytest.mark.parametrize(
    ("wrong", "pointer", "value"),
    [
        ({"test_share": 0}, "/send_plan/test_share", "0"),
        ({"test_share": 1}, "/send_plan/test_share", "1"),
        ({"test_share": "20%"}, "/send_plan/test_share", "20%"),
        ({"winner_after_hours": 0}, "/send_plan/winner_after_hours", "0"),
        ({"winner_after_hours": 745}, "/send_plan/winner_after_hours", "745"),
        ({"if_unclear": "guess"}, "/send_plan/if_unclear", "guess"),
        ({"winner": "b"}, "/send_plan/winner", "not a field"),
    ],
)
def test_a_wrong_send_plan_is_refused_with_its_field_and_value(
    welcome: Client, wrong: dict[str, Any], pointer: str, value: str
) -> None:
    answer = welcome.put("/v1/experiments/send", EXPERIMENT | {"send_plan": PLAN | wrong})
    problem = assert_problem(answer, 422, "invalid_definition")
    assert pointers(problem) == {pointer}
    assert value in problem["errors"][0]["detail"]


@pytest.mark.parametrize("wrong", [5, "tomorrow", [], True])
def test_a_send_plan_is_an_object(welcome: Client, wrong: object) -> None:
    answer = welcome.put("/v1/experiments/send", EXPERIMENT | {"send_plan": wrong})
    assert pointers(assert_problem(answer, 422, "invalid_definition")) == {"/send_plan"}


def test_share_and_hours_must_be_said_and_the_rest_has_defaults(welcome: Client) -> None:
    missing = welcome.put("/v1/experiments/send", EXPERIMENT | {"send_plan": {}})
    assert pointers(assert_problem(missing, 422, "invalid_definition")) == {
        "/send_plan/test_share",
        "/send_plan/winner_after_hours",
    }
    plan = {"test_share": 0.5, "winner_after_hours": 0.001}
    assert welcome.put("/v1/experiments/send", EXPERIMENT | {"send_plan": plan}).status_code == 201
    experiment = welcome.get("/v1/experiments/send").get_json()
    assert experiment["send_plan"]["if_unclear"] == "best"
    assert experiment["gates"]["min_days"] == 0
    assert experiment["sending"] is None


def test_gates_of_a_send_are_still_the_analysts(welcome: Client) -> None:
    more = {"send_plan": PLAN, "gates": {"min_days": 2, "probability_best": 0.9}}
    assert welcome.put("/v1/experiments/send", EXPERIMENT | more).status_code == 201
    gates = welcome.get("/v1/experiments/send").get_json()["gates"]
    assert (gates["min_days"], gates["probability_best"]) == (2, 0.9)
    answer = welcome.put("/v1/experiments/other", EXPERIMENT | {"send_plan": PLAN, "gates": 7})
    assert pointers(assert_problem(answer, 422, "invalid_definition")) == {"/gates"}


def test_start_says_the_plan_of_what_is_served(welcome: Client) -> None:
    welcome.put("/v1/experiments/send", EXPERIMENT | {"send_plan": PLAN})
    (line,) = welcome.post("/v1/experiments/send/start", {}).get_json()["now_serving"]
    assert line["weights"] == {"a": 0.5, "b": 0.5}
    assert line["send_plan"] == PLAN | {"begun_at": None, "decide_after": None, "decided_at": None, "winners": {}}


def test_who_waits_is_told_until_when_and_has_no_decision(sending: Client) -> None:
    waits = _first(sending, "waiting")
    due = datetime.fromisoformat(waits.pop("decide_after"))
    assert abs(due - datetime.now(UTC) - timedelta(hours=4)) < timedelta(seconds=30)
    assert waits == {
        "decision_id": None,
        "placement": "welcome",
        "customer_id": waits["customer_id"],
        "segment": "everyone",
        "experiment": "send",
        "variant": "plain",
        "deliver": False,
        "content": {"text": "Welcome!"},
        "source": "waiting",
        "reason": "outside_test",
        "propensity": 1.0,
        "allocation_version": None,
        "recorded": False,
    }


def test_a_preview_of_one_who_waits_says_so(sending: Client) -> None:
    name = _first(sending, "waiting")["customer_id"]
    preview = sending.decide(name, preview=True)
    assert (preview["source"], preview["reason"], preview["recorded"]) == ("preview", "outside_test", False)
    assert sending.decide(name, preview="b")["variant"] == "b"


def test_an_email_tool_that_asks_for_one_who_waits_gets_the_default_to_show(sending: Client) -> None:
    """As text it is about to be sent, so something must be there; as JSON ``deliver`` can be read."""
    name = _first(sending, "waiting")["customer_id"]
    path = f"/v1/placements/welcome/decision?customer_id={name}"
    as_text = sending.get(f"{path}&format=text")
    assert (as_text.status_code, as_text.text) == (200, "Welcome!")
    assert (as_text.headers["X-Decision-Id"], as_text.headers["X-Recorded"]) == ("", "false")
    answer = sending.get(path).get_json()
    assert (answer["source"], answer["deliver"], answer["content"]) == ("waiting", False, {"text": "Welcome!"})


def test_a_list_has_those_who_wait_in_their_places_and_later_the_winner(sending: Client, worker: Worker) -> None:
    batch = {"placement": "welcome", "items": [{"customer_id": f"c{i}"} for i in range(100)]}
    first = sending.post("/v1/decisions/batch", batch).get_json()["decisions"]
    assert [one["customer_id"] for one in first] == [f"c{i}" for i in range(100)]
    assert {one["source"] for one in first} == {"experiment", "waiting"}
    _end_the_test(worker)
    second = sending.post("/v1/decisions/batch", batch).get_json()["decisions"]
    for before, after in zip(first, second, strict=True):
        if before["source"] == "experiment":
            assert after == before
        else:
            expected = ("experiment", "a", 1.0, True, None)
            read = ("source", "variant", "propensity", "recorded", "decide_after")
            assert tuple(after[name] for name in read) == expected
    experiment = sending.get("/v1/experiments/send").get_json()
    assert experiment["sending"]["winners"] == {"everyone": {"variant": "a", "why": "control"}}


def test_a_send_with_its_winner_takes_no_variant_and_is_not_promoted(sending: Client, worker: Worker) -> None:
    _first(sending, "experiment")
    _end_the_test(worker)
    added = sending.post("/v1/experiments/send/variants", {"key": "c", "content": {"text": "More"}})
    assert_problem(added, 409, "send_plan_decided")
    promoted = sending.post("/v1/experiments/send/promote", {"segments": {"everyone": "a"}, "reason": "it won"})
    assert pointers(assert_problem(promoted, 409, "promotion_refused")) == {"/force"}


def test_a_list_as_a_table_says_until_when_its_rows_wait(sending: Client) -> None:
    data = "customer_id\n" + "".join(f"c{i}\n" for i in range(100))
    door = "/v1/decisions/batch?placement=welcome"
    as_csv = {"Content-Type": "text/csv", "Accept": "text/csv"}
    rows = list(csv.DictReader(io.StringIO(sending.post(door, data=data, headers=as_csv).text)))[:100]
    assert {row["source"] for row in rows} == {"experiment", "waiting"}
    for row in rows:
        assert (row["decide_after"] != "") == (row["source"] == "waiting")
        assert not row["decide_after"] or datetime.fromisoformat(row["decide_after"]) > datetime.now(UTC)
    as_parquet = {"Content-Type": "text/csv", "Accept": "application/vnd.apache.parquet"}
    with closing(sending.post(door, data=data, headers=as_parquet)) as answer:
        frame = pl.read_parquet(io.BytesIO(answer.data))
    waits = frame.filter(pl.col("source") == "waiting")
    assert waits["decide_after"].null_count() == 0
    assert waits.height == sum(row["source"] == "waiting" for row in rows)
