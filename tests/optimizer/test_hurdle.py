"""Money as chance times amount. Expected values: another quadrature, mpmath, draws, algebra, simulation."""

from typing import Any

import mpmath
import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from optimizer.errors import InvalidArgument, InvalidCounts, InvalidPosterior, NoVariation
from optimizer.hurdle import HurdlePosterior, hurdle_posterior
from optimizer.posteriors import BetaPosterior, MeanPrior, StudentPosterior, mean_posterior, weak_mean_prior

Floats = NDArray[np.float64]

PRIOR = MeanPrior(mean=40.0, weight=1.0, variance=900.0, degrees_of_freedom=10.0)

# alpha, beta of the chance; location, scale, degrees of freedom of the amount
SHAPES = {
    "no payer of 100": (1.0, 101.0, 40.0, 30.0, 10.0),
    "one payer of 5": (2.0, 5.0, 38.0, 25.0, 11.0),
    "all of 30 pay": (31.0, 1.0, 20.0, 1.0, 40.0),
    "all of 2 pay": (3.0, 1.0, 20.0, 15.0, 12.0),
    "no unit at all": (1.0, 1.0, 40.0, 30.0, 10.0),
    "amounts about zero": (6.0, 95.0, 0.0, 8.0, 15.0),
    "refunds prevail": (6.0, 95.0, -12.0, 4.0, 15.0),
    "amount far surer": (3.0, 98.0, 50.0, 1e-4, 1e4),
    "chance far surer": (1e7, 9e7, 50.0, 20.0, 12.0),
    "large": (5e3, 1e6, 55.0, 0.7, 5e3),
}


def _one(alpha: float, beta: float, location: float, scale: float, df: float) -> HurdlePosterior:
    return HurdlePosterior(
        BetaPosterior(np.array([alpha]), np.array([beta])),
        StudentPosterior(np.array([location]), np.array([scale]), np.array([df])),
    )


def _by_the_amount(t: float, shape: tuple[float, ...]) -> float:
    """P(p a <= t) by 6,000 nodes over the amount, where we integrate over the chance by some hundred."""
    alpha, beta, location, scale, df = shape
    amount, chance = stats.t(df, location, scale), stats.beta(alpha, beta)
    low, high = amount.ppf([1e-13, 1.0 - 1e-13])
    cuts = [0.0, t, *amount.ppf([1e-11, 1e-9, 1e-6, 1e-3, 0.1, 0.5, 0.9, 1 - 1e-3, 1 - 1e-6, 1 - 1e-9])]
    cuts += list(t / chance.ppf([1e-13, 1e-11, 1e-9, 1e-6, 1e-3, 0.1, 0.5, 0.9, 1 - 1e-3, 1 - 1e-6, 1 - 1e-9]))
    edges = np.unique(np.clip([low, high, *cuts], low, high))
    nodes, weights = np.polynomial.legendre.leggauss(300)
    half = np.diff(edges)[:, np.newaxis] / 2.0
    a = edges[:-1, np.newaxis] + half * (1.0 + nodes)
    below = np.where(a > 0.0, chance.cdf(t / a), chance.sf(t / a))
    return float((half * weights * amount.pdf(a) * below).sum())


@pytest.mark.parametrize("name", SHAPES)
def test_ends_are_those_of_another_quadrature_within_a_millionth_of_the_spread(name: str) -> None:
    """How far an end is off: its error in probability, over the density there."""
    money = _one(*SHAPES[name])
    sd = float(money.sd[0])
    for end, tail in zip(money.interval(0.95), (0.025, 0.975), strict=True):
        at = [_by_the_amount(end[0] + step * sd, SHAPES[name]) for step in (-1e-3, 0.0, 1e-3)]
        density = (at[2] - at[0]) / 2e-3
        assert density > 1e-3
        assert abs(at[1] - tail) < 1e-6 * density


