"""Send plans, through a real worker and real passes of the background process, on both databases."""

from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from scipy.stats import binomtest
from sqlalchemy import Engine
from sqlmodel import col, func, select

from experiments.catalog import lifecycle
from experiments.catalog.experiment_store import get_experiment
from experiments.catalog.serving import now_serving
from experiments.catalog.variants import append_variant
from experiments.config import Config
from experiments.database import reading, transaction
from experiments.decide import Decided
from experiments.decisions.best import best_variants
from experiments.decisions.why import explain
from experiments.errors import PromotionRefused
from experiments.learning.allocations import newest_allocations
from experiments.promote.promotion import promote
from experiments.review.results import results
from experiments.send_plans.errors import SendPlanDecided
from experiments.tables import Allocation, Audit, Decision, Series
from experiments.tallies.recount import all_series, recount
from experiments.worker import Worker
from tests.experiments.sending import PLAN, click, decide, learn, let_pass, put_placement, series_of, start

CUSTOMERS = [f"c{i}" for i in range(1_000)]
CLEAR = {"a": 0.28, "b": 0.7}  # not proven in 3 of 10,000 tests: under 20 clicks of a, or of b's units without


@pytest.fixture
def worker(engine: Engine) -> Iterator[Worker]:
    with transaction(engine) as session:
        put_placement(session)
    worker = Worker(Config(database_url=engine.url.render_as_string(hide_password=False)), shard=1)
    worker.start()
    yield worker
    worker.close()
    with reading(engine) as session:
        for number in all_series(session):
            assert recount(session, number).differences == []


def _tested(decided: dict[str, Decided]) -> dict[str, Decided]:
    return {key: one for key, one in decided.items() if one.source == "experiment"}


def _test(worker: Worker, *, clicks: dict[str, float], **changes: Any) -> dict[str, Decided]:
    """Run the test of a send to its end; of the units of each variant this share clicks."""
    start(worker, **changes)
    first = decide(worker, CUSTOMERS)
    _click_shares(worker, _tested(first), clicks=clicks)
    learn(worker)
    let_pass(worker, hours=4)
    learn(worker)
    return first


def _click_shares(worker: Worker, tested: dict[str, Decided], *, clicks: dict[str, float]) -> None:
    for variant, share in clicks.items():
        own = [one for one in tested.values() if one.variant == variant]
        click(worker, own[: round(share * len(own))])


def _winners(worker: Worker) -> dict[str, Any]:
    with reading(worker.engine) as session:
        winners: dict[str, Any] = series_of(session).send_plan["winners"]
    return winners


def test_the_test_share_gets_variants_and_the_rest_waits_unrecorded(worker: Worker) -> None:
    """False alarm: 2 in 10**6."""
    start(worker)
    decided = decide(worker, CUSTOMERS)
    tested = _tested(decided)
    assert binomtest(len(tested), 1_000, 0.2).pvalue > 1e-6
    split = Counter(one.variant for one in tested.values())
    assert binomtest(split["a"], len(tested), 0.5).pvalue > 1e-6
    assert {one.propensity for one in tested.values()} == {0.5}
    waiting = [one for one in decided.values() if one.source != "experiment"]
    assert {one.source for one in waiting} == {"waiting"}
    assert {(one.reason, one.decision_id, one.recorded, one.deliver) for one in waiting} == {
        ("outside_test", None, False, False)
    }
    assert {(one.variant, one.content["text"], one.experiment) for one in waiting} == {("plain", "Welcome", "send")}
    with reading(worker.engine) as session:
        assert session.exec(select(func.count()).select_from(Decision)).one() == len(tested)


def test_the_clock_starts_at_the_first_decision_of_the_test(worker: Worker) -> None:
    start(worker)
    before = datetime.now(UTC)
    decided = decide(worker, CUSTOMERS[:100])
    after = datetime.now(UTC)
    waits = next(one for one in decided.values() if one.source == "waiting")
    assert waits.decide_after is not None
    assert before + timedelta(hours=4) <= waits.decide_after + timedelta(seconds=1)
    learn(worker)
    (again,) = decide(worker, [waits.customer_id]).values()
    with reading(worker.engine) as session:
        first = session.exec(select(func.min(Decision.decided_at))).one()
        assert before - timedelta(seconds=1) <= first <= after + timedelta(seconds=1)
    assert again.decide_after is not None
    assert abs(again.decide_after - first - timedelta(hours=4)) < timedelta(microseconds=10)
    let_pass(worker, hours=1)
    learn(worker)  # writes nothing: the clock is started once
    (later,) = decide(worker, [waits.customer_id]).values()
    assert later.decide_after is not None
    assert abs(later.decide_after - again.decide_after + timedelta(hours=1)) < timedelta(microseconds=10)


def test_a_send_that_nobody_was_decided_for_has_not_begun(worker: Worker) -> None:
    start(worker)
    learn(worker)
    with reading(worker.engine) as session:
        assert series_of(session).send_plan["begun_at"] is None


