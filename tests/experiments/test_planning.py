"""Plans. Units needed are those of statsmodels and tea-tasting (as in tests/optimizer); the rest is by hand."""

import itertools
from datetime import timedelta
from math import ceil
from typing import Any

import pytest
from sqlmodel import Session, select

from experiments.catalog.definition_store import put_metric
from experiments.catalog.experiment_store import put_experiment
from experiments.catalog.lifecycle import conclude, start
from experiments.errors import (
    DefinitionNotFound,
    ExperimentNotFound,
    InvalidInput,
    PlacementNotFound,
    SegmentNotFound,
)
from experiments.planning.plan import plan, plan_experiment
from experiments.tables import Experiment, Series, TallyProduct
from experiments.tallies.moves import hour_of
from tests.experiments.review_world import (
    ACTOR,
    KEY,
    LONG_AGO,
    NOW,
    PLACEMENT,
    observe,
    row_of,
    start_experiment,
    two_weeks,
)

SEGMENTS = ("vip", "all")
WAITING = 4 / 7  # weeks: a window of three days and a day of grace
OF_A_TENTH = 3_841  # units of each variant to see 12 % instead of 10 %, looking once: statsmodels


def _numbers(**more: Any) -> dict[str, Any]:
    return {"baseline": {"mean": 0.1}, "smallest_effect": 0.2, "looks": "once"} | more


def _after_two_weeks(session: Session, **rates: float) -> int:
    """An experiment that has had 100 units of each variant a day in both segments, 1,400 a week in each."""
    series = start_experiment(session, segments=SEGMENTS)
    for segment in SEGMENTS:
        two_weeks(session, series, rates=rates or {"a": 0.1, "b": 0.1}, n_units=100, segment=segment)
    return series


def _on_hero(metric: str = "visit", **more: Any) -> dict[str, Any]:
    return {"placement": PLACEMENT, "metric": metric, "smallest_effect": 0.2, "looks": "once"} | more


def test_numbers_alone_give_units_and_weeks(session: Session) -> None:
    said = plan(session, _numbers(units_per_week=1_000))
    (row,) = said["segments"]
    assert (row["segment"], row["n_per_variant"], row["n_units"]) == ("everyone", OF_A_TENTH, 2 * OF_A_TENTH)
    assert row["weeks"] == said["weeks"] == pytest.approx(7.682)
    assert said["says"] == "8 weeks."
    assert said["one_segment"] is None, "it is two variants in one segment already"


def test_a_mean_is_planned_from_its_standard_deviation(session: Session) -> None:
    """tea-tasting: 251,166 units in all; with 8,000 an effect of 28.02 % is seen."""
    baseline = {"mean": 5.0, "sd": 500.0**0.5}
    (row,) = plan(session, _numbers(baseline=baseline, smallest_effect=0.05, n_units=8_000))["segments"]
    assert row["n_units"] == 251_166
    assert row["within"]["smallest_effect"] == pytest.approx(0.2802, abs=5e-5)
    assert row["weeks"] is None
    assert row["says"] == "everyone: 251,166 units; how many weeks is not known without units_per_week."


def test_looking_at_any_time_has_its_price(session: Session) -> None:
    once, always = (plan(session, _numbers(looks=looks))["segments"][0] for looks in ("once", "always"))
    assert once["price_of_looking"] is None
    assert always["price_of_looking"] == pytest.approx(always["n_per_variant"] / once["n_per_variant"])
    assert always["price_of_looking"] > 1.5


def test_what_given_weeks_show_grows_with_them(session: Session) -> None:
    short, long = (
        plan(session, _numbers(units_per_week=1_000, weeks=weeks))["segments"][0]["within"] for weeks in (1.0, 7.682)
    )
    assert long["n_units"] == pytest.approx(2 * OF_A_TENTH)
    assert long["power"] == pytest.approx(0.8, abs=1e-3)
    assert long["smallest_effect"] == pytest.approx(0.2, abs=1e-3)
    assert short["power"] < long["power"]
    assert short["smallest_effect"] > long["smallest_effect"]


