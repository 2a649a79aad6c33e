"""Results. Expected values: by hand, from the data sets' README, or from STATISTICS.md; each says which."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from scipy import stats
from sqlmodel import Session, select

from experiments.catalog.variants import retire_variant
from experiments.database import database_now
from experiments.errors import ExperimentNotFound, InvalidInput, MetricNotMeasured, SegmentNotFound, WrongState
from experiments.review import results
from experiments.tables import Experiment, Tally
from tests.experiments.review_world import (
    ACTOR,
    KEY,
    LONG_AGO,
    NOW,
    observe,
    reweigh,
    row_of,
    start_experiment,
    two_weeks,
    variant_of,
)

HILLSTROM = Path(__file__).parents[3] / "shared" / "data" / "hillstrom.csv.gz"
ARMS = {"none": "No E-Mail", "mens": "Mens E-Mail", "womens": "Womens E-Mail"}


def _hillstrom(session: Session) -> None:
    if not HILLSTROM.exists():
        pytest.skip(f"the data set {HILLSTROM.name} is not on this machine")
    log = pl.read_csv(HILLSTROM, infer_schema_length=None).with_columns(pl.col("spend").cast(pl.Decimal(12, 2)))
    segments = tuple(sorted(log["history_segment"].str.slice(0, 1).unique()))
    series = start_experiment(session, segments=segments, variants=tuple(ARMS), method="fixed")
    for variant, name in ARMS.items():
        for segment in segments:
            rows = log.filter(pl.col("segment") == name, pl.col("history_segment").str.starts_with(segment))
            common: dict[str, Any] = {"variant": variant, "segment": segment, "n_units": rows.height}
            observe(session, series, visits=int(rows["visit"].sum()), **common)
            spent = rows["spend"].cast(pl.Float64)
            sums: dict[str, Any] = {"total": str(rows["spend"].sum()), "squares": f"{(spent**2).sum():.4f}"}
            observe(session, series, visits=int(rows["conversion"].sum()), metric="complaint", **common)
            observe(session, series, visits=int((spent > 0).sum()), metric="spend", **sums, **common)


def test_hillstroms_published_figures_come_out_to_the_printed_digits(session: Session) -> None:
    """The data set's README: visits in per cent, uplifts in points, spend in dollars with its 95 % interval."""
    _hillstrom(session)
    answer = results(session, KEY)
    visits = answer["overall"]
    assert [variant["n_units"] for variant in visits["variants"]] == [21_306, 21_307, 21_387]
    assert [round(100 * variant["mean"], 3) for variant in visits["variants"]] == [10.617, 18.276, 15.140]
    uplifts = [variant["uplift"]["absolute"] for variant in visits["variants"][1:]]
    assert [round(100 * uplift, 3) for uplift in uplifts] == [7.659, 4.523]
    assert round(answer["checks"]["sample_ratio"]["p_value"], 3) == 0.904
    conversion = results(session, KEY, metric="complaint")["overall"]["variants"]
    assert [round(100 * variant["uplift"]["absolute"], 3) for variant in conversion[1:]] == [0.681, 0.311]
    spend = [variant["uplift"] for variant in results(session, KEY, metric="spend")["overall"]["variants"][1:]]
    assert [round(uplift["absolute"], 3) for uplift in spend] == [0.770, 0.424]
    assert [[round(end, 3) for end in uplift["interval"]] for uplift in spend] == [[0.485, 1.055], [0.169, 0.680]]


def test_a_rates_posterior_is_the_beta_of_a_uniform_prior(session: Session) -> None:
    """Scipy's Beta(1 + 30, 1 + 270); P(b beats a) by a million draws, standard error 0.0005."""
    series = start_experiment(session)
    observe(session, series, variant="a", n_units=300, visits=30)
    observe(session, series, variant="b", n_units=300, visits=42)
    control, treated = results(session, KEY)["overall"]["variants"]
    assert control["interval"] == pytest.approx(stats.beta(31, 271).interval(0.95), rel=1e-9)
    draws = stats.beta.rvs([31, 43], [271, 259], size=(1_000_000, 2), random_state=20261121)
    assert treated["probability_beats_control"] == pytest.approx((draws[:, 1] > draws[:, 0]).mean(), abs=0.002)
    assert treated["probability_best"] == pytest.approx(treated["probability_beats_control"], abs=1e-6)
    loss = (draws.max(axis=1, keepdims=True) - draws).mean(axis=0)
    assert [control["expected_loss"], treated["expected_loss"]] == pytest.approx(loss, abs=1e-4)


