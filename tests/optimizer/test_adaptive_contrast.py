import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from optimizer.adaptive_contrast import adaptive_contrast, effective_amounts, effective_responders, rates_if_alike
from optimizer.errors import InvalidArgument, InvalidCounts
from optimizer.sequential import aipw_contrast, confidence_sequence

N = np.array([[500.0, 500.0], [100.0, 900.0]])
TOTAL = np.array([[50.0, 60.0], [30.0, 279.0]])
PROPENSITY = np.array([[0.5, 0.5], [0.1, 0.9]])
PREDICTED = np.array([[0.1, 0.1], [0.1, 0.12]])


def test_the_contrast_has_the_value_worked_out_by_hand() -> None:
    """H = .5 and .3; (.5 x 20 + .3 x 10) / 800, as in test_bandit_estimates, where errors are taken unit by unit."""
    found = adaptive_contrast(N, TOTAL, sum_squares=TOTAL, propensity=PROPENSITY, predicted=PREDICTED, control_index=0)
    assert found.estimate == pytest.approx([0.0, 0.01625])
    assert found.standard_error[0] == 0.0
    assert found.n_units.tolist() == [2_000, 2_000]


@given(share=st.floats(0.02, 0.98))
def test_with_constant_weights_it_is_the_plain_contrast(share: float) -> None:
    propensity = [[1 - share, share]] * 2
    plain, found = (
        contrast(N, TOTAL, sum_squares=TOTAL, propensity=propensity, predicted=PREDICTED, control_index=0)
        for contrast in (aipw_contrast, adaptive_contrast)
    )
    assert found.estimate == pytest.approx(plain.estimate)
    assert found.standard_error == pytest.approx(plain.standard_error)


def test_a_variant_never_randomised_beside_control_has_no_contrast() -> None:
    n, total = [[9, 0], [0, 9]], [[3, 0], [0, 3]]
    propensity = [[1.0, 0.0], [0.0, 1.0]]
    found = adaptive_contrast(
        n, total, sum_squares=total, propensity=propensity, predicted=[[0.3, 0.3]] * 2, control_index=0
    )
    assert np.isnan(found.estimate[1])
    responders = effective_responders(total, n, propensity=propensity, control_index=0)
    assert responders.tolist() == [np.inf, 0.0]
    assert not confidence_sequence(found, n_responders=responders, control_index=0, n_star=100).estimable.any()


def test_responders_by_constant_weights_count_one_each() -> None:
    """The variant's 30 of 400, control's 25; of a binary outcome also those that did not respond, here 20."""
    n, half = [[200.0, 200.0], [200.0, 200.0]], [[0.5, 0.5]] * 2
    assert effective_responders([[10, 20], [15, 10]], n, propensity=half, control_index=0)[1] == pytest.approx(25)
    often = [[190, 195], [190, 190]]
    assert effective_responders(often, n, propensity=half, control_index=0, is_binary=True)[1] == pytest.approx(15)
    assert effective_responders(often, n, propensity=half, control_index=0)[1] == pytest.approx(380)


def test_what_rates_would_rest_on_if_variants_were_alike() -> None:
    """Alike in truth, both are what they are; weights that moved count by Kish; never together: nothing."""
    half = [[0.5, 0.5]] * 2
    n, same = np.array([[300.0, 300.0], [200.0, 200.0]]), np.array([[30.0, 30.0], [20.0, 20.0]])
    expected, error = rates_if_alike(same, n, propensity=half, control_index=0)
    assert expected[1] == pytest.approx(effective_responders(same, n, propensity=half, control_index=0)[1])
    plain = adaptive_contrast(n, same, sum_squares=same, propensity=half, predicted=same / n, control_index=0)
    assert error[1] == pytest.approx(plain.standard_error[1])
    moved, n = [[0.5, 0.5], [0.95, 0.05]], np.array([[1_000.0, 1_000.0], [1_900.0, 100.0]])
    responders = 0.1 * n
    expected, error = rates_if_alike(responders, n, propensity=moved, control_index=0)
    assert expected[1] == pytest.approx(effective_responders(responders, n, propensity=moved, control_index=0)[1])
    h = np.array([0.5, (1 / 0.95 + 1 / 0.05) ** -0.5])
    assert error[1] == pytest.approx(np.sqrt(2_000 * 0.09 * 2) / (2_000 * h.sum()))
    expected, error = rates_if_alike([[10, 0]], [[100, 0]], propensity=[[1.0, 0.0]], control_index=0)
    assert (expected[1], error[1]) == (0.0, 0.0)


def test_money_needs_more_responders_than_the_default() -> None:
    found = adaptive_contrast(N, TOTAL, sum_squares=TOTAL, propensity=PROPENSITY, predicted=PREDICTED, control_index=0)
    for least, estimable in ((20, True), (30, True), (50, False)):
        sequence = confidence_sequence(
            found, n_responders=[np.inf, 40.0], control_index=0, n_star=5_000, least_responders=least
        )
        assert sequence.estimable[1] == estimable
        assert f"{least} effective responders" in sequence.reason


def test_amounts_count_by_how_alike_they_are_and_by_weights() -> None:
    """Kish (1965), section 11.7. Control's 8, 1, 1: 10^2 / 66. Of ones it is their number."""
    half = [[0.5, 0.5]]
    found = effective_amounts([[10, 12]], [[66, 24]], propensity=half, control_index=0)  # 2 x 6, that is 6 equal ones
    assert found.tolist() == [np.inf, pytest.approx(100 / 66)]
    assert effective_amounts([[66, 10]], [[66, 66]], propensity=half, control_index=0)[1] == pytest.approx(100 / 66)
    ones = np.array([[30.0, 20.0], [40.0, 5.0]])
    weights = [[0.5, 0.5], [0.9, 0.1]]
    same = effective_responders(ones, 10 * ones, propensity=weights, control_index=0)
    assert effective_amounts(ones, ones, propensity=weights, control_index=0) == pytest.approx(same)
    assert effective_amounts(np.zeros((1, 2)), np.zeros((1, 2)), propensity=half, control_index=0)[1] == 0.0
    with pytest.raises(InvalidArgument, match="shapes"):
        effective_amounts([[1, 2]], [[1, 2], [1, 2]], propensity=half, control_index=0)


def test_impossible_input_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="control_index"):
        adaptive_contrast(N, TOTAL, sum_squares=TOTAL, propensity=PROPENSITY, predicted=PREDICTED, control_index=2)
    with pytest.raises(InvalidArgument, match="control_index"):
        effective_responders(TOTAL, N, propensity=PROPENSITY, control_index=-1)
    with pytest.raises(InvalidArgument, match="shapes"):
        effective_responders(TOTAL[:1], N, propensity=PROPENSITY, control_index=0)
    with pytest.raises(InvalidCounts, match="more than the units"):
        effective_responders(N + 1, N, propensity=PROPENSITY, control_index=0)