def test_a_probability_is_that_of_mpmath() -> None:
    """P(p a <= 0.8) for p ~ Beta(3, 60) and a ~ 20 + 9 t_12, with 30 digits, over the chance."""
    with mpmath.workdps(30):
        df = mpmath.mpf(12)

        def student(z: Any) -> Any:
            inside = mpmath.betainc(df / 2, mpmath.mpf(1) / 2, 0, df / (df + z * z), regularized=True) / 2
            return 1 - inside if z > 0 else inside

        norm = mpmath.beta(3, 60)
        exact = mpmath.quad(
            lambda p: p**2 * (1 - p) ** 59 / norm * student((mpmath.mpf("0.8") / p - 20) / 9),
            [1e-12, 0.02, 0.06, 0.2, 1],
        )
    assert _one(3.0, 60.0, 20.0, 9.0, 12.0).cdf(0.8).item() == pytest.approx(float(exact), abs=1e-8)


@pytest.mark.parametrize("name", ["no payer of 100", "one payer of 5", "amounts about zero", "large"])
def test_half_a_million_draws_fall_below_an_end_as_often_as_it_says(name: str) -> None:
    """False alarm: 1 in 10**6 an end. Draws by scipy, so that `draws` is not its own witness."""
    rng = np.random.default_rng(20261201)
    alpha, beta, location, scale, df = SHAPES[name]
    drawn = rng.beta(alpha, beta, 500_000) * stats.t.rvs(df, location, scale, size=500_000, random_state=rng)
    for end, tail in zip(_one(*SHAPES[name]).interval(0.9), (0.05, 0.95), strict=True):
        assert stats.binomtest(int((drawn <= end[0]).sum()), 500_000, tail).pvalue > 1e-6


def test_ends_by_few_steps_are_those_of_the_panels() -> None:
    """Ends are found by equal steps over the chance where these are trusted; `cdf` always takes panels."""
    rng = np.random.default_rng(20261127)
    payers, mean = np.exp(rng.uniform(0.0, np.log(1e4), 400)), rng.uniform(-20.0, 100.0, 400)
    scale = rng.uniform(0.3, 3.0, 400) * np.abs(mean) / np.sqrt(payers + 1.0)
    chance = BetaPosterior(1.0 + payers, 1.0 + payers / rng.uniform(0.01, 0.3, 400))
    money = HurdlePosterior(chance, StudentPosterior(mean, scale, payers + 10.0))
    low, high = money.interval(0.95)
    assert money.cdf(low) == pytest.approx(np.full(400, 0.025), abs=2e-8)
    assert money.cdf(high) == pytest.approx(np.full(400, 0.975), abs=2e-8)


def test_moments_and_draws_agree() -> None:
    """Means and standard deviations of 400,000 draws, within 5 of their errors (the 4th moment by the draws)."""
    for shape in (SHAPES["one payer of 5"], SHAPES["large"]):
        money = _one(*shape)
        drawn = money.draws(400_000, rng=np.random.default_rng(20261202))[:, 0]
        assert abs(drawn.mean() - money.mean[0]) < 5.0 * drawn.std() / np.sqrt(drawn.size)
        squares = (drawn - money.mean[0]) ** 2
        assert abs(squares.mean() - money.sd[0] ** 2) < 5.0 * squares.std() / np.sqrt(drawn.size)


def test_the_posterior_of_a_small_table_by_hand() -> None:
    """Payers (10, 30) and (20) in 50 and 48 units: prior mean 20, variance 100, worth one payer and ten.

    Chances Beta(3, 49) and Beta(2, 48). Amounts by section 3.3 of Gelman et al.: location (20 + 40) / 3 and
    (20 + 20) / 2; squares 1000 + 200 and 1000 + 0 on 12 and 11 degrees of freedom, scales their roots over 3 and 2.
    """
    money = hurdle_posterior([50, 48], [2, 1], total=[40, 20], sum_squares=[1000, 400])
    assert money.chance.alpha.tolist() == [3.0, 2.0]
    assert money.chance.beta.tolist() == [49.0, 48.0]
    assert money.amount.location == pytest.approx([20.0, 20.0])
    assert money.amount.degrees_of_freedom.tolist() == [12.0, 11.0]
    assert money.amount.scale == pytest.approx([np.sqrt(1200 / 12 / 3), np.sqrt(1000 / 11 / 2)])
    assert money.mean == pytest.approx([3 / 52 * 20.0, 2 / 50 * 20.0])


