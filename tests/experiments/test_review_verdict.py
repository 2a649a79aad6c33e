"""Verdicts. Segments of a world are as many independent experiments; what is expected follows from how it is made."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import binom, binomtest
from sqlmodel import Session

from experiments.review import results
from experiments.review.checks import RatioCheck
from experiments.review.estimates import estimate
from experiments.review.strata import Strata
from experiments.review.verdict import Evidence, Rules, gather, judge
from optimizer.comparison import against_control
from optimizer.posteriors import beta_posterior
from tests.experiments.review_world import KEY, observe, reweigh, row_of, start_experiment, two_weeks

Ints = NDArray[np.int64]
FINE = RatioCheck(0.5, is_broken=False)
BOTH = np.array([True, True])


def _strata(visits: Ints, n_units: Ints, *, share: float = 0.5) -> Strata:
    """Worlds by day: visits and units of shape (n_worlds, n_days, 2), one version, b getting ``share``."""
    n_worlds, n_days, _ = visits.shape
    flat = visits.reshape(-1, 2).astype(np.float64)
    return Strata(
        segments=tuple(f"world-{i}" for i in range(n_worlds)),
        variants=("a", "b"),
        control=0,
        segment=np.repeat(np.arange(n_worlds), n_days),
        day=np.tile(np.arange(n_days), n_worlds),
        version=np.ones(n_worlds * n_days, dtype=np.int64),
        n_units=n_units.reshape(-1, 2).astype(np.float64),
        n_responders=flat,
        total=flat,
        squares=flat,
        propensity=np.tile([1.0 - share, share], (n_worlds * n_days, 1)),
    )


def _evidence(strata: Strata, *, days: int, rules: Rules | None = None, higher_is_better: bool = True) -> Evidence:
    return gather(
        strata,
        estimate(strata),
        days=np.full(len(strata.segments) + 1, float(days)),
        rules=rules or Rules(),
        kind="binary",
        higher_is_better=higher_is_better,
        available=BOTH,
    )


def _verdicts(
    strata: Strata, *, days: int, rules: Rules | None = None, higher_is_better: bool = True
) -> list[dict[str, Any]]:
    """By default each segment for itself: whether the others are as sure does not count."""
    evidence = _evidence(strata, days=days, rules=rules, higher_is_better=higher_is_better)
    if rules is None:
        alone = replace(evidence.discovered, proven=np.ones(evidence.days.shape, dtype=np.bool_))
        evidence = replace(evidence, discovered=alone)
    judged, n_worlds = rules or Rules(), len(strata.segments)
    return [judge(evidence, row, variants=strata.variants, rules=judged, ratio=FINE) for row in range(n_worlds)]


def _watched(rates: tuple[float, float], *, share: float, n_worlds: int, seed: int) -> tuple[set[int], set[int]]:
    """The worlds that ship b, and those that ship a, at any of 20 daily looks from the 7th day on."""
    rng = np.random.default_rng(seed)
    n_units = np.round(np.array([1.0 - share, share]) * 1_500)
    units = np.broadcast_to(n_units, (n_worlds, 20, 2))
    visits = rng.binomial(units.astype(int), rates)
    shipped: dict[str, set[int]] = {"a": set(), "b": set()}
    for days in range(7, 21):
        found = _verdicts(_strata(visits[:, :days], units[:, :days], share=share), days=days)
        for world, verdict in enumerate(found):
            if verdict["verdict"] == "ship":
                shipped[verdict["winner"]].add(world)
    return shipped["b"], shipped["a"]


def _naively_shipped(*, share: float, n_worlds: int, seed: int) -> int:
    """The same A/A worlds by the rule of 95 % probability under a flat prior, looked at every day."""
    rng = np.random.default_rng(seed)
    units = np.broadcast_to(np.round(np.array([1.0 - share, share]) * 1_500), (n_worlds, 20, 2)).cumsum(axis=1)
    visits = rng.binomial(units[:, :1].astype(int), (0.05, 0.05), (n_worlds, 20, 2)).cumsum(axis=1)
    beats = against_control(beta_posterior(visits, units), control_index=0).beats[..., 1]
    return int((np.maximum(beats, 1.0 - beats) > 0.95).any(axis=1).sum())


@pytest.mark.parametrize("share", [0.5, 0.05])
def test_hardly_any_experiment_without_a_difference_ships_though_watched_daily(share: float) -> None:
    """1,000 worlds: a true rate of 1 % fails here 1 in 1,000 times, one of 3 % passes 1 in 20 times.

    The naive rule ships more than a quarter (a true rate of 25 % fails 1 in 10**6 times).
    """
    b, a = _watched((0.05, 0.05), share=share, n_worlds=1_000, seed=20261121)
    assert binomtest(len(b | a), 1_000, 0.01, alternative="greater").pvalue > 1e-3
    naive = _naively_shipped(share=share, n_worlds=1_000, seed=20261121)
    assert binomtest(naive, 1_000, 0.25, alternative="greater").pvalue < 1e-6


def test_in_two_months_hardly_any_experiment_without_a_difference_changes_anything() -> None:
    """2,000 A/A worlds, 20 looks from day 7 to 64: at most 1 % ship b. As many say that control is to stay.

    A true rate of 1 % fails once in 10**6 times, one of 2.5 % passes 22 in 100 times, one of 4 % never.
    """
    rng, shipped = np.random.default_rng(20261130), set[int]()
    n_units = rng.poisson(250, (2_000, 64, 2))
    visits = rng.binomial(n_units, 0.1)
    for days in range(7, 65, 3):
        found = _verdicts(_strata(visits[:, :days], n_units[:, :days]), days=days)
        shipped |= {world for world, one in enumerate(found) if one["winner"] == "b"}
    assert len(shipped) <= binom.ppf(1 - 1e-6, 2_000, 0.01)


def test_hardly_any_experiment_of_many_segments_ships_in_one_where_there_is_no_difference() -> None:
    """A/A in 20 segments, watched over 60 days: at most 5 % of 100 experiments ever ship anything (17 once in 10**6).

    Each segment for itself, a fifth to three fifths of them do (21 to 58 % at odds of 1 in 10**6).
    """
    rng, ships, alone = np.random.default_rng(20261128), 0, 0
    for _ in range(100):
        n_units = rng.poisson(250, (20, 60, 2))
        visits = rng.binomial(n_units, 0.1)
        looks = [(_strata(visits[:, :days], n_units[:, :days]), days) for days in range(7, 61, 4)]
        ships += any(_ships(strata, days=days, rules=Rules()) for strata, days in looks)
        alone += any(_ships(strata, days=days, rules=None) for strata, days in looks)
    assert ships <= binom.ppf(1 - 1e-6, 100, 0.05)
    assert alone > 2 * ships


def _ships(strata: Strata, *, days: int, rules: Rules | None) -> bool:
    return any(one["verdict"] == "ship" for one in _verdicts(strata, days=days, rules=rules))


def test_a_starved_control_makes_nobody_sure_of_two_variants_that_are_alike() -> None:
    """A/A/A, 500 worlds: control falls to 1 % after the first day, as Thompson's weights let it.

    By way of control the sceptical posterior was sure of b or c in 12 to 19 % of them (44 % where both beat control). A
    true rate of 5 % fails here 1 in 1,000 times.
    """
    rng, n_worlds, n_days = np.random.default_rng(5), 500, 10
    shares = np.concatenate([[[1 / 3] * 3], np.tile([0.01, 0.495, 0.495], (n_days - 1, 1))])
    n_units = np.stack([rng.multinomial(900, share, n_worlds) for share in shares], axis=1).reshape(-1, 3)
    visits = rng.binomial(n_units, 0.12).astype(np.float64)
    strata = Strata(
        segments=tuple(f"world-{i}" for i in range(n_worlds)),
        variants=("a", "b", "c"),
        control=0,
        segment=np.repeat(np.arange(n_worlds), n_days),
        day=np.tile(np.arange(n_days), n_worlds),
        version=np.tile(np.minimum(np.arange(n_days), 1) + 1, n_worlds),
        n_units=n_units.astype(np.float64),
        n_responders=visits,
        total=visits,
        squares=visits,
        propensity=np.tile(shares, (n_worlds, 1)),
    )
    evidence = gather(
        strata,
        estimate(strata),
        days=np.full(n_worlds + 1, 10.0),
        rules=Rules(),
        kind="binary",
        higher_is_better=True,
        available=np.ones(3, dtype=np.bool_),
    )
    sure = int((evidence.probability_best[:-1] >= 0.95).sum())
    assert binomtest(sure, n_worlds, 0.05, alternative="greater").pvalue > 1e-3, sure


def test_real_differences_ship_and_the_worse_variant_does_not() -> None:
    """A fifth better, 15,000 units each: of 200 worlds at least half ship b (false alarm 1 in 10**6), none a."""
    b, a = _watched((0.05, 0.06), share=0.5, n_worlds=200, seed=7)
    assert binomtest(len(b), 200, 0.5, alternative="less").pvalue > 1e-6
    assert len(a) == 0


@settings(max_examples=40, deadline=None)
@given(a=st.integers(50, 400), b=st.integers(50, 400))
def test_a_verdict_on_harm_mirrors_that_on_gain(a: int, b: int) -> None:
    """Lower is better, responders and others swapped: the same winner (relative sizes differ, so not each gate)."""
    units = np.full((1, 1, 2), 1_000)
    up = _verdicts(_strata(np.array([[[a, b]]]), units), days=14)[0]
    down = _verdicts(_strata(np.array([[[b, a]]]), units), days=14, higher_is_better=False)[0]
    assert a == b or up["leader"] == ("b" if b > a else "a")
    assert a == b or down["leader"] == up["leader"]


@given(scale=st.integers(1, 50))
@settings(max_examples=20, deadline=None)
def test_more_of_the_same_evidence_never_makes_the_winner_less_certain(scale: int) -> None:
    def best(n: int) -> float:
        strata = _strata(np.array([[[100, 115]]]) * n, np.full((1, 1, 2), 1_000) * n)
        gates = {gate["gate"]: gate for gate in _verdicts(strata, days=14)[0]["gates"]}
        return float(gates["probability_best"]["value"])

    assert best(scale) <= best(scale + 1)


def test_a_larger_effect_is_never_less_certain() -> None:
    """3,000 units each, control 4 %: from a tenth better to five times as good."""

    def best(responders: int) -> float:
        verdict = _verdicts(_strata(np.array([[[120, responders]]]), np.full((1, 1, 2), 3_000)), days=14)[0]
        return next(float(gate["value"]) for gate in verdict["gates"] if gate["gate"] == "probability_best")

    certain = [best(responders) for responders in (132, 150, 180, 240, 360, 600)]
    assert certain == sorted(certain)
    assert certain[-1] > 0.999


def test_the_sceptical_prior_gives_way_to_what_is_beyond_doubt() -> None:
    """Two-sample z = 20: nobody would wait for more (118 of 2,993 against 581 of 3,007)."""
    verdict = _verdicts(_strata(np.array([[[118, 581]]]), np.array([[[2_993, 3_007]]])), days=14)[0]
    assert (verdict["verdict"], verdict["winner"]) == ("ship", "b")


def test_rates_of_zero_and_one_are_no_certainty_and_no_ignorance() -> None:
    """0 of 500 against all of 500 ships. All of both: a draw. 0 of 3 against 3 of 3 says little (Fisher: p = 0.1).

    Of 0 against 30 of 1,000 each should have had 15, were they alike: that is too few, 0 against 40 is not.
    """
    visits = np.array([[[0, 500]], [[500, 500]], [[0, 3]], [[0, 30]], [[0, 40]], [[1_000, 955]], [[0, 0]]])
    units = np.broadcast_to(np.array([500, 500, 3, 1_000, 1_000, 1_000, 500])[:, np.newaxis, np.newaxis], (7, 1, 2))
    *found, nothing = _verdicts(_strata(visits, units), days=14)
    assert "No matured unit has responded" in nothing["reason"]
    told = [{gate["gate"]: gate["value"] for gate in one["gates"]} for one in found]
    assert [one["verdict"] for one in found] == ["ship", *["keep_running"] * 3, "ship", "ship"]
    assert [one["leader"] for one in found[3:]] == ["b", "b", "a"]
    assert told[1]["probability_best"] == pytest.approx(0.5)
    assert 0.5 < told[2]["probability_best"] < 0.6
    assert [one["min_responders"] for one in told] == pytest.approx([250, 0, 1.5, 15, 20, 22.5])


@pytest.mark.parametrize(("rate", "share", "units"), [(0.02, 0.5, 200), (0.98, 0.5, 200), (0.1, 0.05, 400)])
def test_rates_without_a_difference_are_excluded_in_at_most_five_of_a_hundred_worlds(
    rate: float, share: float, units: int
) -> None:
    """A/A, 600 worlds, 80 daily looks: a rate of 5 % passes but for 1 in 10**6, one of 15 % fails 99.9 % of the time.

    Over 3,000 other worlds it was 1.4 to 2.4 %, with what should have been as without.
    """
    rng, ever = np.random.default_rng(20261129), np.zeros(600, dtype=np.bool_)
    n_units = rng.multinomial(units, [1.0 - share, share], size=(600, 80))
    visits = rng.binomial(n_units, rate)
    for days in range(1, 81, 2):
        strata = _strata(visits[:, :days], n_units[:, :days], share=share)
        ever |= _evidence(strata, days=days).interval.excludes_zero[:-1, 1]
    assert ever.sum() <= binom.ppf(1 - 1e-6, 600, 0.05)


def test_every_gate_is_listed_with_its_value_and_its_threshold(session: Session) -> None:
    series = start_experiment(session, gates={"min_days": 14})
    two_weeks(session, series, rates={"a": 0.10, "b": 0.14}, n_units=500)
    row = row_of(results(session, KEY), "all")
    gates = {gate["gate"]: (gate["value"], gate["threshold"], gate["passed"]) for gate in row["gates"]}
    assert gates["min_days"] == (13.0, 14.0, False)
    assert gates["min_responders"] == (700.0, 20, True)
    assert gates["probability_best"][1:] == (0.95, True)
    assert gates["expected_loss"][1:] == (0.0025, True)
    assert gates["interval"][0][0] > 0.0
    assert gates["guardrails"] == (None, None, None)
    assert (row["verdict"], row["leader"]) == ("keep_running", "b")
    assert "13 of 14 full days" in row["reason"]


def test_the_control_can_win_and_is_kept(session: Session) -> None:
    series = start_experiment(session, variants=("a", "b", "c"))
    two_weeks(session, series, rates={"a": 0.14, "b": 0.10, "c": 0.09}, n_units=500)
    row = row_of(results(session, KEY), "all")
    assert (row["verdict"], row["winner"]) == ("ship", "a")
    interval = next(gate for gate in row["gates"] if gate["gate"] == "interval")
    assert interval["value"][1] < 0.0


def test_fewer_of_what_should_decrease_wins(session: Session) -> None:
    series = start_experiment(session, goal="complaint", metrics=["spend"])
    for day in range(14):
        observe(session, series, variant="a", n_units=500, visits=70, day=day, metric="complaint")
        observe(session, series, variant="b", n_units=500, visits=50, day=day, metric="complaint")
    row = row_of(results(session, KEY), "all")
    assert (row["verdict"], row["winner"]) == ("ship", "b")


def test_enough_units_without_a_difference_are_no_difference(session: Session) -> None:
    """By hand: 14 x 100,000 units at 50 %: the relative effect's standard error is 0.12 %, far below 1 %."""
    series = start_experiment(session)
    two_weeks(session, series, rates={"a": 0.5, "b": 0.5}, n_units=100_000)
    row = row_of(results(session, KEY), "all")
    assert row["verdict"] == "no_difference"
    assert "1%" in row["reason"]


