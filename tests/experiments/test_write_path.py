"""Decisions and outcomes as written: stored once, attributed by the rules, tallies always equal to a recount."""

import threading
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, text
from sqlmodel import col, select

from experiments.database import on_one_state, reading, transaction
from experiments.decisions.rows import DecisionRow, Stored, mark_contradicted, write_decisions
from experiments.outcomes.attribution import OutcomeRow
from experiments.outcomes.rows import sweep, write_outcomes
from experiments.tables import Decision, Outcome, Response, Tally, TallyAge, TallyResponse
from experiments.tallies.recount import recount
from tests.experiments.rows import CLICK, DAY, NOW, REVENUE, add_series, decision, metric, outcome


def _decide(engine: Engine, *rows: DecisionRow, shard: int = 1) -> list[Stored]:
    with transaction(engine) as session:
        return write_decisions(session.connection(), rows, shard=shard)


def _record(engine: Engine, *rows: OutcomeRow, shard: int = 1) -> list[str]:
    with transaction(engine) as session:
        return write_outcomes(session.connection(), rows, shard=shard)


def _units(engine: Engine) -> dict[tuple[int, str], int]:
    with reading(engine) as session:
        return {(row.series, row.variant): row.n_units for row in session.exec(select(Tally))}


def _responses(engine: Engine, series: int = 1) -> dict[str, tuple[int, float]]:
    with reading(engine) as session:
        rows = session.exec(select(TallyResponse).where(TallyResponse.series == series)).all()
        return {row.metric: (row.n_responders, float(row.total)) for row in rows}


def _assert_recount_agrees(engine: Engine, *series: int) -> None:
    with reading(engine) as session:
        for number in series:
            assert recount(session, number).differences == []


def test_a_unit_keeps_its_first_variant_and_is_counted_once(engine: Engine) -> None:
    add_series(engine, 1)
    _decide(engine, decision(1, "anna"), decision(1, "bob", variant="b"))
    again = replace(decision(1, "anna"), variant="b", allocation_version=2, propensity=0.25)
    assert _decide(engine, again, again) == [Stored("everyone", "a", 1, 0.5)] * 2
    assert _units(engine) == {(1, "a"): 1, (1, "b"): 1}
    _assert_recount_agrees(engine, 1)


def test_two_workers_that_hold_different_weights_answer_a_new_unit_the_same(engine: Engine) -> None:
    add_series(engine, 1)
    answers: list[tuple[int, Stored]] = []
    start = threading.Barrier(2)

    def worker(variant: str, shard: int) -> None:
        start.wait()
        for n in range(30):
            row = replace(decision(1, f"c{n}"), variant=variant, allocation_version=shard)
            answers.append((n, _decide(engine, row, shard=shard)[0]))

    threads = [threading.Thread(target=worker, args=pair) for pair in (("a", 1), ("b", 2))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(answers)) == 30
    assert sum(_units(engine).values()) == 30
    _assert_recount_agrees(engine, 1)


def test_a_decision_after_its_series_closed_is_kept_marked_and_not_counted(engine: Engine) -> None:
    add_series(engine, 1, closes_at=NOW, closed_segments={})
    add_series(engine, 2, closed_segments={"vip": (NOW - DAY).isoformat()})
    _decide(
        engine,
        decision(1, "after", stale=True, decided_at=NOW + timedelta(seconds=1)),
        decision(1, "before", stale=True, decided_at=NOW - timedelta(seconds=1)),
        decision(2, "left", stale=True, segment="vip"),
        decision(2, "stays", stale=True),
    )
    with reading(engine) as session:
        late = session.exec(select(Decision.customer_id).where(col(Decision.late)).order_by("customer_id")).all()
    assert late == ["after", "left"]
    assert _units(engine) == {(1, "a"): 1, (2, "a"): 1}
    assert _record(engine, outcome("click", "left")) == ["waiting"]
    _assert_recount_agrees(engine, 1, 2)


def test_a_contradiction_is_marked(engine: Engine) -> None:
    add_series(engine, 1)
    row = decision(1, "anna")
    _decide(engine, row)
    with transaction(engine) as session:
        mark_contradicted(session.connection(), [row.id])
    with reading(engine) as session:
        assert session.get_one(Decision, row.id).contradicted


