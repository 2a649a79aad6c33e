"""Outcomes of machines: counted apart, exactly, whatever comes first; reviews show both readings."""

import random
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import Engine
from sqlmodel import Session

from experiments.corrections.rules import Reported, Rule, exclusions
from experiments.database import reading, transaction
from experiments.mail_events.rows import MailRow, forget, write_mail
from experiments.outcomes.attribution import OutcomeRow
from experiments.outcomes.rows import sweep, write_outcomes
from experiments.review import results
from experiments.series import PinnedCovariate, PinnedDenominator
from experiments.tables import MailMessage, MailToken, Tally, TallyResponse
from experiments.tallies.read import read_tallies
from experiments.tallies.recount import recount
from tests.experiments.review_world import KEY, observe, start_experiment
from tests.experiments.rows import CLICK, NOW, REVENUE, VISITS, add_series, decision, metric, outcome
from tests.experiments.tallied import add_variants, all_rows, decide, record, sums_of

PER_CLICK = metric(
    "per_click", event="purchase", kind="ratio", aggregate="sum", denominator=PinnedDenominator("click", "count")
)
SERIES = 7
SUMS = ("n_responders", "total", "total_squares", "capped_total", "capped_squares", "denominator", "denominator_total")


def _assert_recount_agrees(engine: Engine) -> None:
    with transaction(engine) as session:
        assert recount(session, SERIES).differences == []


@pytest.mark.parametrize("seed", range(3))
def test_people_alone_and_people_with_machines_are_each_what_their_outcomes_give(engine: Engine, seed: int) -> None:
    """Of two series alike, all outcomes of the second are people's: with machines, the first reads the same."""
    metrics, chance = (CLICK, REVENUE, VISITS, PER_CLICK), random.Random(seed)  # noqa: S311  # a test's stream
    for series in (SERIES, SERIES + 1):
        add_series(engine, series, placement=f"p{series}", metrics=metrics)
        add_variants(engine, series)
        decide(engine, *(decision(series, f"c{n}", variant="ab"[n % 2]) for n in range(6)))
    for _ in range(8):
        rows = [_any(chance) for _ in range(5)]
        record(engine, *(_of(SERIES, row) for row in rows))
        record(engine, *(_of(SERIES + 1, row, machine=None) for row in rows))
        _assert_recount_agrees(engine)
    for one in metrics:
        with reading(engine) as session:
            seen = read_tallies(session, SERIES, metric=one.key, with_machines=True)
            same = read_tallies(session, SERIES + 1, metric=one.key)
        for name in SUMS:
            assert getattr(seen, name).tolist() == getattr(same, name).tolist(), (one.key, name)


def _any(chance: random.Random) -> dict[str, Any]:
    return {
        "event": chance.choice(["click", "purchase", "visit"]),
        "value": Decimal(chance.randint(-20, 150)),
        "customer": f"c{chance.randrange(6)}",
        "machine": chance.choice([None, "scanner"]),
        "occurred_at": NOW + timedelta(minutes=chance.randrange(600)),
    }


def _of(series: int, row: dict[str, Any], **changes: Any) -> OutcomeRow:
    said = row | changes
    id_ = decision(series, said.pop("customer")).id
    return outcome(said.pop("event"), decision_id=id_, **said)


def test_a_machines_click_is_no_response_and_counts_beside_it_only_where_no_person_clicked(engine: Engine) -> None:
    add_series(engine, SERIES)
    add_variants(engine, SERIES)
    decide(engine, decision(SERIES, "anna"), decision(SERIES, "bob"))
    record(engine, outcome("click", "anna", machine="scanner"), outcome("click", "bob", machine="scanner"))
    assert sums_of(engine, TallyResponse, metric="click")["n_responders"] == 0
    assert sums_of(engine, TallyResponse, metric="click+machine")["n_responders"] == 2
    record(engine, outcome("click", "anna"))
    assert sums_of(engine, TallyResponse, metric="click")["n_responders"] == 1
    assert sums_of(engine, TallyResponse, metric="click+machine")["n_responders"] == 1
    _assert_recount_agrees(engine)


