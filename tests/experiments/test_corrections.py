"""Corrections of outcomes: marked, counted again exactly, and taken back to the last digit."""

from decimal import Decimal

import pytest
from sqlalchemy import Engine
from sqlmodel import select

from experiments.background import let_go
from experiments.corrections.progress import walk_on
from experiments.database import reading, transaction
from experiments.decisions.rows import DecisionRow, write_decisions
from experiments.errors import CorrectionReverted, LeaseLost
from experiments.outcomes.attribution import OutcomeRow
from experiments.outcomes.rows import sweep, write_outcomes
from experiments.tables import Audit, Response, TallyResponse
from tests.experiments.correcting import (
    AT,
    HOUR,
    assert_recount_agrees,
    chunk,
    contents,
    finish,
    lease_of,
    make,
    marks,
    outcomes_body,
    record,
    said,
    take_back,
)
from tests.experiments.rows import DAY, add_series, decision, outcome

BUG = (AT + HOUR, AT + 2 * HOUR)  # the hour in which the tracker was broken


def _decide(engine: Engine, *rows: DecisionRow) -> None:
    with transaction(engine) as session:
        write_decisions(session.connection(), rows, shard=1)


def _at(hours: float, event: str, customer: str | None = None, **more: object) -> OutcomeRow:
    return outcome(event, customer, at=AT + hours * HOUR, **more)  # type: ignore[arg-type]  # a test's shorthand


def _world(engine: Engine, *customers: str) -> None:
    """An experiment and a programme in which each customer was decided for at ``AT``."""
    times = {"opens_at": AT - 30 * DAY, "created_at": AT - 30 * DAY}
    add_series(engine, 1, **times)
    add_series(engine, 2, kind="programme", experiment=None, unit="period", **times)
    _decide(engine, *(decision(series, one, decided_at=AT) for one in customers for series in (1, 2)))


def _revenue(engine: Engine, series: int = 1) -> tuple[int, Decimal, Decimal, Decimal, Decimal]:
    """Responders, total, squares, capped total and capped squares of a series, summed over shards."""
    with reading(engine) as session:
        query = select(TallyResponse).where(TallyResponse.series == series, TallyResponse.metric == "revenue")
        rows = session.exec(query).all()
    names = ("total", "total_squares", "capped_total", "capped_squares")
    sums = [sum((getattr(row, name) for row in rows), Decimal(0)) for name in names]
    return sum(row.n_responders for row in rows), sums[0], sums[1], sums[2], sums[3]


def _responses(engine: Engine) -> dict[tuple[str, str], tuple[int, Decimal]]:
    with reading(engine) as session:
        return {
            (row.decision_id.hex()[:8], row.metric): (row.n_outcomes, row.total)
            for row in session.exec(select(Response))
        }


def test_excluded_outcomes_count_no_more_and_taking_back_restores_every_digit(engine: Engine) -> None:
    """By hand: anna has 30.10 + 90.20 = 120.30 (capped 100), bob 7; then anna has 30.10 and bob nothing."""
    _world(engine, "anna", "bob")
    anna, doubled = _at(0.5, "purchase", "anna", value="30.1"), _at(1, "purchase", "anna", value="90.2")
    bob, other = _at(1.5, "purchase", "bob", value="7"), _at(1.5, "click", "bob")
    after = _at(2, "visit", "bob")
    record(engine, anna, doubled, bob, other, after)
    before = contents(engine)
    assert _revenue(engine) == (
        2,
        Decimal("127.3"),
        Decimal("14521.09"),  # 120.3 ** 2 + 7 ** 2
        Decimal(107),
        Decimal(10049),
    )
    id_ = make(engine, outcomes_body("purchase", *BUG))
    assert said(engine, id_) == ("applying", 0)
    finish(engine)
    assert said(engine, id_) == ("applied", 2)
    assert marks(engine) == {doubled.id: id_, bob.id: id_}
    for series in (1, 2):
        assert _revenue(engine, series) == (1, *[Decimal(one) for one in ("30.1", "906.01", "30.1", "906.01")])
    assert_recount_agrees(engine)
    take_back(engine, id_)
    finish(engine)
    assert said(engine, id_) == ("reverted", 0)
    assert marks(engine) == {}
    assert contents(engine) == before
    assert_recount_agrees(engine)


def test_a_unit_without_an_outcome_left_has_no_response(engine: Engine) -> None:
    _world(engine, "anna")
    record(engine, _at(1, "click", "anna"))
    assert set(_responses(engine).values()) == {(1, Decimal(0))}
    make(engine, outcomes_body("click", *BUG))
    finish(engine)
    assert _responses(engine) == {}
    assert contents(engine)["TallyAge"] == contents(engine)["TallyResponse"] == set()
    assert_recount_agrees(engine)