def test_outcomes_move_responses_and_tallies_exactly(engine: Engine) -> None:
    add_series(engine, 1)
    _decide(engine, decision(1, "anna"), decision(1, "bob"))
    statuses = _record(
        engine,
        outcome("click", "anna"),
        outcome("click", "anna"),
        outcome("purchase", "anna", value="0.1"),
        outcome("purchase", "anna", value="0.2"),
        outcome("purchase", "bob", value="250"),
        outcome("visit", "bob"),
        outcome("visit", "bob"),
    )
    assert statuses == ["attributed"] * 7
    with reading(engine) as session:
        revenue = session.exec(select(TallyResponse).where(TallyResponse.metric == "revenue")).one()
        anna = session.exec(select(Response).where(Response.metric == "revenue")).all()
        visits = session.exec(select(TallyResponse).where(TallyResponse.metric == "visits")).one()
    assert (revenue.n_responders, revenue.total, revenue.total_squares) == (2, Decimal("250.3"), Decimal("62500.09"))
    assert (revenue.capped_total, revenue.capped_squares) == (Decimal("100.3"), Decimal("10000.09"))
    assert sorted(row.total for row in anna) == [Decimal("0.3"), Decimal(250)]
    assert (visits.n_responders, visits.total, visits.total_squares) == (1, Decimal(2), Decimal(4))
    assert _responses(engine)["click"] == (1, 1)
    _assert_recount_agrees(engine, 1)


def test_sums_of_squares_are_exact_to_the_last_digit(engine: Engine) -> None:
    """Each square has more digits than a float holds; the sums are by fractions."""
    add_series(engine, 1)
    values = ["1234567.89", "999999999999.12", "0.123456789", "12345678.91", "3.21"]
    customers = [f"c{n}" for n in range(len(values))]
    _decide(engine, *(decision(1, customer) for customer in customers))
    for customer, value in zip(customers, values, strict=True):
        _record(engine, outcome("purchase", customer, value=value))
    numbers = [Fraction(value) for value in values]
    with reading(engine) as session:
        revenue = session.exec(select(TallyResponse).where(TallyResponse.metric == "revenue")).one()
    assert Fraction(revenue.total) == sum(numbers)
    assert Fraction(revenue.total_squares) == sum(number * number for number in numbers)
    _assert_recount_agrees(engine, 1)


def test_a_full_refund_is_no_responder(engine: Engine) -> None:
    add_series(engine, 1)
    _decide(engine, decision(1, "anna"))
    _record(engine, outcome("purchase", "anna", value="19.99"), outcome("purchase", "anna", value="-19.99"))
    assert _responses(engine)["revenue"] == (0, 0)
    _assert_recount_agrees(engine, 1)


def test_an_outcome_id_counts_once_per_source_in_one_call_and_across_calls(engine: Engine) -> None:
    add_series(engine, 1)
    _decide(engine, decision(1, "anna"))
    one = outcome("visit", "anna", id=b"0" * 16, outcome_id="o-1")
    assert _record(engine, one, one) == ["attributed", "duplicate"]
    assert _record(engine, one) == ["duplicate"]
    assert _responses(engine)["visits"] == (1, 1)
    with reading(engine) as session:
        assert session.exec(select(Outcome)).one().n_duplicates == 2
    _assert_recount_agrees(engine, 1)


def test_a_customers_outcome_counts_once_in_each_series_for_the_latest_decision_before_it(engine: Engine) -> None:
    add_series(engine, 1, unit="occasion")
    add_series(engine, 2)
    sends = [decision(1, "anna", occasion=f"send-{n}", decided_at=NOW + timedelta(hours=n)) for n in range(5)]
    _decide(engine, *sends, decision(2, "anna"))
    _record(engine, outcome("purchase", "anna", value="10", at=NOW + timedelta(hours=2, minutes=30)))
    assert _responses(engine, 1)["revenue"] == (1, 10)
    assert _responses(engine, 2)["revenue"] == (1, 10)
    with reading(engine) as session:
        credited = session.exec(select(Response.decision_id)).all()
    assert sends[2].id in credited
    _assert_recount_agrees(engine, 1, 2)


def test_an_outcome_of_a_named_occasion_goes_to_it(engine: Engine) -> None:
    add_series(engine, 1, unit="occasion")
    sends = [decision(1, "anna", occasion=f"send-{n}", decided_at=NOW + timedelta(hours=n)) for n in range(2)]
    _decide(engine, *sends)
    _record(engine, outcome("click", "anna", occasion_id="send-0", at=NOW + timedelta(hours=3)))
    with reading(engine) as session:
        assert session.exec(select(Response.decision_id)).all() == [sends[0].id]


