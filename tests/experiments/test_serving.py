"""What is said of every segment is what decisions do, also after a placement's segments have changed. Lines by hand."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import event
from sqlmodel import Session

from experiments.catalog.definition_store import get_definition, put_placement, put_segmentation
from experiments.catalog.experiment_store import put_experiment
from experiments.catalog.lifecycle import conclude, start
from experiments.catalog.serving import now_serving
from experiments.database import database_now
from experiments.decisions.best import best_variants
from experiments.decisions.choosing import Asked, Moment, choose
from experiments.promote.promotion import promote
from experiments.snapshot.load import load_snapshot
from experiments.tables import PolicyVersion
from tests.experiments.review_world import ACTOR, KEY, PLACEMENT, start_experiment

FIRST = {"key": "tiers", "version": 1}
Lines = list[tuple[str, dict[str, Any] | None, str]]


def _lines(told: list[dict[str, Any]]) -> Lines:
    return [(line["segment"], line["segmentation"], line["source"]) for line in told]


def _split_anew(session: Session) -> None:
    """Gold customers are vips now."""
    rule = {"attribute": "tier", "in": ["vip", "gold"]}
    payload = {"segments": [{"key": "vip", "rule": rule}], "otherwise": "all"}
    put_segmentation(session, "tiers", payload=payload, actor=ACTOR)


def _place(session: Session, segmentation: str) -> None:
    body = get_definition(session, "placement", key=PLACEMENT).body
    put_placement(session, PLACEMENT, payload=body | {"segmentation": segmentation}, actor=ACTOR)


def _promote(session: Session, **segments: str) -> None:
    promote(session, KEY, request={"segments": segments, "force": True, "reason": "the board"}, actor=ACTOR)


def _start_another(session: Session, *, segment: str) -> None:
    variants = [{"key": key, "content": {"text": key}, "is_control": key == "x"} for key in ("x", "y")]
    definition = {"placement": PLACEMENT, "segments": [segment], "goal": "visit", "variants": variants}
    put_experiment(session, "offer-2", payload=definition, actor=ACTOR)
    start(session, "offer-2", actor=ACTOR)


def _decided(session: Session, tier: str) -> str:
    """Where the answer to a customer comes from, once all is in effect."""
    snapshot, at = load_snapshot(session), database_now(session) + timedelta(seconds=10)
    moment = Moment(at, at.timestamp(), is_stale=False, is_usable=True)
    asked = (Asked(f"customer-{i}", typed={"tier": tier}) for i in range(40))
    placement = snapshot.placements[PLACEMENT]
    sources = {choose(snapshot, placement, asked=one, moment=moment).source for one in asked}
    (source,) = sources - {"holdout"}
    return source


def _experiment_on_some(session: Session) -> None:
    start_experiment(session, segments=("vip", "all"))
    _promote(session, all="b")
    _split_anew(session)


def _experiment_on_all(session: Session) -> None:
    start_experiment(session, segments=("vip", "all"))
    _place(session, "everyone")


def _policy_on_some(session: Session) -> None:
    start_experiment(session, segments=("vip", "all"))
    _promote(session, vip="b")
    conclude(session, KEY, actor=ACTOR)
    _split_anew(session)


def _experiment_of_now_before_policy_of_then(session: Session) -> None:
    _policy_on_some(session)
    _start_another(session, segment="vip")


def _experiment_on_everyone(session: Session) -> None:
    start_experiment(session, segments=("all",))
    conclude(session, KEY, actor=ACTOR)
    _place(session, "everyone")
    _start_another(session, segment="everyone")
    _place(session, "tiers")


@pytest.mark.parametrize(
    ("world", "lines", "decided"),
    [
        (
            _experiment_on_some,
            [("vip", FIRST, "experiment"), ("all", FIRST, "policy")],
            {"vip": "experiment", "gold": "policy", "none": "policy"},
        ),
        (
            _experiment_on_all,
            [("vip", FIRST, "experiment"), ("all", FIRST, "experiment")],
            {"vip": "experiment", "gold": "experiment", "none": "experiment"},
        ),
        (
            _policy_on_some,
            [("vip", FIRST, "policy"), ("vip", None, "default"), ("all", None, "default")],
            {"vip": "policy", "gold": "default", "none": "default"},
        ),
        (
            _experiment_of_now_before_policy_of_then,
            [
                ("vip", None, "experiment"),
                ("vip", FIRST, "policy"),
                ("all", None, "default"),
            ],
            {"vip": "experiment", "gold": "experiment", "none": "default"},
        ),
        (
            _experiment_on_everyone,
            [("everyone", {"key": "everyone", "version": 0}, "experiment")],
            {"vip": "experiment", "gold": "experiment", "none": "experiment"},
        ),
    ],
)
def test_what_is_said_of_segments_is_what_decisions_do(
    session: Session, world: Callable[[Session], None], lines: Lines, decided: dict[str, str]
) -> None:
    """The first line whose segment a customer is in, under its own segmentation, says what they get."""
    world(session)
    assert _lines(now_serving(session, PLACEMENT)) == lines
    assert _lines(best_variants(session, PLACEMENT)) == lines
    assert {tier: _decided(session, tier) for tier in decided} == decided


def test_a_segmentation_that_did_not_change_is_not_named_and_gives_the_order(session: Session) -> None:
    start_experiment(session, segments=("vip", "all"))
    _promote(session, vip="b")
    expected: Lines = [("vip", None, "policy"), ("all", None, "experiment")]
    assert _lines(now_serving(session, PLACEMENT)) == _lines(best_variants(session, PLACEMENT)) == expected


def test_the_best_of_a_policy_reads_no_more_versions_than_the_promotions_that_stand(session: Session) -> None:
    start_experiment(session, segments=("vip", "all"))
    _promote(session, all="b")
    for variant in ("a", "b", "a"):
        _promote(session, vip=variant)
    session.expunge_all()
    read: set[int] = set()

    def note(policy: PolicyVersion, _context: object) -> None:
        read.add(policy.version)

    event.listen(PolicyVersion, "load", note)
    best = best_variants(session, PLACEMENT)
    event.remove(PolicyVersion, "load", note)
    assert read == {1, 4}
    assert [(line["segment"], line["variant"], line["policy_version"]) for line in best] == [
        ("vip", "a", 4),
        ("all", "b", 4),
    ]
