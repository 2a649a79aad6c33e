"""Guardrails in the domain: what a pass pauses, and what learning, variants, verdicts and promotions make of it."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import Engine
from sqlmodel import Session, select

from experiments.access.audit import verify
from experiments.background import work_once
from experiments.catalog import lifecycle
from experiments.catalog.variants import append_variant, retire_variant
from experiments.database import database_now, reading, transaction
from experiments.errors import LeaseLost, PromotionRefused, VariantNotPaused
from experiments.guardrails.guard import Guarded, find_harms, guard, pause_variants
from experiments.guardrails.pauses import paused_places
from experiments.guardrails.unpause import unpause_variant
from experiments.learn import LEASE, read_learnable
from experiments.learning.allocations import newest_allocations
from experiments.learning.lease import Lease, take
from experiments.learning.new_weights import new_weights
from experiments.promote.promotion import promote
from experiments.review.results import results
from experiments.tables import Allocation, Experiment, Series, VariantPause, Workspace
from experiments.tallies.read import read_weights
from tests.experiments.review_world import ACTOR, KEY, observe, row_of, start_experiment

GUARDRAIL: dict[str, Any] = {"metric": "complaint", "max_harm": 0.005}
SEGMENTS = ("vip", "all")
NONE = Guarded(0, 0)


def _start(session: Session, **settings: Any) -> int:
    guardrail = GUARDRAIL | settings.pop("guardrail", {})
    usual: dict[str, Any] = {"segments": SEGMENTS, "guardrails": [guardrail], "burn_in": 0}
    return start_experiment(session, **(usual | settings))


def _complain(
    session: Session, series: int, *, complaints: Mapping[str, int], segment: str = "vip", **where: Any
) -> None:
    """Units of each variant (5,000), of whom half visited (of b six in ten); so many complained."""
    n_units = where.pop("n_units", {})
    for variant, count in complaints.items():
        n = n_units.get(variant, 5_000)
        visits = n * 6 // 10 if variant == "b" else n // 2
        at = {"segment": segment, "variant": variant, "n_units": n, **where}
        observe(session, series, visits=visits, **at)
        observe(session, series, visits=count, metric="complaint", **at)


def _lease(session: Session) -> Lease:
    lease = take(session, LEASE, holder="test", seconds=60)
    assert lease is not None
    return lease


def _guard(session: Session) -> list[tuple[str, str]]:
    return pause_variants(session, KEY, harms=find_harms(session, KEY), lease=_lease(session))


def _weights(session: Session, series: int, segment: str = "vip") -> dict[str, float]:
    return dict(newest_allocations(session, series)[segment].weights)


def test_harm_in_one_segment_pauses_nothing_elsewhere_although_the_mean_over_all_shows_it(session: Session) -> None:
    series = _start(session)
    _complain(session, series, complaints={"a": 50, "b": 400})
    _complain(session, series, complaints={"a": 50, "b": 50}, segment="all")
    assert _guard(session) == [("vip", "b")]
    assert _weights(session, series) == {"a": 1.0, "b": 0.0}
    assert _weights(session, series, "all") == {"a": 0.5, "b": 0.5}
    assert _guard(session) == []


def test_harm_that_only_all_segments_together_show_pauses_everywhere(session: Session) -> None:
    segments = tuple(f"s{i}" for i in range(8))
    series = _start(session, segments=segments)
    for segment in segments:
        _complain(session, series, complaints={"a": 50, "b": 110}, segment=segment)
    assert sorted(_guard(session)) == [(segment, "b") for segment in segments]
    pause = session.exec(select(VariantPause)).first()
    assert pause is not None
    assert pause.evidence["segment"] is None
    assert pause.evidence["bound"] > 0.005
    assert pause.effective_at - pause.paused_at == timedelta(seconds=2)


def test_a_guardrail_watches_its_own_segments_only(session: Session) -> None:
    series = _start(session, guardrail={"segments": ["all"]})
    _complain(session, series, complaints={"a": 50, "b": 400})
    assert _guard(session) == []
    _complain(session, series, complaints={"a": 50, "b": 400}, segment="all")
    assert _guard(session) == [("all", "b")]


def test_fewer_purchases_are_harm_where_more_are_better(session: Session) -> None:
    series = _start(session, guardrail={"metric": "spend", "max_harm": 0.5})
    for variant, buyers in (("a", 900), ("b", 500)):
        at: dict[str, Any] = {"variant": variant, "n_units": 5_000, "segment": "vip"}
        observe(session, series, visits=buyers, metric="spend", total=str(buyers * 10), squares=str(buyers * 110), **at)
    assert _guard(session) == [("vip", "b")]


def test_control_takes_the_share_and_the_others_keep_theirs(session: Session) -> None:
    weights = {"a": 0.2, "b": 0.3, "c": 0.5}
    series = _start(session, variants=("a", "b", "c"), method="fixed", weights=weights)
    n_units = {key: round(15_000 * weight) for key, weight in weights.items()}
    _complain(session, series, complaints={"a": 12, "b": 400, "c": 30}, n_units=n_units)
    assert _guard(session) == [("vip", "b")]
    assert _weights(session, series) == pytest.approx({"a": 0.5, "b": 0.0, "c": 0.5})
    _complain(session, series, complaints={"a": 20, "c": 500}, version=2, day=1)
    assert _guard(session) == [("vip", "c")]
    assert _weights(session, series) == {"a": 1.0, "b": 0.0, "c": 0.0}
    unpause_variant(session, KEY, variant="b", actor=ACTOR, reason="repaired")
    assert _weights(session, series) == pytest.approx({"a": 0.7, "b": 0.3, "c": 0.0})
    unpause_variant(session, KEY, variant="c", actor=ACTOR, reason="repaired")
    assert _weights(session, series) == pytest.approx(weights)


def test_learning_never_gives_a_paused_variant_weight_and_shares_among_the_others(session: Session) -> None:
    series = _start(session, variants=("a", "b", "c"))
    _complain(session, series, complaints={"a": 20, "b": 400, "c": 20})
    _complain(session, series, complaints={"a": 20, "b": 20, "c": 20}, segment="all")
    _guard(session)
    now = database_now(session)
    learnable = read_learnable(session, KEY, now=now)
    assert learnable is not None
    proposed = {row.segment: row for row in new_weights(learnable, now=now)}
    assert proposed["vip"].weights["b"] == 0.0
    assert set(proposed["vip"].basis) == {"a", "c"}
    shares = {key: row["probability_best"] for key, row in proposed["vip"].basis.items()}
    assert sum(shares.values()) == pytest.approx(1.0)
    assert proposed["vip"].weights["c"] == pytest.approx(0.01 + 0.98 * shares["c"])
    assert proposed["all"].weights["b"] > 0.9, "where it does no harm, it wins"


def test_with_all_others_paused_learning_leaves_everything_to_control(session: Session) -> None:
    series = _start(session, control_share=0.2)
    _complain(session, series, complaints={"a": 20, "b": 400})
    _guard(session)
    now = database_now(session) + timedelta(hours=2)
    learnable = read_learnable(session, KEY, now=now)
    assert learnable is not None
    for row in new_weights(learnable, now=now):
        assert row.weights == {"a": 1.0, "b": 0.0}


def test_newcomers_and_retirements_leave_a_pause_as_it_is(session: Session) -> None:
    series = _start(session, variants=("a", "b", "c"), method="fixed", weights={"a": 0.0, "b": 0.5, "c": 0.5})
    observe(session, series, variant="b", n_units=10, segment="vip")
    harms = find_harms(session, KEY)
    assert harms == [], "control has no units: nothing to compare with"
    session.add(_pause(session, series, variant="b"))
    session.flush()
    append_variant(session, KEY, payload={"key": "d", "content": {}}, actor=ACTOR)
    _set(session, series, {"a": 0.0, "b": 0.0, "c": 0.75, "d": 0.25})
    retire_variant(session, KEY, variant="c", actor=ACTOR)
    assert _weights(session, series) == {"a": 0.0, "b": 0.0, "c": 0.0, "d": 1.0}
    retire_variant(session, KEY, variant="d", actor=ACTOR)
    assert _weights(session, series) == {"a": 1.0, "b": 0.0, "c": 0.0, "d": 0.0}
    append_variant(session, KEY, payload={"key": "e", "content": {}}, actor=ACTOR)
    assert _weights(session, series) == {"a": 0.5, "b": 0.0, "c": 0.0, "d": 0.0, "e": 0.5}
    assert _weights(session, series, "all")["b"] > 0


def _pause(session: Session, series: int, *, variant: str) -> VariantPause:
    now = database_now(session)
    return VariantPause(
        series=series,
        segment="vip",
        variant=variant,
        metric="complaint",
        evidence={},
        paused_at=now,
        effective_at=now,
    )


def _set(session: Session, series: int, weights: dict[str, float]) -> None:
    row = newest_allocations(session, series)["vip"]
    session.add(
        Allocation(
            series=series,
            segment="vip",
            version=row.version + 1,
            weights=weights,
            basis={},
            reason="test",
            created_at=database_now(session),
        )
    )
    session.flush()


def test_a_pause_survives_pausing_and_resuming_the_experiment_which_is_guarded_meanwhile(session: Session) -> None:
    series = _start(session)
    lifecycle.pause(session, KEY, actor=ACTOR)
    _complain(session, series, complaints={"a": 50, "b": 400})
    assert _guard(session) == [("vip", "b")]
    lifecycle.resume(session, KEY, actor=ACTOR)
    assert paused_places(session, series) == {("vip", "b")}
    assert _weights(session, series) == {"a": 1.0, "b": 0.0}
    lifecycle.conclude(session, KEY, actor=ACTOR)
    assert find_harms(session, KEY) == []


def test_after_a_pause_is_lifted_only_later_versions_count(session: Session) -> None:
    series = _start(session)
    _complain(session, series, complaints={"a": 50, "b": 400})
    _guard(session)
    unpause_variant(session, KEY, variant="b", actor=ACTOR, reason="repaired")
    assert _weights(session, series) == pytest.approx({"a": 0.5, "b": 0.5})
    _complain(session, series, complaints={"a": 50, "b": 400}, version=1, day=1)  # by a worker that lagged behind
    assert _guard(session) == []
    versions = sorted(version for segment, version in read_weights(session, series) if segment == "vip")
    _complain(session, series, complaints={"a": 50, "b": 60}, version=versions[-1], day=2)
    assert _guard(session) == []
    _complain(session, series, complaints={"a": 50, "b": 400}, version=versions[-1], day=3)
    assert _guard(session) == [("vip", "b")]


def test_a_retired_variant_is_neither_paused_nor_let_back(session: Session) -> None:
    series = _start(session, variants=("a", "b", "c"))
    retire_variant(session, KEY, variant="b", actor=ACTOR)
    _complain(session, series, complaints={"a": 20, "b": 400, "c": 20})
    assert find_harms(session, KEY) == []
    session.add(_pause(session, series, variant="b"))
    session.flush()
    with pytest.raises(VariantNotPaused, match="retired"):
        unpause_variant(session, KEY, variant="b", actor=ACTOR, reason="again")


def _gate(row: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = next(gate for gate in row["gates"] if gate["gate"] == "guardrails")
    return found


def test_the_gate_passes_without_harm_and_fails_with_it_before_and_after_the_pause(session: Session) -> None:
    series = _start(session)
    _complain(session, series, complaints={"a": 50, "b": 400})
    _complain(session, series, complaints={"a": 50, "b": 50}, segment="all")
    for word in ("more than", "is paused in vip"):
        found = results(session, KEY)
        assert _gate(row_of(found, "all"))["passed"] is True
        vip = row_of(found, "vip")
        assert (vip["leader"], vip["winner"], _gate(vip)["passed"]) == ("b", None, False)
        assert word in _gate(vip)["value"]
        assert word in vip["reason"]
        assert _gate(found["overall"])["passed"] is False, "nor can it be shipped to all"
        _guard(session)


def test_the_gate_says_nothing_without_guardrails_and_that_it_is_too_early(session: Session) -> None:
    series = _start(session)
    _complain(session, series, complaints={"a": 2, "b": 3})
    gate = _gate(row_of(results(session, KEY), "vip"))
    assert gate["passed"] is True
    assert "too few events" in gate["note"]
    experiment = session.get_one(Experiment, KEY)
    experiment.body = {**experiment.body, "guardrails": []}
    session.flush()
    gate = _gate(row_of(results(session, KEY), "vip"))
    assert gate["passed"] is None
    assert "no guardrails" in gate["note"]


def test_of_three_variants_the_best_that_is_not_paused_leads(session: Session) -> None:
    series = _start(session, variants=("a", "b", "c"))
    for variant, visits, complaints in (("a", 2_000, 20), ("b", 3_000, 400), ("c", 2_500, 20)):
        at: dict[str, Any] = {"segment": "vip", "variant": variant, "n_units": 5_000}
        observe(session, series, visits=visits, **at)
        observe(session, series, visits=complaints, metric="complaint", **at)
    assert row_of(results(session, KEY), "vip")["leader"] == "b"
    _guard(session)
    vip = row_of(results(session, KEY), "vip")
    assert (vip["leader"], _gate(vip)["passed"]) == ("c", True)


def test_results_of_then_show_the_pauses_of_then(session: Session) -> None:
    series = _start(session)
    _complain(session, series, complaints={"a": 50, "b": 400})
    before = database_now(session)
    _guard(session)
    for moment, is_paused in ((before, False), (None, True)):
        rows = results(session, KEY, as_of=moment, segment="vip")["guardrails"][0]["segments"]
        assert [row["segment"] for row in rows] == ["vip", None]
        assert (rows[0]["paused_at"] is not None) == is_paused
        assert rows[0]["status"] == "harm"


def test_a_promotion_of_what_is_paused_needs_force_whatever_was_proven_then_and_nobody_explores_it(
    session: Session,
) -> None:
    series = _start(session, variants=("a", "b", "c"), gates={"min_days": 0})
    before = database_now(session)
    _complain(session, series, complaints={"a": 50, "b": 50, "c": 50})
    session.add(_pause(session, series, variant="b"))
    session.flush()
    request = {"segments": {"vip": "b"}, "as_of": before.isoformat(), "reason": "it won"}
    with pytest.raises(PromotionRefused, match="paused"):
        promote(session, KEY, request=request, actor=ACTOR)
    answer = promote(session, KEY, request={"segments": {"vip": "c"}, "reason": "x", "force": True}, actor=ACTOR)
    assert _weights(session, answer["series"]) == pytest.approx({"a": 0.05, "b": 0.0, "c": 0.95})


# Passes, on a database of the test's own.


def _world(engine: Engine) -> int:
    with transaction(engine) as session:
        series = _start(session)
        _complain(session, series, complaints={"a": 50, "b": 400})
    return series


def _state(engine: Engine) -> tuple[int, int, int]:
    with reading(engine) as session:
        version = session.exec(select(Workspace.snapshot_version)).one()
        n_pauses = len(session.exec(select(VariantPause)).all())
        n_allocations = len(session.exec(select(Allocation).where(Allocation.reason == "guardrail")).all())
    return version, n_pauses, n_allocations


def test_a_pass_pauses_once_and_tells_the_workers(engine: Engine) -> None:
    _world(engine)
    version, *_ = _state(engine)
    first = work_once(engine, holder="only")
    assert first is not None
    assert first.guarded == Guarded(n_experiments=1, n_pauses=1)
    assert _state(engine)[0] > version
    assert _state(engine)[1:] == (1, 1)
    second = work_once(engine, holder="only")
    assert second is not None
    assert second.guarded == NONE
    assert _state(engine)[1:] == (1, 1)
    with reading(engine) as session:
        assert verify(session) is None


def test_a_process_that_has_lost_its_lease_pauses_nothing(engine: Engine) -> None:
    _world(engine)
    with transaction(engine) as session:
        lost = take(session, LEASE, holder="paused", seconds=0)
    with transaction(engine) as session:
        take(session, LEASE, holder="successor", seconds=60)
    assert lost is not None
    before = _state(engine)
    with pytest.raises(LeaseLost):
        guard(engine, lost)
    assert _state(engine) == before


def test_what_has_changed_since_it_was_read_is_left_alone(engine: Engine) -> None:
    series = _world(engine)
    with reading(engine) as session:
        harms = find_harms(session, KEY)
    assert [(harm.segment, harm.variant) for harm in harms] == [("vip", "b")]
    with transaction(engine) as session:
        row = session.get_one(Series, series)
        row.closed_segments = {"vip": database_now(session).isoformat()}
    with transaction(engine) as session:
        assert pause_variants(session, KEY, harms=harms, lease=_lease(session)) == []
    with transaction(engine) as session:
        row = session.get_one(Series, series)
        row.closed_segments = {}
        session.flush()
        assert pause_variants(session, KEY, harms=harms, lease=_lease(session)) == [("vip", "b")]
        assert pause_variants(session, KEY, harms=harms, lease=_lease(session)) == []