def test_a_hundred_units_without_a_payer_are_neither_certain_nor_absurd() -> None:
    """S15 of REVIEW.md: at 0.9 % purchase 40 % of variants have no payer after 100 units, and a variance of 0.

    Beside two variants with 9 payers of about 100 in 1,000 units each, worth 0.9 a unit, the interval of the third
    holds 0.9, lies all but wholly above 0, and stays below 10.
    """
    payers, total, squares = [9, 9, 0], [900, 900, 0], [93_600, 93_600, 0]
    money = hurdle_posterior([1000, 1000, 100], payers, total=total, sum_squares=squares)
    low, high = money.interval(0.95)
    assert low[2] < 0.9 < high[2] < 10.0
    assert low[2] > -0.05
    assert money.mean[2] == pytest.approx(100 / 102)
    assert (high - low)[2] > 2.0 * (high - low)[:2].max()


@pytest.mark.parametrize("payers", [0.0, 1.0, 2.0, 50.0])
def test_every_number_of_payers_has_a_definite_answer(payers: float) -> None:
    money = hurdle_posterior([50.0], [payers], total=[30.0 * payers], sum_squares=[900.0 * payers], prior=PRIOR)
    low, high = money.interval(0.95)
    assert np.isfinite([low, high, money.mean, money.sd]).all()
    assert low[0] < money.mean[0] < high[0]


def test_refunds_may_leave_less_than_nothing() -> None:
    money = hurdle_posterior([200.0], [40.0], total=[-400.0], sum_squares=[9_000.0], prior=PRIOR)
    low, high = money.interval(0.95)
    assert low[0] < high[0] < 0.0
    mirrored = HurdlePosterior(
        money.chance,
        StudentPosterior(-money.amount.location, money.amount.scale, money.amount.degrees_of_freedom),
    )
    assert np.array(mirrored.interval(0.95)) == pytest.approx(-np.array([high, low]), rel=1e-7)


def test_a_billion_units_give_the_normal_interval() -> None:
    """1 % pay 50 +- 30: mean 0.5, variance (0.01 (50^2 + 30^2) - 0.25) / n, to 1e-4 standard deviations (skewness)."""
    n, r = 1e9, 1e7
    money = hurdle_posterior([n, n], [r, r], total=[50 * r, 50 * r], sum_squares=[3400 * r, 3400 * r])
    sd = np.sqrt((0.01 * 3400.0 - 0.25) / n)
    assert money.sd == pytest.approx([sd, sd], rel=1e-3)
    low, high = money.interval(0.95)
    assert low == pytest.approx(money.mean - 1.959964 * sd, abs=1e-3 * sd)
    assert high == pytest.approx(money.mean + 1.959964 * sd, abs=1e-3 * sd)


def test_segments_are_what_they_are_alone_whatever_their_order_and_number() -> None:
    """550 segments of two variants: more than one pass of the quadrature."""
    rng = np.random.default_rng(20261203)
    n = rng.integers(1, 400, size=(550, 2)).astype(float)
    r = rng.binomial(n.astype(int), 0.1).astype(float)
    total = 40.0 * r
    together = hurdle_posterior(n, r, total=total, sum_squares=2_000.0 * r, prior=PRIOR)
    low, high = together.interval(0.8)
    assert np.isfinite(low).all()
    assert (low < high).all()
    turned = hurdle_posterior(
        n[::-1, ::-1], r[::-1, ::-1], total=total[::-1, ::-1], sum_squares=2_000.0 * r[::-1, ::-1], prior=PRIOR
    )
    assert turned.interval(0.8)[1][::-1, ::-1] == pytest.approx(high, rel=1e-9)
    alone = hurdle_posterior(n[7], r[7], total=total[7], sum_squares=2_000.0 * r[7], prior=PRIOR)
    assert alone.interval(0.8)[0] == pytest.approx(low[7], rel=1e-9)
    assert together.cdf(high) == pytest.approx(np.full((550, 2), 0.9), abs=1e-7)