def test_one_version_gives_the_plain_means_however_unlike_its_days_are(session: Session) -> None:
    series = start_experiment(session)
    for day, (units, visits) in enumerate([((100, 110), (10, 22)), ((60, 50), (30, 20))]):
        observe(session, series, variant="a", n_units=units[0], visits=visits[0], day=day)
        observe(session, series, variant="b", n_units=units[1], visits=visits[1], day=day)
    control, treated = results(session, KEY)["overall"]["variants"]
    assert (control["mean"], treated["mean"]) == (40 / 160, 42 / 160)
    assert treated["uplift"]["absolute"] == pytest.approx(2 / 160)


def test_weights_that_moved_with_the_season_do_not_turn_the_sign(session: Session) -> None:
    """Simpson over time, by hand: b is 2 points better in both weeks, and pooled 14 points worse."""
    series = start_experiment(session)
    reweigh(session, series, weights={"a": 0.1, "b": 0.9})
    observe(session, series, variant="a", n_units=5_000, visits=1_500, day=0)
    observe(session, series, variant="b", n_units=5_000, visits=1_600, day=0)
    observe(session, series, variant="a", n_units=1_000, visits=50, day=8, version=2)
    observe(session, series, variant="b", n_units=9_000, visits=630, day=8, version=2)
    answer = results(session, KEY)
    row = row_of(answer, "all")
    treated = variant_of(row, "b")
    assert treated["n_responders"] / treated["n_units"] < 1_550 / 6_000 - 0.09
    assert treated["uplift"]["absolute"] == pytest.approx(0.02)
    assert treated["probability_beats_control"] > 0.99
    assert row["leader"] == "b"
    assert variant_of(row, "a")["mean"] + 0.02 == pytest.approx(treated["mean"])
    assert variant_of(answer["overall"], "b")["uplift"]["absolute"] == pytest.approx(0.02)
    assert answer["checks"]["sample_ratio"]["status"] == "ok"


def test_segments_with_unlike_weights_do_not_turn_the_overall_sign(session: Session) -> None:
    """Simpson over segments, by hand: +2 points in each; the mix of units is one half each."""
    series = start_experiment(session, segments=("vip", "all"))
    for segment, share in (("vip", 0.8), ("all", 0.2)):
        reweigh(session, series, weights={"a": share, "b": 1 - share}, segment=segment)
        base = 0.4 if segment == "vip" else 0.1
        for variant, n_units, rate in (("a", 10_000 * share, base), ("b", 10_000 * (1 - share), base + 0.02)):
            units: dict[str, Any] = {"n_units": round(n_units), "visits": round(n_units * rate)}
            observe(session, series, variant=variant, segment=segment, version=2, **units)
    overall = results(session, KEY)["overall"]
    assert variant_of(overall, "b")["uplift"]["absolute"] == pytest.approx(0.02)
    assert variant_of(overall, "a")["mean"] == pytest.approx(0.25)
    assert variant_of(overall, "a")["weight"] == pytest.approx(0.5)


def test_units_that_have_not_matured_are_shown_and_do_not_move_the_verdict(session: Session) -> None:
    """A window of 72 hours and a grace of 24: what was decided three days ago has not matured."""
    series = start_experiment(session)
    two_weeks(session, series, rates={"a": 0.10, "b": 0.14}, n_units=500)
    before = results(session, KEY)["overall"]
    observe(session, series, variant="a", n_units=7_000, visits=3_500, since=NOW - timedelta(days=3))
    observe(session, series, variant="b", n_units=7_000, visits=100, since=NOW - timedelta(days=3))
    answer = results(session, KEY)
    assert answer["matured_share"] == 0.5
    assert answer["overall"]["gates"][1:] == before["gates"][1:]  # but for the sample ratio, which reads all
    assert answer["overall"]["leader"] == "b"
    assert variant_of(answer["overall"], "a")["n_units"] == 14_000
    assert variant_of(answer["overall"], "a")["mean"] == (700 + 3_500) / 14_000


