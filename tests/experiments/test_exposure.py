"""Where a series names an exposure event, units count, and windows start, where that first was reported to occur."""

import threading
from collections.abc import Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, text
from sqlalchemy import select as select_columns
from sqlmodel import col, func, select

from experiments.database import reading, transaction
from experiments.decisions.rows import DecisionRow, write_decisions
from experiments.outcomes.attribution import EXPOSURE_REACH, OutcomeRow
from experiments.outcomes.rows import sweep
from experiments.tables import (
    Attribution,
    Correction,
    Decision,
    SeriesVariant,
    Tally,
    TallyCovariate,
    TallyExposure,
    TallyResponse,
)
from experiments.tallies.days import NO_HOURS
from experiments.tallies.moves import hour_of
from experiments.tallies.read import read_tallies
from experiments.tallies.recount import recount
from tests.experiments.correcting import (
    assert_recount_agrees,
    contents,
    finish,
    hours_body,
    make,
    outcomes_body,
    record,
    take_back,
)
from tests.experiments.rows import CLICK, DAY, NOW, REVENUE, VISITS, add_series, decision, metric, outcome

HOUR = timedelta(hours=1)
ID = decision(1, "anna").id


def _decide(engine: Engine, *rows: DecisionRow, shard: int = 1) -> None:
    with transaction(engine) as session:
        write_decisions(session.connection(), rows, shard=shard)


def _waits(customer: str, series: int = 1, **changes: Any) -> DecisionRow:
    return decision(series, customer, awaits_exposure=True, **changes)


def _world(engine: Engine, *customers: str, **changes: Any) -> None:
    add_series(engine, 1, exposure="shown", **changes)
    _decide(engine, *(_waits(customer) for customer in customers))


def _named(event: str, at: datetime, **changes: Any) -> OutcomeRow:
    return outcome(event, decision_id=ID, at=at, **changes)


def _sums(engine: Engine, table: type[Any], *names: str) -> dict[tuple[str, int], tuple[Any, ...]]:
    """By variant and hour, summed over shards; those that are nothing left out."""
    sums = [func.sum(col(getattr(table, name))) for name in names]
    query = select_columns(table.variant, table.hour, *sums).group_by(table.variant, table.hour)
    with reading(engine) as session:
        rows = [tuple(row) for row in session.connection().execute(query)]
    return {(row[0], row[1]): row[2:] for row in rows if any(row[2:])}


def _units(engine: Engine) -> dict[tuple[str, int], tuple[Any, ...]]:
    return _sums(engine, Tally, "n_units", "decided_seconds")


def _responders(engine: Engine, key: str = "click") -> int:
    with reading(engine) as session:
        query = select(func.coalesce(func.sum(TallyResponse.n_responders), 0)).where(TallyResponse.metric == key)
        return int(session.exec(query).one())


def _exposed_at(engine: Engine, id_: bytes = ID) -> datetime | None:
    with reading(engine) as session:
        return session.get_one(Decision, id_).exposed_at


def test_a_unit_counts_from_its_first_exposure_on_in_the_hour_of_that(engine: Engine) -> None:
    """Decided at 12:30:15, met at 14:30:20 and again: one unit, 1,820 seconds into the hour from 14:00 on."""
    _world(engine, "anna", "bob")
    assert _units(engine) == {}
    assert _record_all(engine, _named("shown", NOW + 2 * HOUR + timedelta(seconds=5))) == ["attributed"]
    _record_all(engine, _named("shown", NOW + 3 * HOUR))
    hour = hour_of(NOW)[0]
    assert _units(engine) == {("a", hour + 2): (1, 1820)}
    assert _sums(engine, TallyExposure, "n_decided", "n_exposed") == {("a", hour): (2, 1)}
    assert _exposed_at(engine) == NOW + 2 * HOUR + timedelta(seconds=5)
    assert_recount_agrees(engine)


def _record_all(engine: Engine, *rows: OutcomeRow) -> list[str]:
    return record(engine, *rows)