def test_once_it_is_due_those_who_waited_get_the_winner_and_the_tested_keep_theirs(worker: Worker) -> None:
    first = _test(worker, clicks=CLEAR)
    assert _winners(worker)["others"] == {"variant": "b", "why": "clear"}
    second = decide(worker, CUSTOMERS)
    tested = _tested(first)
    assert {key: second[key].variant for key in tested} == {key: one.variant for key, one in tested.items()}
    rest = [one for key, one in second.items() if key not in tested]
    assert {(one.source, one.variant, one.propensity, one.recorded, one.deliver) for one in rest} == {
        ("experiment", "b", 1.0, True, True)
    }
    with reading(worker.engine) as session:
        why = explain(session, rest[0].decision_id or "")
        assert (why["allocation"]["reason"], why["allocation"]["weights"]) == ("send_plan_winner", {"a": 0.0, "b": 1.0})
        assert why["allocation"]["basis"]["b"]["n_units"] == Counter(one.variant for one in tested.values())["b"]
        (line,) = [row for row in best_variants(session, "hero") if row["segment"] == "others"]
        assert line["variant"] == "b"
        assert line["probability"] > 0.95


def test_outcomes_of_those_who_waited_are_counted_and_comparisons_stay_those_of_the_test(worker: Worker) -> None:
    """All 800 who waited click; the difference is still that of the 200 who were tested."""
    first = _test(worker, clicks=CLEAR)
    with reading(worker.engine) as session:
        before = results(session, "send")["overall"]["variants"]
    second = decide(worker, CUSTOMERS)
    rest = [one for key, one in second.items() if key not in _tested(first)]
    click(worker, rest)
    with reading(worker.engine) as session:
        answer = results(session, "send")
    after = {one["variant"]: one for one in answer["overall"]["variants"]}
    was = {one["variant"]: one for one in before}
    assert after["b"]["n_units"] == was["b"]["n_units"] + len(rest)
    assert after["b"]["n_responders"] == was["b"]["n_responders"] + len(rest)
    assert after["b"]["uplift"]["absolute"] == pytest.approx(was["b"]["uplift"]["absolute"], abs=1e-9)
    assert answer["checks"]["sample_ratio"]["status"] == "ok"


def test_no_weight_moves_before_the_winner_is_due(worker: Worker) -> None:
    number = start(worker, burn_in=0)
    decided = _tested(decide(worker, CUSTOMERS))
    click(worker, [one for one in decided.values() if one.variant == "b"])
    learn(worker)
    learn(worker)
    with reading(worker.engine) as session:
        assert {row.version for row in newest_allocations(session, number).values()} == {1}


def test_the_winner_is_written_once_and_stands(worker: Worker) -> None:
    _test(worker, clicks=CLEAR, burn_in=0)
    second = decide(worker, CUSTOMERS)
    click(worker, [one for one in second.values() if one.variant == "a"])
    learn(worker)
    learn(worker)
    with reading(worker.engine) as session:
        reasons = session.exec(select(Allocation.reason).where(Allocation.segment == "others")).all()
        assert sorted(reasons) == ["send_plan_winner", "start"]
        actions = session.exec(select(Audit.action).where(Audit.actor == "send plan").order_by(col(Audit.id))).all()
        assert actions == ["send_plan_began", "send_plan_winner"]


def test_while_the_background_process_is_late_the_rest_goes_on_waiting(worker: Worker) -> None:
    start(worker)
    decided = decide(worker, CUSTOMERS[:50])
    learn(worker)
    let_pass(worker, hours=5)
    waits = next(key for key, one in decided.items() if one.source == "waiting")
    (pending,) = decide(worker, [waits]).values()
    assert (pending.source, pending.reason, pending.recorded) == ("waiting", "winner_pending", False)
    assert pending.decide_after is not None
    assert pending.decide_after < datetime.now(UTC)


@pytest.mark.parametrize(
    ("if_unclear", "expected"),
    [
        ("best", {"variant": "b", "why": "best"}),
        ("control", {"variant": "a", "why": "control"}),
        ("keep_splitting", {"variant": None, "why": "keep_splitting"}),
    ],
)
def test_where_nothing_is_proven_the_plan_says_what_the_rest_gets(
    worker: Worker, if_unclear: str, expected: dict[str, Any]
) -> None:
    """A handful of clicks prove nothing. All who clicked are of one segment, so it is as sure as all together."""
    first = _test(worker, clicks={"a": 0.1, "b": 0.13}, send_plan=PLAN | {"if_unclear": if_unclear})
    assert _winners(worker)["others"] == expected
    rest = {one.variant for key, one in decide(worker, CUSTOMERS).items() if key not in _tested(first)}
    assert rest == ({"a", "b"} if expected["variant"] is None else {expected["variant"]})


