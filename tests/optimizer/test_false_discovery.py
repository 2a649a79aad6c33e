import numpy as np
import pytest
from scipy.stats import false_discovery_control

from optimizer.errors import InvalidArgument
from optimizer.false_discovery import adjusted_p_values, discoveries


def test_the_largest_set_with_a_mean_error_of_at_most_five_per_cent_is_taken() -> None:
    """By hand: errors .01, .04, .08 average .0433; with .09 they average .055."""
    assert discoveries([0.92, 0.5, 0.99, 0.91, 0.96]).tolist() == [True, False, True, False, True]


def test_hopeless_segments_do_not_change_what_is_discovered() -> None:
    alone = discoveries([0.99, 0.93])
    assert discoveries([0.99, 0.93, *[0.4] * 50])[:2].tolist() == alone.tolist() == [True, True]


def test_order_of_segments_does_not_matter() -> None:
    rng = np.random.default_rng(7)
    certain = rng.uniform(0.7, 1.0, size=40)
    order = rng.permutation(40)
    assert (discoveries(certain[order]) == discoveries(certain)[order]).all()


def test_nothing_is_discovered_when_the_best_segment_is_not_certain_enough() -> None:
    assert not discoveries([0.94, 0.9]).any()
    assert discoveries([]).shape == (0,)


def test_in_calibrated_worlds_the_share_of_wrong_discoveries_stays_at_the_rate() -> None:
    """Probabilities are calibrated by construction.

    Each discovery is wrong with mean <= 5 %: among 200 x 30 segments the share of wrong ones has se about .003; .065
    is five of them above.
    """
    rng = np.random.default_rng(20240611)
    certain = rng.uniform(0.5, 1.0, size=(200, 30))
    right = rng.random(certain.shape) < certain
    chosen = np.array([discoveries(row) for row in certain])
    assert chosen.any()
    assert (chosen & ~right).sum() / chosen.sum() < 0.065


@pytest.mark.parametrize("bad", [[np.nan], [1.1], [[0.9]]])
def test_impossible_probabilities_are_refused(bad: list[float]) -> None:
    with pytest.raises(InvalidArgument):
        discoveries(bad)


def test_a_rate_outside_zero_to_one_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="rate"):
        discoveries([0.9], rate=0.0)


def test_p_values_are_adjusted_as_by_scipy() -> None:
    p_values = np.random.default_rng(3).uniform(size=30) ** 3
    assert adjusted_p_values(p_values) == pytest.approx(false_discovery_control(p_values, method="bh"))
    assert adjusted_p_values([0.04]).tolist() == [0.04]
    assert adjusted_p_values([]).shape == (0,)


@pytest.mark.parametrize("bad", [[np.nan], [1.1], [[0.9]]])
def test_impossible_p_values_are_refused(bad: list[float]) -> None:
    with pytest.raises(InvalidArgument):
        adjusted_p_values(bad)
