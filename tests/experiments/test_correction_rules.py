"""Which outcomes a set of corrections excludes: by hand, and for random streams on both databases."""

import random
import threading
from datetime import timedelta
from decimal import Decimal

import pytest
from sqlalchemy import Engine, select

from experiments.corrections.rules import Reported, Rule, exclusions
from experiments.database import reading, transaction
from experiments.decisions.rows import write_decisions
from experiments.outcomes.attribution import OutcomeRow
from experiments.series import PinnedCovariate, PinnedDenominator
from experiments.tables import Attribution, Correction, Decision, Outcome
from tests.experiments.correcting import (
    AT,
    HOUR,
    assert_recount_agrees,
    chunk,
    contents,
    finish,
    make,
    marks,
    outcomes_body,
    record,
    said,
    take_back,
)
from tests.experiments.rows import CLICK, DAY, REVENUE, add_series, decision, metric, outcome


def _rule(id_: int, since: int, until: int, *, keeps_first: bool = False) -> Rule:
    return Rule(id_, "purchase", AT + since * HOUR, AT + until * HOUR, keeps_first)


def _reported(hour: int, customer: str | None = "anna") -> Reported:
    at = AT + hour * HOUR
    return Reported(bytes([hour]), "purchase", at, at, None, customer)


def _excluded(hours: list[int], *rules: Rule) -> dict[int, int]:
    found = exclusions([_reported(hour) for hour in hours], rules=rules)
    return {id_[0]: by for id_, by in found.items() if by is not None}


def test_the_end_of_a_time_is_not_in_it() -> None:
    assert _excluded([1, 2, 3], _rule(7, 1, 3)) == {1: 7, 2: 7}


def test_of_two_that_exclude_the_lower_id_is_named_and_excluding_goes_before_keeping() -> None:
    assert _excluded([1, 2], _rule(9, 1, 3), _rule(4, 2, 3)) == {1: 9, 2: 4}
    assert _excluded([1, 2, 3], _rule(1, 1, 4, keeps_first=True), _rule(2, 1, 2)) == {1: 2, 3: 1}


def test_an_outcome_that_another_keeping_excluded_is_no_first() -> None:
    """The first keeps 1 of 1 and 2, the second, which covers 2 and 3, then keeps 3; in either order of making."""
    for one, other in ((1, 2), (2, 1)):
        rules = _rule(one, 1, 3, keeps_first=True), _rule(other, 2, 4, keeps_first=True)
        assert _excluded([1, 2, 3], *rules) == {2: one}


def test_what_is_attributed_nowhere_neither_counts_as_first_nor_is_excluded_by_one() -> None:
    outcomes = [_reported(1, None), _reported(2, "anna"), _reported(3, "bob"), _reported(4, "anna")]
    found = exclusions(outcomes, rules=[_rule(5, 1, 9, keeps_first=True)])
    assert {id_[0]: by for id_, by in found.items()} == {1: None, 2: None, 3: None, 4: 5}


# Random streams.

_CUSTOMERS = [f"c{n}" for n in range(6)]
ORDERS = PinnedCovariate("orders", Decimal("1.5"))
PER_CLICK = metric(
    "per_click", event="purchase", kind="ratio", aggregate="sum", denominator=PinnedDenominator("click", "count")
)


def _world(engine: Engine) -> None:
    times = {"opens_at": AT - 30 * DAY, "created_at": AT - 30 * DAY}
    add_series(
        engine, 1, metrics=(CLICK, REVENUE, PER_CLICK), covariate={"attribute": "orders", "missing": 1.5}, **times
    )
    add_series(engine, 2, kind="programme", experiment=None, unit="period", **times)
    add_series(engine, 3, unit="occasion", metrics=(REVENUE, PER_CLICK), **times)
    with transaction(engine) as session:
        rows = [
            decision(1, one, decided_at=AT, covariate=None if one == "c0" else 2.25, of_covariate=ORDERS)
            for one in _CUSTOMERS[:-1]
        ]
        rows += [decision(2, one, decided_at=AT) for one in _CUSTOMERS[:-1]]
        rows += [
            decision(3, one, occasion=str(n), decided_at=AT + 2 * n * HOUR) for one in _CUSTOMERS[:3] for n in range(3)
        ]
        write_decisions(session.connection(), rows, shard=1)


def _random_outcome(rng: random.Random) -> OutcomeRow:
    customer, at = rng.choice(_CUSTOMERS), AT + rng.randrange(-2, 24) * HOUR / 2
    who = {"decision_id": decision(rng.choice((1, 2)), customer).id} if rng.random() < 0.3 else {"customer": customer}
    event, value = rng.choice((("purchase", f"{rng.randrange(-500, 20_000) / 100:.2f}"), ("click", None)))
    late = rng.choice((timedelta(0), timedelta(seconds=1), 9 * DAY))  # one of nine days is received too late
    return outcome(event, value=value, id=rng.randbytes(16), at=at, received_at=at + late, **who)


