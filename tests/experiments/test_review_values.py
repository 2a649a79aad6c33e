"""Ratios, covariates, caps and priors in results. Expected values: by hand, or by tea-tasting, on the same units."""

from datetime import timedelta
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import tea_tasting as tt
from numpy.typing import NDArray
from sqlmodel import Session

from experiments.catalog.definition_store import put_attribute, put_metric
from experiments.review import results
from experiments.tables import Series, TallyCovariate, TallyProduct
from experiments.tallies.moves import hour_of
from tests.experiments.review_world import ACTOR, KEY, LONG_AGO, observe, reweigh, row_of, start_experiment, variant_of

Floats = NDArray[np.float64]


def _observe_units(
    session: Session,
    series: int,
    *,
    variant: str,
    total: Floats,
    denominator: Floats | None = None,
    covariate: Floats | None = None,
    metric: str,
    segment: str = "all",
    day: int = 0,
    version: int = 1,
) -> None:
    """Write the sums of single units, all decided in one hour."""
    responds = total if denominator is None else denominator
    observe(
        session,
        series,
        variant=variant,
        segment=segment,
        n_units=total.size,
        visits=int((responds != 0).sum()),
        metric=metric,
        total=repr(float(total.sum())),
        squares=repr(float((total**2).sum())),
        day=day,
        version=version,
    )
    hour, _ = hour_of(LONG_AGO + timedelta(days=day))
    key: dict[str, Any] = {
        "series": series,
        "segment": segment,
        "allocation_version": version,
        "variant": variant,
        "hour": hour,
        "shard": 1,
    }
    d = np.zeros(total.size) if denominator is None else denominator
    x = np.zeros(total.size) if covariate is None else covariate
    if covariate is not None:
        missing = int((x == 0).sum())
        session.add(TallyCovariate(**key, n_missing=missing, total=_exact(x), total_squares=_exact(x**2)))
    products = {"denominator": d, "denominator_squares": d**2, "denominator_total": d * total}
    products |= {"denominator_capped": d * total, "covariate_total": x * total}
    products |= {"covariate_capped": x * total, "covariate_denominator": x * d}
    key |= {name: _exact(values) for name, values in products.items()}
    session.add(TallyProduct(**key, metric=metric))
    session.flush()


def _exact(values: Floats) -> Decimal:
    return Decimal(repr(float(values.sum())))


def _with_ratio(session: Session, **settings: Any) -> int:
    ratio = {"event": "buy", "kind": "ratio", "denominator": {"event": "buy"}, "currency": "EUR"}
    put_metric(session, "basket", payload=ratio, actor=ACTOR)
    return start_experiment(session, metrics=["basket", "spend"], method="fixed", **settings)


def _units(n: int, *, seed: int) -> dict[str, Floats]:
    rng = np.random.default_rng(seed)
    before = rng.gamma(2.0, 20.0, n)
    orders = rng.poisson(0.2 + before / 60.0).astype(np.float64)
    spent = np.where(orders > 0, orders * rng.gamma(5.0, 4.0, n) + 0.2 * before * (orders > 0), 0.0)
    return {"before": before, "orders": orders, "spent": spent}


def test_a_ratio_is_that_of_the_totals_with_the_interval_of_the_delta_method(session: Session) -> None:
    """tea-tasting's RatioOfMeans on the same units (Welch, as ours is Student with the units' degrees of freedom)."""
    series = _with_ratio(session)
    worlds = {"a": _units(3_000, seed=1), "b": _units(2_900, seed=2)}
    for key, units in worlds.items():
        sums: dict[str, Any] = {"total": units["spent"], "denominator": units["orders"]}
        _observe_units(session, series, variant=key, metric="basket", **sums)
    table = pa.concat_tables(
        pa.table({"variant": [key] * len(units["spent"]), "spent": units["spent"], "orders": units["orders"]})
        for key, units in worlds.items()
    )
    theirs = tt.Experiment(basket=tt.RatioOfMeans("spent", "orders")).analyze(table, control="a")["basket"]
    for row in (
        row_of(results(session, KEY, metric="basket"), "all"),
        results(session, KEY, metric="basket")["overall"],
    ):
        control, treated = variant_of(row, "a"), variant_of(row, "b")
        assert control["mean"] == pytest.approx(theirs.control, rel=1e-9)
        assert treated["mean"] == pytest.approx(theirs.treatment, rel=1e-9)
        assert treated["uplift"]["absolute"] == pytest.approx(theirs.effect_size, rel=1e-9)
        interval = [theirs.effect_size_ci_lower, theirs.effect_size_ci_upper]
        assert treated["uplift"]["interval"] == pytest.approx(interval, rel=2e-3)


