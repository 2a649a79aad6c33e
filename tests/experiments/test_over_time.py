"""Results over time: each day is what results said then; novelty; what a table of them holds."""

from datetime import timedelta

import pytest
from sqlmodel import Session

from experiments.errors import ExperimentNotFound, InvalidInput, SegmentNotFound
from experiments.review import over_time, results, results_over_time
from tests.experiments.review_world import KEY, LONG_AGO, observe, reweigh, row_of, start_experiment, two_weeks

SEGMENTS = ("new", "all")
SAME = ("n_units", "n_responders", "mean", "interval", "probability_best")


def _moving_weights(session: Session) -> int:
    """Four days in two segments; the weights of one move on the third."""
    series = start_experiment(session, segments=SEGMENTS)
    reweigh(session, series, weights={"a": 0.2, "b": 0.8})
    for day in range(4):
        late = day >= 2
        for variant, n_units in (("a", 40 if late else 100), ("b", 160 if late else 100)):
            version, visits = (2 if late else 1), n_units // (4 if variant == "b" else 5)
            observe(session, series, variant=variant, n_units=n_units, visits=visits, day=day, version=version)
            observe(
                session,
                series,
                variant=variant,
                n_units=n_units,
                visits=25,
                day=day,
                version=version,
                metric="spend",
                total=str(n_units * 2 + day),
                squares=str(n_units * 30 + day),
            )
        for variant in ("a", "b"):
            observe(session, series, variant=variant, n_units=50, visits=5 + day, day=day, segment="new")
    return series


@pytest.mark.parametrize("metric", ["visit", "spend"])
def test_each_day_is_what_results_say_of_the_units_until_then(session: Session, metric: str) -> None:
    _moving_weights(session)
    answer = results_over_time(session, KEY, metric=metric)
    assert len(answer["overall"]["days"]) == 4
    for i, day in enumerate(answer["overall"]["days"]):
        then = results(session, KEY, metric=metric, as_of=LONG_AGO + timedelta(days=i))
        shown = [(day, then["overall"])]
        shown += [(row_of(answer, key)["days"][i], row_of(then, key)) for key in SEGMENTS]
        for mine, theirs in shown:
            for one, other in zip(mine["variants"], theirs["variants"], strict=True):
                assert [one[name] for name in SAME] == [pytest.approx(other[name], nan_ok=True) for name in SAME]
        assert day["day"] == (LONG_AGO + timedelta(days=i)).date().isoformat()


def test_the_weight_of_a_day_is_that_of_its_end(session: Session) -> None:
    """By hand: 800 of all 1,200 units are of the segment whose weights moved: 0.8 * 2/3 + 0.5 * 1/3 = 0.7."""
    _moving_weights(session)
    answer = results_over_time(session, KEY)
    assert [day["variants"][1]["weight"] for day in row_of(answer, "all")["days"]] == [0.5, 0.5, 0.8, 0.8]
    assert [day["variants"][1]["weight"] for day in row_of(answer, "new")["days"]] == [0.5] * 4
    assert answer["overall"]["days"][-1]["variants"][1]["weight"] == pytest.approx(0.7)


def test_one_segment_can_be_asked_for_and_too_many_points_are_refused(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    _moving_weights(session)
    alone = results_over_time(session, KEY, segment="new")
    assert [row["segment"] for row in alone["segments"]] == ["new"]
    everything = results_over_time(session, KEY)
    assert (alone["segments"][0], alone["overall"]) == (row_of(everything, "new"), everything["overall"])
    monkeypatch.setattr(over_time, "MAX_POINTS", 23)
    with pytest.raises(InvalidInput, match="24 points"):
        results_over_time(session, KEY)


def test_before_the_first_decision_there_are_no_days(session: Session) -> None:
    start_experiment(session)
    answer = results_over_time(session, KEY)
    assert (answer["first_week"], answer["overall"]["days"]) == (None, [])
    assert answer["overall"]["novelty"][0]["reason"].endswith("no unit of the first week has matured yet")


def test_what_is_not_there_is_not_found(session: Session) -> None:
    start_experiment(session)
    with pytest.raises(ExperimentNotFound):
        results_over_time(session, "none")
    with pytest.raises(SegmentNotFound):
        results_over_time(session, KEY, segment="none")


def test_an_effect_that_fades_after_the_first_week_is_seen(session: Session) -> None:
    """By hand: +0.10 on 7 x 1,000 units each in the first week, +0.02 in the second; variances p(1-p)/n."""
    series = start_experiment(session)
    for day in range(14):
        observe(session, series, variant="a", n_units=1_000, visits=200, day=day)
        observe(session, series, variant="b", n_units=1_000, visits=300 if day < 7 else 220, day=day)
    answer = results_over_time(session, KEY)
    (novelty,) = answer["overall"]["novelty"]
    error = ((0.2 * 0.8 + 0.3 * 0.7 + 0.2 * 0.8 + 0.22 * 0.78) / 7_000) ** 0.5
    assert novelty["variant"] == "b"
    assert novelty["change"] == pytest.approx(-0.08)
    assert novelty["interval"] == pytest.approx([-0.08 - 1.96 * error, -0.08 + 1.96 * error], abs=1e-5)
    assert novelty["covered"] == 1.0
    first = LONG_AGO.date()
    assert answer["first_week"] == {"from": str(first), "until": str(first + timedelta(days=7))}


def test_an_effect_that_lasts_does_not_look_like_novelty(session: Session) -> None:
    series = start_experiment(session)
    two_weeks(session, series, rates={"a": 0.2, "b": 0.3}, n_units=500)
    (novelty,) = results_over_time(session, KEY)["overall"]["novelty"]
    assert novelty["change"] == pytest.approx(0.0, abs=1e-12)


def test_novelty_says_why_it_is_not_estimable(session: Session) -> None:
    series = start_experiment(session)
    for variant in ("a", "b"):
        observe(session, series, variant=variant, n_units=1_000, visits=200)
    (novelty,) = results_over_time(session, KEY)["overall"]["novelty"]
    assert novelty["reason"] == "not estimable, because no unit after the first week has matured yet"
    for variant, visits in (("a", 200), ("b", 12)):
        observe(session, series, variant=variant, n_units=1_000, visits=visits, day=8)
    (novelty,) = results_over_time(session, KEY)["overall"]["novelty"]
    assert (novelty["change"], novelty["interval"]) == (None, None)
    assert "12 responders after the first week, fewer than 20" in novelty["reason"]
