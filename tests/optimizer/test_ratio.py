"""Ratios. Expected values: the delta method by hand, tea-tasting 1.14, a bootstrap over units, simulation."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from optimizer.cuped import covariate_adjusted
from optimizer.errors import InvalidArgument, InvalidCounts
from optimizer.ratio import Linearised, linearised
from optimizer.standardise import block_differences

Floats = NDArray[np.float64]


def _sums(*cells: tuple[Floats, Floats]) -> dict[str, Floats]:
    """Sums of one row whose variants hold these units (N, D)."""
    return {
        "n_units": np.array([[top.size for top, _ in cells]], dtype=np.float64),
        "numerator": np.array([[top.sum() for top, _ in cells]]),
        "numerator_squares": np.array([[top @ top for top, _ in cells]]),
        "denominator": np.array([[bottom.sum() for _, bottom in cells]]),
        "denominator_squares": np.array([[bottom @ bottom for _, bottom in cells]]),
        "product": np.array([[top @ bottom for top, bottom in cells]]),
    }


def _linearised(sums: dict[str, Any], group: Any = (0,)) -> Linearised:
    sums = dict(sums)
    return linearised(sums.pop("n_units"), sums.pop("numerator"), **sums, group=group)


def _clicks_and_sends(rng: np.random.Generator, n: int, rate: float = 0.3) -> tuple[Floats, Floats]:
    """Units of unlike activity, whose own rates differ: sends of one unit are not independent."""
    sends = 1.0 + rng.negative_binomial(2, 0.4, size=n)
    clicks = rng.binomial(sends.astype(np.int64), rng.beta(10.0 * rate, 10.0 * (1.0 - rate), size=n))
    return clicks.astype(np.float64), sends.astype(np.float64)


def test_the_sums_are_those_of_units_linearised_one_by_one() -> None:
    top, bottom = _clicks_and_sends(np.random.default_rng(1), 200)
    ratio = top.sum() / bottom.sum()
    one_by_one = ratio + (top - ratio * bottom) / bottom.mean()
    line = _linearised(_sums((top, bottom)))
    assert line.ratio.item() == pytest.approx(ratio, rel=1e-12)
    assert line.total.item() == pytest.approx(one_by_one.sum(), rel=1e-12)
    assert line.sum_squares.item() == pytest.approx(one_by_one @ one_by_one, rel=1e-12)
    again = line.constant + line.per_numerator * top + line.per_denominator * bottom
    assert again[0] == pytest.approx(one_by_one, rel=1e-12)


def test_one_stratum_gives_the_variance_of_the_delta_method() -> None:
    """STATISTICS.md, section 2: vM/D^2 + vD M^2/D^4 - 2 cov M/D^3, over n."""
    top, bottom = _clicks_and_sends(np.random.default_rng(2), 150)
    (v_top, cov), (_, v_bottom) = np.cov(top, bottom)
    m, d = top.mean(), bottom.mean()
    delta = (v_top / d**2 + v_bottom * m**2 / d**4 - 2.0 * cov * m / d**3) / 150
    line = _linearised(_sums((top, bottom)))
    assert line.total.item() / 150 == pytest.approx(m / d, rel=1e-12)
    assert (line.sum_squares.item() - line.total.item() ** 2 / 150) / 149 / 150 == pytest.approx(delta, rel=1e-10)


def _tea_tasting(control: dict[str, Floats], treated: dict[str, Floats], **names: str) -> Any:
    import tea_tasting as tt
    from tea_tasting.aggr import Aggregates

    def aggregates(columns: dict[str, Floats]) -> Aggregates:
        return Aggregates(
            count_=columns["n"].size,
            mean_={name: float(values.mean()) for name, values in columns.items()},
            var_={name: float(values.var(ddof=1)) for name, values in columns.items()},
            cov_={(a, b): float(np.cov(columns[a], columns[b])[0, 1]) for a in columns for b in columns if a < b},
        )

    return tt.RatioOfMeans("n", "d", **names).analyze_aggregates(aggregates(control), aggregates(treated))


def test_the_difference_is_tea_tastings_ratio_of_means() -> None:
    rng = np.random.default_rng(3)
    control, treated = _clicks_and_sends(rng, 300), _clicks_and_sends(rng, 250, rate=0.35)
    theirs = _tea_tasting(dict(zip("nd", control, strict=True)), dict(zip("nd", treated, strict=True)))
    line = _linearised(_sums(control, treated))
    ours = block_differences([[300, 250]], line.total, sum_squares=line.sum_squares, control_index=0)
    assert line.ratio[0] == pytest.approx([theirs.control, theirs.treatment], rel=1e-12)
    assert ours.estimate[1] == pytest.approx(theirs.effect_size, rel=1e-10)
    assert ours.estimate[1] / np.sqrt(ours.variance[1]) == pytest.approx(theirs.statistic, rel=1e-10)


def test_cuped_on_a_ratio_is_tea_tastings_where_the_variants_have_equal_means() -> None:
    """Theirs linearises the union and we each variant, so slopes agree where ratios and means of x do.

    So the treated are the same units, with N and D dealt out anew among the x: the difference is 0, its error theirs.
    """
    rng = np.random.default_rng(4)
    top, bottom = _clicks_and_sends(rng, 400)
    x = top + rng.gamma(2.0, 1.0, size=400)
    dealt = np.concatenate([np.arange(300), 300 + rng.permutation(100)])
    control, treated = {"n": top, "d": bottom, "x": x}, {"n": top[dealt], "d": bottom[dealt], "x": x}
    theirs = _tea_tasting(control, treated, numer_covariate="x")
    line = _linearised(_sums((top, bottom), (top[dealt], bottom[dealt])))
    with_numerator, with_denominator = (np.array([[x @ v, x @ v[dealt]]]) for v in (top, bottom))
    n, sum_x = np.full((1, 2), 400.0), np.full((1, 2), x.sum())
    adjusted = covariate_adjusted(
        n,
        line.total,
        sum_squares=line.sum_squares,
        covariate=sum_x,
        covariate_squares=np.full((1, 2), x @ x),
        product=line.product(sum_x, with_numerator=with_numerator, with_denominator=with_denominator),
    )
    assert adjusted.variance_removed > 0.1
    ours = block_differences(n, adjusted.total, sum_squares=adjusted.sum_squares, control_index=0)
    assert ours.estimate[1] == pytest.approx(theirs.effect_size, abs=1e-12)
    width = stats.t.ppf(0.975, 798) * np.sqrt(ours.variance[1])
    assert width == pytest.approx((theirs.effect_size_ci_upper - theirs.effect_size_ci_lower) / 2.0, rel=1e-4)


def test_the_error_is_that_of_a_bootstrap_over_units() -> None:
    """20,000 resamples: the bootstrap's error is known to 0.5 %, 3 % allowed. For independent sends it is 14 % less."""
    rng = np.random.default_rng(20261127)
    top, bottom = _clicks_and_sends(rng, 500)
    chosen = rng.integers(500, size=(20_000, 500))
    resampled = (top[chosen].sum(axis=1) / bottom[chosen].sum(axis=1)).std()
    line = _linearised(_sums((top, bottom)))
    error = np.sqrt((line.sum_squares.item() - line.total.item() ** 2 / 500) / 499 / 500)
    ratio = line.ratio.item()
    assert error == pytest.approx(resampled, rel=0.03)
    assert np.sqrt(ratio * (1.0 - ratio) / bottom.sum()) < 0.9 * error