def test_the_ratio_over_all_segments_is_that_of_the_totals_and_no_mean_of_the_segments(session: Session) -> None:
    """By hand: vip 200/4 and all 30/3 baskets in a, 20 times each: 50 and 10, and 230/7 together."""
    series = _with_ratio(session, segments=("vip", "all"))
    for variant, factor in (("a", 1.0), ("b", 2.0)):
        for segment, spent, orders in (("vip", [100, 60, 40, 0], [2, 1, 1, 0]), ("all", [10, 20, 0, 0], [1, 2, 0, 0])):
            sums: dict[str, Any] = {
                "total": factor * np.tile(np.array(spent, dtype=float), 20),
                "denominator": np.tile(np.array(orders, dtype=float), 20),
            }
            _observe_units(session, series, variant=variant, segment=segment, metric="basket", **sums)
    answer = results(session, KEY, metric="basket")
    assert variant_of(row_of(answer, "vip"), "a")["mean"] == pytest.approx(50.0)
    assert variant_of(row_of(answer, "all"), "a")["mean"] == pytest.approx(10.0)
    assert variant_of(answer["overall"], "a")["mean"] == pytest.approx(230 / 7)
    assert variant_of(answer["overall"], "b")["uplift"]["absolute"] == pytest.approx(230 / 7)


def test_a_ratio_without_denominators_is_not_estimable_and_its_units_are_still_told(session: Session) -> None:
    series = _with_ratio(session)
    nothing = np.zeros(50)
    _observe_units(session, series, variant="a", metric="basket", total=np.full(50, 3.0), denominator=np.ones(50))
    _observe_units(session, series, variant="b", metric="basket", total=nothing, denominator=nothing)
    answer = results(session, KEY, metric="basket")
    treated = variant_of(answer["overall"], "b")
    assert (treated["n_units"], treated["mean"], treated["uplift"]["absolute"]) == (50, None, None)
    for reason in (treated["reason"], treated["uplift"]["reason"]):
        assert reason.startswith("not estimable: too few denominators")
    assert answer["checks"]["sample_ratio"]["status"] == "ok"


def _with_covariate(session: Session, **settings: Any) -> int:
    put_attribute(session, "before", payload={"type": "number"}, actor=ACTOR)
    return start_experiment(session, method="fixed", covariate={"attribute": "before"}, **settings)


def test_a_covariate_narrows_intervals_and_says_how_much_it_removes(session: Session) -> None:
    """A slope of 0.5 and as much noise: half of the variance. tea-tasting's CUPED (equal covariate means) agrees."""
    series = _with_covariate(session)
    rng = np.random.default_rng(5)
    x = rng.normal(10.0, 2.0, 2_000)
    worlds = {"a": 0.5 * x + rng.normal(0.0, 1.0, x.size), "b": 0.5 * x + rng.normal(0.2, 1.0, x.size)}
    for key, values in worlds.items():
        _observe_units(session, series, variant=key, metric="spend", total=values, covariate=x)
    answer = results(session, KEY, metric="spend")
    use = answer["covariate"]
    assert use["is_used"]
    assert use["variance_removed"] == pytest.approx(0.5, abs=0.03)
    assert use["theta"] == pytest.approx(0.5, abs=0.03)
    table = pa.table(
        {"variant": ["a"] * x.size + ["b"] * x.size, "y": np.concatenate(list(worlds.values())), "x": np.tile(x, 2)}
    )
    theirs = tt.Experiment(y=tt.Mean("y", "x")).analyze(table, control="a")["y"]
    uplift = variant_of(answer["overall"], "b")["uplift"]
    assert uplift["absolute"] == pytest.approx(theirs.effect_size, rel=1e-6)
    assert uplift["interval"] == pytest.approx([theirs.effect_size_ci_lower, theirs.effect_size_ci_upper], rel=5e-3)