def test_an_exposure_that_occurred_earlier_moves_the_unit_and_its_window(engine: Engine) -> None:
    """Three days' window: with the first exposure known, the click of 71 hours after the second one lies outside."""
    _world(engine, "anna")
    _record_all(engine, _named("shown", NOW + 5 * HOUR), _named("click", NOW + 76 * HOUR))
    assert _responders(engine) == 1
    _record_all(engine, _named("shown", NOW + HOUR, received_at=NOW + 80 * HOUR))
    assert _units(engine) == {("a", hour_of(NOW)[0] + 1): (1, 1815)}
    assert _responders(engine) == 0
    assert_recount_agrees(engine)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"at": NOW + 10 * DAY + 3 * DAY - timedelta(microseconds=1)}, 1),
        ({"at": NOW + 10 * DAY + 3 * DAY}, 0),
        ({"at": NOW + 10 * DAY - timedelta(minutes=5)}, 1),
        ({"at": NOW + 10 * DAY - timedelta(minutes=5, microseconds=1)}, 0),
        ({"at": NOW + HOUR}, 0),
        ({"at": NOW + 10 * DAY, "received_at": NOW + 14 * DAY}, 1),
        ({"at": NOW + 10 * DAY, "received_at": NOW + 14 * DAY + timedelta(microseconds=1)}, 0),
    ],
)
@pytest.mark.parametrize("first", ["shown", "click"])
def test_windows_grace_and_clock_skew_are_those_of_the_exposure(
    engine: Engine, changes: dict[str, Any], expected: int, first: str
) -> None:
    """Decided ten days before it was met; a window of three days and a day's grace."""
    _world(engine, "anna")
    rows = [_named("shown", NOW + 10 * DAY), outcome("click", decision_id=ID, **changes)]
    for row in rows if first == "shown" else rows[::-1]:
        _record_all(engine, row)
    assert _responders(engine) == expected
    assert_recount_agrees(engine)


@pytest.mark.parametrize(
    ("at", "received_at", "status"),
    [
        (NOW + EXPOSURE_REACH - timedelta(microseconds=1), None, "attributed"),
        (NOW + EXPOSURE_REACH, None, "late"),
        (NOW - timedelta(minutes=5), None, "attributed"),
        (NOW - timedelta(minutes=5, microseconds=1), None, "late"),
        (NOW + HOUR, NOW + HOUR + 4 * DAY, "attributed"),
        (NOW + HOUR, NOW + HOUR + 4 * DAY + timedelta(microseconds=1), "late"),
    ],
)
def test_an_exposure_counts_within_90_days_and_if_it_is_reported_while_outcomes_would_be_taken(
    engine: Engine, at: datetime, received_at: datetime | None, status: str
) -> None:
    """Window and grace are four days. What a fast clock dates before the decision is taken to be of its moment."""
    _world(engine, "anna")
    assert _record_all(engine, _named("shown", at, received_at=received_at or at)) == [status]
    assert _exposed_at(engine) == (None if status == "late" else max(at, NOW))
    assert_recount_agrees(engine)


def test_outcomes_of_a_unit_that_never_met_its_variant_count_nowhere_but_in_the_programme(engine: Engine) -> None:
    _world(engine, "anna")
    add_series(engine, 2, kind="programme", unit="period", experiment=None)
    _decide(engine, decision(2, "anna"))
    assert _record_all(engine, _named("click", NOW + HOUR)) == ["attributed"]
    with reading(engine) as session:
        rows = session.exec(select(TallyResponse.series, TallyResponse.n_responders)).all()
    assert rows == [(2, 1)]
    assert_recount_agrees(engine)


