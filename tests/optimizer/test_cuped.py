"""CUPED. Expected values: regression on units by numpy, tea-tasting 1.14, algebra, simulation."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from optimizer.cuped import SMALLEST_SPARE_UNITS, Adjusted, Unadjusted, covariate_adjusted
from optimizer.errors import InvalidArgument, InvalidCounts
from optimizer.standardise import block_differences

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Units:
    """Outcome y, covariate x, stratum and variant of each unit."""

    y: Floats
    x: Floats
    stratum: NDArray[np.intp]
    variant: NDArray[np.intp]

    def summed(self, values: Floats, shape: tuple[int, int] | None = None) -> Floats:
        cells = np.zeros(shape or (int(self.stratum.max()) + 1, int(self.variant.max()) + 1))
        np.add.at(cells, (self.stratum, self.variant), values)
        return cells

    def sums(self) -> dict[str, Floats]:
        y, x = self.y, self.x
        return {
            "n_units": self.summed(np.ones(y.size)),
            "total": self.summed(y),
            "sum_squares": self.summed(y * y),
            "covariate": self.summed(x),
            "covariate_squares": self.summed(x * x),
            "product": self.summed(x * y),
        }


def _units(rng: np.random.Generator, n: int) -> Units:
    """Three strata of unlike base rates, covariates and shares; two variants, the second 0.3 better."""
    stratum = rng.integers(3, size=n)
    variant = (rng.random(n) < np.array([0.5, 0.1, 0.8])[stratum]).astype(np.intp)
    x = rng.gamma(2.0, 2.0, size=n) + 5.0 * stratum
    y = 10.0 - 4.0 * stratum + 0.3 * variant + 0.7 * x + rng.normal(0.0, 2.0, size=n)
    return Units(y, x, stratum, variant)


def _adjusted(sums: dict[str, Any], **options: Any) -> Adjusted:
    sums = dict(sums)
    return covariate_adjusted(sums.pop("n_units"), sums.pop("total"), **sums, **options)


def test_the_sums_are_those_of_units_adjusted_one_by_one() -> None:
    """The slope is numpy's least squares of y on x and a constant for each cell."""
    units = _units(np.random.default_rng(1), 500)
    cell = units.stratum * 2 + units.variant
    slope = np.linalg.lstsq(np.column_stack([units.x, np.eye(6)[cell]]), units.y, rcond=None)[0][0]
    means = np.array([units.x[units.stratum == s].mean() for s in range(3)])
    y = units.y - slope * (units.x - means[units.stratum])
    adjusted = _adjusted(units.sums())
    assert adjusted.unadjusted is None
    assert adjusted.theta == pytest.approx(slope, rel=1e-10)
    assert adjusted.total == pytest.approx(units.summed(y), rel=1e-10)
    assert adjusted.sum_squares == pytest.approx(units.summed(y * y), rel=1e-10)


def test_the_difference_is_the_coefficient_of_the_analysis_of_covariance() -> None:
    """One stratum: with this theta, y1 - y0 adjusted is exactly least squares' coefficient of the variant beside x."""
    rng = np.random.default_rng(2)
    x, variant = rng.normal(size=300), rng.integers(2, size=300)
    y = x + 0.5 * variant + rng.normal(size=300)
    adjusted = _adjusted(Units(y, x, np.zeros(300, np.intp), variant).sums())
    design = np.column_stack([variant, x, np.ones(300)])
    coefficient = np.linalg.lstsq(design, y, rcond=None)[0][0]
    means = adjusted.total[0] / np.bincount(variant)
    assert means[1] - means[0] == pytest.approx(coefficient, rel=1e-10)


def _tea_tasting(units: Units) -> Any:
    import tea_tasting as tt
    from tea_tasting.aggr import Aggregates

    def aggregates(chosen: NDArray[np.bool_]) -> Aggregates:
        y, x = units.y[chosen], units.x[chosen]
        return Aggregates(
            count_=y.size,
            mean_={"y": float(y.mean()), "x": float(x.mean())},
            var_={"y": float(y.var(ddof=1)), "x": float(x.var(ddof=1))},
            cov_={("x", "y"): float(np.cov(x, y)[0, 1])},
        )

    return tt.Mean("y", "x").analyze_aggregates(aggregates(units.variant == 0), aggregates(units.variant == 1))


