"""Days summed ahead: reading gives what the hours give, whatever was summed when, and wrong sums are found."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from sqlalchemy import Engine
from sqlmodel import Session, select

from experiments.database import database_now, reading, transaction
from experiments.tables import Correction, TallyChange, TallyDay
from experiments.tallies.days import ALL_HOURS, NO_HOURS, Hours
from experiments.tallies.moves import hour_of
from experiments.tallies.read import Tallies, read_hours, read_tallies
from experiments.tallies.recount import recount
from experiments.tallies.summing import EVERY_SECONDS, DaySums, sum_days
from tests.experiments.worlds import SEGMENTS, observe, start_experiment

MIDNIGHT = datetime(2026, 3, 2, tzinfo=UTC)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
N_DAYS = 6
GOAL = "revenue"


@pytest.fixture
def series(engine: Engine) -> int:
    with transaction(engine) as session:
        number = start_experiment(session, goal=GOAL, metrics=["click"])
        for at in (MIDNIGHT + 7 * HOUR * i for i in range(N_DAYS * 24 // 7)):
            sell(session, number, at=at)
    return number


def sell(session: Session, series: int, *, at: datetime, n_units: int = 2, shard: int = 1) -> None:
    """Units of both variants and segments; one of each buys."""
    for segment in SEGMENTS:
        for variant in "ab":
            observe(
                session.connection(),
                series,
                variant=variant,
                segment=segment,
                n_units=n_units,
                values=[str(at.day + 0.1)],
                event="purchase",
                at=at,
                shard=shard,
            )


def _both(
    engine: Engine,
    series: int,
    *,
    metric: str = GOAL,
    before: datetime | None = None,
    by_hour: Hours = NO_HOURS,
) -> Iterator[Tallies]:
    """With days that were summed, and from the hours alone."""
    with reading(engine) as session:
        before_hour = None if before is None else hour_of(before)[0]
        yield read_tallies(session, series, metric=metric, by_hour=by_hour, before_hour=before_hour)
        yield read_hours(session, series, metric=metric, hours=ALL_HOURS, by_hour=by_hour, before_hour=before_hour)


def _agree(
    engine: Engine,
    series: int,
    *,
    metric: str = GOAL,
    before: datetime | None = None,
    by_hour: Hours = NO_HOURS,
) -> bool:
    read, expected = _both(engine, series, metric=metric, before=before, by_hour=by_hour)
    return all(
        np.allclose(getattr(read, name), getattr(expected, name), rtol=1e-12)
        for name in list(Tallies.__dataclass_fields__)[3:]
    )


def _change(engine: Engine, series: int, day: int, *, column: str, by: float) -> None:
    """Change what is kept of a day, behind the back of everybody."""
    with transaction(engine) as session:
        row = session.get_one(TallyDay, (series, GOAL, day))
        numbers = np.frombuffer(row.numbers).reshape(len(row.columns), -1).copy()
        numbers[row.columns.index(column)] += by
        row.numbers = numbers.tobytes()


def _is_used(engine: Engine, series: int, day: int, *, by_hour: Hours = NO_HOURS) -> bool:
    """Whether reading takes what is kept of a day: it is made another number meanwhile."""
    _change(engine, series, day, column="n_units", by=1_000.0)
    used = not _agree(engine, series, by_hour=by_hour)
    _change(engine, series, day, column="n_units", by=-1_000.0)
    return used


FIRST_DAY = hour_of(MIDNIGHT)[0] // 24


def test_reading_takes_the_days_that_were_summed_and_gives_what_the_hours_give(engine: Engine, series: int) -> None:
    assert sum_days(engine, series) == 2 * N_DAYS
    for metric in (GOAL, "click"):
        assert _agree(engine, series, metric=metric)
    assert _agree(engine, series, before=MIDNIGHT + 3 * DAY + 5 * HOUR)
    assert all(_is_used(engine, series, FIRST_DAY + day) for day in range(N_DAYS))
    assert sum_days(engine, series) == 0


@pytest.mark.parametrize(
    ("first", "end", "used"),
    [(0, 0, "012345"), (48, 72, "01345"), (59, 60, "01345"), (50, 73, "0145"), (71, None, "01"), (0, None, "")],
)
def test_days_of_hours_that_stay_apart_are_read_by_the_hour_alone(
    engine: Engine, series: int, first: int, end: int | None, used: str
) -> None:
    sum_days(engine, series)
    start = FIRST_DAY * 24
    by_hour = (start + first, None if end is None else start + end)
    read, expected = _both(engine, series, by_hour=by_hour)
    assert read.hour.tolist() == expected.hour.tolist()
    assert _agree(engine, series, by_hour=by_hour)
    assert "".join(str(i) for i in range(N_DAYS) if _is_used(engine, series, FIRST_DAY + i, by_hour=by_hour)) == used


@pytest.mark.parametrize("changed", [(0,), (2, 3), (5,), (0, 2, 4)])
def test_days_that_changed_since_are_read_by_the_hour_until_they_are_summed_anew(
    engine: Engine, series: int, changed: tuple[int, ...]
) -> None:
    sum_days(engine, series)
    with transaction(engine) as session:
        for day in changed:
            sell(session, series, at=MIDNIGHT + day * DAY + HOUR, n_units=3, shard=2)
    assert _agree(engine, series)
    assert [_is_used(engine, series, FIRST_DAY + day) for day in range(N_DAYS)] == [
        day not in changed for day in range(N_DAYS)
    ]
    assert sum_days(engine, series) == 2 * len(changed)
    assert _agree(engine, series)
    assert all(_is_used(engine, series, FIRST_DAY + day) for day in changed)


def test_units_of_days_before_the_first_are_read_too(engine: Engine, series: int) -> None:
    sum_days(engine, series)
    with transaction(engine) as session:
        sell(session, series, at=MIDNIGHT - 40 * DAY)
    assert _agree(engine, series)
    sum_days(engine, series)
    assert _agree(engine, series)


def test_many_days_that_changed_apart_cost_no_condition_each(engine: Engine) -> None:
    with transaction(engine) as session:
        series = start_experiment(session, goal=GOAL)
        for day in range(-40, 0):
            sell(session, series, at=MIDNIGHT + day * DAY)
    sum_days(engine, series)
    with transaction(engine) as session:
        for day in range(-39, 0, 2):
            sell(session, series, at=MIDNIGHT + day * DAY + HOUR)
    assert _agree(engine, series)
    assert _is_used(engine, series, FIRST_DAY - 40)
    assert not _is_used(engine, series, FIRST_DAY - 2)


def test_hours_corrected_away_are_left_out_of_summed_days(engine: Engine, series: int) -> None:
    sum_days(engine, series)
    with transaction(engine) as session:
        starts_at = MIDNIGHT + DAY
        session.add(
            Correction(
                kind="decisions",
                action="exclude",
                status="applied",
                starts_at=starts_at,
                ends_at=starts_at + 12 * HOUR,
                reason="outage",
                created_by="test",
                created_at=database_now(session),
            )
        )
    read, everything = _both(engine, series)
    assert read.n_units.sum() == everything.n_units.sum() - 4 * 2 * 2  # decided at 4 and 11 o'clock of that day


def test_only_changes_of_days_that_are_over_are_counted(engine: Engine, series: int) -> None:
    with reading(engine) as session:
        before = dict(session.exec(select(TallyChange.day, TallyChange.n_changes)).all())
    assert set(before) == set(range(FIRST_DAY, FIRST_DAY + N_DAYS))
    with transaction(engine) as session:
        sell(session, series, at=datetime.now(UTC))
    with reading(engine) as session:
        assert dict(session.exec(select(TallyChange.day, TallyChange.n_changes)).all()) == before


def test_recounting_finds_sums_that_their_hours_do_not_give_and_has_them_summed_anew(
    engine: Engine, series: int
) -> None:
    sum_days(engine, series)
    _change(engine, series, FIRST_DAY, column="total", by=0.01)
    with transaction(engine) as session:
        found = recount(session, series, mend=True).differences
    assert [one.where for one in found] == [f"tally_day {(GOAL, FIRST_DAY)}"]
    with reading(engine) as session:
        assert recount(session, series).differences == []
    assert _agree(engine, series)
    assert sum_days(engine, series) == 2 * N_DAYS


def test_the_background_process_sums_every_five_minutes(engine: Engine, series: int) -> None:
    now = 0.0
    sums = DaySums(engine, clock=lambda: now)
    assert sums.look() == 2 * N_DAYS
    with transaction(engine) as session:
        sell(session, series, at=MIDNIGHT)
    assert sums.look() == 0
    now = EVERY_SECONDS
    assert sums.look() == 2
