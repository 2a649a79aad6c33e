"""Promoting and rolling back: what is written, what customers then get, what is refused."""

from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlmodel import Session, select

from experiments.access import audit
from experiments.catalog.lifecycle import EFFECT_SECONDS, conclude
from experiments.catalog.variants import retire_variant
from experiments.database import database_now
from experiments.decisions.choosing import Asked, Moment, choose
from experiments.errors import (
    ExperimentNotFound,
    InvalidInput,
    PlacementNotFound,
    PolicyNotFound,
    PolicyVersionNotFound,
    PromotionRefused,
    WrongState,
)
from experiments.learning.allocations import newest_allocations
from experiments.promote.policies import read_policy, rollback
from experiments.promote.promotion import promote
from experiments.promote.series import explore_weights
from experiments.review import results
from experiments.snapshot.load import load_snapshot
from experiments.tables import Experiment, PolicyVersion, Series, SeriesVariant, Workspace
from tests.experiments.review_world import (
    ACTOR,
    KEY,
    PLACEMENT,
    row_of,
    start_experiment,
    two_weeks,
)

WHY = {"reason": "it won"}


def _world(session: Session, **settings: Any) -> int:
    """B is proven better among vips; among all others nothing is known."""
    series = start_experiment(session, segments=("vip", "all"), **settings)
    two_weeks(session, series, rates={"a": 0.10, "b": 0.15}, n_units=500, segment="vip")
    two_weeks(session, series, rates={"a": 0.10, "b": 0.101}, n_units=20)
    return series


def _promote(session: Session, **request: Any) -> dict[str, Any]:
    return promote(session, KEY, request=WHY | request, actor=ACTOR)


def _sources(session: Session, *, tier: str, after_seconds: float = 10.0) -> dict[str, set[str]]:
    """Where the answers to 40 customers come from so many seconds from now, and their variants; the held out aside."""
    snapshot = load_snapshot(session)
    at = database_now(session) + timedelta(seconds=after_seconds)
    moment = Moment(at, at.timestamp(), is_stale=False, is_usable=True)
    found: dict[str, set[str]] = {}
    for i in range(40):
        asked = Asked(f"customer-{i}", typed={"tier": tier})
        choice = choose(snapshot, snapshot.placements[PLACEMENT], asked=asked, moment=moment)
        found.setdefault(choice.source, set()).add(choice.variant.key)
    found.pop("holdout", None)
    return found


def test_what_is_proven_becomes_the_policy_of_its_segment_and_the_rest_stays_in_the_experiment(
    session: Session,
) -> None:
    series = _world(session)
    answer = _promote(session, explore=0.0)
    assert (answer["version"], answer["segments"], answer["concluded"]) == (1, {"vip": "b"}, False)
    assert _sources(session, tier="vip") == {"policy": {"b"}}
    assert _sources(session, tier="none") == {"experiment": {"a", "b"}}
    assert session.get_one(Experiment, KEY).status == "running"
    assert set(session.get_one(Series, series).closed_segments) == {"vip"}


def test_a_promotion_takes_effect_everywhere_at_one_moment(session: Session) -> None:
    """Both start and promotion are two seconds ahead; a second from now the experiment still decides for nobody new."""
    _world(session)
    answer = _promote(session, explore=0.0)
    policy = session.get_one(PolicyVersion, (PLACEMENT, 1))
    assert policy.effective_at - policy.created_at == timedelta(seconds=EFFECT_SECONDS)
    left = session.exec(select(Series.closed_segments).where(Series.kind == "experiment")).one()
    opens = session.exec(select(Series.opens_at).where(Series.kind == "policy")).one()
    assert datetime.fromisoformat(left["vip"]) == opens == policy.effective_at
    assert answer["effective_at"] == policy.effective_at.isoformat()