def test_a_covariate_is_read_with_machines_too(engine: Engine) -> None:
    add_series(engine, SERIES, covariate={"attribute": "orders", "missing": 1.5})
    add_variants(engine, SERIES)
    orders = PinnedCovariate("orders", Decimal("1.5"))
    decide(engine, decision(SERIES, "anna", covariate=4.0, of_covariate=orders))
    record(engine, outcome("click", "anna", machine="scanner"))
    with reading(engine) as session:
        assert read_tallies(session, SERIES, metric="click").covariate_total.sum() == 0.0
        assert read_tallies(session, SERIES, metric="click", with_machines=True).covariate_total.sum() == 4.0
    _assert_recount_agrees(engine)


def test_a_machine_that_waits_for_its_decision_stays_one(engine: Engine) -> None:
    add_series(engine, SERIES)
    late = outcome("click", "anna", machine="scanner")
    assert record(engine, late) == ["waiting"]
    decide(engine, decision(SERIES, "anna"))
    with transaction(engine) as session:
        assert sweep(session.connection(), late.received_at + timedelta(minutes=1), shard=0) == 1
    assert sums_of(engine, TallyResponse, metric="click+machine")["n_responders"] == 1
    _assert_recount_agrees(engine)


def test_keeping_the_first_keeps_a_persons_first_whatever_a_machine_did_before() -> None:
    rule = Rule(1, "click", NOW, NOW + timedelta(days=1), keeps_first=True)
    at = [NOW + timedelta(hours=hour) for hour in range(4)]
    reported = [
        Reported(b"0", "click", at[0], at[0], None, "anna", is_machine=True),
        Reported(b"1", "click", at[1], at[1], None, "anna"),
        Reported(b"2", "click", at[2], at[2], None, "anna"),
        Reported(b"3", "click", at[3], at[3], None, "anna", is_machine=True),
    ]
    assert exclusions(reported, rules=[rule]) == {b"0": None, b"1": None, b"2": 1, b"3": 1}


# Messages that are remembered.


def _mail(kind: str, customer: str, *, seconds: float) -> MailRow:
    row = outcome(kind, customer, at=NOW + timedelta(minutes=1, seconds=seconds))
    return MailRow(row, kind, b"m" * 16, None)


def _write(engine: Engine, *rows: MailRow) -> list[str]:
    with transaction(engine) as session:
        return write_mail(session.connection(), rows, shard=1)


def test_in_one_delivery_the_order_does_not_matter(engine: Engine) -> None:
    add_series(engine, SERIES)
    decide(engine, decision(SERIES, "anna"))
    _write(engine, _mail("click", "anna", seconds=1), _mail("delivered", "anna", seconds=0))
    assert sums_of(engine, TallyResponse, metric="click")["n_responders"] == 0
    assert sums_of(engine, TallyResponse, metric="click+machine")["n_responders"] == 1


def test_early_clicks_in_haste_are_marked_and_the_others_stay(engine: Engine) -> None:
    add_series(engine, SERIES)
    add_variants(engine, SERIES)
    decide(engine, decision(SERIES, "anna"), decision(SERIES, "bob"))
    _write(engine, _mail("click", "anna", seconds=1))
    _write(engine, _mail("click", "bob", seconds=3))
    assert sums_of(engine, TallyResponse, metric="click")["n_responders"] == 2
    _write(engine, _mail("delivered", "anna", seconds=0))
    assert sums_of(engine, TallyResponse, metric="click")["n_responders"] == 1
    assert sums_of(engine, TallyResponse, metric="click+machine")["n_responders"] == 1
    _assert_recount_agrees(engine)


def test_what_is_remembered_is_forgotten_after_two_days(engine: Engine) -> None:
    _write(engine, _mail("click", "anna", seconds=1))
    for days, left in ((1, 1), (3, 0)):
        with transaction(engine) as session:
            forget(session.connection(), NOW + timedelta(days=days))
        assert len(all_rows(engine, MailMessage)) == left
    assert all_rows(engine, MailToken) == []


# Reviews.


def _results(session: Session, series: int, *, machines: dict[str, int]) -> dict[str, Any]:
    """400 of 4,000 visits with each variant, and so many units that only machines visited."""
    for key in ("a", "b"):
        observe(session, series, variant=key, n_units=4_000, visits=400)
        if machines.get(key):
            observe(session, series, variant=key, n_units=4_000, visits=machines[key], metric="visit+machine")
    session.flush()
    return results(session, KEY)