def test_with_equal_covariate_means_it_is_tea_tasting() -> None:
    """Then nothing lies between the variants, and its slope on the union is ours: equal means, difference and t."""
    rng = np.random.default_rng(3)
    x = np.tile(rng.gamma(2.0, 3.0, size=200), 2)
    variant = np.repeat([0, 1], 200)
    units = Units(x + 0.8 * variant + rng.normal(0.0, 2.0, size=400), x, np.zeros(400, np.intp), variant)
    theirs, ours = _tea_tasting(units), _adjusted(units.sums())
    assert ours.total[0] / 200.0 == pytest.approx([theirs.control, theirs.treatment], rel=1e-10)
    difference = block_differences([[200, 200]], ours.total, sum_squares=ours.sum_squares, control_index=0)
    assert difference.estimate[1] == pytest.approx(theirs.effect_size, rel=1e-10)
    assert difference.estimate[1] / np.sqrt(difference.variance[1]) == pytest.approx(theirs.statistic, rel=1e-10)


def test_else_tea_tasting_differs_by_what_lies_between_the_variants() -> None:
    """Its slope adds sum n (x_v - x)(y_v - y) to the products, sum n (x_v - x)^2 to the squares: effects leak in."""
    rng = np.random.default_rng(4)
    variant = rng.integers(2, size=60)
    x = rng.normal(size=60) + 0.5 * variant
    units = Units(x + 3.0 * variant + rng.normal(size=60), x, np.zeros(60, np.intp), variant)
    n = np.bincount(variant)
    x_mean, y_mean = (np.bincount(variant, weights=values) / n for values in (units.x, units.y))
    within = [(units.x - x_mean[variant]) @ (v - m[variant]) for v, m in ((units.y, y_mean), (units.x, x_mean))]
    between = [n @ ((x_mean - x.mean()) * (m - v.mean())) for v, m in ((units.y, y_mean), (units.x, x_mean))]
    leaky = (within[0] + between[0]) / (within[1] + between[1])
    theirs, ours = _tea_tasting(units), _adjusted(units.sums())
    assert ours.theta == pytest.approx(within[0] / within[1], rel=1e-10)
    assert theirs.control == pytest.approx(y_mean[0] - leaky * (x_mean[0] - x.mean()), rel=1e-10)
    assert abs(leaky - ours.theta) > 0.05


def test_a_stratum_keeps_its_total() -> None:
    sums = _units(np.random.default_rng(5), 400).sums()
    assert _adjusted(sums).total.sum(axis=1) == pytest.approx(sums["total"].sum(axis=1), rel=1e-12)


@pytest.mark.parametrize("shift", [-3.0, 1e4])
def test_a_constant_added_to_the_covariate_changes_nothing(shift: float) -> None:
    units = _units(np.random.default_rng(6), 400)
    plain = _adjusted(units.sums())
    moved = _adjusted(Units(units.y, units.x + shift, units.stratum, units.variant).sums())
    assert moved.theta == pytest.approx(plain.theta, rel=1e-7)
    assert moved.total == pytest.approx(plain.total, rel=1e-7)
    assert moved.sum_squares == pytest.approx(plain.sum_squares, rel=1e-7)


def test_the_covariates_scale_goes_into_theta_alone() -> None:
    units = _units(np.random.default_rng(7), 400)
    plain = _adjusted(units.sums())
    scaled = _adjusted(Units(units.y, -8.0 * units.x, units.stratum, units.variant).sums())
    assert scaled.theta == pytest.approx(plain.theta / -8.0, rel=1e-12)
    assert scaled.total == pytest.approx(plain.total, rel=1e-12)
    assert scaled.variance_removed == pytest.approx(plain.variance_removed, rel=1e-10)


def test_the_order_of_variants_and_strata_does_not_matter() -> None:
    sums = _units(np.random.default_rng(8), 400).sums()
    turned = _adjusted({name: values[::-1, ::-1] for name, values in sums.items()})
    assert turned.total[::-1, ::-1] == pytest.approx(_adjusted(sums).total, rel=1e-12)