def test_the_policys_series_has_the_experiments_variants_metrics_and_pinned_segments(session: Session) -> None:
    number = _world(session, variants=("a", "b", "c"), costs={"b": {"per_response": 2.0}})
    retire_variant(session, KEY, variant="c", actor=ACTOR, reason="out of stock")
    answer = _promote(session, segments={"vip": "b"}, force=True)
    parent, series = session.get_one(Series, number), session.get_one(Series, answer["series"])
    assert (series.kind, series.unit, series.experiment) == ("policy", "period", KEY)
    assert series.metrics == parent.metrics
    assert (series.segmentation, series.segmentation_version) == (parent.segmentation, parent.segmentation_version)
    query = select(SeriesVariant).where(SeriesVariant.series == series.number).order_by(SeriesVariant.position)  # type: ignore[arg-type]
    variants = session.exec(query).all()
    assert [(row.key, row.is_control) for row in variants] == [("a", True), ("b", False)]
    assert variants[1].cost == {"per_response": 2.0, "per_decision": 0.0}
    assert newest_allocations(session, answer["series"])["vip"].weights == pytest.approx({"a": 0.05, "b": 0.95})


def test_the_evidence_is_the_review_as_it_was(session: Session) -> None:
    _world(session)
    before = results(session, KEY, is_brief=True)
    _promote(session)
    evidence = read_policy(session, PLACEMENT)["history"][0]["evidence"]
    assert set(evidence) == {"vip"}
    frozen = evidence["vip"]
    assert {name: frozen[name] for name in ("verdict", "winner", "variants")} == {
        name: row_of(before, "vip")[name] for name in ("verdict", "winner", "variants")
    }
    assert (frozen["experiment"], frozen["metric"], frozen["forced"]) == (KEY, "visit", False)


def test_a_segment_that_is_not_proven_is_refused_with_its_reason(session: Session) -> None:
    _world(session)
    with pytest.raises(PromotionRefused) as raised:
        _promote(session, segments={"vip": "b", "all": "b"})
    (field,) = raised.value.fields
    assert field.pointer == "/segments/all"
    assert field.detail.startswith("keep_running: ")
    with pytest.raises(PromotionRefused) as raised:
        _promote(session, segments={"vip": "a"})
    assert raised.value.fields[0].detail == "the winner is b, not a"
    assert session.exec(select(PolicyVersion)).all() == []


def test_nothing_proven_is_refused_with_every_segments_reason(session: Session) -> None:
    start_experiment(session, segments=("vip", "all"))
    with pytest.raises(PromotionRefused) as raised:
        _promote(session)
    assert [field.pointer for field in raised.value.fields] == ["/segments/vip", "/segments/all"]


def test_force_promotes_what_is_named_and_the_audit_of_experiment_and_policy_says_so(session: Session) -> None:
    _world(session)
    answer = _promote(session, segments={"all": "b"}, force=True, reason="the boss likes it")
    assert answer["forced"] is True
    for subject in (f"experiment/{KEY}", f"policy/{PLACEMENT}"):
        entry = audit.list_entries(session, subject=subject)[0]
        assert (entry.action, entry.actor, entry.reason) == ("promote", ACTOR, "the boss likes it")
        assert entry.detail["forced"] is True
    evidence = read_policy(session, PLACEMENT)["history"][0]["evidence"]["all"]
    assert (evidence["forced"], evidence["verdict"]) == (True, "keep_running")
    assert audit.verify(session) is None


def test_an_experiment_without_segments_left_is_concluded(session: Session) -> None:
    _world(session)
    version = session.get_one(Experiment, KEY).version
    assert _promote(session)["concluded"] is False
    assert _promote(session, segments={"all": "b"}, force=True)["concluded"] is True
    experiment = session.get_one(Experiment, KEY)
    assert (experiment.status, experiment.version) == ("concluded", version + 2)
    assert read_policy(session, PLACEMENT)["entries"].keys() == {"vip", "all"}
    assert _sources(session, tier="none").keys() == {"policy"}


def test_a_concluded_experiments_winner_can_still_be_promoted(session: Session) -> None:
    _world(session)
    conclude(session, KEY, actor=ACTOR)
    assert _promote(session)["segments"] == {"vip": "b"}
    assert _sources(session, tier="vip").keys() == {"policy"}
    assert _sources(session, tier="none") == {"default": {"plain"}}