def test_results_without_machines_say_so(session: Session) -> None:
    said = _results(session, start_experiment(session), machines={})
    assert said["checks"]["machines"] == {"status": "ok", "n_responders": 0, "says": None}
    assert "with_machines" not in said["overall"]


def test_results_show_both_readings_and_warn_where_they_disagree(session: Session) -> None:
    """With 200 machines more, b would have 600 of 4,000: 15 % against 10 %, ten standard errors apart."""
    said = _results(session, start_experiment(session), machines={"b": 200})
    assert [one["n_responders"] for one in said["overall"]["variants"]] == [400, 400]
    assert [one["n_responders"] for one in said["overall"]["with_machines"]] == [400, 600]
    low, high = said["overall"]["with_machines"][1]["uplift"]["interval"]
    assert 0.0 < low < 0.05 < high
    check = said["checks"]["machines"]
    assert (check["status"], check["n_responders"]) == ("warning", 200)
    assert check["says"] in said["warnings"]
    assert said["overall"]["verdict"] != "ship"


def test_results_show_both_readings_and_are_calm_where_they_agree(session: Session) -> None:
    series = start_experiment(session)
    observe(session, series, variant="a", n_units=4_000, visits=400)
    observe(session, series, variant="b", n_units=4_000, visits=600)
    for key in ("a", "b"):
        observe(session, series, variant=key, n_units=4_000, visits=10, metric="visit+machine")
    session.flush()
    said = results(session, KEY)
    assert said["checks"]["machines"] == {"status": "ok", "n_responders": 20, "says": None}
    assert [one["n_responders"] for one in said["overall"]["with_machines"]] == [410, 610]


def test_writing_outcomes_without_machines_leaves_no_row_of_theirs(engine: Engine) -> None:
    add_series(engine, SERIES)
    decide(engine, decision(SERIES, "anna"))
    with transaction(engine) as session:
        write_outcomes(session.connection(), [outcome("click", "anna")], shard=1)
    assert {row.metric for row in all_rows(engine, TallyResponse)} == {"click"}


def test_clicks_and_deliveries_that_come_at_once_find_each_other(engine: Engine) -> None:
    """From two writers, 20 times: the click always ends as a machine's, and tallies equal a recount."""
    add_series(engine, SERIES)
    customers = [f"c{n}" for n in range(20)]
    decide(engine, *(decision(SERIES, customer) for customer in customers))

    def report(kind: str, *, seconds: float, shard: int) -> None:
        for customer in customers:
            row = _mail(kind, customer, seconds=seconds)
            row = MailRow(row.outcome, kind, customer.encode().ljust(16), None)
            with transaction(engine) as session:
                write_mail(session.connection(), [row], shard=shard)

    with ThreadPoolExecutor(2) as pool:
        for done in [
            pool.submit(report, "click", seconds=1, shard=1),
            pool.submit(report, "delivered", seconds=0, shard=2),
        ]:
            done.result()
    assert sums_of(engine, TallyResponse, metric="click")["n_responders"] == 0
    assert sums_of(engine, TallyResponse, metric="click+machine")["n_responders"] == 20
    _assert_recount_agrees(engine)


def test_a_machine_exposes_nobody_and_one_found_out_later_takes_the_exposure_back(engine: Engine) -> None:
    """A prefetched open is no meeting; a click in haste was taken for one until the delivery came."""
    add_series(engine, SERIES, exposure="click", metrics=(CLICK, REVENUE))
    add_variants(engine, SERIES)
    decide(engine, *(decision(SERIES, customer, awaits_exposure=True) for customer in ("anna", "bob")))
    record(engine, outcome("click", "bob", machine="scanner"))
    assert all_rows(engine, Tally) == []
    _assert_recount_agrees(engine)
    _write(engine, _mail("click", "anna", seconds=1))
    record(engine, outcome("purchase", "anna", value="5"))
    assert sum(row.n_units for row in all_rows(engine, Tally)) == 1
    _write(engine, _mail("delivered", "anna", seconds=0))
    assert sum(row.n_units for row in all_rows(engine, Tally)) == 0
    assert sums_of(engine, TallyResponse, metric="revenue")["total"] == 0
    _assert_recount_agrees(engine)