def test_units_that_came_in_other_shares_than_the_weights_break_it(session: Session) -> None:
    """4,700 against 5,300 asked for as halves: chi-squared 36, p = 2e-9."""
    series = start_experiment(session, segments=("vip", "all"))
    two_weeks(session, series, rates={"a": 0.1, "b": 0.2}, n_units=500, segment="vip")
    observe(session, series, variant="a", n_units=4_700, visits=470, day=1)
    observe(session, series, variant="b", n_units=5_300, visits=1_000, day=1)
    answer = results(session, KEY)
    assert row_of(answer, "all")["verdict"] == "broken"
    assert answer["checks"]["sample_ratio"]["segments"]["all"]["status"] == "alarm"
    assert any("shares of the weights" in warning for warning in answer["warnings"])


def test_weights_that_moved_are_no_broken_ratio(session: Session) -> None:
    """By hand: 3,010 of a against 500 + 1,600 + 900, variance 250 + 320 + 90: chi-squared 0.1515 (df 1), p = 0.6971."""
    series = start_experiment(session)
    for version, (share, units) in enumerate([(0.5, (520, 480)), (0.8, (1_580, 420)), (0.9, (910, 90))], start=1):
        if version > 1:
            reweigh(session, series, weights={"a": share, "b": 1 - share})
        for variant, n_units in zip("ab", units, strict=True):
            observe(session, series, variant=variant, n_units=n_units, version=version, day=version)
    ratio = results(session, KEY)["checks"]["sample_ratio"]
    assert ratio["p_value"] == pytest.approx(0.6971, abs=5e-5)
    assert ratio["status"] == "ok"


