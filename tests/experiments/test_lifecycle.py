"""Expected values: the HTTP contract and "A decision's life"; shares of weights by hand."""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Engine
from sqlmodel import Session, select

from experiments.access import audit
from experiments.catalog import definition_store, lifecycle, variants
from experiments.catalog.experiment_store import get_experiment
from experiments.catalog.experiment_store import put_experiment as put_draft
from experiments.catalog.serving import now_serving
from experiments.database import database_now, reading, transaction
from experiments.decisions.choosing import Asked, Moment, choose
from experiments.errors import (
    ExperimentNotDraft,
    ExperimentNotFound,
    ExperimentVariantNotFound,
    InvalidDefinition,
    InvalidInput,
    PlacementInUse,
    PreconditionFailed,
    SegmentTaken,
    VariantStays,
    WrongState,
)
from experiments.learning.allocations import add_allocations, newest_allocations
from experiments.snapshot.load import load_snapshot
from experiments.tables import Allocation, Audit, PolicyVersion, Series, SeriesVariant
from tests.experiments.shop import ACTOR, EXPERIMENT, PLACEMENT, put_experiment, put_shop

THREE = [*EXPERIMENT["variants"], {"key": "c", "content": {"text": "Look"}}]


def started(session: Session, key: str = "subject-1", **changes: object) -> Series:
    put_experiment(session, key, **changes)
    number = lifecycle.start(session, key, actor=ACTOR).experiment.series
    return session.exec(select(Series).where(Series.number == number)).one()


def weights(session: Session, series: Series) -> dict[str, Mapping[str, float]]:
    return {segment: row.weights for segment, row in newest_allocations(session, series.number or 0).items()}


def served(session: Session) -> dict[str, tuple[str, dict[str, float]]]:
    return {line["segment"]: (line["source"], line["weights"]) for line in now_serving(session, "welcome-subject")}


@pytest.fixture
def shop(session: Session) -> Session:
    put_shop(session)
    return session


def test_starting_pins_segmentation_and_metrics_whole(shop: Session) -> None:
    series = started(shop)
    definition_store.put_metric(shop, "click", payload={"event": "tap", "kind": "count"}, actor=ACTOR)
    assert (series.kind, series.unit, series.segments) == ("experiment", "occasion", ["vip", "local-new"])
    assert (series.segmentation, series.segmentation_version) == ("value", 1)
    assert [metric["key"] for metric in series.metrics] == ["click", "purchase", "unsubscribe"]
    assert series.metrics[0] == {
        "key": "click",
        "version": 0,
        "event": "click",
        "kind": "binary",
        "window_hours": 168.0,
        "grace_hours": 24.0,
        "direction": "increase",
        "cap": None,
        "currency": None,
        "since": None,
        "aggregate": None,
        "denominator": None,
        "prior": None,
    }


def test_starting_takes_effect_two_seconds_later_for_every_worker(shop: Session) -> None:
    put_experiment(shop)
    before = database_now(shop)
    changed = lifecycle.start(shop, "subject-1", actor=ACTOR, reason="spring")
    after = database_now(shop)
    assert before + timedelta(seconds=2) <= changed.effective_at <= after + timedelta(seconds=2)
    assert changed.experiment.status == "running"
    assert changed.experiment.started_at == changed.effective_at
    series = shop.exec(select(Series).where(Series.number == changed.experiment.series)).one()
    assert series.opens_at == changed.effective_at


def test_an_experiment_on_all_segments_lists_them(shop: Session) -> None:
    assert started(shop, segments=None).segments == ["vip", "local-new", "everyone-else"]


def test_an_experiment_on_everyone_pins_version_0(shop: Session) -> None:
    payload = {"holdout": {"share": 0.0}, "default": {"key": "d", "content": {}}}
    definition_store.put_placement(shop, "hero", payload=payload, actor=ACTOR)
    series = started(shop, placement="hero", segments=None)
    assert (series.segmentation, series.segmentation_version, series.segments) == ("everyone", 0, ["everyone"])
    assert series.metrics[0]["window_hours"] == 72.0


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, {"a": 0.5, "b": 0.5}),
        ({"control_share": 0.8}, {"a": 0.8, "b": 0.2}),
        ({"method": "fixed", "weights": {"b": 0.9, "a": 0.1}}, {"a": 0.1, "b": 0.9}),
        ({"variants": THREE, "control_share": 0.5}, {"a": 0.5, "b": 0.25, "c": 0.25}),
    ],
)
def test_the_first_weights_are_equal_or_as_said(
    shop: Session, changes: dict[str, Any], expected: dict[str, float]
) -> None:
    for shares in weights(shop, started(shop, **changes)).values():
        assert shares == pytest.approx(expected, abs=1e-12)


