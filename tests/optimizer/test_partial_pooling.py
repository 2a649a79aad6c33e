"""Expected values: the closed form of `hierarchy`, where it is close to normal. One run of chains for all."""

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from optimizer.errors import InvalidArgument, InvalidCounts, NotConverged
from optimizer.hierarchy import SegmentEffects, segment_effects
from optimizer.partial_pooling import DrawnQuantity, Pooled, Responders, partial_pooling, required_agreement
from optimizer.personalise import personalise_or_not, value_shares
from optimizer.pooling_model import Chains
from optimizer.relative_means import RelativeMeans

Floats = NDArray[np.float64]

N_SEGMENTS, N_VARIANTS = 12, 3


def _seen() -> Responders:
    """4,000 units a variant at about 20 %, effects of +10 % and +20 %, interactions of 8 %; one variant unseen once."""
    rng = np.random.default_rng(20261125)
    odds = rng.normal(-1.4, 0.3, size=(N_SEGMENTS, 1)) + np.array([0.0, 0.1, 0.2])
    rate = 1.0 / (1.0 + np.exp(-odds - rng.normal(0.0, 0.08, size=(N_SEGMENTS, N_VARIANTS))))
    n_units = np.full((N_SEGMENTS, N_VARIANTS), 4_000.0)
    n_units[0, 2] = 0.0
    return Responders(n_units, rng.binomial(n_units.astype(int), rate).astype(float))


@pytest.fixture(scope="module")
def told() -> list[float]:
    return []


@pytest.fixture(scope="module")
def pooled(told: list[float]) -> Pooled:
    return partial_pooling(_seen(), control_index=0, seed=7, progress=told.append)


@pytest.fixture(scope="module")
def closed() -> SegmentEffects:
    """The same model with normal log odds: half a responder added, as in Gart & Zweifel (1967)."""
    seen = _seen()
    yes, no = seen.n_responders + 0.5, seen.n_units - seen.n_responders + 0.5
    unseen = seen.n_units == 0.0
    return segment_effects(
        np.where(unseen, np.nan, np.log(yes / no)), np.where(unseen, np.nan, 1 / yes + 1 / no), control_index=0
    )


@pytest.mark.timeout(300)
def test_chains_agree_with_the_closed_form(pooled: Pooled, closed: SegmentEffects, told: list[float]) -> None:
    """Monte Carlo error of a mean is 1/30 sd at 1,000 effective draws; 0.12 sd are 4 of it. Spreads agree to 8 %."""
    assert (pooled.r_hat <= 1.01, pooled.ess >= 400.0, pooled.n_divergent <= 24) == (True, True, True)
    tau, _, _ = closed.tau_interval()
    assert pooled.tau.mean() == pytest.approx(tau, abs=0.15 * pooled.tau.std())
    gap = (pooled.average.mean(axis=0) - closed.averages.mean) / np.maximum(closed.averages.sd, 1e-12)
    assert np.abs(gap).max() < 0.12
    assert pooled.average.std(axis=0)[1:] == pytest.approx(closed.averages.sd[1:], rel=0.08)
    odds = np.log(pooled.level / (1.0 - pooled.level))
    assert odds - odds[:, :1] == pytest.approx(closed.mean, abs=0.15 * closed.sd.max())
    assert told[0] == 0.0
    assert told == sorted(told)
    assert told[-1] == 1.0


@pytest.mark.timeout(300)
def test_effects_are_relative_to_controls_rate_and_sum_up_the_draws(pooled: Pooled, closed: SegmentEffects) -> None:
    """A change d of log odds changes a rate p by p (1 - p) d at first order: relative effects are d (1 - p)."""
    rate = pooled.level
    assert pooled.base == pytest.approx(rate[:, 0])
    assert pooled.mean == pytest.approx((rate - rate[:, :1]) / rate[:, :1], abs=1e-9)
    assert pooled.mean[1:] == pytest.approx((closed.mean * (1.0 - rate[:, :1]))[1:], abs=0.03)
    assert ((pooled.low <= pooled.mean) & (pooled.mean <= pooled.high)).all()
    assert ((pooled.level_low < rate) & (rate < pooled.level_high)).all()
    chance = closed.effects.probability_above(0.0)[:, 1:]
    assert pooled.probability_above[:, 1:] == pytest.approx(chance, abs=0.05)
    best = closed.probability_best(rng=np.random.default_rng(1))
    assert pooled.probability_best == pytest.approx(best, abs=0.06)
    assert pooled.probability_best.sum(axis=1) == pytest.approx(1.0)