def test_the_currency_does_not_matter() -> None:
    in_euro = hurdle_posterior([90, 80], [4, 5], total=[200, 300], sum_squares=[12_000, 20_000])
    in_cents = hurdle_posterior([90, 80], [4, 5], total=[20_000, 30_000], sum_squares=[12e7, 20e7])
    assert in_cents.interval(0.95)[1] == pytest.approx(100.0 * in_euro.interval(0.95)[1], rel=1e-8)


@pytest.mark.parametrize(
    ("payers", "total", "squares"),
    [([0, 0], [0, 0], [0, 0]), ([1, 0], [7, 0], [49, 0]), ([3, 2], [30, 20], [300, 200])],
)
def test_without_two_different_amounts_there_is_no_scale(payers: Any, total: Any, squares: Any) -> None:
    with pytest.raises(NoVariation) as refused:
        hurdle_posterior([10, 10], payers, total=total, sum_squares=squares)
    assert refused.value.code == "no_variation"


def test_impossible_input_is_refused_by_name() -> None:
    good: dict[str, Any] = {"n_units": [10.0], "n_payers": [2.0], "total": [20.0], "sum_squares": [250.0]}
    for name, value, error in (
        ("n_payers", [11.0], InvalidCounts),
        ("n_payers", [-1.0], InvalidCounts),
        ("n_payers", [np.nan], InvalidCounts),
        ("n_units", [np.inf], InvalidCounts),
        ("sum_squares", [1.0], InvalidCounts),
        ("total", [np.nan], InvalidCounts),
        ("n_payers", [1.0, 1.0], InvalidArgument),
    ):
        wrong = {**good, name: value}
        with pytest.raises(error, match=name):
            hurdle_posterior(
                wrong["n_units"], wrong["n_payers"], total=wrong["total"], sum_squares=wrong["sum_squares"]
            )
    with pytest.raises(InvalidCounts, match="total"):  # money without payers
        hurdle_posterior([10.0], [0.0], total=[5.0], sum_squares=[25.0], prior=PRIOR)


def test_improper_parts_are_refused() -> None:
    with pytest.raises(InvalidPosterior, match="shape"):
        HurdlePosterior(
            BetaPosterior(np.ones(2), np.ones(2)), StudentPosterior(np.ones(1), np.ones(1), np.full(1, 9.0))
        )
    with pytest.raises(InvalidPosterior, match="degrees_of_freedom"):
        _one(1.0, 1.0, 1.0, 1.0, 2.0)
    for level in (0.0, 1.0):
        with pytest.raises(InvalidArgument, match="level"):
            _one(*SHAPES["large"]).interval(level)


def test_under_its_own_prior_the_rank_of_the_truth_is_uniform() -> None:
    """4,000 worlds of 0 to 60 units, chance and amounts drawn from the prior. False alarm: 1 in 10**6.

    Simulation-based calibration, Talts et al. (2018), arXiv:1804.06788. Leaving the prior's spread of means out of the
    amount (a weight of 1e9 for 1) fails.
    """
    rng = np.random.default_rng(20261204)
    worlds = 4_000
    variance = PRIOR.degrees_of_freedom * PRIOR.variance / rng.chisquare(PRIOR.degrees_of_freedom, size=worlds)
    amount = rng.normal(PRIOR.mean, np.sqrt(variance / PRIOR.weight))
    chance = rng.random(worlds)
    n = rng.integers(0, 61, size=worlds)
    r = rng.binomial(n, chance)
    mean = rng.normal(amount, np.sqrt(variance / np.maximum(r, 1)))
    within = variance * rng.chisquare(np.maximum(r - 1, 1)) * (r > 1)
    money = hurdle_posterior(n, r, total=r * mean, sum_squares=within + r * mean**2, prior=PRIOR)
    assert stats.kstest(money.cdf(chance * amount), "uniform").pvalue > 1e-6
    sure = MeanPrior(PRIOR.mean, 1e9, PRIOR.variance, PRIOR.degrees_of_freedom)
    wrong = hurdle_posterior(n, r, total=r * mean, sum_squares=within + r * mean**2, prior=sure)
    assert stats.kstest(wrong.cdf(chance * amount), "uniform").pvalue < 1e-6