def test_past_tallies_say_the_baseline_and_the_traffic_of_each_segment(session: Session) -> None:
    _after_two_weeks(session, a=0.08, b=0.12)
    said = plan(session, _on_hero(variants=2))
    vip = row_of(said, "vip")
    assert vip["baseline"] == {"mean": 0.1, "sd": None, "n_units": 2_800, "from": f"experiment {KEY!r}"}
    assert vip["units_per_week"] == pytest.approx(1_400)
    assert vip["n_per_variant"] == OF_A_TENTH
    assert vip["weeks"] == pytest.approx(2 * OF_A_TENTH / 1_400 + WAITING)
    assert vip["says"] == "vip: 7 weeks; two variants in one segment would take 4."
    assert said["one_segment"]["weeks"] == pytest.approx(2 * OF_A_TENTH / 2_800 + WAITING)
    assert said["says"] == "7 weeks; two variants in one segment would take 4."


def test_an_experiment_is_planned_as_it_is_defined(session: Session) -> None:
    _after_two_weeks(session)
    conclude(session, KEY, actor=ACTOR)
    variants = [{"key": key, "content": {}, "is_control": key == "a"} for key in "abc"]
    definition = {
        "placement": PLACEMENT,
        "segments": ["vip"],
        "goal": "visit",
        "smallest_effect": 0.2,
        "method": "fixed",
        "weights": {"a": 0.5, "b": 0.25, "c": 0.25},
        "variants": variants,
    }
    put_experiment(session, "next", payload=definition, actor=ACTOR)
    said = plan_experiment(session, "next")
    assert [row["segment"] for row in said["segments"]] == ["vip"]
    (row,) = said["segments"]
    assert (said["looks"], said["n_variants"], said["smallest_effect"]) == ("always", 3, 0.2)
    assert row["n_units"] == 4 * row["n_per_variant"], "the smallest variant gets a quarter"
    assert row["weeks"] == pytest.approx(row["n_units"] / 1_400 + WAITING)
    assert said["one_segment"]["weeks"] < row["weeks"]
    once = plan(session, {"experiment": "next", "looks": "once", "smallest_effect": 0.4})
    assert once["segments"][0]["n_units"] < row["n_units"]


def test_no_plan_is_shorter_than_the_full_days_that_a_verdict_needs(session: Session) -> None:
    _after_two_weeks(session)
    assert plan(session, _on_hero(smallest_effect=5.0))["weeks"] == pytest.approx(1 + WAITING)


def test_the_request_goes_before_what_tallies_say(session: Session) -> None:
    _after_two_weeks(session, a=0.5, b=0.5)
    said = plan(session, _on_hero(baseline={"mean": 0.1}))
    assert [row["n_per_variant"] for row in said["segments"]] == [OF_A_TENTH, OF_A_TENTH]
    assert [row["units_per_week"] for row in said["segments"]] == pytest.approx([1_400, 1_400])
    faster = plan(session, _on_hero(units_per_week=14_000))
    assert [row["units_per_week"] for row in faster["segments"]] == [14_000, 14_000]
    assert faster["segments"][0]["baseline"]["mean"] == 0.5


def test_of_two_series_that_served_a_segment_the_later_is_read(session: Session) -> None:
    _after_two_weeks(session)
    conclude(session, KEY, actor=ACTOR)
    put_experiment(session, "later", payload=session.get_one(Experiment, KEY).body, actor=ACTOR)
    later = start(session, "later", actor=ACTOR).experiment.series or 0
    observe(session, later, variant="a", n_units=50, visits=10, segment="vip", day=20)
    said = plan(session, _on_hero())
    assert row_of(said, "vip")["baseline"] == {"mean": 0.2, "sd": None, "n_units": 50, "from": "experiment 'later'"}
    assert row_of(said, "vip")["units_per_week"] is None, "less than a day is no rate"
    assert row_of(said, "all")["baseline"]["from"] == f"experiment {KEY!r}"
    assert said["weeks"] is None
    assert said["says"] == (
        "How many weeks is not known for 1 of 2 segments; each says why. "
        f"The slowest of the others takes {ceil(row_of(said, 'all')['weeks'])} weeks."
    )


def test_a_placement_without_experiments_is_read_from_its_programme_without_the_holdout(session: Session) -> None:
    start_experiment(session)
    programme = session.exec(select(Series).where(Series.kind == "programme")).one()
    for day in range(7):
        observe(session, programme.number or 0, variant="treated", n_units=100, visits=10, day=day, metric="click")
    (row,) = plan(session, _on_hero("click"))["segments"]
    assert row["baseline"]["mean"] == 0.1
    assert row["units_per_week"] == pytest.approx(0.9 * 700 * 168 / 145)  # 145 hours from the first to the last
    assert row["baseline"]["from"] == f"the programme of placement {PLACEMENT!r}"