@pytest.mark.timeout(300)
def test_personalising_is_judged_from_draws_as_from_the_closed_form(pooled: Pooled, closed: SegmentEffects) -> None:
    shares = value_shares(_seen().n_units.sum(axis=1), pooled.base)
    by_draws, by_form = (
        personalise_or_not(effects, shares=shares, rng=np.random.default_rng(2)) for effects in (pooled, closed)
    )
    assert by_draws.one_for_all == by_form.one_for_all
    assert by_draws.value == pytest.approx(by_form.value * 0.8, abs=0.01)  # log odds to relative: 1 - p
    assert by_draws.low < by_draws.value < by_draws.high


@pytest.mark.timeout(300)
def test_the_unseen_variant_leans_on_the_others_and_knows_less(pooled: Pooled) -> None:
    assert pooled.sd[0, 2] > 1.5 * pooled.sd[1:, 2].max()
    assert np.isfinite(pooled.level).all()


def _chains(n_draws: int, *, n_divergent: int = 0, shift: float = 0.0) -> Chains:
    rng = np.random.default_rng(3)
    place = rng.normal(size=(4, n_draws, 2, 2))
    place[0] += shift
    average = np.insert(rng.normal(size=(4, n_draws, 1)), 0, 0.0, axis=2)
    return Chains(np.abs(rng.normal(size=(4, n_draws))), average, place, n_divergent)


@pytest.mark.parametrize(
    ("chains", "said"),
    [
        (_chains(20), "effective sample size"),
        (_chains(1_000, shift=0.5), "R-hat 1"),
        (_chains(1_000, n_divergent=13), "13 divergent"),
    ],
)
def test_chains_that_have_not_converged_are_refused(chains: Chains, said: str) -> None:
    with pytest.raises(NotConverged, match=said):
        required_agreement(chains, control_index=0)


def test_good_chains_pass() -> None:
    worst, fewest = required_agreement(_chains(1_000, n_divergent=12), control_index=0)
    assert worst < 1.01
    assert fewest > 3_000


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"control_index": 3}, "control_index"),
        ({"n_chains": 1}, "n_draws"),
        ({"level": 1.0}, "level"),
        ({"average_sd": 0.0}, "average_sd"),
        ({"tau_scale": -1.0}, "tau_scale"),
        ({"seen": Responders(np.ones((2, 1)), np.ones((2, 1)))}, "seen"),
        ({"seen": RelativeMeans(np.ones((2, 2)), np.zeros((2, 2)), np.ones(2))}, "variance"),
    ],
)
def test_what_cannot_be_is_refused_by_name_before_anything_is_compiled(change: dict[str, object], named: str) -> None:
    asked: dict[str, object] = {"seen": _seen(), "control_index": 0, "seed": 1} | change
    with pytest.raises(InvalidArgument, match=named):
        partial_pooling(asked.pop("seen"), **asked)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("n_units", "n_responders"), [([[1.0]], [[2.0]]), ([[1.0]], [[-1.0]]), ([[np.nan]], [[0.0]]), ([[1.0]], [1.0])]
)
def test_responders_that_cannot_be_are_refused(n_units: list[list[float]], n_responders: list[list[float]]) -> None:
    with pytest.raises(InvalidCounts):
        Responders(np.array(n_units), np.array(n_responders))


def test_a_quantity_of_draws_says_what_its_draws_say() -> None:
    one = DrawnQuantity(np.arange(101.0))
    assert [float(value) for value in (one.mean, one.probability_above(50.0))] == [50.0, 50 / 101]
    assert [float(end) for end in one.interval(0.9)] == pytest.approx([5.0, 95.0])
    with pytest.raises(InvalidArgument, match="level"):
        one.interval(0.0)


@pytest.mark.timeout(300)
def test_sums_of_effects_want_their_shape(pooled: Pooled) -> None:
    with pytest.raises(InvalidArgument, match="weights"):
        pooled.combined(np.zeros((2, 2)))
    assert replace(pooled, r_hat=1.0).draws(5, rng=np.random.default_rng(4)).shape == (5, N_SEGMENTS, N_VARIANTS)