def test_the_programme_counts_what_its_experiments_count(shop: Session) -> None:
    definition_store.put_metric(shop, "signup", payload={"event": "signup", "kind": "binary"}, actor=ACTOR)
    programme = shop.exec(select(Series).where(Series.kind == "programme")).one()
    assert {metric["key"] for metric in programme.metrics} == {"click", "purchase", "revenue", "unsubscribe"}
    series = started(shop, goal="signup")
    shop.refresh(programme)
    since = {metric["key"]: metric["since"] for metric in programme.metrics}
    assert len(programme.metrics) == 5
    assert (since["signup"], since["purchase"]) == (series.opens_at.isoformat(), None)


def test_two_experiments_never_share_a_placement_and_segment(shop: Session) -> None:
    started(shop)
    put_experiment(shop, "subject-2", segments=["everyone-else", "local-new"])
    with pytest.raises(SegmentTaken, match=r"'subject-1'.*local-new") as caught:
        lifecycle.start(shop, "subject-2", actor=ACTOR)
    assert (caught.value.experiment, caught.value.segments) == ("subject-1", ("local-new",))
    put_experiment(shop, "subject-2", segments=["everyone-else"])
    assert lifecycle.start(shop, "subject-2", actor=ACTOR).experiment.status == "running"


def test_a_paused_experiment_keeps_its_segments(shop: Session) -> None:
    started(shop)
    lifecycle.pause(shop, "subject-1", actor=ACTOR)
    put_experiment(shop, "subject-2")
    with pytest.raises(SegmentTaken):
        lifecycle.start(shop, "subject-2", actor=ACTOR)


def test_segments_that_left_an_experiment_are_free(shop: Session) -> None:
    series = started(shop)
    series.closed_segments = {"vip": database_now(shop).isoformat()}
    put_experiment(shop, "subject-2", segments=["vip"])
    assert lifecycle.start(shop, "subject-2", actor=ACTOR).experiment.status == "running"


def test_an_experiment_under_another_segmentation_takes_the_whole_placement(shop: Session) -> None:
    started(shop, segments=["vip"])
    definition_store.put_placement(
        shop, "welcome-subject", payload={**PLACEMENT, "segmentation": "everyone"}, actor=ACTOR
    )
    put_experiment(shop, "subject-2", segments=None)
    with pytest.raises(SegmentTaken, match="vip"):
        lifecycle.start(shop, "subject-2", actor=ACTOR)


def test_pausing_closes_and_resuming_reopens_the_series(shop: Session) -> None:
    series = started(shop)
    paused = lifecycle.pause(shop, "subject-1", actor=ACTOR)
    assert series.model_dump()["closes_at"] == paused.effective_at
    resumed = lifecycle.resume(shop, "subject-1", actor=ACTOR)
    assert series.model_dump(include={"opens_at", "closes_at"}) == {"opens_at": resumed.effective_at, "closes_at": None}
    assert resumed.experiment.status == "running"


def test_concluding_ends_an_experiment_for_good(shop: Session) -> None:
    series = started(shop)
    concluded = lifecycle.conclude(shop, "subject-1", actor=ACTOR, reason="done")
    assert concluded.experiment.status == "concluded"
    assert concluded.experiment.ended_at == series.closes_at == concluded.effective_at
    with pytest.raises(WrongState, match="concluded"):
        lifecycle.resume(shop, "subject-1", actor=ACTOR)


def test_concluding_a_paused_experiment_leaves_its_closing_time(shop: Session) -> None:
    series = started(shop)
    paused = lifecycle.pause(shop, "subject-1", actor=ACTOR)
    lifecycle.conclude(shop, "subject-1", actor=ACTOR)
    assert series.closes_at == paused.effective_at


@pytest.mark.parametrize("step", [lifecycle.pause, lifecycle.resume, lifecycle.conclude])
def test_a_draft_can_only_be_started(shop: Session, step: Any) -> None:
    put_experiment(shop)
    with pytest.raises(WrongState) as caught:
        step(shop, "subject-1", actor=ACTOR)
    assert caught.value.status == "draft"


@pytest.mark.parametrize("key", ["nothing", "a\x00b", "\ud800"])
def test_an_unknown_experiment_is_an_answer_of_its_own(session: Session, key: str) -> None:
    with pytest.raises(ExperimentNotFound):
        lifecycle.start(session, key, actor=ACTOR)
    with pytest.raises(ExperimentNotFound):
        get_experiment(session, key)


def test_starting_checks_again_what_may_have_changed_since(shop: Session) -> None:
    put_experiment(shop)
    definition_store.put_segmentation(shop, "value", payload={"segments": [], "otherwise": "vip"}, actor=ACTOR)
    with pytest.raises(InvalidDefinition) as caught:
        lifecycle.start(shop, "subject-1", actor=ACTOR)
    assert [field.pointer for field in caught.value.fields] == ["/segments/1"]