def test_a_covariate_that_foretells_nothing_is_left_out_and_says_so(session: Session) -> None:
    series = _with_covariate(session)
    rng = np.random.default_rng(6)
    for key in ("a", "b"):
        sums: dict[str, Any] = {"total": rng.normal(5.0, 1.0, 4_000), "covariate": rng.normal(10.0, 2.0, 4_000)}
        _observe_units(session, series, variant=key, metric="spend", **sums)
    answer = results(session, KEY, metric="spend")
    assert not answer["covariate"]["is_used"]
    assert answer["covariate"]["variance_removed"] < 0.01
    assert "of the variance, less than 1%" in answer["covariate"]["reason"]


def test_rates_with_a_covariate_keep_their_counts(session: Session) -> None:
    """The binary goal is adjusted too; responders and units are the plain ones."""
    series = _with_covariate(session)
    rng = np.random.default_rng(7)
    for key in ("a", "b"):
        x = rng.uniform(0.0, 1.0, 3_000)
        visits = (rng.uniform(size=x.size) < x).astype(np.float64)
        _observe_units(session, series, variant=key, metric="visit", total=visits, covariate=x)
    answer = results(session, KEY)
    assert answer["covariate"]["variance_removed"] == pytest.approx(1 / 3, abs=0.04)  # (1/12) / (1/4)
    treated = variant_of(answer["overall"], "b")
    plain = 2 * 1.96 * np.sqrt(2 * 0.25 / 3_000)
    low, high = treated["uplift"]["interval"]
    assert (high - low) / plain == pytest.approx(np.sqrt(2 / 3), abs=0.03)
    assert treated["n_units"] == 3_000


def test_an_experiment_without_a_covariate_says_nothing_of_one(session: Session) -> None:
    series = start_experiment(session)
    observe(session, series, variant="a", n_units=100, visits=10)
    assert results(session, KEY)["covariate"] is None
    number = session.get_one(Series, series)
    assert number.covariate is None


def test_a_prior_is_stated_and_moves_what_little_data_says(session: Session) -> None:
    """Beta(20 + 3, 80 + 7) by hand; without a prior Beta(1 + 3, 1 + 7)."""
    prior = {"event": "visit", "kind": "binary", "prior": {"mean": 0.2, "n_units": 100}}
    put_metric(session, "careful", payload=prior, actor=ACTOR)
    series = start_experiment(session, metrics=["careful"])
    for metric in ("visit", "careful"):
        observe(session, series, variant="a", n_units=10, visits=3, metric=metric)
    found = {metric: results(session, KEY, metric=metric) for metric in ("visit", "careful")}
    low, high = variant_of(found["careful"]["overall"], "a")["interval"]
    assert (low, high) == pytest.approx((0.138713, 0.289479), abs=1e-6)  # scipy.stats.beta(23, 87).interval(0.95)
    assert found["careful"]["prior"]["shown"] == {"family": "beta", "alpha": 20.0, "beta": 80.0}
    assert found["visit"]["prior"]["shown"] == {"family": "beta", "alpha": 1.0, "beta": 1.0}
    sceptical = found["visit"]["prior"]["verdict"]
    assert "largest one less three standard errors" in sceptical.pop("note")
    assert sceptical == {"family": "normal", "on": "relative effect", "mean": 0.0, "sd": 0.05}