def test_intervals_cover_at_their_stated_level() -> None:
    """Difference of two ratios, 200 units each, 2,000 worlds. False alarm: 1 in 10**6; a true 0.91 fails 99 %."""
    rng = np.random.default_rng(20261128)
    covered = 0
    for _ in range(2_000):
        line = _linearised(_sums(_clicks_and_sends(rng, 200), _clicks_and_sends(rng, 200, rate=0.36)))
        ours = block_differences([[200, 200]], line.total, sum_squares=line.sum_squares, control_index=0)
        covered += bool(abs(ours.estimate[1] - 0.06) <= 1.96 * np.sqrt(ours.variance[1]))
    assert stats.binomtest(covered, 2_000, 0.95).pvalue > 1e-6


def _many() -> dict[str, Floats]:
    """Four rows of three variants."""
    rng = np.random.default_rng(5)
    rows = [_sums(*(_clicks_and_sends(rng, 30 + 10 * row) for _ in range(3))) for row in range(4)]
    return {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}


def test_the_error_of_the_mean_denominator_is_the_textbooks() -> None:
    """Of D = 2, 3 and 7: mean 4, population variance 14/3, so sqrt(14/3 / 3) / 4; none where there is no ratio."""
    line = _linearised(_sums((np.ones(3), np.array([2.0, 3.0, 7.0])), (np.ones(3), np.zeros(3))))
    assert line.denominator_error[0] == pytest.approx([np.sqrt(14.0 / 9.0) / 4.0, np.inf])


def test_ratios_are_taken_over_a_group_and_sums_kept_by_row() -> None:
    sums = _many()
    line = _linearised(sums, group=[0, 1, 0, 1])
    assert line.ratio.shape == (2, 3)
    expected = sums["numerator"][[0, 2]].sum(axis=0) / sums["denominator"][[0, 2]].sum(axis=0)
    assert line.ratio[0] == pytest.approx(expected, rel=1e-12)
    means = line.total[[0, 2]].sum(axis=0) / sums["n_units"][[0, 2]].sum(axis=0)
    assert means == pytest.approx(expected, rel=1e-12)
    assert line.constant[2].tolist() == line.ratio[0].tolist()


def test_rows_of_one_group_may_be_added_up_before_or_after() -> None:
    sums = _many()
    apart = _linearised(sums, group=[0, 0, 0, 0])
    merged = _linearised({name: values.sum(axis=0, keepdims=True) for name, values in sums.items()})
    assert apart.total.sum(axis=0) == pytest.approx(merged.total[0], rel=1e-12)
    assert apart.sum_squares.sum(axis=0) == pytest.approx(merged.sum_squares[0], rel=1e-12)