def test_a_started_experiment_is_no_longer_put(shop: Session) -> None:
    started(shop)
    assert put_experiment(shop).created is False
    with pytest.raises(ExperimentNotDraft, match=r"running.*conclude"):
        put_experiment(shop, burn_in=7)


def test_a_placement_keeps_channel_and_format_while_experiments_run(shop: Session) -> None:
    started(shop)
    for field in ({"channel": "web"}, {"format": "html"}):
        with pytest.raises(PlacementInUse, match="'subject-1'"):
            definition_store.put_placement(shop, "welcome-subject", payload={**PLACEMENT, **field}, actor=ACTOR)
    lifecycle.conclude(shop, "subject-1", actor=ACTOR)
    definition_store.put_placement(shop, "welcome-subject", payload={**PLACEMENT, "channel": "web"}, actor=ACTOR)


def test_every_step_is_audited_and_counts_the_version_up(shop: Session) -> None:
    started(shop)
    lifecycle.pause(shop, "subject-1", actor=ACTOR, reason="broken link")
    changed = lifecycle.resume(shop, "subject-1", actor="key/ben")
    entries = shop.exec(select(Audit).where(Audit.subject == "experiment/subject-1").order_by(Audit.id)).all()  # type: ignore[arg-type]  # SQLModel's stub
    assert [(row.action, row.actor, row.reason) for row in entries] == [
        ("put", ACTOR, None),
        ("start", ACTOR, None),
        ("pause", ACTOR, "broken link"),
        ("resume", "key/ben", None),
    ]
    assert changed.experiment.version == 4


def test_a_corrected_content_is_served_and_the_old_one_is_kept_in_the_audit(shop: Session) -> None:
    series = started(shop)
    state = variants.correct_content(
        shop, "subject-1", variant="b", content={"text": "Gift"}, actor=ACTOR, reason="typo", if_match=2
    )
    row = shop.get(SeriesVariant, (series.number, "b"))
    assert row is not None
    assert (row.content, row.revision, state.version) == ({"text": "Gift"}, 2, 3)
    assert [variant["content"]["text"] for variant in state.body["variants"]][1] == "Gift"
    entry = shop.exec(select(Audit).where(Audit.action == "correct")).one()
    assert (entry.reason, entry.detail["before"]) == ("typo", {"text": "A gift inside"})


def test_a_correction_needs_a_reason_a_known_variant_good_content_and_the_right_version(shop: Session) -> None:
    started(shop)
    good: dict[str, Any] = {"variant": "b", "content": {}, "actor": ACTOR, "reason": "why"}
    for wrong, error in (
        ({"reason": " "}, InvalidInput),
        ({"variant": "z"}, ExperimentVariantNotFound),
        ({"content": {"text": "{% for x in y %}"}}, InvalidDefinition),
        ({"if_match": 1}, PreconditionFailed),
    ):
        with pytest.raises(error):
            variants.correct_content(shop, "subject-1", **{**good, **wrong})


def test_an_appended_variant_gets_an_equal_share(shop: Session) -> None:
    series = started(shop, method="fixed", weights={"a": 0.8, "b": 0.2})
    state = variants.append_variant(shop, "subject-1", payload={"key": "c", "content": {}}, actor=ACTOR)
    expected = {"a": 0.8 * 2 / 3, "b": 0.2 * 2 / 3, "c": 1 / 3}
    assert weights(shop, series) == {segment: pytest.approx(expected) for segment in ("vip", "local-new")}
    assert state.body["weights"] == pytest.approx(expected)
    rows = shop.exec(select(Allocation).where(Allocation.series == series.number, Allocation.segment == "vip")).all()
    assert sorted((row.version, row.reason) for row in rows) == [(1, "start"), (2, "variant_added")]


def test_appending_leaves_the_control_its_share(shop: Session) -> None:
    series = started(shop, control_share=0.5)
    variants.append_variant(shop, "subject-1", payload={"key": "c", "content": {}}, actor=ACTOR)
    expected = {"a": 0.5, "b": 0.25, "c": 0.25}
    assert weights(shop, series)["vip"] == pytest.approx(expected)


def test_an_appended_variant_is_new_and_no_control(shop: Session) -> None:
    started(shop)
    payload = {"key": "b", "content": {}, "is_control": True}
    with pytest.raises(InvalidDefinition) as caught:
        variants.append_variant(shop, "subject-1", payload=payload, actor=ACTOR)
    assert [field.pointer for field in caught.value.fields] == ["/key", "/is_control"]


