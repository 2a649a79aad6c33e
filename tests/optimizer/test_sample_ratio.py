import numpy as np
import pytest
from scipy.stats import binom, chi2, chisquare

from optimizer.errors import InvalidArgument, InvalidCounts
from optimizer.sample_ratio import sample_ratio, sequential_sample_ratio, stratified_sample_ratio

MOVED_UNITS = [[520, 480], [1580, 420], [910, 90]]
MOVED_WEIGHTS = [[0.5, 0.5], [0.8, 0.2], [0.9, 0.1]]


def test_one_version_gives_pearsons_chi_squared() -> None:
    """From gbstats (reference/STATISTICS.md, section 2): 5000 v 5200, p = .0476704; scipy for three variants."""
    assert sample_ratio([5000, 5200], [0.5, 0.5]).p_value == pytest.approx(0.0476704, abs=1e-7)
    units, weights = np.array([310.0, 540.0, 150.0]), np.array([0.3, 0.5, 0.2])
    expected = chisquare(units, 1000 * weights)
    result = sample_ratio(units, weights)
    assert result.statistic == pytest.approx(expected.statistic)
    assert result.p_value == pytest.approx(expected.pvalue)


def test_moved_weights_are_held_to_the_version_they_belong_to() -> None:
    """By hand: expected 3000 v 1000, observed 3010 v 990, variance 250 + 320 + 90 = 660, so 100 / 660 on 1 df.

    Pearson's formula on the summed expectations would divide by 750 and give p = .715.
    """
    result = sample_ratio(MOVED_UNITS, MOVED_WEIGHTS)
    assert result.statistic == pytest.approx(100 / 660)
    assert result.p_value == pytest.approx(chi2.sf(100 / 660, 1))
    assert chi2.sf(100 / 750, 1) == pytest.approx(0.715, abs=5e-4)
    assert result.degrees_of_freedom == 1
    assert result.status == "ok"


def test_judging_all_units_by_the_current_weights_would_have_alarmed() -> None:
    """reference/STATISTICS.md, section 7.3: p about 1e-212."""
    assert sample_ratio(np.sum(MOVED_UNITS, axis=0), MOVED_WEIGHTS[-1]).status == "alarm"


def test_the_stratified_check_adds_chi_squared_over_versions() -> None:
    """reference/STATISTICS.md, section 7.3: 3.9611 on 3 df, p = .2657."""
    result = stratified_sample_ratio(MOVED_UNITS, MOVED_WEIGHTS)
    assert (round(result.statistic, 4), result.degrees_of_freedom) == (3.9611, 3)
    assert result.p_value == pytest.approx(0.2657, abs=5e-5)


def test_the_stratified_check_leaves_out_versions_that_expect_too_few() -> None:
    assert stratified_sample_ratio([[5, 0]], [[0.9, 0.1]]).status == "not_estimable"


def test_cookie_cats_is_a_warning_and_not_an_alarm() -> None:
    """Kaggle's Cookie Cats: 44,700 v 45,489, p = .0086, but a gap of .9 % only."""
    result = sample_ratio([44_700, 45_489], [0.5, 0.5])
    assert result.p_value == pytest.approx(0.0086, abs=5e-5)
    assert result.status == "warning"


def test_a_tiny_gap_among_millions_is_a_warning_and_a_large_one_an_alarm() -> None:
    assert sample_ratio([5_010_000, 4_990_000], [0.5, 0.5]).status == "warning"
    assert sample_ratio([5_100, 4_700], [0.5, 0.5]).status == "alarm"


def test_hillstroms_campaign_is_balanced() -> None:
    """data/README.md: 21,307 / 21,387 / 21,306, p = .904."""
    assert sample_ratio([21_307, 21_387, 21_306], [1 / 3] * 3).p_value == pytest.approx(0.904, abs=5e-4)


def test_units_of_a_variant_that_had_no_weight_are_an_alarm() -> None:
    for check in (sample_ratio, stratified_sample_ratio):
        assert check([100, 100, 1], [0.5, 0.5, 0.0]).status == "alarm"
    assert sequential_sample_ratio([[100, 100, 1]], [[0.5, 0.5, 0.0]]).p_value == 0.0


def test_variants_that_expect_almost_nothing_are_merged_and_do_not_alarm() -> None:
    assert sample_ratio([980, 4, 1, 3], [0.994, 0.002, 0.002, 0.002]).status != "alarm"