def test_an_exposure_of_a_customer_is_that_of_the_latest_decision_before_it(engine: Engine) -> None:
    add_series(engine, 1, unit="occasion", exposure="delivered")
    sends = [_waits("anna", occasion=f"send-{n}", decided_at=NOW + n * HOUR) for n in range(3)]
    _decide(engine, *sends)
    _record_all(engine, outcome("delivered", "anna", at=NOW + 1.5 * HOUR))
    _record_all(engine, outcome("delivered", "anna", occasion_id="send-0", at=NOW + 1.6 * HOUR))
    assert [_exposed_at(engine, send.id) is not None for send in sends] == [True, True, False]
    assert_recount_agrees(engine)


def test_the_exposure_may_itself_be_an_outcome_that_a_metric_counts(engine: Engine) -> None:
    _world(engine, "anna", metrics=(metric("shown", kind="count"), CLICK))
    _record_all(engine, _named("shown", NOW + HOUR), _named("shown", NOW + 2 * HOUR))
    with reading(engine) as session:
        rows = session.exec(select(TallyResponse).where(TallyResponse.metric == "shown")).all()
    assert sum(row.total for row in rows) == Decimal(2)
    assert_recount_agrees(engine)


def test_a_covariate_is_counted_with_the_units_that_met_their_variant(engine: Engine) -> None:
    _world(engine, covariate={"attribute": "orders", "missing": 0.5})
    _decide(engine, _waits("anna", covariate=2.5), _waits("bob", covariate=4.0), _waits("eve", covariate=None))
    _record_all(engine, _named("shown", NOW + HOUR), outcome("shown", "eve", at=NOW + HOUR))
    assert _sums(engine, TallyCovariate, "n_missing") == {("a", hour_of(NOW)[0] + 1): (1,)}
    with reading(engine) as session:
        assert sum(row.total for row in session.exec(select(TallyCovariate))) == Decimal("3.0")
    assert_recount_agrees(engine)


def test_a_decision_that_came_too_late_counts_neither_as_decided_nor_as_met(engine: Engine) -> None:
    add_series(engine, 1, exposure="shown", closes_at=NOW)
    _decide(engine, _waits("anna", stale=True, decided_at=NOW + timedelta(seconds=1)))
    assert _record_all(engine, _named("shown", NOW + HOUR)) == ["waiting"]
    assert (_units(engine), _sums(engine, TallyExposure, "n_decided")) == ({}, {})
    assert_recount_agrees(engine)


def test_an_outcome_that_nothing_reads_is_not_kept_by_a_decision(engine: Engine) -> None:
    _world(engine, "anna")
    assert _record_all(engine, _named("scroll", NOW + HOUR)) == ["unattributed"]
    with reading(engine) as session:
        assert session.exec(select(Attribution)).all() == []


# Corrections of exposures, and recounts.


def test_an_exposure_that_is_corrected_away_takes_its_unit_back_and_reverting_brings_it_again(engine: Engine) -> None:
    at = NOW - 100 * DAY  # corrections reach no future
    add_series(engine, 1, exposure="shown", opens_at=at - DAY)
    _decide(engine, _waits("anna", decided_at=at), _waits("bob", decided_at=at))
    _record_all(engine, _named("shown", at + HOUR), _named("shown", at + 3 * HOUR), _named("click", at + 2 * HOUR))
    _record_all(engine, outcome("shown", "bob", at=at + HOUR), outcome("click", "bob", at=at + 2 * HOUR))
    before = contents(engine)
    id_ = make(engine, outcomes_body("shown", at, at + 2 * HOUR))
    finish(engine)
    assert_recount_agrees(engine)
    assert _units(engine) == {("a", hour_of(at)[0] + 3): (1, 1815)}
    assert _responders(engine) == 0
    assert _sums(engine, TallyExposure, "n_decided", "n_exposed") == {("a", hour_of(at)[0]): (2, 1)}
    assert _record_all(engine, outcome("shown", "bob", at=at + 1.5 * HOUR)) == ["attributed"]
    assert _exposed_at(engine, _waits("bob").id) is None
    assert_recount_agrees(engine)
    take_back(engine, id_)
    finish(engine)
    assert contents(engine) == before
    assert_recount_agrees(engine)