def _expected(engine: Engine) -> dict[bytes, set[int]]:
    """By brute force: the corrections that may be named for each excluded outcome, in an implementation of its own."""
    with reading(engine) as session:
        c = session.connection()
        rules = [row for row in c.execute(select(Correction.__table__)) if row.status in {"applying", "applied"}]  # type: ignore[attr-defined]
        rows = c.execute(select(Outcome.__table__)).all()  # type: ignore[attr-defined]
        links = select(Attribution.outcome_id, Decision.customer_id).join(  # type: ignore[call-overload]
            Decision, Decision.id == Attribution.decision_id
        )
        customer_of = dict(tuple(row) for row in c.execute(links))
    excluded: dict[bytes, set[int]] = {}
    kept: list[tuple[str, str, object]] = []  # customer, event, time of those that count
    for row in sorted(rows, key=lambda row: (row.occurred_at, row.received_at, row.id)):
        mine = [one for one in rules if one.event == row.event and one.starts_at <= row.occurred_at < one.ends_at]
        plain = {one.id for one in mine if one.action == "exclude"}
        customer = customer_of.get(row.id)
        beaten = {
            one.id
            for one in mine
            if one.action == "keep_first"
            for who, event, at in kept
            if (who, event) == (customer, row.event) and one.starts_at <= at < one.ends_at
        }
        if plain or beaten:
            excluded[row.id] = {min(plain)} if plain else beaten
        elif customer is not None:
            kept.append((customer, row.event, row.occurred_at))
    return excluded


def _random_correction(rng: random.Random) -> dict[str, object]:
    since = AT + rng.randrange(-2, 20) * HOUR / 2
    action = rng.choice(("exclude", "keep_first"))
    return outcomes_body(rng.choice(("purchase", "click")), since, since + rng.randrange(1, 9) * HOUR, action=action)


@pytest.mark.parametrize("seed", [20261125, 20261126])
def test_any_stream_of_outcomes_corrections_and_reverts_ends_as_if_worked_out_at_once(
    engine: Engine, seed: int
) -> None:
    rng = random.Random(seed)  # noqa: S311  # no secret
    _world(engine)
    made: list[int] = []
    for _ in range(40):
        what = rng.random()
        if what < 0.45:
            record(engine, *(_random_outcome(rng) for _ in range(rng.randrange(1, 12))), shard=rng.choice((1, 2)))
        elif what < 0.6:
            made.append(make(engine, _random_correction(rng)))
        elif what < 0.7 and made:
            take_back(engine, made.pop(rng.randrange(len(made))))
        elif what < 0.9 and made:
            chunk(engine, rng.choice(made), size=rng.randrange(1, 6))
        else:
            finish(engine)
        if rng.random() < 0.4:
            assert_recount_agrees(engine)
    finish(engine)
    found, expected = marks(engine), _expected(engine)
    assert found.keys() == expected.keys()
    assert {id_ for id_, by in found.items() if by not in expected[id_]} == set()
    assert_recount_agrees(engine)
    before = contents(engine)
    extra = [make(engine, _random_correction(rng)) for _ in range(2)]
    finish(engine)
    for id_ in extra:
        take_back(engine, id_)
    finish(engine)
    assert contents(engine) == before
    for id_ in made:
        take_back(engine, id_)
    finish(engine)
    assert marks(engine) == {}
    assert_recount_agrees(engine)


def test_writers_beside_the_walk_leave_nothing_unmarked_and_nothing_miscounted(engine: Engine) -> None:
    _world(engine)
    rng = random.Random(20261127)  # noqa: S311  # no secret
    record(engine, *(_random_outcome(rng) for _ in range(300)))
    streams = [[[_random_outcome(rng) for _ in range(6)] for _ in range(12)] for _ in range(2)]

    def write(shard: int) -> None:
        for rows in streams[shard - 1]:
            record(engine, *rows, shard=shard)

    threads = [threading.Thread(target=write, args=(shard,)) for shard in (1, 2)]
    for thread in threads:
        thread.start()
    wide = (AT - 2 * HOUR, AT + 12 * HOUR)
    ids = [
        make(engine, outcomes_body("purchase", *wide, action="keep_first")),
        make(engine, outcomes_body("click", *wide)),
    ]
    while any(thread.is_alive() for thread in threads):
        finish(engine)
    for thread in threads:
        thread.join()
    finish(engine)
    finish(engine)
    assert [said(engine, id_)[0] for id_ in ids] == ["applied", "applied"]
    found, expected = marks(engine), _expected(engine)
    assert found.keys() == expected.keys()
    assert_recount_agrees(engine)
    with reading(engine) as session:
        n_rows = len(session.connection().execute(select(Outcome.id)).all())  # type: ignore[call-overload]
    assert n_rows == 300 + 2 * 12 * 6
    for id_ in ids:
        take_back(engine, id_)
    finish(engine)
    assert marks(engine) == {}
    assert_recount_agrees(engine)


def test_exact_values_survive(engine: Engine) -> None:
    """Values whose squares have more digits than a float holds come back to the last digit."""
    _world(engine)
    spent = (("c0", "999999999999.12"), ("c1", "0.123456789"), ("c0", "1234567.89"))
    record(engine, *(outcome("purchase", one, value=value, at=AT + HOUR) for one, value in spent))
    before = contents(engine)
    assert ("total", Decimal("1000001234567.133456789")) in {
        pair for row in before["TallyResponse"] for pair in row[6:]
    }
    id_ = make(engine, outcomes_body("purchase", AT, AT + 2 * HOUR, action="keep_first"))
    finish(engine)
    assert contents(engine) != before
    take_back(engine, id_)
    finish(engine)
    assert contents(engine) == before