@pytest.mark.parametrize(("of_top", "of_bottom"), [(100.0, 1.0), (-2.0, 1.0), (1.0, 60.0), (0.01, 1e6)])
def test_other_units_of_measurement_scale_the_ratio_and_no_more(of_top: float, of_bottom: float) -> None:
    sums, scale = _many(), of_top / of_bottom
    scaled = dict(sums)
    scaled["numerator"], scaled["numerator_squares"] = of_top * sums["numerator"], of_top**2 * sums["numerator_squares"]
    scaled["denominator"] = of_bottom * sums["denominator"]
    scaled["denominator_squares"] = of_bottom**2 * sums["denominator_squares"]
    scaled["product"] = of_top * of_bottom * sums["product"]
    plain, other = _linearised(sums, group=[0, 1, 0, 1]), _linearised(scaled, group=[0, 1, 0, 1])
    assert other.total == pytest.approx(scale * plain.total, rel=1e-10)
    assert other.sum_squares == pytest.approx(scale**2 * plain.sum_squares, rel=1e-10)


def test_the_order_of_variants_does_not_matter() -> None:
    sums = _many()
    turned = _linearised({name: values[:, ::-1] for name, values in sums.items()}, group=[0, 1, 0, 1])
    assert turned.total[:, ::-1].tolist() == _linearised(sums, group=[0, 1, 0, 1]).total.tolist()


def test_a_denominator_of_one_for_every_unit_gives_the_plain_mean() -> None:
    top = np.random.default_rng(6).normal(3.0, 2.0, size=80)
    line = _linearised(_sums((top, np.ones(80))))
    assert line.total.item() == pytest.approx(top.sum(), rel=1e-12)
    assert line.sum_squares.item() == pytest.approx(top @ top, rel=1e-12)


def test_without_denominators_or_units_a_ratio_is_not_estimable_and_the_others_are_untouched() -> None:
    none = np.zeros(0)
    some = (np.array([1.0, 0.0]), np.array([2.0, 3.0]))
    refunded = (np.array([1.0, 0.0]), np.array([-2.0, 1.0]))
    line = _linearised(_sums(some, (np.array([1.0, 2.0]), np.zeros(2)), (none, none), refunded))
    assert line.estimable.tolist() == [[True, False, False, False]]
    assert line.ratio[0, 0] == pytest.approx(0.2)
    assert np.isnan(line.ratio[0, 1:]).all()
    for sums in (line.total, line.sum_squares, line.constant, line.per_numerator, line.per_denominator):
        assert np.isfinite(sums).all()
        assert sums[0, 1:].tolist() == [0.0, 0.0, 0.0]


def test_a_label_that_no_row_has_is_a_group_without_units() -> None:
    line = _linearised(_many(), group=[0, 2, 2, 0])
    assert line.estimable.tolist() == [[True] * 3, [False] * 3, [True] * 3]


def test_no_rows_make_no_groups() -> None:
    line = _linearised({name: np.zeros((0, 2)) for name in _many()}, group=[])
    assert line.ratio.shape == (0, 2)


def test_a_billion_units_lose_no_digits() -> None:
    """By hand: N = 3 D + e, D of mean 1000 and variance 4, e of variance 0.25: the variance of L is 0.25 / 1000^2."""
    n = np.full((1, 1), 1e9)
    line = _linearised(
        {
            "n_units": n,
            "numerator": 3000.0 * n,
            "numerator_squares": (3000.0**2 + 36.25) * n,
            "denominator": 1000.0 * n,
            "denominator_squares": (1000.0**2 + 4.0) * n,
            "product": (3e6 + 12.0) * n,
        }
    )
    assert line.ratio.item() == 3.0
    assert line.sum_squares.item() / 1e9 - 9.0 == pytest.approx(0.25e-6, rel=1e-6)


@pytest.mark.parametrize(
    ("name", "value", "error"),
    [
        ("n_units", -1.0, InvalidCounts),
        ("numerator", np.inf, InvalidCounts),
        ("numerator_squares", 0.5, InvalidCounts),
        ("denominator_squares", -1.0, InvalidCounts),
        ("product", -1e6, InvalidCounts),
        ("denominator", np.zeros(3), InvalidArgument),
    ],
)
def test_impossible_input_is_refused_by_name(name: str, value: Any, error: type[Exception]) -> None:
    sums: dict[str, Any] = dict(_many())
    if np.ndim(value) == 0:
        sums[name][1, 1] = value
    else:
        sums[name] = value
    with pytest.raises(error, match=name):
        _linearised(sums, group=[0, 0, 1, 1])


def test_groups_that_are_none_are_refused() -> None:
    for group in ([0, 0], [0, 0, 0, -1], [0.0, 0.5, 1.0, 1.0]):
        with pytest.raises(InvalidArgument, match="group"):
            _linearised(_many(), group=group)
