"""Which winner a send plan finds: by hand, and in simulated sends whose truth is known."""

from collections import Counter
from datetime import timedelta
from typing import Any

import numpy as np
import pytest
from sqlmodel import Session, col, select

from experiments.catalog.variants import retire_variant
from experiments.database import bump_snapshot, database_now
from experiments.errors import LeaseLost
from experiments.learning.lease import LEARNING, Lease, take
from experiments.review.results import results
from experiments.send_plans.pinned import Winner
from experiments.send_plans.settle import Found, find_winners, write_winners
from experiments.send_plans.winners import choose_winners
from experiments.tables import Allocation, Series
from tests.experiments.review_world import ACTOR, KEY, observe, reweigh, start_experiment

PLAN = {"test_share": 0.2, "winner_after_hours": 4}
SEGMENTS = tuple(f"s{i}" for i in range(100))


def _row(leader: str | None, probability: float = 0.6, *, verdict: str = "keep_running") -> dict[str, Any]:
    gates = [] if leader is None else [{"gate": "probability_best", "value": probability, "passed": None}]
    winner = leader if verdict == "ship" else None
    chances = {key: probability if key == leader else (1 - probability) / 2 for key in "abc"}
    variants = [{"variant": key, "probability_best": chance} for key, chance in chances.items()]
    head = {"segment": "vip", "verdict": verdict, "winner": winner, "leader": leader}
    return {**head, "gates": gates, "variants": variants}


def _chosen(own: dict[str, Any], overall: dict[str, Any], *, if_unclear: str = "best", live: str = "abc") -> Winner:
    review = {"segments": [own], "overall": overall}
    return choose_winners(review, if_unclear=if_unclear, live={"vip": list(live)}, control="a")["vip"]


@pytest.mark.parametrize(
    ("own", "overall", "expected"),
    [
        (_row("b", 0.99, verdict="ship"), _row("c", 0.999, verdict="ship"), Winner("b", "clear")),
        (_row("c"), _row("b", 0.99, verdict="ship"), Winner("b", "clear_over_all")),
        (_row(None), _row("b", 0.99, verdict="ship"), Winner("b", "clear_over_all")),
        (_row("c", 0.995), _row("b", 0.99, verdict="ship"), Winner("c", "best")),
        (_row("c", 0.7), _row("b", 0.6), Winner("c", "best")),
        (_row("c", 0.4), _row("b", 0.6), Winner("b", "best_over_all")),
        (_row("c", 0.4, verdict="no_difference"), _row("b", 0.6), Winner("b", "best_over_all")),
        (_row(None), _row(None), Winner("a", "nothing_known")),
        (_row("b", 0.99, verdict="broken"), _row("b", 0.99, verdict="ship"), Winner("a", "broken")),
    ],
)
def test_a_segment_gets_its_own_proven_winner_then_the_one_over_all_then_the_surer_leader(
    own: dict[str, Any], overall: dict[str, Any], expected: Winner
) -> None:
    assert _chosen(own, overall) == expected


@pytest.mark.parametrize("if_unclear", ["control", "keep_splitting"])
def test_what_is_clear_does_not_ask_what_to_do_if_it_is_unclear(if_unclear: str) -> None:
    assert _chosen(_row("b", 0.99, verdict="ship"), _row("b"), if_unclear=if_unclear).variant == "b"
    assert _chosen(_row("b"), _row("b"), if_unclear=if_unclear).variant == {"control": "a"}.get(if_unclear)


def test_a_variant_that_was_paused_or_retired_never_wins() -> None:
    assert _chosen(_row("b", 0.9, verdict="ship"), _row("b", 0.9, verdict="ship"), live="a") == Winner("a", "best")
    assert _chosen(_row("b", 0.9), _row("c", 0.6), live="ac") == Winner("c", "best_over_all")


def _send(session: Session, *, rates: dict[str, tuple[float, float]], if_unclear: str, n_units: int) -> int:
    """A send whose test is over: units of each variant by segment, clicking as often as chance lets them."""
    rng = np.random.default_rng(20261126)
    plan = PLAN | {"if_unclear": if_unclear}
    number = start_experiment(session, segments=tuple(rates), send_plan=plan, metrics=[])
    for segment, pair in rates.items():
        for variant, rate in zip("ab", pair, strict=True):
            visits = int(rng.binomial(n_units, rate))
            observe(session, number, variant=variant, n_units=n_units, visits=visits, segment=segment)
    _make_due(session, number)
    return number


def _make_due(session: Session, number: int) -> None:
    series = session.get_one(Series, number)
    begun_at = database_now(session) - timedelta(hours=4)
    series.send_plan = {**series.send_plan, "begun_at": begun_at.isoformat()}
    session.flush()


def _found(session: Session) -> Found:
    found = find_winners(session, KEY)
    assert found is not None
    return found


