"""Expected values: by hand for exact products; simulated rates against their truth."""

import numpy as np
import pytest
from numpy.typing import NDArray

from optimizer.errors import InvalidArgument, InvalidCounts, OptimizerError
from optimizer.relative_means import RelativeMeans, relative_means

Floats = NDArray[np.float64]


def _of_rates(responders: Floats, n_units: Floats, **options: int) -> RelativeMeans:
    rate = responders / np.maximum(n_units, 1.0)
    mean = np.where(n_units > 0.0, rate, np.nan)
    return relative_means(mean, mean * (1.0 - mean) / np.maximum(n_units, 1.0), n_units=n_units, **options)


def test_a_product_of_bases_and_effects_is_read_off_exactly() -> None:
    base, average = np.array([0.02, 0.1, 0.3]), np.array([1.0, 1.1, 0.8])
    found = relative_means(
        np.outer(base, average), np.full((3, 3), 1e-4), n_units=[[10, 50, 30], [5, 5, 5], [9, 80, 1]], control_index=0
    )
    assert found.base == pytest.approx(base, rel=1e-9)
    assert found.estimate == pytest.approx(np.tile(average, (3, 1)), rel=1e-9)


def test_small_segments_do_not_make_every_variant_look_better_than_control() -> None:
    """4,000 segments of 50 units a variant at 10 %, no effects: dividing by control's own rate would give about +18 %.

    The standard error of the mean difference is 0.43 * sqrt(2 / 4,000) = 0.0096; the bound is four of these.
    """
    rng = np.random.default_rng(20261125)
    n = np.full((4_000, 3), 50.0)
    found = _of_rates(rng.binomial(50, 0.1, size=n.shape).astype(float), n, control_index=0)
    difference = found.estimate - found.estimate[:, :1]
    assert np.abs(np.nanmean(difference, axis=0)).max() < 0.04


def test_sampling_variances_are_those_of_the_rates_on_average_and_never_zero() -> None:
    """By hand: p (1 - p) / n / p^2 = 0.18 at p = 0.1 and n = 50."""
    rng = np.random.default_rng(1)
    n = np.full((2_000, 3), 50.0)
    responders = rng.binomial(50, 0.1, size=n.shape).astype(float)
    assert (responders == 0.0).any()
    found = _of_rates(responders, n, control_index=0)
    assert (found.variance > 0.0).all()
    assert float(np.median(found.variance)) == pytest.approx(0.18, rel=0.1)


def test_with_many_units_the_base_is_controls_own_mean() -> None:
    """Variants whose effects differ by segment don't move the base of a segment that is known to 1 in 30,000."""
    rng = np.random.default_rng(2)
    n = np.full((40, 3), 1e9)
    rate = 0.1 * (1.0 + rng.normal(0.0, 0.1, size=n.shape))
    found = _of_rates(rate * n, n, control_index=0)
    assert found.base == pytest.approx(rate[:, 0], rel=1e-5)


def test_segments_that_say_nothing_are_nan_and_leave_the_others_alone() -> None:
    n = np.array([[100.0, 100.0], [100.0, 100.0], [0.0, 0.0], [100.0, 0.0]])
    found = _of_rates(np.array([[10.0, 12.0], [0.0, 0.0], [0.0, 0.0], [5.0, 0.0]]), n, control_index=0)
    assert np.isnan(found.base).tolist() == [False, True, True, False]
    assert np.isnan(found.estimate).tolist() == [[False, False], [True, True], [True, True], [False, True]]
    assert (np.isnan(found.estimate) == np.isnan(found.variance)).all()


def test_zeros_everywhere_say_nothing() -> None:
    found = _of_rates(np.zeros((3, 2)), np.full((3, 2), 1e6), control_index=1)
    assert np.isnan(found.estimate).all()
    assert np.isnan(found.base).all()


def test_a_change_of_currency_changes_nothing_but_the_base() -> None:
    rng = np.random.default_rng(3)
    mean, variance, n = rng.uniform(1, 2, (5, 3)), rng.uniform(0.01, 0.1, (5, 3)), rng.uniform(50, 500, (5, 3))
    euros = relative_means(mean, variance, n_units=n, control_index=1)
    cents = relative_means(100.0 * mean, 1e4 * variance, n_units=n, control_index=1)
    assert cents.estimate == pytest.approx(euros.estimate, rel=1e-9)
    assert cents.variance == pytest.approx(euros.variance, rel=1e-9)
    assert cents.base == pytest.approx(100.0 * euros.base, rel=1e-9)


def test_losses_are_relative_to_the_size_of_the_base() -> None:
    """A variant that loses 8 where control loses 10 gains 20 % of the base."""
    found = relative_means([[-10.0, -8.0]], [[0.1, 0.1]], n_units=[[100, 100]], control_index=0)
    assert found.base[0] == pytest.approx(10.0)
    assert found.estimate[0, 1] - found.estimate[0, 0] == pytest.approx(0.2)


@pytest.mark.parametrize(
    ("change", "error", "named"),
    [
        ({"mean": [0.1, 0.2]}, InvalidArgument, "mean"),
        ({"variance": [[0.1]]}, InvalidArgument, "mean"),
        ({"variance": [[0.1, -0.1]]}, InvalidArgument, "variance"),
        ({"control_index": 2}, InvalidArgument, "control_index"),
        ({"n_units": [[1.0, -1.0]]}, InvalidCounts, "n_units"),
        ({"n_units": [[1.0, np.nan]]}, InvalidCounts, "n_units"),
    ],
)
def test_what_cannot_be_is_refused_by_name(change: dict[str, object], error: type[OptimizerError], named: str) -> None:
    asked: dict[str, object] = {
        "mean": [[0.1, 0.2]],
        "variance": [[0.1, 0.1]],
        "n_units": [[9.0, 9.0]],
        "control_index": 0,
    } | change
    with pytest.raises(error, match=named):
        relative_means(asked.pop("mean"), asked.pop("variance"), **asked)  # type: ignore[arg-type]
