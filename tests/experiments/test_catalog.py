"""Expected values: the HTTP contract's examples and rules, RFC 6901 for pointers, RFC 9110 for If-Match."""

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import Engine
from sqlmodel import Session, select

from experiments.catalog import definition_store, lifecycle
from experiments.catalog.definitions import BUILT_IN_METRICS
from experiments.catalog.experiment_store import get_experiment, list_experiments
from experiments.database import reading, transaction
from experiments.errors import (
    DefinitionNotFound,
    InvalidDefinition,
    InvalidInput,
    PlacementNotFound,
    PreconditionFailed,
)
from experiments.learning.allocations import newest_allocations
from experiments.snapshot.load import load_snapshot
from experiments.tables import Allocation, Audit, Definition, Series, SeriesVariant, Workspace
from tests.experiments.shop import ACTOR, PLACEMENT, SEGMENTATION, put_experiment, put_shop

HERO = {"holdout": {"share": 0.0}, "default": {"key": "d", "content": {}}}


def refused(put: Callable[..., object], *args: object, **kwargs: object) -> dict[str, str]:
    with pytest.raises(InvalidDefinition) as caught:
        put(*args, **kwargs)
    return dict(caught.value.fields)


@pytest.fixture
def shop(session: Session) -> Session:
    put_shop(session)
    return session


def put_click(session: Session, *, if_match: int | None = None, **changes: object) -> definition_store.Defined:
    payload = {"event": "click", "kind": "binary", "window_hours": 72, **changes}
    return definition_store.put_metric(session, "ctr", payload=payload, actor=ACTOR, if_match=if_match)


def test_putting_the_same_again_changes_nothing(session: Session) -> None:
    first, again, other = put_click(session), put_click(session), put_click(session, window_hours=48)
    assert [(put.version, put.created) for put in (first, again, other)] == [(1, True), (1, False), (2, False)]
    rows = session.exec(select(Definition).where(Definition.key == "ctr")).all()
    assert sorted(row.version for row in rows) == [1, 2]
    audited = session.exec(select(Audit).where(Audit.subject == "metric/ctr")).all()
    assert sorted(row.detail["version"] for row in audited) == [1, 2]


def test_true_is_not_1_and_1_is_1_point_0(session: Session) -> None:
    def put(value: object) -> int:
        payload = {**HERO, "default": {"key": "d", "content": {"flag": value}}}
        return definition_store.put_placement(session, "hero", payload=payload, actor=ACTOR).version

    assert [put(value) for value in (1, 1.0, True, False, 0, 1e16, 10**16)] == [1, 1, 2, 3, 4, 5, 5]


def test_a_body_is_kept_whole_with_its_defaults(session: Session) -> None:
    put_click(session)
    body = definition_store.get_definition(session, "metric", key="ctr").body
    assert (body["grace_hours"], body["direction"], body["cap"]) == (24.0, "increase", None)


def test_if_match_protects_what_others_changed(session: Session) -> None:
    with pytest.raises(PreconditionFailed, match="does not exist"):
        put_click(session, if_match=1)
    put_click(session)
    put_click(session, if_match=1, window_hours=48)
    with pytest.raises(PreconditionFailed, match="at version 2, not at version 1") as caught:
        put_click(session, if_match=1, window_hours=24)
    assert caught.value.current == 2


def test_every_change_tells_the_workers(session: Session) -> None:
    before = session.exec(select(Workspace)).one().snapshot_version
    put_click(session)
    assert session.exec(select(Workspace)).one().snapshot_version == before + 1


@pytest.mark.parametrize("key", ["", "a b", "a/b", "-a", "a\n", "a\x00", "é", "a" * 129])
def test_a_key_has_a_form(session: Session, key: str) -> None:
    with pytest.raises(InvalidInput):
        definition_store.put_attribute(session, key, payload={"type": "string"}, actor=ACTOR)
    with pytest.raises(DefinitionNotFound):
        definition_store.get_definition(session, "attribute", key=key)


def test_what_is_built_in_is_there_as_version_0(session: Session) -> None:
    assert definition_store.get_definition(session, "segmentation", key="everyone").body["otherwise"] == "everyone"
    assert definition_store.get_definition(session, "metric", key="revenue").version == 0


def test_everyone_cannot_be_replaced(session: Session) -> None:
    payload = {"segments": [], "otherwise": "all"}
    assert (
        "built in" in refused(definition_store.put_segmentation, session, "everyone", payload=payload, actor=ACTOR)[""]
    )


def test_a_built_in_metric_can_be_defined_anew(session: Session) -> None:
    payload = {"event": "click", "kind": "binary", "window_hours": 1}
    put = definition_store.put_metric(session, "click", payload=payload, actor=ACTOR, if_match=0)
    assert (put.version, put.created) == (1, False)
    assert definition_store.get_definition(session, "metric", key="click").body["window_hours"] == 1


def test_unknown_definitions_say_so(session: Session) -> None:
    with pytest.raises(PlacementNotFound):
        definition_store.get_definition(session, "placement", key="nowhere")
    with pytest.raises(DefinitionNotFound, match="no metric 'nothing'"):
        definition_store.get_definition(session, "metric", key="nothing")


def test_lists_go_on_where_the_caller_stopped(session: Session) -> None:
    put_click(session)
    first = definition_store.list_definitions(session, "metric", limit=2)
    rest = definition_store.list_definitions(session, "metric", cursor=first[-1].key)
    assert [metric.key for metric in first] == ["click", "ctr"]
    assert [metric.key for metric in rest] == ["purchase", "revenue", "unsubscribe"]


