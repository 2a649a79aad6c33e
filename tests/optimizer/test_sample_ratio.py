import numpy as np
import pytest
from scipy.stats import binom, chi2, chisquare

from optimizer.errors import InvalidArgument, InvalidCounts
from optimizer.sample_ratio import judged, sample_ratio, sample_ratios
from optimizer.sequential_sample_ratio import sequential_sample_ratio

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
    assert sample_ratio([100, 100, 1], [0.5, 0.5, 0.0]).status == "alarm"
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


def test_an_alarm_needs_the_always_valid_p_value() -> None:
    """5,200 v 4,800: p = .00006 for one look, and a gap of 4 %."""
    ratio = sample_ratio([5_200, 4_800], [0.5, 0.5])
    assert ratio.status == "alarm"
    assert judged(ratio, 0.01).status == "warning"
    assert judged(ratio, 0.0009).status == "alarm"
    assert judged(ratio, 0.0009, n_checks=2).status == "warning"
    assert judged(ratio, 0.0009).always_valid_p_value == 0.0009
    assert judged(ratio, 0.01).p_value == ratio.p_value


def test_cookie_cats_stays_a_warning_when_it_is_watched() -> None:
    """Kaggle's Cookie Cats: p = .0086 for one look, nothing for an always-valid check, and a gap of .9 % only."""
    units, weights = [44_700, 45_489], [0.5, 0.5]
    always_valid = sequential_sample_ratio(units, weights).p_value
    assert always_valid > 0.01
    assert judged(sample_ratio(units, weights), always_valid).status == "warning"


def test_a_sure_but_tiny_gap_is_a_warning() -> None:
    units, weights = [5_010_000, 4_990_000], [0.5, 0.5]
    assert judged(sample_ratio(units, weights), 0.0).status == "warning"
    assert judged(sample_ratio([5_000_000, 5_000_000], weights), 0.0).status == "warning", "an old gap that has closed"


def test_balanced_units_are_ok_and_too_few_not_estimable() -> None:
    assert judged(sample_ratio([5_000, 5_020], [0.5, 0.5]), 1.0).status == "ok"
    assert judged(sample_ratio([3, 0], [0.5, 0.5]), 1.0).status == "not_estimable"


def test_units_without_weight_alarm_at_once() -> None:
    units, weights = [[10, 10, 1]], [[0.5, 0.5, 0.0]]
    assert judged(sample_ratio(units, weights), sequential_sample_ratio(units, weights).p_value).status == "alarm"


def test_p_values_that_are_none_are_refused() -> None:
    ratio = sample_ratio([10, 10], [0.5, 0.5])
    for wrong in (-0.1, 1.1, np.nan):
        with pytest.raises(InvalidArgument, match="always_valid_p_value"):
            judged(ratio, wrong)
    with pytest.raises(InvalidArgument, match="n_checks"):
        judged(ratio, 0.5, n_checks=0)


def test_impossible_input_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="weights"):
        sample_ratio([10, 10], [0.5, 0.6])
    with pytest.raises(InvalidArgument, match="shape"):
        sample_ratio([10, 10], [0.5, 0.3, 0.2])
    with pytest.raises(InvalidCounts):
        sample_ratio([10, -1], [0.5, 0.5])


def test_segments_together_get_what_each_gets_alone_merged_empty_padded_or_impossible() -> None:
    rng = np.random.default_rng(20261127)
    weights = rng.dirichlet([4.0, 2.0, 1.0, 0.2], (40, 3))
    totals = rng.choice([0, 3, 40, 5_000], (40, 3))
    units = rng.multinomial(totals, weights).astype(np.float64)
    weights[7, 1], units[7, 1] = [0.5, 0.5, 0.0, 0.0], [10, 10, 1, 0]
    units[8] = 0.0
    found = sample_ratios(units, weights)
    for row, together in enumerate(found):
        used = units[row].sum(axis=1) > 0.0
        alone = sample_ratio(units[row][used], weights[row][used]) if used.any() else None
        if alone is None:
            assert together.status == "not_estimable"
            continue
        assert (together.status, together.degrees_of_freedom) == (alone.status, alone.degrees_of_freedom)
        assert together.p_value == (None if alone.p_value is None else pytest.approx(alone.p_value, rel=1e-9))
        assert together.relative_gap == pytest.approx(alone.relative_gap)
    assert found[7].status == "alarm"
    assert {ratio.degrees_of_freedom for ratio in found} >= {0, 1, 2, 3}