def _shop(
    rng: np.random.Generator, *, worlds: int, n: int, rate: float, amounts: Any
) -> tuple[NDArray[np.intp], Floats, Floats]:
    """Payers, sums and squares of four like variants in many worlds, shape (n_worlds, 4)."""
    payers = rng.binomial(n, rate, size=(worlds, 4))
    total, squares = np.zeros(payers.shape), np.zeros(payers.shape)
    for index, r in np.ndenumerate(payers):
        paid = amounts(rng, r)
        total[index], squares[index] = paid.sum(), paid @ paid
    return payers, total, squares


def _covered(payers: NDArray[np.intp], total: Floats, squares: Floats, *, n: int, truth: float) -> int:
    """Intervals of the first variant that hold the truth, each world with the prior from its own four variants."""
    inside = 0
    for r, s, ss in zip(payers, total, squares, strict=True):
        money = hurdle_posterior(np.full(4, n), r, total=s, sum_squares=ss)
        inside += bool(0.025 <= money.mapped(lambda values: values[:1]).cdf(truth).item() <= 0.975)
    return inside


AMOUNTS = {
    "gamma": lambda rng, r: rng.gamma(2.0, 25.0, size=r),
    "lognormal": lambda rng, r: rng.lognormal(np.log(50.0) - 0.32, 0.8, size=r),
}


@pytest.mark.parametrize("name", AMOUNTS)
def test_intervals_cover_where_amounts_are_skewed(name: str) -> None:
    """Of 2,000 units 5 % pay 50 on average; 700 worlds. False alarm: 1 in 10**6; a true coverage of 0.88 fails 99 %."""
    rng = np.random.default_rng(20261205)
    shop = _shop(rng, worlds=700, n=2_000, rate=0.05, amounts=AMOUNTS[name])
    assert stats.binomtest(_covered(*shop, n=2_000, truth=2.5), 700, 0.95).pvalue > 1e-6


def test_intervals_cover_where_hardly_anyone_pays_and_a_plain_mean_does_not() -> None:
    """100 units at 0.9 % (S15 of REVIEW.md), lognormal amounts, 700 worlds: 0.95 or more, for nobody knows the chance.

    False alarm: 1 in 10**6 (a coverage below 0.95). A t interval of all units, zeros and all, covers under 60 %.
    """
    rng = np.random.default_rng(20261206)
    payers, total, squares = _shop(rng, worlds=700, n=100, rate=0.009, amounts=AMOUNTS["lognormal"])
    usable = payers.sum(axis=1) >= 2
    covered = _covered(payers[usable], total[usable], squares[usable], n=100, truth=0.45)
    assert stats.binomtest(covered, int(usable.sum()), 0.95, alternative="less").pvalue > 1e-6
    sd = np.sqrt((squares - total**2 / 100)[:, 0] / 99 / 100)
    plain = np.abs(total[:, 0] / 100 - 0.45) <= 1.984 * sd
    assert plain.mean() < 0.7


def test_with_many_payers_it_is_the_plain_mean() -> None:
    """20,000 payers of 100,000: the house's Student posterior of all units, zeros and all, to 2 % of its spread."""
    rng = np.random.default_rng(20261207)
    paid = rng.gamma(2.0, 25.0, size=20_000)
    s, ss = [float(paid.sum())], [float(paid @ paid)]
    money = hurdle_posterior([1e5], [20_000], total=s, sum_squares=ss)
    weak = weak_mean_prior([1e5], total=s, sum_squares=ss, n_responders=[20_000])
    plain = mean_posterior([1e5], total=s, sum_squares=ss, prior=weak)
    assert np.array(money.interval(0.95)) == pytest.approx(np.array(plain.interval(0.95)), abs=0.02 * plain.sd.item())
