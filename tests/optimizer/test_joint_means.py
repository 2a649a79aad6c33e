"""Joint means: two variants are Mantel-Haenszel's, more are least squares by statsmodels, all are calibrated."""

import numpy as np
import pytest
import statsmodels.api as sm
from numpy.typing import NDArray
from scipy.stats import binomtest

from optimizer.errors import InvalidCounts
from optimizer.joint_means import joint_means, quasi_variances
from optimizer.standardise import block_differences

Floats = NDArray[np.float64]


def _counts(rng: np.random.Generator, *, n_variants: int, n_strata: int = 5) -> tuple[Floats, Floats]:
    n = rng.integers(5, 300, (n_strata, n_variants)).astype(np.float64)
    return n, rng.binomial(n.astype(int), rng.uniform(0.1, 0.4, (n_strata, 1))).astype(np.float64)


def test_two_variants_are_mantel_haenszels() -> None:
    n, total = _counts(np.random.default_rng(1), n_variants=2)
    found = joint_means(n, total, sum_squares=total)
    theirs = block_differences(n, total, sum_squares=total, control_index=0)
    assert found.estimate[1] - found.estimate[0] == pytest.approx(theirs.estimate[1], rel=1e-12)
    assert found.contrast_variance[0, 1] == pytest.approx(theirs.variance[1], rel=1e-12)


def test_more_variants_are_least_squares_with_strata_as_blocks() -> None:
    """Statsmodels' WLS of the cells' means on indicators of strata and variants, weighted by units."""
    n, total = _counts(np.random.default_rng(2), n_variants=4)
    stratum, variant = (values.ravel() for values in np.meshgrid(range(5), range(4), indexing="ij"))
    design = np.column_stack([stratum == b for b in range(5)] + [variant == k for k in range(1, 4)]).astype(float)
    theirs = sm.WLS((total / n).ravel(), design, weights=n.ravel()).fit().params[5:]
    found = joint_means(n, total, sum_squares=total).estimate
    assert found[1:] - found[0] == pytest.approx(theirs, rel=1e-9)
    pooled = (n.sum(axis=0) / n.sum()) @ found
    assert pooled == pytest.approx(total.sum() / n.sum(), rel=1e-12)  # over the units that they got, as it was


def test_one_stratum_gives_plain_means_that_owe_each_other_nothing() -> None:
    """By hand: 0.1 and 0.2, variances p (1 - p) / (n - 1)."""
    found = joint_means([[100, 50]], [[10, 10]], sum_squares=[[10, 10]])
    assert found.estimate == pytest.approx([0.1, 0.2])
    assert found.variance == pytest.approx([0.09 / 99, 0.16 / 49])
    assert found.contrast_variance[0, 1] == pytest.approx(0.09 / 99 + 0.16 / 49)


def test_a_starved_control_takes_nothing_from_the_others() -> None:
    """Control had 10 units of the second stratum: b and c are compared directly, as if it were not there."""
    n = np.array([[300.0, 300, 300], [10, 5_000, 5_000]])
    total = np.array([[30.0, 45, 45], [1, 700, 760]])
    with_control = joint_means(n, total, sum_squares=total)
    alone = joint_means(n[:, 1:], total[:, 1:], sum_squares=total[:, 1:])
    gap = with_control.estimate[2] - with_control.estimate[1]
    assert gap == pytest.approx(alone.estimate[1] - alone.estimate[0], rel=0.02)
    assert with_control.contrast_variance[1, 2] == pytest.approx(alone.contrast_variance[0, 1], rel=0.02)


def test_variants_that_nothing_connects_are_estimated_apart() -> None:
    """A and b met on the first day, c and d on the second: no contrast across, own means within."""
    n = np.array([[100.0, 100, 0, 0], [0, 0, 100, 100]])
    total = np.array([[10.0, 20, 0, 0], [0, 0, 40, 50]])
    found = joint_means(n, total, sum_squares=total)
    assert found.estimate == pytest.approx([0.1, 0.2, 0.4, 0.5])
    assert np.isnan(found.contrast_variance[:2, 2:]).all()
    assert np.isfinite(found.contrast_variance[:2, :2]).all()