def test_a_doubtful_segment_among_sure_ones_waits_for_the_false_discovery_bound(session: Session) -> None:
    """Its own gates let 0.95 pass; over segments the mean chance of a wrong winner must be 0.01."""
    series = start_experiment(session, segments=("vip", "all"), gates={"false_discovery": 0.01})
    two_weeks(session, series, rates={"a": 0.10, "b": 0.16}, n_units=1_000, segment="vip")
    two_weeks(session, series, rates={"a": 0.10, "b": 0.115}, n_units=300)
    answer = results(session, KEY)
    assert row_of(answer, "vip")["verdict"] == "ship"
    doubtful = {gate["gate"]: gate["passed"] for gate in row_of(answer, "all")["gates"]}
    assert doubtful["false_discovery"] is False


def test_an_experiment_says_in_how_many_days_a_verdict_is_likely(session: Session) -> None:
    """100 a day a variant, 10 % against 13 %: it ships once the interval is clear, and not before."""
    series = start_experiment(session)
    two_weeks(session, series, rates={"a": 0.10, "b": 0.13}, n_units=100)
    overall = results(session, KEY)["overall"]
    assert overall["verdict"] == "keep_running"
    outlook = overall["outlook"]
    assert outlook["verdict"] == "ship"
    assert 1.0 < outlook["days"] < 365.0
    assert outlook["reason"] is None


def test_no_outlook_without_traffic_or_outcomes(session: Session) -> None:
    series = start_experiment(session, segments=("vip", "all"))
    assert "no present rate" in results(session, KEY)["overall"]["outlook"]["reason"]
    two_weeks(session, series, rates={"a": 0.0, "b": 0.0}, n_units=100)
    assert results(session, KEY)["overall"]["outlook"]["days"] is None
