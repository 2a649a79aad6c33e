"""Undoing promotions: again and again, and what then becomes of the segments."""

from datetime import timedelta
from typing import Any

import pytest
from sqlmodel import Session

from experiments.access import audit
from experiments.catalog.experiment_store import put_experiment
from experiments.catalog.lifecycle import conclude, open_segments, pause, resume, start
from experiments.catalog.serving import now_serving
from experiments.database import database_now
from experiments.decisions.choosing import Asked, Moment, choose
from experiments.errors import InvalidInput, NothingBefore
from experiments.learning.allocations import newest_allocations
from experiments.promote.policies import read_policy, rollback
from experiments.promote.promotion import promote
from experiments.snapshot.load import load_snapshot
from experiments.tables import Experiment, PolicyVersion, Series
from tests.experiments.review_world import ACTOR, KEY, PLACEMENT, reweigh, start_experiment

pytestmark = pytest.mark.usefixtures("series")


@pytest.fixture
def series(session: Session) -> Series:
    """The series of an experiment on ``vip`` and ``all`` that has run for an hour."""
    found = session.get_one(Series, start_experiment(session, segments=("vip", "all")))
    found.opens_at -= timedelta(hours=1)
    session.flush()
    return found


def _promote(session: Session, **segments: str) -> dict[str, Any]:
    request = {"segments": segments, "explore": 0.0, "force": True, "reason": "the board"}
    return promote(session, KEY, request=request, actor=ACTOR)


def _undo(session: Session, **more: Any) -> dict[str, Any]:
    return rollback(session, PLACEMENT, request={"reason": "complaints"} | more, actor=ACTOR)


def _in_effect(session: Session) -> None:
    """As if the last version had taken effect a minute ago."""
    policy = session.get_one(PolicyVersion, (PLACEMENT, read_policy(session, PLACEMENT)["version"]))
    policy.effective_at -= timedelta(minutes=1)
    session.flush()


def _standing(session: Session) -> dict[str, str]:
    return {key: entry["variant"] for key, entry in read_policy(session, PLACEMENT)["entries"].items()}


def _source(session: Session, *, after_seconds: float) -> set[str]:
    """Where vips' answers come from so many seconds from now; the held out aside."""
    snapshot, at = load_snapshot(session), database_now(session) + timedelta(seconds=after_seconds)
    moment = Moment(at, at.timestamp(), is_stale=False, is_usable=True)
    asked = [Asked(f"customer-{i}", typed={"tier": "vip"}) for i in range(20)]
    placement = snapshot.placements[PLACEMENT]
    return {choose(snapshot, placement, asked=one, moment=moment).source for one in asked} - {"holdout"}


def test_undoing_again_goes_back_further_until_nothing_is_before(session: Session) -> None:
    for variant in ("a", "b", "a"):
        _promote(session, vip=variant)
    steps = [(_undo(session)["to_version"], _standing(session)) for _ in range(3)]
    assert steps == [(2, {"vip": "b"}), (1, {"vip": "a"}), (0, {})]
    with pytest.raises(NothingBefore, match="version 0"):
        _undo(session)


def test_undoing_a_promotion_made_after_a_roll_back_comes_to_what_was_rolled_back_to(session: Session) -> None:
    """By hand: 1 b, 2 a, 3 = 1, 4 a; undone: 3 (b), then what is before 1: nothing stands."""
    _promote(session, vip="b")
    _promote(session, vip="a")
    assert _undo(session)["to_version"] == 1
    _promote(session, vip="a")
    assert (_undo(session)["to_version"], _standing(session)) == (3, {"vip": "b"})
    assert (_undo(session)["to_version"], _standing(session)) == (0, {})


def test_after_a_roll_back_of_single_segments_the_version_must_be_said_for_all(session: Session) -> None:
    _promote(session, vip="b")
    _promote(session, vip="a", all="b")
    assert _undo(session, segments=["vip"])["to_version"] == 1
    with pytest.raises(InvalidInput) as raised:
        _undo(session)
    assert [field.pointer for field in raised.value.fields] == ["/to_version"]
    assert _undo(session, segments=["vip"])["to_version"] == 0
    assert _standing(session) == {"all": "b"}


@pytest.mark.parametrize("paused", [False, True])
def test_a_segment_left_without_policy_goes_back_to_its_experiment(
    session: Session, series: Series, *, paused: bool
) -> None:
    reweigh(session, series.number or 0, weights={"a": 0.3, "b": 0.7}, segment="vip")
    _promote(session, vip="b")
    if paused:
        pause(session, KEY, actor=ACTOR)
    version = session.get_one(Experiment, KEY).version
    answer = _undo(session)
    assert (answer["segments"], answer["returned"]) == ({"vip": None}, {"vip": KEY})
    assert session.get_one(Experiment, KEY).version == version + 1
    for subject in (f"policy/{PLACEMENT}", f"experiment/{KEY}"):
        entry = audit.list_entries(session, subject=subject)[0]
        assert (entry.action, entry.detail["returned"]) == ("rollback", {"vip": KEY})
    if paused:
        assert _source(session, after_seconds=10) == {"default"}
        resume(session, KEY, actor=ACTOR)
    assert _source(session, after_seconds=10) == {"experiment"}
    assert now_serving(session, PLACEMENT)[0]["weights"] == {"a": 0.3, "b": 0.7}
    assert newest_allocations(session, series.number or 0)["vip"].version == 2


def test_a_returned_segment_changes_hands_at_the_moment_of_the_policys_version(session: Session) -> None:
    """It takes effect two seconds from now; the policy decides until then."""
    _promote(session, vip="b")
    _in_effect(session)
    _undo(session)
    assert _source(session, after_seconds=0) == {"policy"}
    assert _source(session, after_seconds=1.5) == {"policy"}
    assert _source(session, after_seconds=2.0) == {"experiment"}


def test_a_promotion_undone_before_it_took_effect_leaves_no_gap(session: Session) -> None:
    _promote(session, vip="b")
    _undo(session)
    assert [_source(session, after_seconds=seconds) for seconds in (0, 1.9, 2.1, 4)] == [{"experiment"}] * 4


def test_a_promotion_that_is_brought_back_takes_its_segment_out_of_the_experiment_again(
    session: Session, series: Series
) -> None:
    _promote(session, vip="b")
    _undo(session)
    answer = _undo(session, to_version=1)
    assert (answer["segments"], answer["left"], answer["returned"]) == ({"vip": "b"}, {"vip": KEY}, {})
    assert open_segments(series) == ["all"]
    assert _source(session, after_seconds=10) == {"policy"}


def test_a_segment_does_not_go_back_to_an_experiment_that_is_over(session: Session) -> None:
    _promote(session, vip="b")
    conclude(session, KEY, actor=ACTOR)
    assert _undo(session)["returned"] == {}
    assert _source(session, after_seconds=10) == {"default"}


def test_a_segment_that_another_experiment_has_taken_stays_there(session: Session) -> None:
    _promote(session, vip="b")
    body = dict(session.get_one(Experiment, KEY).body) | {"segments": ["vip"]}
    put_experiment(session, "offer-2", payload=body, actor=ACTOR)
    start(session, "offer-2", actor=ACTOR)
    assert _undo(session)["returned"] == {}
    assert now_serving(session, PLACEMENT)[0]["experiment"] == "offer-2"