def test_rows_of_one_stratum_may_be_added_up_before_or_after() -> None:
    """Hours of one stratum share its covariate mean and theta, so their adjusted sums add up like the plain ones."""
    units = _units(np.random.default_rng(9), 900)
    hour = np.arange(900) % 4
    rows = Units(units.y, units.x, units.stratum * 4 + hour, units.variant)
    merged = _adjusted(units.sums())
    apart = _adjusted(rows.sums(), stratum=np.repeat([7, 0, 3], 4))
    assert apart.theta == pytest.approx(merged.theta, rel=1e-12)
    assert apart.variance_removed == pytest.approx(merged.variance_removed, rel=1e-10)
    assert apart.total.reshape(3, 4, 2).sum(axis=1) == pytest.approx(merged.total, rel=1e-12)
    assert apart.sum_squares.reshape(3, 4, 2).sum(axis=1) == pytest.approx(merged.sum_squares, rel=1e-12)


def test_effects_and_base_rates_do_not_leak_into_the_slope() -> None:
    """A constant added to all outcomes of a cell leaves theta, though x differs between strata."""
    units = _units(np.random.default_rng(10), 400)
    plain = _adjusted(units.sums())
    raised = units.y + 50.0 * units.stratum - 20.0 * units.variant * units.stratum
    moved = _adjusted(Units(raised, units.x, units.stratum, units.variant).sums())
    assert moved.theta == pytest.approx(plain.theta, rel=1e-9)


def test_a_billion_units_of_large_means_lose_no_digits() -> None:
    """By hand: y = 1000 + 2 (x - 500) exactly, x of variance 4 in each cell: everything is explained but x's means."""
    n = np.array([[1e9, 5e8]])
    x_mean = np.array([[500.0, 500.003]])
    y_mean = 1000.0 + 2.0 * (x_mean - 500.0) + np.array([[0.0, 0.01]])
    adjusted = covariate_adjusted(
        n,
        n * y_mean,
        sum_squares=n * (y_mean**2 + 16.5),
        covariate=n * x_mean,
        covariate_squares=n * (x_mean**2 + 4.0),
        product=n * (x_mean * y_mean + 8.0),
    )
    assert adjusted.theta == pytest.approx(2.0, rel=1e-9)
    means = (adjusted.total / n)[0]
    assert means[1] - means[0] == pytest.approx(0.01, rel=1e-7)
    assert adjusted.sum_squares / n - means**2 == pytest.approx(np.full((1, 2), 0.5), rel=1e-6)
    assert adjusted.variance_removed == pytest.approx(16.0 / 16.5, rel=1e-9)


def test_a_covariate_that_explains_everything_leaves_no_negative_squares() -> None:
    x = np.random.default_rng(11).normal(1e3, 1.0, size=100)
    adjusted = _adjusted(Units(3.0 * x, x, np.zeros(100, np.intp), np.arange(100) % 2).sums())
    assert adjusted.variance_removed == pytest.approx(1.0, abs=1e-9)
    assert (adjusted.sum_squares >= adjusted.total**2 / 50.0 * (1.0 - 1e-15)).all()


@pytest.mark.parametrize(
    ("x", "y", "reason"),
    [
        (np.full(100, 3.7), np.arange(100.0), Unadjusted.CONSTANT_COVARIATE),
        (1e9 + np.arange(100.0) % 7, np.arange(100.0), Unadjusted.CONSTANT_COVARIATE),
        (np.arange(100.0), np.full(100, 0.1), Unadjusted.CONSTANT_OUTCOME),
        (np.arange(21.0), np.arange(21.0) ** 2, Unadjusted.TOO_FEW_UNITS),
    ],
)
def test_where_nothing_can_be_adjusted_the_plain_sums_come_back_and_why(
    x: Floats, y: Floats, reason: Unadjusted
) -> None:
    """The second differs from a constant by less than the rounding of its squares; the last has 19 spare units."""
    assert SMALLEST_SPARE_UNITS == 20
    sums = Units(y, x, np.zeros(x.size, np.intp), np.arange(x.size) % 2).sums()
    adjusted = _adjusted(sums)
    assert (adjusted.unadjusted, adjusted.theta, adjusted.variance_removed) == (reason, 0.0, 0.0)
    assert adjusted.total.tolist() == sums["total"].tolist()
    assert adjusted.sum_squares.tolist() == sums["sum_squares"].tolist()


