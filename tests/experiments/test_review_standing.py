"""What policies and programmes earn. Expected values: sums written by the test, worked out by hand."""

from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlmodel import Session, select

from experiments.corrections.correct import correct
from experiments.database import database_now
from experiments.errors import MetricNotMeasured, PolicyNotFound, PolicyVersionNotFound
from experiments.promote.policies import rollback
from experiments.promote.promotion import promote
from experiments.review import policy_results, programme_results
from experiments.tables import Series
from tests.experiments.review_world import (
    ACTOR,
    KEY,
    LONG_AGO,
    PLACEMENT,
    observe,
    row_of,
    start_experiment,
    two_weeks,
    variant_of,
)


def _promoted(session: Session, segments: dict[str, str], **settings: Any) -> int:
    request = {"reason": "won", "segments": segments, "force": True, "explore": 0.2}
    number: int = promote(session, KEY, request=request | settings, actor=ACTOR)["series"]
    return number


def _programme_that_always_measured(session: Session) -> int:
    """The number of the programme; what it counts since its experiment started is taken to be counted all along."""
    series = session.exec(select(Series).where(Series.kind == "programme")).one()
    series.metrics = [metric | {"since": None} for metric in series.metrics]
    session.flush()
    assert series.number is not None
    return series.number


def test_the_standing_variant_is_compared_with_all_that_explore(session: Session) -> None:
    """By hand: b 160 of 800; a 10 of 100 and c 14 of 100 explore together, 24 of 200."""
    start_experiment(session, variants=("a", "b", "c"))
    series = _promoted(session, {"all": "b"})
    for variant, n_units, visits in (("a", 100, 10), ("b", 800, 160), ("c", 100, 14)):
        observe(session, series, variant=variant, n_units=n_units, visits=visits)
    answer = policy_results(session, PLACEMENT)
    row = row_of(answer, "all")
    assert (row["standing_variant"], row["experiment"]) == ("b", KEY)
    assert variant_of(row, "standing")["mean"] == 0.2
    assert variant_of(row, "exploring")["mean"] == 0.12
    assert variant_of(row, "standing")["uplift"]["absolute"] == pytest.approx(0.08)
    assert variant_of(row, "standing")["weight"] == pytest.approx(0.8)
    assert answer["checks"]["sample_ratio"]["p_value"] == pytest.approx(1.0)
    assert (answer["metric"], answer["policy_version"]) == ("visit", 1)


def test_segments_of_several_promotions_are_reviewed_together(session: Session) -> None:
    start_experiment(session, segments=("vip", "new", "all"))
    first = _promoted(session, {"vip": "b", "new": "b"})
    second = _promoted(session, {"all": "a", "new": "a"})
    for series, segment, standing in (
        (first, "vip", "b"),
        (second, "all", "a"),
        (second, "new", "a"),
        (first, "new", "b"),
    ):
        other = "a" if standing == "b" else "b"
        observe(session, series, variant=standing, segment=segment, n_units=800, visits=80)
        observe(session, series, variant=other, segment=segment, n_units=200, visits=10)
    answer = policy_results(session, PLACEMENT)
    assert {row["segment"]: row["standing_variant"] for row in answer["segments"]} == {
        "vip": "b",
        "new": "a",
        "all": "a",
    }
    assert variant_of(answer["overall"], "standing")["n_units"] == 3 * 800
    assert variant_of(answer["overall"], "standing")["uplift"]["absolute"] == pytest.approx(0.05)


def test_what_a_policys_variants_cost_is_in_its_money(session: Session) -> None:
    """By hand, per unit: standing 2.00 - 0.50, exploring 1.00: a gain of 500 for 1,000 units."""
    start_experiment(session, goal="spend", metrics=["visit"], costs={"b": {"per_decision": 0.5}})
    series = _promoted(session, {"all": "b"})
    spent: dict[str, Any] = {"metric": "spend", "visits": 80}
    observe(session, series, variant="b", n_units=800, total="1600", squares="40000", **spent)
    observe(session, series, variant="a", n_units=200, total="200", squares="9000", **spent)
    money = policy_results(session, PLACEMENT)["money"]
    assert (money["variant"], money["against"], money["currency"]) == ("standing", "exploring", "EUR")
    assert money["per_1000"] == pytest.approx(500.0)


def test_a_placement_where_nothing_stands_has_no_policy_results(session: Session) -> None:
    start_experiment(session)
    with pytest.raises(PolicyNotFound):
        policy_results(session, PLACEMENT)
    _promoted(session, {"all": "b"})
    with pytest.raises(MetricNotMeasured):
        policy_results(session, PLACEMENT, metric="none-such")


def test_policies_and_programmes_name_the_corrections_that_touch_them(session: Session) -> None:
    start_experiment(session)
    series = _promoted(session, {"all": "b"})
    programme = _programme_that_always_measured(session)
    observe(session, series, variant="b", n_units=80, visits=8)
    observe(session, programme, variant="treated", n_units=80, visits=8)
    now = database_now(session)
    body = {"event": "visit", "occurred_from": (now - timedelta(hours=1)).isoformat(), "occurred_to": now.isoformat()}
    made = correct(session, request=body | {"action": "exclude", "reason": "a bug"}, actor=ACTOR)
    of_policy = policy_results(session, PLACEMENT)
    of_programme = programme_results(session, metric="visit")["placements"][0]
    for answer in (of_policy, of_programme):
        assert [one["id"] for one in answer["corrections"]] == [made.id]
        assert any("is applying" in warning for warning in answer["warnings"])