def test_a_rule_must_fit_the_declared_attributes(shop: Session) -> None:
    segments = [
        {"key": "x", "rule": {"attribute": "shoe_size", "gt": 40}},
        {"key": "y", "rule": {"attribute": "country", "gt": 40}},
    ]
    payload = {"segments": segments, "otherwise": "z"}
    pointers = set(refused(definition_store.put_segmentation, shop, "value", payload=payload, actor=ACTOR))
    assert pointers == {"/segments/0/rule/attribute", "/segments/1/rule/gt"}


def test_the_type_of_an_attribute_stays_while_a_rule_reads_it(shop: Session) -> None:
    fields = refused(definition_store.put_attribute, shop, "country", payload={"type": "number"}, actor=ACTOR)
    assert "version 1 of the segmentation 'value'" in fields["/type"]
    changed = definition_store.put_attribute(shop, "country", payload={"type": "string", "stored": False}, actor=ACTOR)
    assert changed.version == 2
    without = {**SEGMENTATION, "segments": SEGMENTATION["segments"][:1]}
    definition_store.put_segmentation(shop, "value", payload=without, actor=ACTOR)
    assert definition_store.put_attribute(shop, "country", payload={"type": "number"}, actor=ACTOR).version == 3


def test_the_type_of_an_attribute_stays_while_an_experiment_is_pinned_to_its_rule(shop: Session) -> None:
    put_experiment(shop)
    lifecycle.start(shop, "subject-1", actor=ACTOR)
    definition_store.put_segmentation(shop, "value", payload={"segments": [], "otherwise": "all"}, actor=ACTOR)
    assert "/type" in refused(definition_store.put_attribute, shop, "country", payload={"type": "number"}, actor=ACTOR)
    lifecycle.conclude(shop, "subject-1", actor=ACTOR)
    assert definition_store.put_attribute(shop, "country", payload={"type": "number"}, actor=ACTOR).version == 2


def test_a_placement_needs_its_segmentation_and_a_default_that_never_fails(session: Session) -> None:
    payload = {**HERO, "segmentation": "nowhere"}
    assert set(refused(definition_store.put_placement, session, "hero", payload=payload, actor=ACTOR)) == {
        "/segmentation"
    }
    payload = {**HERO, "default": {"key": "d", "content": {"text": "Hi {{ name }}"}}}
    pointers = set(refused(definition_store.put_placement, session, "hero", payload=payload, actor=ACTOR))
    assert pointers == {"/default/content/text"}


def test_a_placement_opens_its_programme(shop: Session) -> None:
    programme = shop.exec(select(Series).where(Series.placement == "welcome-subject")).one()
    assert (programme.kind, programme.unit, programme.segmentation_version) == ("programme", "period", 0)
    assert {metric["key"] for metric in programme.metrics} == BUILT_IN_METRICS.keys()
    assert {metric["window_hours"] for metric in programme.metrics} == {168.0}
    variants = shop.exec(select(SeriesVariant).where(SeriesVariant.series == programme.number)).all()
    assert {(row.key, row.is_control) for row in variants} == {("held_out", True), ("treated", False)}
    assert newest_allocations(shop, programme.number or 0)["everyone"].weights == {"held_out": 0.05, "treated": 0.95}


def test_another_share_is_another_allocation_of_the_programme(shop: Session) -> None:
    for share in (0.05, 0.1):
        payload = {**PLACEMENT, "holdout": {"share": share}, "description": "new"}
        definition_store.put_placement(shop, "welcome-subject", payload=payload, actor=ACTOR)
    programme = shop.exec(select(Series).where(Series.kind == "programme")).one()
    rows = shop.exec(select(Allocation).where(Allocation.series == programme.number)).all()
    shares = {row.version: row.weights["held_out"] for row in rows}
    assert shares == {1: 0.05, 2: 0.1}


def test_an_experiment_names_only_what_exists(shop: Session) -> None:
    changes: dict[str, Any] = {
        "segments": ["vip", "nobody"],
        "goal": "joy",
        "metrics": ["click", "fun"],
        "guardrails": [{"metric": "harm", "max_harm": 0.1}],
    }
    pointers = set(refused(put_experiment, shop, **changes))
    assert pointers == {"/segments/1", "/goal", "/metrics/1", "/guardrails/0/metric"}
    assert set(refused(put_experiment, shop, placement="nowhere")) == {"/placement"}


def test_a_floor_leaves_room_for_every_variant(shop: Session) -> None:
    assert set(refused(put_experiment, shop, floor=0.5)) == {"/floor"}
    assert put_experiment(shop, floor=0.49, control_share=0.9).created


def test_a_draft_can_be_put_again_and_read(shop: Session) -> None:
    assert put_experiment(shop).created
    assert put_experiment(shop).version == 1
    assert put_experiment(shop, burn_in=7).version == 2
    state = get_experiment(shop, "subject-1")
    assert (state.status, state.series, state.body["burn_in"]) == ("draft", None, 7)
    put_experiment(shop, "subject-2")
    assert [found.key for found in list_experiments(shop, limit=1)] == ["subject-1"]
    assert [found.key for found in list_experiments(shop, cursor="subject-1")] == ["subject-2"]


def test_definitions_reach_the_snapshot(engine: Engine) -> None:
    with transaction(engine) as session:
        put_shop(session)
    with reading(engine) as session:
        snapshot = load_snapshot(session)
    placement = snapshot.placements["welcome-subject"]
    assert placement.segmentation.segment_of({"country": "AT"}) == "local-new"
    assert placement.programme.wheels["everyone"][1].propensities == (0.05, 0.95)
