"""decide, through a real worker on both databases: the order of sources, stickiness, propensities, fallbacks."""

from collections import Counter
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from scipy.stats import binomtest
from sqlalchemy import Engine
from sqlmodel import select

from experiments.catalog import definition_store, experiment_store, lifecycle, overrides, variants
from experiments.config import Config
from experiments.database import reading, transaction
from experiments.decide import Decided
from experiments.errors import InvalidInput, PlacementNotFound, VariantNotFound
from experiments.tables import Decision, Series
from experiments.tallies.recount import all_series, recount
from experiments.worker import Worker

PLACEMENT: dict[str, Any] = {
    "segmentation": "value",
    "holdout": {"share": 0.0},
    "default": {"key": "plain", "content": {"text": "Welcome"}},
}
EXPERIMENT: dict[str, Any] = {
    "placement": "hero",
    "goal": "click",
    "variants": [
        {"key": "a", "content": {"text": "Hi {{ name | default('there') }}"}, "is_control": True},
        {"key": "b", "content": {"text": "A gift for {{ name }}"}},
    ],
}


@pytest.fixture
def worker(engine: Engine) -> Iterator[Worker]:
    with transaction(engine) as session:
        definition_store.put_attribute(session, "orders", payload={"type": "number"}, actor="test")
        rule = {"attribute": "orders", "gte": 5}
        segments = {"segments": [{"key": "loyal", "rule": rule}], "otherwise": "others"}
        definition_store.put_segmentation(session, "value", payload=segments, actor="test")
        definition_store.put_placement(session, "hero", payload=PLACEMENT, actor="test")
    url = engine.url.render_as_string(hide_password=False)
    worker = Worker(Config(database_url=url), shard=1)
    worker.start()
    yield worker
    worker.close()
    with reading(engine) as session:
        for number in all_series(session):
            assert recount(session, number).differences == []


def _run(worker: Worker, key: str = "exp", **changes: Any) -> None:
    """Define and start an experiment, in effect at once."""
    with transaction(worker.engine) as session:
        experiment_store.put_experiment(session, key, payload=EXPERIMENT | changes, actor="test")
        lifecycle.start(session, key, actor="test")
        series = session.exec(select(Series).where(Series.experiment == key)).one()
        series.opens_at -= timedelta(seconds=lifecycle.EFFECT_SECONDS)
    worker.snapshots.refresh()


def _decide(worker: Worker, customer: str, **asked: Any) -> Decided:
    return worker.decider.decide(worker.decider.ask(customer, **asked), ["hero"])[0]


def _change_placement(worker: Worker, **changes: Any) -> None:
    with transaction(worker.engine) as session:
        definition_store.put_placement(session, "hero", payload=PLACEMENT | changes, actor="test")
    worker.snapshots.refresh()


def test_without_an_experiment_everyone_gets_the_default_and_is_enrolled(worker: Worker) -> None:
    decided = _decide(worker, "anna")
    assert (decided.source, decided.variant, decided.content) == ("default", "plain", {"text": "Welcome"})
    assert (decided.reason, decided.propensity, decided.recorded) == ("no_experiment_or_policy", 1.0, True)
    with reading(worker.engine) as session:
        assert session.exec(select(Decision.variant)).all() == ["treated"]


def test_an_experiment_splits_new_customers_by_its_weights_and_keeps_them(worker: Worker) -> None:
    """False alarm: 1 in 10**6."""
    _run(worker)
    first = {f"c{i}": _decide(worker, f"c{i}") for i in range(200)}
    assert {one.source for one in first.values()} == {"experiment"}
    assert {one.propensity for one in first.values()} == {0.5}
    counts = Counter(one.variant for one in first.values())
    assert binomtest(counts["a"], 200, 0.5).pvalue > 1e-6
    assert {key: _decide(worker, key) for key in first} == first


def test_a_customer_keeps_the_segment_of_the_first_decision(worker: Worker) -> None:
    _run(worker)
    assert _decide(worker, "anna", attributes={"orders": 1}).segment == "others"
    assert _decide(worker, "anna", attributes={"orders": 9}).segment == "others"
    assert _decide(worker, "bob", attributes={"orders": 9}).segment == "loyal"


def test_a_segment_that_the_experiment_leaves_out_gets_the_default(worker: Worker) -> None:
    _run(worker, segments=["loyal"])
    assert _decide(worker, "anna", attributes={"orders": 1}).source == "default"
    assert _decide(worker, "bob", attributes={"orders": 9}).source == "experiment"


def test_occasions_are_decided_apart_and_need_an_id(worker: Worker) -> None:
    """That 30 sends all get one variant by chance: 2 in 10**9."""
    _run(worker, unit="occasion")
    missing = _decide(worker, "anna")
    assert (missing.source, missing.reason) == ("default", "occasion_id_missing")
    sends = [_decide(worker, "anna", occasion_id=f"send-{n}", attributes={"name": "Anna"}) for n in range(30)]
    assert {one.variant for one in sends} == {"a", "b"}
    assert _decide(worker, "anna", occasion_id="send-0", attributes={"name": "Anna"}) == sends[0]


def test_a_template_that_fails_falls_back_to_the_default_and_the_unit_still_counts(worker: Worker) -> None:
    _run(worker)
    decided = next(one for i in range(50) if (one := _decide(worker, f"c{i}")).variant == "b")
    assert (decided.content, decided.reason) == ({"text": "Welcome"}, "template_failed")
    assert decided.source == "experiment"


def test_templates_see_attributes(worker: Worker) -> None:
    _run(worker)
    contents = {_decide(worker, f"c{i}", attributes={"name": "Jo"}).content["text"] for i in range(50)}
    assert contents == {"Hi Jo", "A gift for Jo"}