def test_a_cap_shows_the_mean_without_it_too(session: Session) -> None:
    """By hand: 5 + 5 + 90 capped at 20 is 30 of 3 units, uncapped 100."""
    capped = {"event": "buy", "kind": "mean", "cap": 20.0}
    put_metric(session, "capped", payload=capped, actor=ACTOR)
    series = start_experiment(session, metrics=["capped"])
    observe(session, series, variant="a", n_units=3, visits=3, metric="capped", total="100", squares="8150")
    row = session.connection()
    row.exec_driver_sql("UPDATE tally_response SET capped_total = '30', capped_squares = '450' WHERE metric = 'capped'")
    variant = variant_of(results(session, KEY, metric="capped")["overall"], "a")
    assert variant["mean"] == pytest.approx(10.0)
    assert variant["uncapped_mean"] == pytest.approx(100 / 3)


def test_money_tells_whether_more_pay_or_pay_more(session: Session) -> None:
    """By hand: 10 % pay 30 against 20 % who pay 30: all of the difference of 3 comes from payers."""
    series = start_experiment(session, goal="spend", metrics=["visit"])
    for variant, payers in (("a", 1_000), ("b", 2_000)):
        amounts = np.tile([20.0, 40.0], payers // 2)
        money: dict[str, Any] = {"total": str(amounts.sum()), "squares": str((amounts**2).sum())}
        observe(session, series, variant=variant, n_units=10_000, visits=payers, metric="spend", **money)
    hurdle = variant_of(results(session, KEY, metric="spend")["overall"], "b")["hurdle"]
    assert hurdle["chance"] == pytest.approx(2_001 / 10_002)
    assert hurdle["amount"] == pytest.approx(30.0)
    assert hurdle["from_payers"] == pytest.approx(3.0, rel=1e-3)
    assert hurdle["from_amounts"] == pytest.approx(0.0, abs=1e-3)
    assert hurdle["interval"][0] < 6.0 < hurdle["interval"][1]
    assert hurdle["probability_best"] == pytest.approx(1.0)
    assert 0.0 < hurdle["monte_carlo_error"]["probability_best"] < 0.01


def test_where_weights_moved_the_plain_difference_misleads_and_that_is_said(session: Session) -> None:
    """Simpson over time: no difference on either day, and b pooled 14 points lower."""
    series = start_experiment(session)
    reweigh(session, series, weights={"a": 0.1, "b": 0.9})
    for day, version, units, rate in ((0, 1, (5_000, 5_000), 0.3), (8, 2, (1_000, 9_000), 0.05)):
        for variant, n_units in zip("ab", units, strict=True):
            visits = round(rate * n_units)
            observe(session, series, variant=variant, n_units=n_units, visits=visits, day=day, version=version)
    answer = results(session, KEY)
    methods = variant_of(row_of(answer, "all"), "b")["estimates"]
    assert methods["naive"]["difference"] == pytest.approx(1_950 / 14_000 - 1_550 / 6_000)
    assert methods["adaptive"]["difference"] == pytest.approx(0.0, abs=0.005)
    assert methods["inverse_propensity"]["difference"] == pytest.approx(0.0, abs=0.005)
    assert methods["disagree"]
    assert any("misleads" in warning for warning in answer["warnings"])


def test_weights_that_never_moved_leave_nothing_to_disagree_on(session: Session) -> None:
    series = start_experiment(session)
    for variant, visits in (("a", 400), ("b", 460)):
        observe(session, series, variant=variant, n_units=4_000, visits=visits)
    answer = results(session, KEY)
    methods = variant_of(answer["overall"], "b")["estimates"]
    for name in ("naive", "inverse_propensity", "adaptive"):
        assert methods[name]["difference"] == pytest.approx(0.015, rel=1e-6)
    assert not methods["disagree"]


def test_one_segment_alone_says_over_all_what_it_says_itself(session: Session) -> None:
    """Of 21 payers a variant, too: intervals and p-values over all are no normal ones."""
    series = start_experiment(session, goal="spend", metrics=["visit"])
    for variant, total in (("a", "210"), ("b", "252")):
        observe(session, series, variant=variant, n_units=21, visits=21, metric="spend", total=total, squares="4000")
    answer = results(session, KEY, metric="spend")
    own, overall = (variant_of(row, "b")["estimates"] for row in (row_of(answer, "all"), answer["overall"]))
    for name in ("naive", "inverse_propensity", "adaptive"):
        for what in ("interval", "p_value", "standard_error"):
            assert overall[name][what] == pytest.approx(own[name][what], rel=1e-9)


def test_a_ratio_whose_base_moved_with_the_weights_shows_no_difference_where_there_is_none(session: Session) -> None:
    """A/A: the base is 1 of 1 on the first day and 2 of 4 on the second, when b gets nine tenths.

    Around each variant's own ratio the two days would pass for an effect of -0.37.
    """
    series = _with_ratio(session)
    reweigh(session, series, weights={"a": 0.1, "b": 0.9})
    rng = np.random.default_rng(8)
    for day, version, share, (top, bottom) in ((0, 1, 0.5, (1.0, 1.0)), (8, 2, 0.9, (2.0, 4.0))):
        for variant, n_units in (("a", round(2_000 * (1 - share))), ("b", round(2_000 * share))):
            denominator = rng.poisson(bottom, n_units).astype(float)
            total = denominator * top / bottom * rng.gamma(4.0, 0.25, n_units)
            _observe_units(
                session,
                series,
                variant=variant,
                metric="basket",
                total=total,
                denominator=denominator,
                day=day,
                version=version,
            )
    row = row_of(results(session, KEY, metric="basket"), "all")
    treated = variant_of(row, "b")
    assert abs(treated["uplift"]["absolute"]) < 0.08
    assert treated["uplift"]["interval"][0] < 0.0 < treated["uplift"]["interval"][1]
    low, high = treated["estimates"]["adaptive"]["interval"]
    assert low < 0.0 < high
    assert treated["always_valid"]["interval"][0] < 0.0 < treated["always_valid"]["interval"][1]


def test_the_overall_row_of_a_ratio_is_one_estimand_in_all_its_parts(session: Session) -> None:
    """Two segments of very unlike denominators: always-valid interval and estimates lie around the shown uplift."""
    series = _with_ratio(session, segments=("vip", "all"))
    rng = np.random.default_rng(9)
    for segment, bottom in (("vip", 10.0), ("all", 1.0)):
        for variant, factor in (("a", 1.0), ("b", 1.05)):
            denominator = rng.poisson(bottom, 4_000).astype(float)
            total = denominator * factor * (0.2 if segment == "vip" else 0.8) * rng.gamma(4.0, 0.25, 4_000)
            sums: dict[str, Any] = {"total": total, "denominator": denominator}
            _observe_units(session, series, variant=variant, segment=segment, metric="basket", **sums)
    treated = variant_of(results(session, KEY, metric="basket")["overall"], "b")
    uplift = treated["uplift"]["absolute"]
    low, high = treated["always_valid"]["interval"]
    assert (low + high) / 2 == pytest.approx(uplift, rel=1e-6)
    for name in ("naive", "inverse_propensity", "adaptive"):
        assert treated["estimates"][name]["difference"] == pytest.approx(uplift, rel=1e-6)


def test_few_numerators_are_few_responders_of_a_ratio(session: Session) -> None:
    """Everybody has a denominator; 12 of 2,000 have a numerator: too few for an always-valid interval."""
    series = _with_ratio(session)
    for variant in ("a", "b"):
        total = np.zeros(2_000)
        total[:12] = 1.0
        _observe_units(session, series, variant=variant, metric="basket", total=total, denominator=np.ones(2_000))
    answer = results(session, KEY, metric="basket")
    treated = variant_of(answer["overall"], "b")
    assert treated["n_responders"] == 2_000
    assert treated["always_valid"]["interval"] is None
    assert "responders" in treated["always_valid"]["reason"]