def test_money_is_planned_from_the_spread_of_past_totals(session: Session) -> None:
    """By hand: 100 units a day, 10 of whom spend 50: mean 5, variance (25,000 - 100 x 25) / 100 = 225."""
    series = start_experiment(session)
    for day in range(14):
        sums = {"n_units": 100, "visits": 10, "total": "500", "squares": "25000"}
        observe(session, series, variant="a", day=day, metric="spend", **sums)  # type: ignore[arg-type]  # a test's shorthand
    (row,) = plan(session, _on_hero("spend"))["segments"]
    assert row["baseline"]["mean"] == 5.0
    assert row["baseline"]["sd"] == pytest.approx(15.0, rel=1e-3)
    numbers = _numbers(baseline={"mean": 5.0, "sd": row["baseline"]["sd"]})
    assert row["n_units"] == plan(session, numbers)["segments"][0]["n_units"]


def _baskets(session: Session) -> int:
    """A fixed experiment with revenue per purchase as its goal; 14 days, each of 2 x 40 units in one segment.

    A day and variant: 20 units buy nothing; 10 buy once for 6; 10 buy three times, for 6 together.
    """
    payload = {"event": "buy", "kind": "ratio", "denominator": {"event": "buy"}}
    put_metric(session, "basket", payload=payload, actor=ACTOR)
    series = start_experiment(session, goal="basket", method="fixed")
    key: dict[str, Any] = {"series": series, "segment": "all", "allocation_version": 1, "shard": 1, "metric": "basket"}
    for day, variant in itertools.product(range(14), "ab"):
        sums = {"n_units": 40, "visits": 20, "total": "120", "squares": "720"}
        observe(session, series, variant=variant, day=day, metric="basket", **sums)  # type: ignore[arg-type]  # a test's shorthand
        below: dict[str, Any] = {
            "denominator": 40,
            "denominator_squares": 100,
            "denominator_total": 240,
            "denominator_capped": 240,
        }
        none: dict[str, Any] = dict.fromkeys(("covariate_total", "covariate_capped", "covariate_denominator"), 0)
        hour, _ = hour_of(LONG_AGO + timedelta(days=day))
        session.add(TallyProduct(**key, variant=variant, hour=hour, **below, **none))
    session.flush()
    return series


def test_a_ratio_is_planned_from_the_spread_of_its_linearised_values(session: Session) -> None:
    """By hand: 120 / 40 = 3; units are worth 0, 6 - 3 and 6 - 9 over a mean denominator of 1: variance 20 x 9 / 40."""
    _baskets(session)
    said = plan(session, _on_hero("basket"))
    baseline = said["segments"][0]["baseline"]
    assert baseline["mean"] == 3.0
    assert baseline["sd"] == pytest.approx(4.5**0.5, rel=1e-3)
    numbers = _numbers(baseline={"mean": 3.0, "sd": baseline["sd"]})
    assert said["segments"][0]["n_units"] == plan(session, numbers)["segments"][0]["n_units"]
    assert plan_experiment(session, KEY)["segments"][0]["reason"] is None


def test_a_ratio_without_any_denominator_is_not_estimable(session: Session) -> None:
    payload = {"event": "buy", "kind": "ratio", "denominator": {"event": "buy"}}
    put_metric(session, "basket", payload=payload, actor=ACTOR)
    series = start_experiment(session, goal="basket", method="fixed")
    observe(session, series, variant="a", n_units=40, metric="basket")
    (row,) = plan_experiment(session, KEY)["segments"]
    assert row["n_units"] is None
    assert "say a baseline" in row["reason"]


def test_what_is_said_of_a_ratio_is_no_rate(session: Session) -> None:
    _baskets(session)
    with pytest.raises(InvalidInput, match="is a ratio") as refused:
        plan(session, _on_hero("basket", baseline={"mean": 0.5}))
    assert [one.pointer for one in refused.value.fields] == ["/baseline/sd"]
    (row,) = plan(session, _on_hero("basket", baseline={"mean": 0.5, "sd": 2.0}))["segments"]
    assert row["baseline"]["sd"] == 2.0