def test_splitting_goes_on_by_what_is_learnt(worker: Worker) -> None:
    plan = PLAN | {"if_unclear": "keep_splitting"}
    _test(worker, clicks={"a": 0.1, "b": 0.13}, send_plan=plan, burn_in=0)
    click(worker, [one for one in decide(worker, CUSTOMERS).values() if one.variant == "b"])
    learn(worker)
    with reading(worker.engine) as session:
        newest = newest_allocations(session, series_of(session).number or 0)["others"]
    assert newest.reason == "learned"
    assert newest.weights["b"] > 0.9


def test_a_segment_with_too_few_units_gets_what_is_proven_over_all(worker: Worker) -> None:
    start(worker)
    loyal = decide(worker, [f"l{i}" for i in range(25)], orders=9)
    assert {one.segment for one in loyal.values()} == {"loyal"}
    _click_shares(worker, _tested(decide(worker, CUSTOMERS)), clicks=CLEAR)
    learn(worker)
    let_pass(worker, hours=4)
    learn(worker)
    assert _winners(worker)["loyal"] == {"variant": "b", "why": "clear_over_all"}


def test_without_any_response_control_gets_the_rest(worker: Worker) -> None:
    _test(worker, clicks={})
    assert _winners(worker)["others"] == {"variant": "a", "why": "nothing_known"}


def test_held_out_customers_stay_held_out_and_both_sides_are_enrolled_at_the_first_ask(worker: Worker) -> None:
    """Were those who wait enrolled only hours later, the programme would see nine held out for nine treated."""
    with transaction(worker.engine) as session:
        put_placement(session, holdout={"share": 0.3})
    worker.snapshots.refresh()
    start(worker)
    decided = decide(worker, CUSTOMERS)
    held_out = sum(one.source == "holdout" for one in decided.values())
    assert binomtest(held_out, 1_000, 0.3).pvalue > 1e-6
    assert {one.decision_id for one in decided.values() if one.source == "waiting"} == {None}
    with reading(worker.engine) as session:
        programme = session.exec(select(Series.number).where(Series.kind == "programme")).one() or 0
        low, high = programme.to_bytes(4, "big"), (programme + 1).to_bytes(4, "big")
        query = select(Decision.variant).where(col(Decision.id) > low, col(Decision.id) < high)
        sides = Counter(session.exec(query).all())
    assert sides == {"held_out": held_out, "treated": 1_000 - held_out}


def test_each_occasion_is_in_the_test_or_not_by_itself(worker: Worker) -> None:
    start(worker, unit="occasion")
    ask = worker.decider.ask
    sends = worker.decider.decide_list([ask("anna", occasion_id=f"s{i}") for i in range(200)], "hero")
    assert {one.source for one in sends} == {"experiment", "waiting"}
    (missing,) = worker.decider.decide(ask("anna"), ["hero"])
    assert (missing.source, missing.reason) == ("default", "occasion_id_missing")


def test_a_send_plan_leaves_no_standing_policy(worker: Worker) -> None:
    _test(worker, clicks=CLEAR)
    with transaction(worker.engine) as session:
        request = {"segments": {"others": "b"}, "reason": "it won"}
        with pytest.raises(PromotionRefused) as refused:
            promote(session, "send", request=request, actor="test")
        assert [field.pointer for field in refused.value.fields] == ["/force"]
    with transaction(worker.engine) as session:
        lifecycle.conclude(session, "send", actor="test")
        series = series_of(session)
        series.closes_at = datetime.now(UTC) - timedelta(seconds=1)
    worker.snapshots.refresh()
    (decided,) = decide(worker, ["somebody-new"]).values()
    assert (decided.source, decided.variant) == ("default", "plain")
    with transaction(worker.engine) as session:
        promoted = promote(session, "send", request=request | {"force": True}, actor="test")
        assert promoted["forced"] is True


def test_no_variant_joins_once_there_is_a_winner(worker: Worker) -> None:
    _test(worker, clicks=CLEAR)
    with transaction(worker.engine) as session, pytest.raises(SendPlanDecided):
        append_variant(session, "send", payload={"key": "c", "content": {"text": "More"}}, actor="test")


def test_what_is_served_and_the_experiment_say_how_far_the_send_has_come(worker: Worker) -> None:
    _test(worker, clicks=CLEAR)
    with reading(worker.engine) as session:
        state = get_experiment(session, "send")
        line = next(one for one in now_serving(session, "hero") if one["segment"] == "others")
    assert state.body["send_plan"] == {"test_share": 0.2, "winner_after_hours": 4.0, "if_unclear": "best"}
    assert state.sending is not None
    assert state.sending["winners"]["others"] == {"variant": "b", "why": "clear"}
    assert state.sending["decided_at"] is not None
    assert line["weights"] == {"b": 1.0}
    assert line["send_plan"]["winners"] == {"others": {"variant": "b", "why": "clear"}}