def test_the_first_exposure_alone_may_be_kept(engine: Engine) -> None:
    at = NOW - 100 * DAY
    add_series(engine, 1, exposure="shown", opens_at=at - DAY)
    _decide(engine, _waits("anna", decided_at=at))
    make(engine, outcomes_body("shown", at, at + DAY, action="keep_first"))
    finish(engine)
    _record_all(engine, _named("shown", at + 3 * HOUR), _named("shown", at + HOUR))
    finish(engine)
    assert _exposed_at(engine) == at + HOUR
    assert_recount_agrees(engine)


def test_a_recount_finds_and_mends_exposures_and_their_tallies(engine: Engine) -> None:
    _world(engine, "anna", "bob")
    _record_all(engine, _named("shown", NOW + HOUR), _named("click", NOW + 2 * HOUR))
    before = contents(engine)
    with engine.begin() as connection:
        connection.execute(text("UPDATE decision SET exposed_at = NULL"))
        connection.execute(text("UPDATE tally_exposure SET n_exposed = 2"))
        connection.execute(text("DELETE FROM tally"))
    with transaction(engine) as session:
        found = recount(session, 1, mend=True).differences
    assert sorted(one.where.split()[0] for one in found) == ["decision", "tally", "tally_exposure"]
    assert contents(engine) == before
    assert _exposed_at(engine) == NOW + HOUR
    assert_recount_agrees(engine)


def test_hours_that_no_unit_is_left_in_are_not_read(engine: Engine) -> None:
    _world(engine, "anna")
    _record_all(engine, _named("shown", NOW + 30 * HOUR))
    _record_all(engine, _named("shown", NOW + HOUR, received_at=NOW + 30 * HOUR))
    with transaction(engine) as session:
        session.add(SeriesVariant(series=1, key="a", position=0, content={}, is_control=True, added_at=NOW))
    with reading(engine) as session:
        tallies = read_tallies(session, 1, metric="click", by_hour=NO_HOURS)
        assert (tallies.n_units.tolist(), tallies.first_hour.tolist()) == ([1], [hour_of(NOW)[0] + 1])


# Any order of arrival ends alike.

CUSTOMERS = ("anna", "bob", "eve")
_EVENTS = st.lists(
    st.tuples(
        st.sampled_from(CUSTOMERS),
        st.sampled_from(["shown", "shown", "click", "purchase", "visit"]),
        st.integers(-2, 120),  # hours after the decision
        st.integers(0, 140),  # hours until it is received
        st.booleans(),  # by decision id, or by customer
    ),
    max_size=12,
)


def _expected(events: Sequence[tuple[str, str, int, int, bool]]) -> tuple[dict[int, int], int, Decimal]:
    """Units by hour, clickers and revenue by the definitions, customer by customer: window 72 hours, grace 24."""
    units: dict[int, int] = {}
    clickers, revenue = 0, Decimal(0)
    for customer in CUSTOMERS:
        own = [(event, at, wait) for who, event, at, wait, _ in events if who == customer and at >= 0]
        shown = [at for event, at, wait in own if event == "shown" and wait <= 96]
        if not shown:
            continue
        start = min(shown)
        units[start] = units.get(start, 0) + 1
        counted = [event for event, at, wait in own if start <= at < start + 72 and at + wait <= start + 96]
        clickers += "click" in counted
        revenue += Decimal("2.5") * counted.count("purchase")
    return units, clickers, revenue