def test_less_is_better_is_planned_as_a_decrease(session: Session) -> None:
    """A rate of 10 % that falls to 8 % takes fewer units than one that rises to 12 %: 3,213 by statsmodels."""
    series = start_experiment(session)
    for day in range(14):
        observe(session, series, variant="a", n_units=100, visits=10, day=day, metric="complaint")
    (row,) = plan(session, _on_hero("complaint"))["segments"]
    assert row["n_per_variant"] == 3_213
    (row,) = plan(session, _on_hero("complaint", smallest_effect=1.5))["segments"]
    assert "out of the range" in row["reason"], "a rate can't fall by more than itself"


def test_unmatured_units_count_as_traffic_only(session: Session) -> None:
    series = start_experiment(session)
    for day in range(3):
        observe(session, series, variant="a", n_units=100, day=day, since=NOW - timedelta(days=2))
    (row,) = plan(session, _on_hero())["segments"]
    assert row["baseline"] is None
    observe(session, series, variant="a", n_units=100, visits=10, since=LONG_AGO)
    (row,) = plan(session, _on_hero())["segments"]
    assert row["baseline"]["n_units"] == 100


@pytest.mark.parametrize(
    ("rate", "reason"),
    [(None, "no unit of the last 90 days"), (0.0, "nobody has responded"), (1.0, "all units have answered alike")],
)
def test_what_is_not_estimable_says_why(session: Session, rate: float | None, reason: str) -> None:
    series = start_experiment(session)
    if rate is not None:
        two_weeks(session, series, rates={"a": rate}, n_units=10)
    said = plan(session, _on_hero())
    (row,) = said["segments"]
    assert reason in row["reason"]
    assert (row["n_units"], row["weeks"], row["within"]) == (None, None, None)
    assert said["says"] == f"not estimable: {row['reason']}."


def test_a_rate_that_would_leave_its_range_is_not_estimable(session: Session) -> None:
    (row,) = plan(session, _numbers(baseline={"mean": 0.9}))["segments"]
    assert "out of the range" in row["reason"]


@pytest.mark.parametrize(
    "more", [{"baseline": {"mean": 1e-15, "sd": 1e15}}, {"smallest_effect": 1e-9}, {"baseline": {"mean": 1e-300}}]
)
def test_an_effect_that_no_number_of_units_would_show_is_not_estimable(session: Session, more: dict[str, Any]) -> None:
    (row,) = plan(session, _numbers(units_per_week=1.0, variants=100) | more)["segments"]
    assert "lost in the spread" in row["reason"]


def test_a_control_without_units_is_not_estimable(session: Session) -> None:
    _after_two_weeks(session)
    variants = [{"key": key, "content": {}, "is_control": key == "a"} for key in "ab"]
    weights = {"a": 0.0, "b": 1.0}
    definition = {"placement": PLACEMENT, "goal": "visit", "method": "fixed", "weights": weights, "variants": variants}
    put_experiment(session, "next", payload=definition, actor=ACTOR)
    assert all("the control gets no units" in row["reason"] for row in plan_experiment(session, "next")["segments"])


@pytest.mark.parametrize(
    ("request_", "pointer"),
    [
        ({}, ""),
        ({"baseline": {"mean": 5}}, "/baseline/mean"),
        ({"baseline": {"mean": 0, "sd": 1}}, "/baseline/mean"),
        ({"experiment": "x", "variants": 3}, "/variants"),
        ({"placement": "hero"}, "/metric"),
        ({"baseline": {"mean": 0.1}, "metric": "visit"}, "/metric"),
        ({"baseline": {"mean": 0.1}, "power": 0.2}, "/power"),
        ({"baseline": {"mean": 0.1}, "smallest_effect": 0}, "/smallest_effect"),
        ({"baseline": {"mean": 0.1}, "units_per_week": 0}, "/units_per_week"),
        ({"baseline": {"mean": 0.1}, "looks": "never"}, "/looks"),
    ],
)
def test_a_request_that_cannot_be_is_refused(session: Session, request_: dict[str, Any], pointer: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        plan(session, request_)
    assert [field.pointer for field in caught.value.fields] == [pointer]


def test_what_does_not_exist_is_refused(session: Session) -> None:
    start_experiment(session)
    with pytest.raises(ExperimentNotFound):
        plan_experiment(session, "none")
    with pytest.raises(PlacementNotFound):
        plan(session, _on_hero(placement="none"))
    with pytest.raises(DefinitionNotFound):
        plan(session, _on_hero("none"))
    with pytest.raises(SegmentNotFound):
        plan(session, _on_hero(segments=["none"]))