def test_a_named_decision_also_counts_for_its_placements_programme_and_nowhere_else(engine: Engine) -> None:
    add_series(engine, 1)
    add_series(engine, 2, kind="programme", unit="period", experiment=None)
    add_series(engine, 3, placement="footer")
    _decide(engine, *(decision(series, "anna") for series in (1, 2, 3)))
    _record(engine, outcome("click", decision_id=decision(1, "anna").id))
    assert [_responses(engine, series).get("click") for series in (1, 2, 3)] == [(1, 1), (1, 1), None]
    _assert_recount_agrees(engine, 1, 2, 3)


def test_a_slow_clock_costs_the_programme_nothing_that_it_does_not_cost_the_named_decision(engine: Engine) -> None:
    add_series(engine, 1)
    add_series(engine, 2, kind="programme", unit="period", experiment=None)
    _decide(engine, decision(1, "anna"), decision(2, "anna"))
    _record(engine, outcome("click", decision_id=decision(1, "anna").id, at=NOW - timedelta(minutes=1)))
    assert [_responses(engine, series).get("click") for series in (1, 2)] == [(1, 1), (1, 1)]
    _assert_recount_agrees(engine, 1, 2)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"at": NOW + 3 * DAY - timedelta(microseconds=1)}, "attributed"),
        ({"at": NOW + 3 * DAY}, "unattributed"),
        ({"at": NOW - timedelta(minutes=5)}, "attributed"),
        ({"at": NOW - timedelta(minutes=5, microseconds=1)}, "unattributed"),
        ({"at": NOW + DAY, "received_at": NOW + 4 * DAY}, "attributed"),
        ({"at": NOW + DAY, "received_at": NOW + 4 * DAY + timedelta(microseconds=1)}, "late"),
        ({"event": "nothing-reads-this"}, "unattributed"),
        ({"is_future": True}, "future"),
        ({"decision_id": b"\0\0\0\1" + bytes(12)}, "waiting"),
    ],
)
def test_windows_grace_and_clock_skew_of_a_named_decision(
    engine: Engine, changes: dict[str, object], expected: str
) -> None:
    add_series(engine, 1)
    _decide(engine, decision(1, "anna"))
    named = {"decision_id": decision(1, "anna").id, "event": "click"} | changes
    assert _record(engine, outcome(**named)) == [expected]  # type: ignore[arg-type]  # a test's shorthand
    assert ("click" in _responses(engine)) == (expected == "attributed")
    _assert_recount_agrees(engine, 1)


def test_an_outcome_that_comes_before_its_decision_waits_and_is_swept_up(engine: Engine) -> None:
    add_series(engine, 1)
    early = outcome("click", decision_id=decision(1, "anna").id, at=NOW)
    theirs = outcome("purchase", "anna", value="3", at=NOW + timedelta(minutes=1))
    assert _record(engine, early, theirs) == ["waiting", "waiting"]
    _decide(engine, decision(1, "anna"))
    with transaction(engine) as session:
        assert sweep(session.connection(), NOW, shard=1) == 0  # not yet due
        assert sweep(session.connection(), NOW + timedelta(minutes=2), shard=1) == 2
    assert _responses(engine) == {"click": (1, 1), "revenue": (1, 3)}
    with reading(engine) as session:
        assert session.exec(select(Outcome.status)).all() == ["attributed"] * 2
    _assert_recount_agrees(engine, 1)


def test_an_outcome_that_no_decision_claims_is_given_up_after_a_day_and_kept(engine: Engine) -> None:
    _record(engine, outcome("click", "nobody"))
    for hours in (2, 26, 60):
        with transaction(engine) as session:
            sweep(session.connection(), NOW + timedelta(hours=hours), shard=1)
    with reading(engine) as session:
        kept = session.exec(select(Outcome)).one()
    assert (kept.status, kept.retry_at) == ("unattributed", None)


def test_a_metric_that_joined_later_counts_only_what_came_since(engine: Engine) -> None:
    since = NOW + timedelta(hours=2)
    late_comer = metric("clicked-later", event="click", since=since)
    add_series(engine, 1, metrics=(CLICK, late_comer))
    _decide(engine, decision(1, "anna"), decision(1, "bob"))
    _record(engine, outcome("click", "anna"), outcome("click", "bob", at=since))
    assert _responses(engine) == {"click": (2, 2), "clicked-later": (1, 1)}
    _assert_recount_agrees(engine, 1)