@settings(
    phases=(Phase.generate,),
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(events=_EVENTS, data=st.data())
def test_tallies_are_the_same_in_any_order_of_decisions_exposures_and_outcomes(
    engine: Engine, events: list[tuple[str, str, int, int, bool]], data: st.DataObject
) -> None:
    _clear(engine)
    add_series(engine, 1, exposure="shown", metrics=(CLICK, REVENUE, VISITS))
    rows = [
        outcome(
            event,
            None if by_id else customer,
            decision_id=decision(1, customer).id if by_id else None,
            value="2.5" if event == "purchase" else None,
            at=NOW + at * HOUR,
            received_at=NOW + (at + wait) * HOUR,
        )
        for customer, event, at, wait, by_id in events
    ]
    doings: list[DecisionRow | OutcomeRow] = [*map(_waits, CUSTOMERS), *rows]
    doings = data.draw(st.permutations([*doings, *data.draw(st.lists(st.sampled_from(doings), max_size=4))]))
    size = data.draw(st.integers(1, 6))
    for start in range(0, len(doings), size):
        part = doings[start : start + size]
        decisions = [one for one in part if isinstance(one, DecisionRow)]
        outcomes = [one for one in part if isinstance(one, OutcomeRow)]
        _decide(engine, *decisions, shard=start % 3)
        if outcomes:
            record(engine, *outcomes, shard=start % 3)
    _sweep(engine)
    units, clickers, revenue = _expected(events)
    hour = hour_of(NOW)[0]
    assert {key[1] - hour: n for key, (n, _) in _units(engine).items()} == units
    assert _sums(engine, TallyExposure, "n_decided", "n_exposed") == {("a", hour): (3, sum(units.values()))}
    assert _responders(engine) == clickers
    with reading(engine) as session:
        totals = session.exec(select(TallyResponse).where(TallyResponse.metric == "revenue")).all()
    assert sum((row.total for row in totals), Decimal(0)) == revenue
    assert_recount_agrees(engine)


def _sweep(engine: Engine) -> None:
    with transaction(engine) as session:
        sweep(session.connection(), NOW + 400 * HOUR, shard=0)


def _clear(engine: Engine) -> None:
    tables = ("series", "decision", "outcome", "attribution", "response", "tally", "tally_response", "tally_age")
    with engine.begin() as connection:
        for table in (*tables, "tally_exposure", "tally_product", "tally_covariate"):
            connection.execute(text(f"DELETE FROM {table}"))  # noqa: S608  # names above


def test_two_workers_that_expose_the_same_units_at_once_count_each_once(engine: Engine) -> None:
    """Each reports other times, and clicks in between; whoever comes first, the earliest exposure stands."""
    customers = [f"c{n}" for n in range(15)]
    _world(engine, *customers)
    start = threading.Barrier(3)

    def worker(shard: int) -> None:
        start.wait()
        order = customers if shard % 2 else customers[::-1]
        for customer in order:
            at = NOW + shard * HOUR
            record(
                engine,
                outcome("shown", customer, at=at),
                outcome("click", customer, at=NOW + 4 * HOUR),
                shard=shard,
            )

    threads = [threading.Thread(target=worker, args=(shard,)) for shard in (1, 2, 3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert _units(engine) == {("a", hour_of(NOW)[0] + 1): (15, 15 * 1815)}
    assert _responders(engine) == 15
    assert_recount_agrees(engine)


def test_hours_of_a_correction_of_decisions_are_those_of_exposures(engine: Engine) -> None:
    """Decided in one hour, met in the next two; what is left out is who met it in the first of these."""
    at = (NOW - 100 * DAY).replace(minute=0, second=0)
    add_series(engine, 1, exposure="shown", opens_at=at - DAY)
    with transaction(engine) as session:
        session.add(SeriesVariant(series=1, key="a", position=0, content={}, is_control=True, added_at=NOW))
    _decide(engine, *(_waits(customer, decided_at=at) for customer in CUSTOMERS))
    for n, customer in enumerate(CUSTOMERS):
        record(engine, outcome("shown", customer, at=at + HOUR + n * timedelta(minutes=40)))
    make(engine, hours_body(at, at + HOUR))
    with reading(engine) as session:
        assert read_tallies(session, 1, metric="click").n_units.sum() == 3
    id_ = make(engine, hours_body(at + HOUR, at + 2 * HOUR))
    with reading(engine) as session:
        assert session.get_one(Correction, id_).n_excluded == 2
        assert read_tallies(session, 1, metric="click").n_units.sum() == 1