def test_segments_padding_and_variants_without_units_change_nothing_else() -> None:
    n, total = _counts(np.random.default_rng(3), n_variants=3)
    alone = joint_means(n, total, sum_squares=total)
    padded = np.zeros((2, 7, 4))
    sums = np.zeros((2, 7, 4))
    padded[1, :5, :3], sums[1, :5, :3] = n, total
    found = joint_means(padded, sums, sum_squares=sums)
    assert found.estimate[1, :3] == pytest.approx(alone.estimate)
    assert found.contrast_variance[1, :3, :3] == pytest.approx(alone.contrast_variance)
    assert np.isnan(found.estimate[1, 3])
    assert np.isnan(found.estimate[0]).all()


def test_sums_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(InvalidCounts):
        joint_means([[10.0, 10.0]], [[50.0, 0.0]], sum_squares=[[1.0, 0.0]])


def test_quasi_variances_add_up_to_the_variances_of_differences() -> None:
    """Exactly for independent means, and for any three: by hand 0.5, 0.3, 0.4 of pairs are 0.2, 0.3, 0.1."""
    independent = np.array([0.1, 0.2, 0.7, 0.05])
    pairs = independent[:, np.newaxis] + independent
    assert quasi_variances(np.ones(4), pairs) == pytest.approx(independent, rel=1e-6)
    three = np.array([[0.0, 0.5, 0.3], [0.5, 0.0, 0.4], [0.3, 0.4, 0.0]])
    assert quasi_variances(np.ones(3), three) == pytest.approx([0.2, 0.3, 0.1], rel=1e-5)


def test_a_variant_that_compares_with_none_keeps_its_own_variance() -> None:
    pairs = np.full((2, 2), np.nan)
    assert quasi_variances([0.3, 0.2], pairs).tolist() == [0.3, 0.2]


@pytest.mark.parametrize("floor", [0.01, 0.1])
def test_means_and_differences_cover_the_truth_when_control_is_starved(floor: float) -> None:
    """A/A/A, 1,000 worlds: control falls from a third to the floor after the first day, base rates drift.

    False alarm 1 in 10**6 each; a true coverage of .91 fails 99 % of the time. By way of control alone, the difference
    of the two others covered in 24 to 46 % of such worlds.
    """
    rng = np.random.default_rng(20261126)
    shares = np.array([[1 / 3] * 3, [floor, (1 - floor) / 2, (1 - floor) / 2]])
    rates = np.array([0.12, 0.15])[:, np.newaxis]
    n = np.stack([rng.multinomial(size, share, 1_000) for size, share in zip((1_500, 9_000), shares, strict=True)], 1)
    total = rng.binomial(n, rates).astype(np.float64)
    found = joint_means(n, total, sum_squares=total)
    quasi = quasi_variances(found.variance, found.contrast_variance)
    truth = (n.sum(axis=2) @ rates[:, 0]) / n.sum(axis=(1, 2))
    level = np.abs(found.estimate - truth[:, np.newaxis]) <= 1.96 * np.sqrt(found.variance)
    covered = [int(level[:, k].sum()) for k in range(3)]
    for k, other in ((0, 1), (0, 2), (1, 2)):
        gap = np.abs(found.estimate[:, k] - found.estimate[:, other])
        covered.append(int((gap <= 1.96 * np.sqrt(found.contrast_variance[:, k, other])).sum()))
        covered.append(int((gap <= 1.96 * np.sqrt(quasi[:, k] + quasi[:, other])).sum()))
    for count in covered:
        assert binomtest(count, 1_000, 0.95).pvalue > 1e-6, covered
