import numpy as np
import pytest
from scipy.stats import binomtest

from optimizer.errors import InvalidArgument, InvalidCounts
from optimizer.standardise import across_segments, block_differences, block_means


def test_a_simpson_world_of_two_segments_is_put_right_by_a_fixed_mix() -> None:
    """Kidney stones, Charig et al. (1986).

    Treatment A is better for small (81/87 v 234/270) and for large stones (192/263 v 55/80), and worse when pooled
    (78 % v 83 %).
    """
    n = np.array([[[87, 270]], [[263, 80]]])
    successes = np.array([[[81, 234]], [[192, 55]]])
    pooled = successes.sum(axis=(0, 1)) / n.sum(axis=(0, 1))
    assert pooled[0] < pooled[1]
    segments = block_differences(n, successes, sum_squares=successes, control_index=1)
    overall = across_segments(segments.estimate, segments.variance, mix=[357, 343])
    expected = (357 * (81 / 87 - 234 / 270) + 343 * (192 / 263 - 55 / 80)) / 700
    assert overall.estimate == pytest.approx([expected, 0.0])
    assert overall.estimate[0] > 0


def test_a_simpson_world_of_two_blocks_is_put_right_inside_the_segment() -> None:
    """The variant is .01 better in both blocks; weights shift to it when the base rate falls from .20 to .05."""
    n = np.array([[9_000, 1_000], [1_000, 9_000]])
    responders = np.array([[1_800, 210], [50, 540]])
    assert (responders.sum(axis=0) / n.sum(axis=0))[1] < (responders.sum(axis=0) / n.sum(axis=0))[0]
    result = block_differences(n, responders, sum_squares=responders, control_index=0)
    assert result.estimate == pytest.approx([0.0, 0.01])


def test_blocks_weigh_as_in_the_mantel_haenszel_risk_difference() -> None:
    """Greenland & Robins (1985): sum (a n0 - b n1) / n over sum n1 n0 / n, for 12/100 v 9/150 and 30/100 v 5/50."""
    n = np.array([[150, 100], [50, 100]])
    responders = np.array([[9, 12], [5, 30]])
    top = (12 * 150 - 9 * 100) / 250 + (30 * 50 - 5 * 100) / 150
    result = block_differences(n, responders, sum_squares=responders, control_index=0)
    assert result.estimate[1] == pytest.approx(top / (100 * 150 / 250 + 100 * 50 / 150))


def test_one_block_gives_welchs_variance() -> None:
    """Textbook: s1^2/n1 + s0^2/n0 of the samples (1, 2, 6) and (0, 4)."""
    result = block_differences([[2, 3]], [[4.0, 9.0]], sum_squares=[[16.0, 41.0]], control_index=0)
    assert result.estimate[1] == pytest.approx(3.0 - 2.0)
    assert result.variance[1] == pytest.approx(7.0 / 3 + 8.0 / 2)


def test_blocks_without_one_of_the_two_say_nothing_and_are_owned_up_to() -> None:
    n = np.array([[100, 100], [300, 0]])
    responders = np.array([[10, 20], [90, 0]])
    result = block_differences(n, responders, sum_squares=responders, control_index=0)
    assert result.estimate[1] == pytest.approx(0.1)
    assert result.covered[1] == pytest.approx(200 / 500)
    assert block_means(n, responders, sum_squares=responders).covered == pytest.approx([1.0, 200 / 500])


def test_a_variant_that_never_ran_beside_control_is_not_estimable() -> None:
    result = block_differences([[10, 0], [0, 10]], [[1, 0], [0, 1]], sum_squares=[[1, 0], [0, 1]], control_index=0)
    assert result.estimable.tolist() == [True, False]
    assert np.isnan(result.estimate[1])


def test_segments_that_are_not_estimable_lower_the_covered_share() -> None:
    result = across_segments([[0.0, 0.1], [0.0, np.nan]], [[0.0, 0.01], [0.0, np.nan]], mix=[1.0, 3.0])
    assert result.estimate == pytest.approx([0.0, 0.1])
    assert result.covered == pytest.approx([1.0, 0.25])


def test_standardised_means_use_the_mix_that_is_asked_for() -> None:
    n, total = np.array([[10, 10], [10, 10]]), np.array([[2, 4], [6, 8]])
    assert block_means(n, total, sum_squares=total, mix=[3, 1]).estimate == pytest.approx([0.3, 0.5])


def test_order_of_blocks_does_not_matter_and_leading_dimensions_are_independent() -> None:
    rng = np.random.default_rng(3)
    n = rng.integers(1, 50, size=(4, 6, 3))
    total = rng.binomial(n, 0.3)
    whole = block_differences(n, total, sum_squares=total, control_index=2)
    turned = block_differences(n[2, ::-1], total[2, ::-1], sum_squares=total[2, ::-1], control_index=2)
    assert turned.estimate == pytest.approx(whole.estimate[2])
    assert turned.variance == pytest.approx(whole.variance[2])


def test_intervals_cover_the_true_difference_in_many_small_blocks_with_moving_weights() -> None:
    """Coverage of a 95 % normal interval over 2,000 worlds of 12 blocks; false alarm 1 in 10**6 if it is .945."""
    rng = np.random.default_rng(20240614)
    base, share = np.linspace(0.1, 0.4, 12), np.linspace(0.2, 0.8, 12)
    n = np.stack([np.round(60 * (1 - share)), np.round(60 * share)], axis=-1).astype(np.int64)
    total = rng.binomial(n, np.stack([base, base + 0.05], axis=-1), size=(2_000, 12, 2))
    result = block_differences(np.broadcast_to(n, total.shape), total, sum_squares=total, control_index=0)
    covered = int((np.abs(result.estimate[:, 1] - 0.05) <= 1.96 * np.sqrt(result.variance[:, 1])).sum())
    assert binomtest(covered, 2_000, 0.945).pvalue > 1e-6


def test_impossible_sums_are_refused() -> None:
    with pytest.raises(InvalidCounts, match="sum_squares"):
        block_means([[2, 2]], [[4.0, 4.0]], sum_squares=[[1.0, 8.0]])
    with pytest.raises(InvalidCounts, match="no units"):
        block_means([[0, 2]], [[1.0, 1.0]], sum_squares=[[1.0, 1.0]])
    with pytest.raises(InvalidArgument, match="control_index"):
        block_differences([[2, 2]], [[1, 1]], sum_squares=[[1, 1]], control_index=2)
    with pytest.raises(InvalidArgument, match="mix"):
        block_means([[2, 2]], [[1, 1]], sum_squares=[[1, 1]], mix=[-1.0])