def test_results_of_an_earlier_moment_leave_out_what_was_decided_since(session: Session) -> None:
    series = start_experiment(session)
    two_weeks(session, series, rates={"a": 0.10, "b": 0.14}, n_units=500)
    answer = results(session, KEY, as_of=LONG_AGO + timedelta(days=6))
    assert variant_of(answer["overall"], "a")["n_units"] == 7 * 500
    assert answer["matured_share"] == pytest.approx(2 / 7)
    assert row_of(answer, "all")["verdict"] == "keep_running"


def test_nobody_asks_for_results_of_the_future(session: Session) -> None:
    start_experiment(session)
    with pytest.raises(InvalidInput) as raised:
        results(session, KEY, as_of=database_now(session) + timedelta(hours=1))
    assert raised.value.fields[0].pointer == "/as_of"


def test_an_experiment_without_any_unit_has_results_that_say_so(session: Session) -> None:
    start_experiment(session, segments=("vip", "all"))
    for metric in ("visit", "spend"):
        answer = results(session, KEY, metric=metric)
        assert answer["matured_share"] is None
        assert answer["money"] is None
        assert (answer["overall"]["verdict"], answer["overall"]["winner"]) == ("keep_running", None)
        assert variant_of(answer["overall"], "b")["mean"] is None
        assert answer["checks"]["sample_ratio"]["p_value"] is None


def test_a_control_that_nobody_answers_has_no_relative_uplift_and_can_still_lose(session: Session) -> None:
    series = start_experiment(session)
    two_weeks(session, series, rates={"a": 0.0, "b": 0.1}, n_units=500)
    row = row_of(results(session, KEY), "all")
    assert variant_of(row, "b")["uplift"]["relative"] is None
    assert variant_of(row, "b")["uplift"]["absolute"] == pytest.approx(0.1)
    assert row["leader"] == "b"


def test_a_retired_variant_is_shown_and_can_not_win(session: Session) -> None:
    series = start_experiment(session, variants=("a", "b", "c"))
    two_weeks(session, series, rates={"a": 0.10, "b": 0.14, "c": 0.30}, n_units=500)
    retire_variant(session, KEY, variant="c", actor=ACTOR, reason="out of stock")
    row = row_of(results(session, KEY), "all")
    assert (row["verdict"], row["winner"]) == ("ship", "b")
    assert variant_of(row, "c")["mean"] == pytest.approx(0.30)
    assert variant_of(row, "c")["weight"] == 0.0


def test_one_segment_is_shown_alone_and_judged_among_all(session: Session) -> None:
    series = start_experiment(session, segments=("vip", "all"))
    for segment in ("vip", "all"):
        two_weeks(session, series, rates={"a": 0.1, "b": 0.12}, n_units=300, segment=segment)
    everything = results(session, KEY)
    alone = results(session, KEY, segment="vip")
    assert alone["segments"] == [row_of(everything, "vip")]
    assert alone["overall"] == everything["overall"]


def test_what_is_not_there_is_refused_by_name(session: Session) -> None:
    start_experiment(session)
    with pytest.raises(MetricNotMeasured, match="click"):
        results(session, KEY, metric="click")
    with pytest.raises(SegmentNotFound, match="vip"):
        results(session, KEY, segment="vip")
    with pytest.raises(ExperimentNotFound, match="none-such"):
        results(session, "none-such")
    session.get_one(Experiment, KEY).series = None
    with session.no_autoflush, pytest.raises(WrongState):
        results(session, KEY)


def test_decisions_that_lacked_an_attribute_are_a_warning_from_five_per_cent_on(session: Session) -> None:
    series = start_experiment(session)
    observe(session, series, variant="a", n_units=1_000, visits=10)
    tally = session.exec(select(Tally)).one()
    for n_lacking, status in ((50, "ok"), (51, "warning")):
        tally.n_lacking = n_lacking
        session.flush()
        answer = results(session, KEY)
        assert answer["checks"]["missing_attributes"]["status"] == status
        assert any("lacked an attribute" in warning for warning in answer["warnings"]) == (status == "warning")


def test_occasions_come_with_a_remark(session: Session) -> None:
    start_experiment(session, unit="occasion")
    assert "occasions" in " ".join(results(session, KEY)["warnings"])