def test_what_was_rolled_back_stays_measured_by_its_version(session: Session) -> None:
    start_experiment(session)
    series = _promoted(session, {"all": "b"})
    for variant, n_units, visits in (("a", 200, 20), ("b", 800, 160)):
        observe(session, series, variant=variant, n_units=n_units, visits=visits)
    stood = policy_results(session, PLACEMENT)
    rollback(session, PLACEMENT, request={"reason": "no"}, actor=ACTOR)
    with pytest.raises(match="Version 2"):
        policy_results(session, PLACEMENT)
    before = policy_results(session, PLACEMENT, version=1, as_of=datetime.fromisoformat(stood["as_of"]))
    assert before["policy_version"] == 1
    assert before["overall"]["variants"] == stood["overall"]["variants"]
    with pytest.raises(PolicyVersionNotFound):
        policy_results(session, PLACEMENT, version=7)


def test_the_programme_compares_treated_with_held_out_in_every_segment(session: Session) -> None:
    """Enrolments carry the placement's segments; their weights are the holdout's share, 10 %."""
    start_experiment(session, segments=("vip", "all"))
    programme = _programme_that_always_measured(session)
    for segment in ("vip", "all"):
        two_weeks(session, programme, rates={"treated": 0.12}, n_units=900, segment=segment)
        two_weeks(session, programme, rates={"held_out": 0.10}, n_units=100, segment=segment)
    answer = programme_results(session, metric="visit")
    (placement,) = answer["placements"]
    assert placement["placement"] == PLACEMENT
    assert [row["segment"] for row in placement["segments"]] == ["all", "vip"]
    treated = variant_of(placement["overall"], "treated")
    assert treated["uplift"]["absolute"] == pytest.approx(0.02)
    assert treated["weight"] == pytest.approx(0.9)
    assert placement["checks"]["sample_ratio"]["p_value"] == pytest.approx(1.0)


def test_a_metric_that_no_programme_measures_is_refused_and_none_at_all_is_an_empty_list(session: Session) -> None:
    assert programme_results(session)["placements"] == []
    start_experiment(session)
    assert programme_results(session)["metric"] == "revenue"
    with pytest.raises(MetricNotMeasured):
        programme_results(session, metric="none-such")


def test_a_policy_and_the_programme_are_told_by_period_too(session: Session) -> None:
    """By hand: 30 days apart, 8 points of uplift first and 4 later; each period by itself."""
    start_experiment(session)
    series = _promoted(session, {"all": "b"})
    for since, visits in ((LONG_AGO, 160), (LONG_AGO + timedelta(days=30), 128)):
        observe(session, series, variant="b", n_units=800, visits=visits, since=since)
        observe(session, series, variant="a", n_units=200, visits=24, since=since)
    first, second = policy_results(session, PLACEMENT)["periods"]
    assert first["until"] == second["from"]
    for period, uplift in ((first, 0.08), (second, 0.04)):
        for row in (period["segments"][0], period["overall"]):
            standing = variant_of(row, "standing")
            assert standing["uplift"]["absolute"] == pytest.approx(uplift)
            assert standing["n_units"] == 800
    programme = _programme_that_always_measured(session)
    observe(session, programme, variant="treated", n_units=900, visits=108)
    observe(session, programme, variant="held_out", n_units=100, visits=10)
    (placement,) = programme_results(session, metric="visit")["placements"]
    (period,) = placement["periods"]
    assert variant_of(period["overall"], "treated")["uplift"]["absolute"] == pytest.approx(0.02)


def test_units_from_before_a_programme_counted_a_metric_are_not_taken_for_silent_ones(session: Session) -> None:
    """Of 1,000 units a month before the experiment nobody counted visits; of those since, 12 in 100 visit."""
    start_experiment(session)
    programme = session.exec(select(Series).where(Series.kind == "programme")).one()
    joined_at = datetime.fromisoformat(next(m["since"] for m in programme.metrics if m["key"] == "visit"))
    number = programme.number or 0
    observe(session, number, variant="treated", n_units=900)
    observe(session, number, variant="held_out", n_units=100)
    programme.metrics = [m | {"since": (joined_at - timedelta(days=20)).isoformat()} for m in programme.metrics]
    session.flush()
    observe(session, number, variant="treated", n_units=900, visits=108, since=joined_at - timedelta(days=10))
    observe(session, number, variant="held_out", n_units=100, visits=10, since=joined_at - timedelta(days=10))
    (placement,) = programme_results(session, metric="visit")["placements"]
    assert variant_of(placement["overall"], "treated")["mean"] == pytest.approx(0.12)
    assert variant_of(placement["overall"], "treated")["n_units"] == 900