def test_the_held_out_get_the_default_whatever_runs_and_both_sides_are_enrolled(worker: Worker) -> None:
    """False alarm: 1 in 10**6."""
    _run(worker)
    _change_placement(worker, holdout={"share": 0.2})
    decided = [_decide(worker, f"c{i}", attributes={"name": "Jo"}) for i in range(400)]
    held_out = [one for one in decided if one.source == "holdout"]
    assert binomtest(len(held_out), 400, 0.2).pvalue > 1e-6
    assert {one.variant for one in held_out} == {"plain"}
    assert {one.propensity for one in held_out} == {0.2}
    with reading(worker.engine) as session:
        enrolled = Counter(session.exec(select(Decision.variant)).all())
    assert enrolled["held_out"] == len(held_out)
    assert enrolled["treated"] == 400 - len(held_out) == enrolled["a"] + enrolled["b"]


def test_a_holdout_may_get_nothing(worker: Worker) -> None:
    _change_placement(worker, holdout={"share": 0.5, "gets": "nothing"})
    delivered = {_decide(worker, f"c{i}").deliver for i in range(40)}
    assert delivered == {True, False}


def test_overrides_and_previews_are_never_counted(worker: Worker) -> None:
    _run(worker)
    with transaction(worker.engine) as session:
        overrides.put_override(session, "hero", customer_id="tester", variant="b", actor="test")
    worker.snapshots.refresh()
    override = _decide(worker, "tester", attributes={"name": "T"})
    assert (override.variant, override.source, override.recorded) == ("b", "override", False)
    preview = _decide(worker, "anna", preview="b", attributes={"name": "A"})
    assert (preview.variant, preview.source, preview.decision_id) == ("b", "preview", None)
    assert _decide(worker, "anna", preview=True).source == "preview"
    with pytest.raises(VariantNotFound):
        _decide(worker, "anna", preview="nonsense")
    with reading(worker.engine) as session:
        assert session.exec(select(Decision)).all() == []


def test_a_retired_variants_customers_get_the_control_and_stay_in_its_count(worker: Worker) -> None:
    third = {"key": "c", "content": {"text": "Third"}}
    _run(worker, variants=[*EXPERIMENT["variants"], third])
    theirs = next(f"c{i}" for i in range(100) if _decide(worker, f"c{i}").variant == "c")
    with transaction(worker.engine) as session:
        variants.retire_variant(session, "exp", variant="c", actor="test", reason="broken link")
    worker.snapshots.refresh()
    again = _decide(worker, theirs)
    assert (again.variant, again.reason) == ("a", "variant_retired")
    assert "c" not in {_decide(worker, f"new{i}").variant for i in range(60)}


def test_several_placements_are_decided_in_one_call_or_not_at_all(worker: Worker) -> None:
    with transaction(worker.engine) as session:
        definition_store.put_placement(session, "footer", payload=PLACEMENT, actor="test")
    asked = worker.decider.ask("anna")
    assert [one.placement for one in worker.decider.decide(asked, ["hero", "footer"])] == ["hero", "footer"]
    with pytest.raises(PlacementNotFound):
        worker.decider.decide(worker.decider.ask("bob"), ["hero", "nowhere"])
    with reading(worker.engine) as session:
        assert "bob" not in session.exec(select(Decision.customer_id)).all()


def test_attributes_of_another_type_are_refused_as_json_and_left_out_as_text(worker: Worker) -> None:
    with pytest.raises(InvalidInput) as refused:
        worker.decider.ask("anna", attributes={"orders": "many"})
    assert refused.value.fields[0].pointer == "/attributes/orders"
    assert worker.decider.ask("anna", attributes={"orders": "many"}, text=True).typed == {}


def test_the_email_door_answers_in_time_with_the_chosen_variant_while_the_database_is_locked(worker: Worker) -> None:
    _run(worker)
    known = {f"c{i}": _decide(worker, f"c{i}", attributes={"name": "Jo"}).variant for i in range(20)}
    asked = worker.decider.ask("new", attributes={"name": "Jo"}, text=True)
    with transaction(worker.engine) as session:  # holds the decision's place until it ends
        row = Decision(
            id=bytes.fromhex(_peek(worker, "new")),
            customer_id="new",
            segment="others",
            variant="a",
            allocation_version=1,
            propensity=0.5,
            decided_at=worker.snapshots.now(),
            lacks_attribute=True,
            late=True,
        )
        session.add(row)
        session.flush()
        decided = worker.decider.decide_in_time(asked, "hero")
        session.rollback()
    assert (decided.recorded, decided.source, decided.propensity) == (False, "experiment", 0.5)
    assert decided.decision_id == _peek(worker, "new")
    stored = _decide(worker, "new", attributes={"name": "Jo"})
    assert (stored.variant, stored.recorded) == (decided.variant, True)
    assert {key: _decide(worker, key, attributes={"name": "Jo"}).variant for key in known} == known


def _peek(worker: Worker, customer: str) -> str:
    """The decision id of a customer in the running experiment, by its hash."""
    snapshot = worker.snapshots.current
    assert snapshot is not None
    return snapshot.placements["hero"].experiments[0].hash(customer)[0].hex()


def test_lists_are_decided_like_single_customers(worker: Worker) -> None:
    _run(worker)
    asked = [worker.decider.ask(f"c{i}", attributes={"name": "Jo"}) for i in range(300)]
    listed = worker.decider.decide_list(asked, "hero")
    assert [_decide(worker, f"c{i}", attributes={"name": "Jo"}) for i in range(300)] == listed
