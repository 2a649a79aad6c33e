"""Hours of decisions left out: of learning, results, results over time and plans; at once, and back at once."""

from datetime import UTC, datetime, timedelta

import pytest
from sqlmodel import Session, select

from experiments.corrections import correct
from experiments.errors import InvalidInput
from experiments.learn import read_learnable
from experiments.planning.plan import plan_experiment
from experiments.review import results, results_over_time
from experiments.tables import Correction, Series
from experiments.tallies.read import read_tallies
from tests.experiments.correcting import ACTOR, HOUR, hours_body, outcomes_body
from tests.experiments.worlds import KEY, SEGMENTS, clicks, observe, start_experiment

OUTAGE = datetime.now(UTC).replace(minute=0, second=0, microsecond=0) - timedelta(days=12)


def _world(session: Session) -> int:
    """By hand: before the outage 10 of 50 for a and 20 of 50 for b, during it 30 of 40 for a and none of 40 for b."""
    number = start_experiment(session)
    session.get_one(Series, number).opens_at = OUTAGE - timedelta(days=2)
    for variant, before, during in (("a", 10, 30), ("b", 20, 0)):
        at = OUTAGE - timedelta(minutes=1)
        observe(session.connection(), number, variant=variant, n_units=50, values=clicks(before), at=at)
        at = OUTAGE + timedelta(minutes=59)
        observe(session.connection(), number, variant=variant, n_units=40, values=clicks(during), at=at)
    return number


def _correct(session: Session, **changes: object) -> Correction:
    return correct.correct(session, request=hours_body(OUTAGE, OUTAGE + HOUR, **changes), actor=ACTOR)


def _units(session: Session, number: int) -> tuple[list[float], list[float]]:
    tallies = read_tallies(session, number, metric="click")
    return tallies.by_variant(tallies.n_units)[0].tolist(), tallies.by_variant(tallies.n_responders)[0].tolist()


@pytest.mark.parametrize("experiment", [KEY, None])
def test_hours_left_out_are_read_by_nobody_until_that_is_taken_back(session: Session, experiment: str | None) -> None:
    number = _world(session)
    assert _units(session, number) == ([90, 90], [40, 20])
    before = _learned(session)
    made = _correct(session, experiment=experiment)
    assert (made.status, made.n_excluded) == ("applied", 80)
    assert _units(session, number) == ([50, 50], [10, 20])
    assert _learned(session) == [50, 50]
    said = results(session, KEY)
    assert [one["n_units"] for one in said["overall"]["variants"]] == [50, 50]
    assert said["corrections"] == [
        {
            "id": made.id,
            "kind": "decisions",
            "event": None,
            "from": OUTAGE.isoformat(),
            "to": (OUTAGE + HOUR).isoformat(),
            "action": "exclude",
            "reason": "the site was down",
            "n_excluded": 80,
            "status": "applied",
        }
    ]
    days = results_over_time(session, KEY)["overall"]["days"]
    assert sum(one["n_units"] for one in days[-1]["variants"]) == 100
    reverted = correct.revert(session, str(made.id), request={"reason": "it was up"}, actor=ACTOR)
    assert reverted.status == "reverted"
    assert _units(session, number) == ([90, 90], [40, 20])
    assert _learned(session) == before == [90, 90]
    assert results(session, KEY)["corrections"] == []


def _learned(session: Session) -> list[float]:
    learnable = read_learnable(session, KEY, now=datetime.now(UTC))
    assert learnable is not None
    return [float(n) for n in learnable.tallies.by_variant(learnable.tallies.n_units)[0]]


def test_learning_by_days_leaves_hours_out_too(session: Session) -> None:
    number = _world(session)
    _correct(session)
    late = int(datetime.now(UTC).timestamp()) // 3600
    tallies = read_tallies(session, number, metric="click", by_hour=(late, None))
    assert tallies.n_units.sum() == 100


def test_a_plan_reads_what_is_left(session: Session) -> None:
    """The baseline of a plan is the mean over matured units: 30 of 100 without the outage, 60 of 180 with it."""
    _world(session)
    assert _baseline(session) == pytest.approx(60 / 180)
    _correct(session)
    assert _baseline(session) == pytest.approx(30 / 100)


def _baseline(session: Session) -> float:
    plan = plan_experiment(session, KEY)
    return float(next(one for one in plan["segments"] if one["segment"] == SEGMENTS[0])["baseline"]["mean"])


def test_another_experiments_hours_are_no_concern(session: Session) -> None:
    number = _world(session)
    session.add(
        Correction(
            kind="decisions",
            experiment="another",
            starts_at=OUTAGE,
            ends_at=OUTAGE + HOUR,
            action="exclude",
            reason="test",
            status="applied",
            created_at=OUTAGE,
            created_by=ACTOR,
        )
    )
    session.flush()
    assert _units(session, number) == ([90, 90], [40, 20])
    assert results(session, KEY)["corrections"] == []


@pytest.mark.parametrize(
    ("body", "pointers"),
    [
        ({"action": "exclude", "reason": "why"}, {""}),
        (outcomes_body("click", OUTAGE, OUTAGE), {"/occurred_to"}),
        (outcomes_body("click", OUTAGE, OUTAGE + HOUR, reason="  "), {"/reason"}),
        (outcomes_body("click", OUTAGE, OUTAGE + HOUR, experiment=KEY), {"/experiment"}),
        (outcomes_body("click", OUTAGE, OUTAGE + timedelta(days=400)), {"/occurred_to"}),
        (outcomes_body("click", OUTAGE, OUTAGE + HOUR, action="double"), {"/action"}),
        (outcomes_body("click", OUTAGE, OUTAGE + HOUR, occurred_from="1979-01-01T00:00:00Z"), {"/occurred_from"}),
        (
            outcomes_body("click", OUTAGE, OUTAGE + HOUR) | hours_body(OUTAGE, OUTAGE + HOUR),
            {"/decided_from", "/decided_to"},
        ),
        (
            {"event": "click", "occurred_from": OUTAGE.isoformat(), "action": "exclude", "reason": "why"},
            {"/occurred_to"},
        ),
        (hours_body(OUTAGE + timedelta(minutes=30), OUTAGE + HOUR), {"/decided_from"}),
        (hours_body(OUTAGE, OUTAGE + HOUR, action="keep_first"), {"/action"}),
        (hours_body(OUTAGE, OUTAGE + HOUR, experiment="none"), {"/experiment"}),
        (hours_body(OUTAGE, OUTAGE + HOUR, decided_to="tomorrow"), {"/decided_to"}),
    ],
)
def test_a_correction_that_cannot_be_says_what_is_wrong(
    session: Session, body: dict[str, object], pointers: set[str]
) -> None:
    with pytest.raises(InvalidInput) as refused:
        correct.correct(session, request=body, actor=ACTOR)
    assert {field.pointer for field in refused.value.fields} == pointers
    assert session.exec(select(Correction)).all() == []


def test_times_of_other_zones_are_read_in_utc(session: Session) -> None:
    """A whole hour in Kolkata (+05:30) is none in UTC; 13:30 there is 08:00."""
    with pytest.raises(InvalidInput):
        correct.correct(
            session, request=hours_body(OUTAGE, OUTAGE + HOUR, decided_from="2026-01-02T13:00:00+05:30"), actor=ACTOR
        )
    body = hours_body(OUTAGE, OUTAGE + HOUR, decided_from="2026-01-02T13:30:00+05:30")
    made = correct.correct(session, request=body, actor=ACTOR)
    assert made.starts_at == datetime(2026, 1, 2, 8, tzinfo=UTC)