def test_each_segment_gets_the_better_variant_with_high_probability(session: Session) -> None:
    """100 sends of which b (14 against 10 %) is better in one half, a in the other; 1,000 tested of each variant.

    The better one leads with a probability of 0.997 (normal): 93 or fewer of 100 would be right 1 in 10**8 times.
    """
    better = {segment: "b" if i % 2 else "a" for i, segment in enumerate(SEGMENTS)}
    rates = {segment: (0.10, 0.14) if key == "b" else (0.14, 0.10) for segment, key in better.items()}
    _send(session, rates=rates, if_unclear="best", n_units=1_000)
    winners = _found(session).winners
    assert sum(winners[segment].variant == key for segment, key in better.items()) > 93


def test_where_variants_are_alike_hardly_any_send_is_called_clear_and_control_gets_the_rest(session: Session) -> None:
    """An A/A world of 100 sends. At most 5 % of them are clear by chance: more than 18 would be 5 in 10**7 times."""
    _send(session, rates=dict.fromkeys(SEGMENTS, (0.12, 0.12)), if_unclear="control", n_units=1_000)
    winners = _found(session).winners
    whys = Counter(one.why for one in winners.values())
    assert whys["clear"] <= 18
    assert whys["clear"] + whys["control"] == 100
    assert {one.variant for one in winners.values() if one.why == "control"} == {"a"}


def _lease(session: Session) -> Lease:
    lease = take(session, LEARNING, holder="test", seconds=60)
    assert lease is not None
    return lease


def test_comparisons_in_an_a_a_world_stay_calibrated_though_the_rest_clicks_much_more(session: Session) -> None:
    """Those who waited click 50 %, not 12 %, and all have matured: no difference becomes one that was none."""
    rates = dict.fromkeys(SEGMENTS[:20], (0.12, 0.12))
    number = _send(session, rates=rates, if_unclear="best", n_units=1_000)
    before = {row["segment"]: row["variants"][1]["uplift"]["absolute"] for row in results(session, KEY)["segments"]}
    found = _found(session)
    assert write_winners(session, KEY, found=found, lease=_lease(session))
    for segment, one in found.winners.items():
        more: Any = {"n_units": 8_000, "visits": 4_000, "segment": segment, "version": 2}
        observe(session, number, variant=one.variant or "", **more)
    answer = results(session, KEY)
    after = {row["segment"]: row["variants"][1]["uplift"]["absolute"] for row in answer["segments"]}
    assert after == pytest.approx(before, abs=1e-9)
    assert answer["checks"]["sample_ratio"]["status"] in {"ok", "not_estimable"}
    assert {row["verdict"] for row in answer["segments"]} <= {"keep_running", "no_difference"}
    assert answer["overall"]["verdict"] in {"keep_running", "no_difference"}
    assert answer["matured_share"] == 1.0


def test_winners_are_not_written_without_the_lease_nor_twice_nor_over_weights_that_have_changed(
    session: Session,
) -> None:
    number = _send(session, rates={"all": (0.1, 0.2)}, if_unclear="best", n_units=1_000)
    lease, found = _lease(session), _found(session)
    with pytest.raises(LeaseLost):
        write_winners(session, KEY, found=found, lease=Lease(LEARNING, lease.token - 1))
    reweigh(session, number, weights={"a": 0.4, "b": 0.6})
    assert not write_winners(session, KEY, found=found, lease=lease)
    assert write_winners(session, KEY, found=_found(session), lease=lease)
    assert not write_winners(session, KEY, found=found, lease=lease)
    assert find_winners(session, KEY) is None
    rows = session.exec(select(Allocation).where(Allocation.series == number).order_by(col(Allocation.version))).all()
    assert [(row.version, row.reason) for row in rows] == [(1, "start"), (2, "test"), (3, "send_plan_winner")]
    assert rows[-1].weights == {"a": 0.0, "b": 1.0}


def test_a_test_in_which_all_of_one_variant_and_none_of_the_other_respond_has_a_best_one(session: Session) -> None:
    """Neither varies, so that no interval can be drawn, and no effect be compared under the sceptical prior."""
    _send(session, rates={"all": (0.0, 1.0)}, if_unclear="best", n_units=50)
    assert _found(session).winners["all"].variant == "b"


def test_a_retired_variant_does_not_win(session: Session) -> None:
    number = start_experiment(session, variants=("a", "b", "c"), send_plan=PLAN)
    for variant, visits in [("a", 100), ("b", 120), ("c", 200)]:
        observe(session, number, variant=variant, n_units=1_000, visits=visits)
    _make_due(session, number)
    bump_snapshot(session)
    retire_variant(session, KEY, variant="c", actor=ACTOR)
    assert _found(session).winners["all"].variant == "b"