def test_a_control_that_won_is_promoted_and_goes_on_being_tested(session: Session) -> None:
    series = start_experiment(session)
    two_weeks(session, series, rates={"a": 0.15, "b": 0.10}, n_units=500)
    answer = _promote(session, explore=0.1)
    assert answer["segments"] == {"all": "a"}
    assert newest_allocations(session, answer["series"])["all"].weights == pytest.approx({"a": 0.9, "b": 0.1})


def test_rolling_back_brings_back_the_version_before_as_one_more_version(session: Session) -> None:
    _world(session)
    _promote(session, explore=0.0)
    first = read_policy(session, PLACEMENT)["entries"]
    _promote(session, segments={"vip": "a", "all": "a"}, force=True, explore=0.0)
    assert _sources(session, tier="vip") == {"policy": {"a"}}
    answer = rollback(session, PLACEMENT, request={"reason": "complaints"}, actor=ACTOR)
    assert (answer["version"], answer["to_version"]) == (3, 1)
    assert answer["segments"] == {"vip": "b", "all": None}
    policy = read_policy(session, PLACEMENT)
    assert policy["entries"] == first
    assert [(row["version"], row["action"]) for row in policy["history"]] == [
        (3, "rollback"),
        (2, "promote"),
        (1, "promote"),
    ]
    assert policy["history"][1]["entries"].keys() == {"vip", "all"}
    assert _sources(session, tier="vip") == {"policy": {"b"}}
    assert answer["returned"] == {}
    assert _sources(session, tier="none") == {"default": {"plain"}}
    entry = audit.list_entries(session, subject=f"policy/{PLACEMENT}")[0]
    assert (entry.action, entry.reason) == ("rollback", "complaints")


def test_single_segments_roll_back_to_a_named_version_even_to_none(session: Session) -> None:
    _world(session)
    _promote(session)
    _promote(session, segments={"vip": "a", "all": "b"}, force=True)
    request = {"segments": ["vip"], "to_version": 0, "reason": "start again"}
    assert rollback(session, PLACEMENT, request=request, actor=ACTOR)["segments"] == {"vip": None}
    assert read_policy(session, PLACEMENT)["entries"].keys() == {"all"}
    request = {"segments": ["vip"], "to_version": 1, "reason": "or not"}
    assert rollback(session, PLACEMENT, request=request, actor=ACTOR)["segments"] == {"vip": "b"}
    assert {key: entry["variant"] for key, entry in read_policy(session, PLACEMENT)["entries"].items()} == {
        "vip": "b",
        "all": "b",
    }


def test_every_change_tells_the_workers(session: Session) -> None:
    _world(session)
    before = session.exec(select(Workspace.snapshot_version)).one()
    _promote(session)
    rollback(session, PLACEMENT, request=WHY, actor=ACTOR)
    assert session.exec(select(Workspace.snapshot_version)).one() == before + 2


def test_an_expired_policy_stays_and_is_warned_of(session: Session) -> None:
    _world(session)
    _promote(session, expires_at="2999-01-01T00:00:00Z")
    assert read_policy(session, PLACEMENT)["warnings"] == []
    version = session.get_one(PolicyVersion, (PLACEMENT, 1))
    version.entries = {"vip": version.entries["vip"] | {"expires_at": "2020-01-01T00:00:00+00:00"}}
    session.flush()
    policy = read_policy(session, PLACEMENT)
    assert policy["entries"]["vip"]["expires_at"] == "2020-01-01T00:00:00+00:00"
    assert "expired" in policy["warnings"][0]
    assert _sources(session, tier="vip").keys() == {"policy"}


def test_a_placement_without_a_policy_says_so(session: Session) -> None:
    start_experiment(session)
    policy = read_policy(session, PLACEMENT)
    assert (policy["version"], policy["entries"], policy["history"]) == (0, {}, [])
    with pytest.raises(PolicyNotFound):
        rollback(session, PLACEMENT, request=WHY, actor=ACTOR)
    with pytest.raises(PlacementNotFound):
        read_policy(session, "none-such")
    with pytest.raises(PlacementNotFound):
        rollback(session, "none-such", request=WHY, actor=ACTOR)