def test_too_few_units_are_not_estimable() -> None:
    result = sample_ratio([3, 0], [0.5, 0.5])
    assert (result.p_value, result.status) == (None, "not_estimable")


def test_p_values_are_uniform_when_weights_move_with_the_counts() -> None:
    """False alarm: 1 in 10**6 at each bound. Weights depend on earlier counts, so versions are not independent."""
    rng = np.random.default_rng(20240612)
    low = 0
    for _ in range(1_000):
        share, units, weights = 0.5, [], []
        for _ in range(8):
            weights.append([share, 1 - share])
            first = rng.binomial(200, share)
            units.append([first, 200 - first])
            share = min(0.95, max(0.05, share + (0.1 if first > 200 * share else -0.1)))
        p_value = sample_ratio(units, weights).p_value
        assert p_value is not None
        low += p_value < 0.05
    assert binom.ppf(1e-6, 1_000, 0.05) <= low <= binom.ppf(1 - 1e-6, 1_000, 0.05)


@pytest.mark.parametrize(
    ("units", "concentration", "log_e"),
    [
        ([5_000, 5_500], 2, 7.504285),
        ([5_000, 5_200], 2, -2.4286),
        ([5_000, 5_200], 10_000, 0.6386),
        ([50_500, 49_500], 2, -0.53),
        ([50_500, 49_500], 100, 1.54),
        ([50_500, 49_500], 10_000, 3.35),
    ],
)
def test_the_sequential_check_has_lindon_and_maleks_values(
    units: list[int], concentration: float, log_e: float
) -> None:
    """reference/STATISTICS.md, section 7.3 (printed to the digits compared)."""
    result = sequential_sample_ratio([units], [[0.5, 0.5]], concentration=concentration)
    assert result.log_e[-1] == pytest.approx(log_e, abs=5e-3)
    assert result.p_value == pytest.approx(min(1.0, np.exp(-log_e)), rel=5e-3)


def test_with_constant_weights_the_split_into_blocks_does_not_matter() -> None:
    weights = [0.2, 0.3, 0.5]
    whole = sequential_sample_ratio([[230, 270, 480]], [weights], concentration=50)
    parts = sequential_sample_ratio([[30, 70, 80], [0, 0, 0], [200, 200, 400]], [weights] * 3, concentration=50)
    assert parts.log_e[-1] == pytest.approx(whole.log_e[-1])


def test_watching_moving_weights_keeps_the_sequential_error_rate() -> None:
    """At most 5 % by Ville's inequality. Over 1,000 worlds a true 5 % passes 86 once in 10**6."""
    rng = np.random.default_rng(20240613)
    alarms = 0
    for _ in range(1_000):
        share, units, weights = 0.5, [], []
        for _ in range(20):
            weights.append([share, 1 - share])
            first = rng.binomial(100, share)
            units.append([first, 100 - first])
            share = min(0.95, max(0.05, share + (0.1 if first > 100 * share else -0.1)))
        alarms += sequential_sample_ratio(units, weights, concentration=100).p_value < 0.05
    assert alarms <= binom.ppf(1 - 1e-6, 1_000, 0.05)


def test_the_sequential_check_finds_lost_units_while_weights_move() -> None:
    """A tenth of the second variant's units is lost over 40 blocks of 1,000: expected z about 10."""
    shares = np.tile([0.5, 0.7, 0.6, 0.4], 10)
    weights = np.column_stack([shares, 1 - shares])
    units = weights * 1_000 * [1.0, 0.9]
    assert sequential_sample_ratio(units, weights, concentration=1_000).p_value < 1e-6


def test_a_variant_appended_later_is_checked_from_then_on() -> None:
    units = [[500, 500, 0], [300, 300, 400]]
    weights = [[0.5, 0.5, 0.0], [0.3, 0.3, 0.4]]
    assert sequential_sample_ratio(units, weights).p_value == 1.0
    assert sequential_sample_ratio([[500, 500, 0], [400, 400, 200]], weights, concentration=100).p_value < 1e-6


def test_impossible_input_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="weights"):
        sample_ratio([10, 10], [0.5, 0.6])
    with pytest.raises(InvalidArgument, match="shape"):
        sample_ratio([10, 10], [0.5, 0.3, 0.2])
    with pytest.raises(InvalidCounts):
        sample_ratio([10, -1], [0.5, 0.5])
    with pytest.raises(InvalidArgument, match="concentration"):
        sequential_sample_ratio([10, 10], [0.5, 0.5], concentration=0)