def test_money_without_a_value_says_nothing(engine: Engine) -> None:
    add_series(engine, 1, metrics=(REVENUE, metric("purchase")))
    _decide(engine, decision(1, "anna"))
    assert _record(engine, outcome("purchase", "anna")) == ["attributed"]
    assert _responses(engine) == {"purchase": (1, 1)}
    _assert_recount_agrees(engine, 1)


def test_a_recount_finds_and_mends_what_was_tampered_with(engine: Engine) -> None:
    add_series(engine, 1)
    _decide(engine, decision(1, "anna"))
    _record(engine, outcome("purchase", "anna", value="5"))
    with engine.begin() as connection:
        connection.execute(text("UPDATE tally SET n_units = 7"))
        connection.execute(text("DELETE FROM response"))
        connection.execute(text("UPDATE tally_response SET total = '6'"))
        connection.execute(text("DELETE FROM tally_age"))
    with transaction(engine) as session:
        found = recount(session, 1, mend=True).differences
    assert [one.where.split()[0] for one in found] == ["response", "tally", "tally_response", "tally_age"]
    _assert_recount_agrees(engine, 1)


def test_mending_takes_nothing_back_that_others_write_meanwhile(engine: Engine) -> None:
    add_series(engine, 1)
    _decide(engine, decision(1, "anna"))
    writer = threading.Thread(target=_decide, args=(engine, decision(1, "bob")))

    def write_meanwhile(_n: int) -> None:
        writer.start()
        writer.join(timeout=1)  # on SQLite it waits until mending is over

    with transaction(on_one_state(engine)) as session:
        assert recount(session, 1, mend=True, progress=write_meanwhile).differences == []
    writer.join()
    assert _units(engine) == {(1, "a"): 2}
    _assert_recount_agrees(engine, 1)


def test_first_responses_are_kept_by_age(engine: Engine) -> None:
    add_series(engine, 1)
    _decide(engine, decision(1, "anna"))
    _record(engine, outcome("click", "anna", at=NOW + timedelta(hours=20)))
    _record(engine, outcome("click", "anna", at=NOW + timedelta(minutes=1)))
    with reading(engine) as session:
        ages = {row.age_bin: row.n_first for row in session.exec(select(TallyAge)).all() if row.n_first}
    assert list(ages.values()) == [1]
    _assert_recount_agrees(engine, 1)


def test_writers_that_meet_in_opposite_orders_lose_nothing(engine: Engine) -> None:
    add_series(engine, 1)
    customers = [f"c{n}" for n in range(20)]
    _decide(engine, *(decision(1, customer) for customer in customers))
    start = threading.Barrier(3)

    def worker(shard: int) -> None:
        start.wait()
        for n in range(10):
            order = customers if (n + shard) % 2 else customers[::-1]
            rows = [outcome("purchase", customer, value="0.01") for customer in order]
            _record(engine, *rows, shard=shard)

    threads = [threading.Thread(target=worker, args=(shard,)) for shard in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with reading(engine) as session:
        assert {row.total for row in session.exec(select(Response)).all()} == {Decimal("0.30")}
    _assert_recount_agrees(engine, 1)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["click", "purchase", "visit"]),
            st.sampled_from(["anna", "bob", "carl"]),
            st.decimals(-1000, 1000, places=4),
            st.integers(-10, 100),
        ),
        max_size=12,
    ),
    st.data(),
)
def test_any_order_and_split_of_outcomes_gives_the_same_as_a_recount(
    engine: Engine, reports: list[tuple[str, str, Decimal, int]], data: st.DataObject
) -> None:
    with engine.begin() as connection:
        for table in (
            "series",
            "decision",
            "outcome",
            "attribution",
            "response",
            "tally",
            "tally_response",
            "tally_age",
        ):
            connection.execute(text(f"DELETE FROM {table}"))  # noqa: S608  # names from the line above
    add_series(engine, 1)
    _decide(engine, *(decision(1, customer) for customer in ("anna", "bob", "carl")))
    rows = [
        outcome(event, customer, value=str(value), at=NOW + timedelta(hours=hours))
        for event, customer, value, hours in reports
    ]
    rows = data.draw(st.permutations(rows))
    while rows:
        cut = data.draw(st.integers(1, len(rows)))
        _record(engine, *rows[:cut], shard=cut)
        rows = rows[cut:]
    _assert_recount_agrees(engine, 1)