def test_only_what_has_started_can_be_promoted(session: Session) -> None:
    with pytest.raises(ExperimentNotFound):
        _promote(session)
    start_experiment(session)
    experiment = session.get_one(Experiment, KEY)
    experiment.status, experiment.series = "draft", None
    with pytest.raises(WrongState):
        _promote(session)


@pytest.mark.parametrize(
    ("request_", "pointer"),
    [
        ({}, "/reason"),
        ({"reason": "  "}, "/reason"),
        ({"reason": "x", "explore": 0.6}, "/explore"),
        ({"reason": "x", "explore": True}, "/explore"),
        ({"reason": "x", "expires_at": "soon"}, "/expires_at"),
        ({"reason": "x", "expires_at": "2020-01-01T00:00:00Z"}, "/expires_at"),
        ({"reason": "x", "expires_at": "2020-01-01", "segments": {"all": "b"}}, "/expires_at"),
        ({"reason": "x", "expires_at": "2020-01-01", "segments": {"all": "b"}, "force": True}, "/expires_at"),
        ({"reason": "x", "as_of": "2999-01-01"}, "/as_of"),
        ({"reason": "x", "force": True}, "/force"),
        ({"reason": "x", "segments": {}}, "/segments"),
        ({"reason": "x", "segments": {"none-such": "b"}}, "/segments/none-such"),
        ({"reason": "x", "segments": {"vip": "none-such"}}, "/segments/vip"),
        ({"reason": "x", "why": "y"}, "/why"),
    ],
)
def test_a_wrong_request_is_refused_with_the_place(session: Session, request_: dict[str, Any], pointer: str) -> None:
    _world(session)
    with pytest.raises(InvalidInput) as raised:
        promote(session, KEY, request=request_, actor=ACTOR)
    assert [field.pointer for field in raised.value.fields] == [pointer]


@pytest.mark.parametrize(
    ("request_", "pointer"),
    [
        ({}, "/reason"),
        ({"reason": "x", "segments": ["none-such"]}, "/segments/0"),
        ({"reason": "x", "to_version": -1}, "/to_version"),
    ],
)
def test_a_wrong_roll_back_is_refused_with_the_place(session: Session, request_: dict[str, Any], pointer: str) -> None:
    _world(session)
    _promote(session)
    with pytest.raises(InvalidInput) as raised:
        rollback(session, PLACEMENT, request=request_, actor=ACTOR)
    assert [field.pointer for field in raised.value.fields] == [pointer]


def test_a_version_that_is_not_there_or_stands_can_not_come_back(session: Session) -> None:
    _world(session)
    _promote(session)
    with pytest.raises(PolicyVersionNotFound):
        rollback(session, PLACEMENT, request={"reason": "x", "to_version": 2}, actor=ACTOR)
    with pytest.raises(InvalidInput, match="is 1, which stands"):
        rollback(session, PLACEMENT, request={"reason": "x", "to_version": 1}, actor=ACTOR)


@given(
    n_variants=st.integers(2, 8),
    explore=st.floats(0.0, 0.5),
    data=st.data(),
)
def test_explored_weights_add_up_and_half_of_them_is_the_controls(
    n_variants: int, explore: float, data: st.DataObject
) -> None:
    keys = [f"v{i}" for i in range(n_variants)]
    winner, control = data.draw(st.sampled_from(keys)), data.draw(st.sampled_from(keys))
    weights = explore_weights(keys, winner=winner, control=control, explore=explore)
    assert list(weights) == keys
    assert sum(weights.values()) == pytest.approx(1.0, abs=1e-12)
    assert weights[winner] == pytest.approx(1.0 - explore)
    if winner != control and n_variants > 2:
        assert weights[control] == pytest.approx(explore / 2)
    assert min(weights.values()) >= 0.0