def test_the_first_of_each_customer_counts(engine: Engine) -> None:
    """By hand: anna keeps 5 of 5, 6 and (by decision) 7; bob keeps his only one; before the bug nothing changes."""
    _world(engine, "anna", "bob")
    kept, second = _at(1, "purchase", "anna", value="5"), _at(1.2, "purchase", "anna", value="6")
    third = _at(1.9, "purchase", decision_id=decision(1, "anna").id, value="7")
    record(engine, third, second, kept, _at(1.5, "purchase", "bob", value="8"), _at(0.2, "purchase", "anna", value="1"))
    before = contents(engine)
    id_ = make(engine, outcomes_body("purchase", *BUG, action="keep_first"))
    finish(engine)
    assert marks(engine) == {second.id: id_, third.id: id_}
    for series in (1, 2):
        assert _revenue(engine, series)[:3] == (2, Decimal(14), Decimal(100))  # (1 + 5) ** 2 + 8 ** 2
    assert_recount_agrees(engine)
    take_back(engine, id_)
    finish(engine)
    assert contents(engine) == before


def test_those_at_the_same_moment_are_kept_by_receipt_then_by_id(engine: Engine) -> None:
    _world(engine, "anna")
    late = _at(1, "purchase", "anna", value="1", id=bytes(16), received_at=AT + 3 * HOUR)
    first, second = (_at(1, "purchase", "anna", value="1", id=bytes(15) + bytes([i])) for i in (1, 2))
    record(engine, late, second, first)
    id_ = make(engine, outcomes_body("purchase", *BUG, action="keep_first"))
    finish(engine)
    assert marks(engine) == {late.id: id_, second.id: id_}


def test_one_that_arrives_later_is_marked_as_it_arrives_and_answered_as_ever(engine: Engine) -> None:
    _world(engine, "anna", "bob")
    id_ = make(engine, outcomes_body("purchase", *BUG))
    during = _at(1, "purchase", "anna", value="5")
    assert record(engine, during) == ["attributed"]
    finish(engine)
    late, outside = _at(1.5, "purchase", "anna", value="6"), _at(2, "purchase", "anna", value="9")
    assert record(engine, late, late, outside) == ["attributed", "duplicate", "attributed"]
    assert record(engine, late) == ["duplicate"]
    assert marks(engine) == {during.id: id_, late.id: id_}
    assert said(engine, id_) == ("applied", 2)
    assert _revenue(engine)[:2] == (1, Decimal(9))
    assert_recount_agrees(engine)
    take_back(engine, id_)
    finish(engine)
    assert _revenue(engine)[:2] == (1, Decimal(20))
    assert_recount_agrees(engine)


def test_a_first_one_that_arrives_later_takes_the_place_of_the_one_kept(engine: Engine) -> None:
    _world(engine, "anna")
    kept = _at(1.5, "purchase", "anna", value="5")
    record(engine, kept)
    id_ = make(engine, outcomes_body("purchase", *BUG, action="keep_first"))
    finish(engine)
    assert marks(engine) == {}
    earlier, later = _at(1.1, "purchase", "anna", value="3"), _at(1.8, "purchase", "anna", value="4")
    assert record(engine, later, earlier) == ["attributed", "attributed"]
    assert marks(engine) == {earlier.id: id_, later.id: id_}  # until the background process has looked
    assert_recount_agrees(engine)
    finish(engine)
    assert marks(engine) == {kept.id: id_, later.id: id_}
    assert _revenue(engine)[:2] == (1, Decimal(3))
    assert_recount_agrees(engine)


@pytest.mark.parametrize("action", ["exclude", "keep_first"])
def test_one_that_waited_for_its_decision_is_marked_when_it_is_swept_up(engine: Engine, action: str) -> None:
    _world(engine, "anna")
    if action == "keep_first":
        record(engine, _at(1, "purchase", "bob", value="1"))
    id_ = make(engine, outcomes_body("purchase", *BUG, action=action))
    early = _at(1.5, "purchase", "bob", value="5")
    assert record(engine, early) == ["waiting"]
    finish(engine)
    _decide(engine, *(decision(series, "bob", decided_at=AT) for series in (1, 2)))
    with transaction(engine) as session:
        assert sweep(session.connection(), AT + 3 * HOUR, shard=0) == (1 if action == "exclude" else 2)
    assert_recount_agrees(engine)
    finish(engine)
    assert marks(engine) == {early.id: id_}
    assert _revenue(engine)[:2] == ((0, Decimal(0)) if action == "exclude" else (1, Decimal(1)))
    assert_recount_agrees(engine)
    take_back(engine, id_)
    finish(engine)
    assert _revenue(engine)[:2] == (1, Decimal(5 if action == "exclude" else 6))
    assert_recount_agrees(engine)