def test_the_share_of_a_retired_variant_goes_to_the_others_in_proportion(shop: Session) -> None:
    fixed = {"a": 0.5, "b": 0.25, "c": 0.25}
    series = started(shop, variants=THREE, method="fixed", weights=fixed)
    state = variants.retire_variant(shop, "subject-1", variant="c", actor=ACTOR, reason="complaints")
    assert weights(shop, series)["vip"] == pytest.approx({"a": 2 / 3, "b": 1 / 3, "c": 0.0})
    assert isinstance(state.retired["c"], datetime)
    assert state.body["weights"] == pytest.approx({"a": 2 / 3, "b": 1 / 3, "c": 0.0})


def test_control_and_the_last_two_variants_stay(shop: Session) -> None:
    started(shop, variants=THREE)
    variants.retire_variant(shop, "subject-1", variant="b", actor=ACTOR)
    for variant, reason in (("a", "control"), ("b", "already"), ("c", "two variants")):
        with pytest.raises(VariantStays, match=reason):
            variants.retire_variant(shop, "subject-1", variant=variant, actor=ACTOR)


def test_variants_of_a_draft_are_changed_by_putting_it(shop: Session) -> None:
    put_experiment(shop)
    with pytest.raises(WrongState, match="draft"):
        variants.append_variant(shop, "subject-1", payload={"key": "c", "content": {}}, actor=ACTOR)


def test_what_each_segment_gets_follows_the_lifecycle(shop: Session) -> None:
    default = ("default", {"plain": 1.0})
    assert served(shop) == {"vip": default, "local-new": default, "everyone-else": default}
    started(shop)
    running = ("experiment", {"a": 0.5, "b": 0.5})
    assert served(shop) == {"vip": running, "local-new": running, "everyone-else": default}
    assert now_serving(shop, "welcome-subject")[0]["experiment"] == "subject-1"
    lifecycle.pause(shop, "subject-1", actor=ACTOR)
    assert served(shop)["vip"] == default


def add_policy(session: Session, like: Series, *, segment: str, weights: dict[str, float]) -> None:
    now = database_now(session)
    policy = Series(**{**like.model_dump(exclude={"number"}), "kind": "policy", "unit": "period", "opens_at": now})
    session.add(policy)
    session.flush()
    add_allocations(session, policy.number or 0, weights={segment: weights}, reason="promotion", now=now)
    session.add(
        PolicyVersion(
            placement=policy.placement,
            version=1,
            action="promote",
            entries={segment: {"series": policy.number, "variant": "b"}},
            evidence={},
            reason="it won",
            created_at=now,
            created_by=ACTOR,
            effective_at=now,
        )
    )
    like.closed_segments = {segment: now.isoformat()}
    session.flush()


def test_a_policy_serves_segments_without_a_running_experiment(shop: Session) -> None:
    add_policy(shop, started(shop), segment="vip", weights={"a": 0.05, "b": 0.95})
    first = now_serving(shop, "welcome-subject")[0]
    assert (first["source"], first["policy_version"], first["weights"]) == ("policy", 1, {"a": 0.05, "b": 0.95})
    assert [source for source, _ in served(shop).values()] == ["policy", "experiment", "default"]


def test_of_two_experiments_started_at_once_one_gets_the_segment(engine: Engine) -> None:
    with transaction(engine) as session:
        put_shop(session)
        for key in ("subject-1", "subject-2"):
            put_experiment(session, key)

    def start(key: str) -> str:
        try:
            with transaction(engine) as session:
                return lifecycle.start(session, key, actor=ACTOR).experiment.status
        except SegmentTaken:
            return "taken"

    with ThreadPoolExecutor(2) as pool:
        assert sorted(pool.map(start, ("subject-1", "subject-2"))) == ["running", "taken"]
    with reading(engine) as session:
        assert audit.verify(session) is None


def test_the_snapshot_serves_what_was_started(engine: Engine) -> None:
    with transaction(engine) as session:
        put_shop(session)
        put_draft(session, "subject-1", payload={**EXPERIMENT, "unit": "customer"}, actor=ACTOR)
        effective_at = lifecycle.start(session, "subject-1", actor=ACTOR).effective_at
    with reading(engine) as session:
        snapshot = load_snapshot(session)
    placement = snapshot.placements["welcome-subject"]
    customers = [Asked(f"c{i}", typed={"lifetime_value": 900}) for i in range(400)]
    for seconds, expected in ((-0.001, {"default", "holdout"}), (0.0, {"experiment", "holdout"})):
        at = effective_at + timedelta(seconds=seconds)
        moment = Moment(at=at, seconds=at.timestamp(), is_stale=False, is_usable=True)
        choices = [choose(snapshot, placement, asked=asked, moment=moment) for asked in customers]
        assert {choice.source for choice in choices} == expected