def test_no_strata_are_too_few_units() -> None:
    empty = np.zeros((0, 2))
    sums = dict.fromkeys(("sum_squares", "covariate", "covariate_squares", "product"), empty)
    assert covariate_adjusted(empty, empty, **sums).unadjusted is Unadjusted.TOO_FEW_UNITS


def test_strata_without_units_stay_zero() -> None:
    sums = {
        name: np.vstack([values, np.zeros(2)]) for name, values in _units(np.random.default_rng(1), 90).sums().items()
    }
    adjusted = _adjusted(sums)
    assert adjusted.total[3].tolist() == [0.0, 0.0]
    assert adjusted.sum_squares[3].tolist() == [0.0, 0.0]


@pytest.mark.parametrize(
    ("name", "value", "error"),
    [
        ("n_units", -1.0, InvalidCounts),
        ("n_units", 0.0, InvalidCounts),
        ("total", np.nan, InvalidCounts),
        ("sum_squares", 1.0, InvalidCounts),
        ("covariate_squares", 1.0, InvalidCounts),
        ("product", 1e9, InvalidCounts),
        ("stratum", [0, -1, 2], InvalidArgument),
        ("stratum", [0.5, 1.0, 2.0], InvalidArgument),
        ("stratum", [0, 1], InvalidArgument),
        ("covariate", np.zeros((2, 2)), InvalidArgument),
        ("n_units", np.zeros(3), InvalidArgument),
    ],
)
def test_impossible_input_is_refused_by_name(name: str, value: Any, error: type[Exception]) -> None:
    named = "total" if np.array_equal(value, 0.0) else name  # sums of no units
    sums: dict[str, Any] = dict(_units(np.random.default_rng(1), 90).sums())
    if np.ndim(value) == 0:
        sums[name] = sums[name].copy()
        sums[name][0, 0] = value
    else:
        sums[name] = value
    with pytest.raises(error, match=named):
        _adjusted(sums)


def test_the_variance_removed_is_the_squared_correlation() -> None:
    """Normal world of correlation 0.6: 0.36. Its standard error is 2 rho (1 - rho^2) / sqrt(n) = 0.0017; allowed 5."""
    rng = np.random.default_rng(20261125)
    n, rho = 200_000, 0.6
    x = rng.normal(size=n)
    y = rho * x + np.sqrt(1.0 - rho**2) * rng.normal(size=n)
    units = Units(y, x, rng.integers(2, size=n), rng.integers(3, size=n))
    assert _adjusted(units.sums()).variance_removed == pytest.approx(0.36, abs=5 * 0.0017)


def _worlds(rng: np.random.Generator, n_worlds: int, n: int) -> tuple[Floats, Floats]:
    """Estimates and variances in worlds where shares, base rates and covariates differ by stratum; the truth is 0.3."""
    found = []
    for _ in range(n_worlds):
        units = _units(rng, n)
        sums = units.sums()
        adjusted = _adjusted(sums)
        found.append(
            block_differences(sums["n_units"], adjusted.total, sum_squares=adjusted.sum_squares, control_index=0)
        )
    return np.array([f.estimate[1] for f in found]), np.array([f.variance[1] for f in found])


def test_differences_are_unbiased_and_intervals_cover_though_shares_differ_over_strata() -> None:
    """2,000 worlds of 300 units. False alarms: 1 in 10**6 each. A true coverage of 0.91 fails 99 % of the time."""
    estimate, variance = _worlds(np.random.default_rng(20261126), 2_000, 300)
    assert abs(estimate.mean() - 0.3) < 4.9 * estimate.std() / np.sqrt(estimate.size)
    covered = int((np.abs(estimate - 0.3) <= 1.96 * np.sqrt(variance)).sum())
    assert stats.binomtest(covered, estimate.size, 0.95).pvalue > 1e-6