def test_an_outcome_stays_excluded_while_any_correction_covers_it(engine: Engine) -> None:
    _world(engine, "anna")
    rows = [_at(hours, "purchase", "anna", value="1") for hours in (1, 2, 3)]
    record(engine, *rows)
    first = make(engine, outcomes_body("purchase", AT + HOUR, AT + 2.5 * HOUR))
    second = make(engine, outcomes_body("purchase", AT + 2 * HOUR, AT + 4 * HOUR))
    finish(engine)
    assert marks(engine) == {rows[0].id: first, rows[1].id: first, rows[2].id: second}
    take_back(engine, first)
    finish(engine)
    assert marks(engine) == {rows[1].id: second, rows[2].id: second}
    assert said(engine, second) == ("applied", 2)
    assert _revenue(engine)[:2] == (1, Decimal(1))
    assert_recount_agrees(engine)
    take_back(engine, second)
    finish(engine)
    assert (marks(engine), _revenue(engine)[1]) == ({}, Decimal(3))


def test_the_first_is_the_first_that_nothing_else_excludes(engine: Engine) -> None:
    _world(engine, "anna")
    rows = [_at(hours, "purchase", "anna", value=str(value)) for hours, value in ((1, 2), (1.4, 4), (1.8, 8))]
    record(engine, *rows)
    keeping = make(engine, outcomes_body("purchase", *BUG, action="keep_first"))
    finish(engine)
    assert _revenue(engine)[1] == Decimal(2)
    excluding = make(engine, outcomes_body("purchase", AT + HOUR, AT + 1.2 * HOUR))
    finish(engine)
    assert marks(engine) == {rows[0].id: excluding, rows[2].id: keeping}
    assert _revenue(engine)[1] == Decimal(4)
    assert_recount_agrees(engine)
    take_back(engine, excluding)
    finish(engine)
    assert marks(engine) == {rows[1].id: keeping, rows[2].id: keeping}
    assert_recount_agrees(engine)


def test_a_process_that_was_killed_between_chunks_is_followed_by_one_that_goes_on(engine: Engine) -> None:
    customers = [f"c{n}" for n in range(7)]
    _world(engine, *customers)
    record(engine, *(_at(1, "purchase", one, value="1.25") for one in customers for _ in range(2)))
    before = contents(engine)
    id_ = make(engine, outcomes_body("purchase", *BUG))
    for n in (4, 8, 12):
        assert chunk(engine, id_, size=4) == 4
        assert said(engine, id_) == ("applying", n)
        assert_recount_agrees(engine)
    lost = lease_of(engine)
    let_go(engine, holder="worker")
    lease_of(engine, "successor")
    with pytest.raises(LeaseLost):
        walk_on(engine, lost, id_=id_)
    let_go(engine, holder="successor")
    assert chunk(engine, id_, size=4) == 2
    assert said(engine, id_) == ("applied", 14)
    assert chunk(engine, id_, size=4) is None
    assert _revenue(engine)[0] == 0
    take_back(engine, id_)
    assert chunk(engine, id_, size=5) == 5
    assert_recount_agrees(engine)
    finish(engine)
    assert contents(engine) == before


def test_a_correction_can_be_taken_back_before_it_is_applied(engine: Engine) -> None:
    _world(engine, "anna", "bob")
    record(engine, *(_at(1, "purchase", one, value="3") for one in ("anna", "bob")))
    before = contents(engine)
    id_ = make(engine, outcomes_body("purchase", *BUG))
    chunk(engine, id_, size=1)
    take_back(engine, id_)
    assert said(engine, id_) == ("reverting", 1)
    assert record(engine, _at(1, "click", "anna")) == ["attributed"]
    finish(engine)
    assert said(engine, id_) == ("reverted", 0)
    assert {key: rows & contents(engine)[key] for key, rows in before.items()} == before
    with pytest.raises(CorrectionReverted):
        take_back(engine, id_)
    with reading(engine) as session:
        entries = session.exec(select(Audit).where(Audit.subject == f"correction/{id_}").order_by("id")).all()
    assert [(entry.action, entry.reason) for entry in entries] == [
        ("correct", "the tracker was broken"),
        ("revert", "it was fine"),
    ]


def test_an_outcome_that_was_being_written_when_the_correction_was_made_is_not_missed(
    engine: Engine, backend: str
) -> None:
    """The writer looked for corrections before there was one; the walk waits until it has committed."""
    if backend == "sqlite":
        pytest.skip("SQLite has one writer at a time")
    _world(engine, "anna")
    slow = _at(1, "purchase", "anna", value="5")
    with engine.begin() as connection:
        assert write_outcomes(connection, [slow], shard=1) == ["attributed"]
        id_ = make(engine, outcomes_body("purchase", *BUG))
        assert chunk(engine, id_, size=10, tries=2) is None
        assert said(engine, id_) == ("applying", 0)
    assert chunk(engine, id_, size=10) == 1
    assert marks(engine) == {slow.id: id_}
    assert_recount_agrees(engine)
