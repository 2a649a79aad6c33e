import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from optimizer.allocation import Method, allocation_weights, burn_in_complete
from optimizer.errors import InvalidAllocation


def test_thompson_weights_are_the_probabilities_of_being_best_above_an_additive_floor() -> None:
    """The rule of gbstats on its case gbB1, f = 0.01: .030855/.149486/.819659 (reference/STATISTICS.md, section 2)."""
    weights = allocation_weights([0.0215, 0.1438, 0.8347], method="thompson", floor=0.01)
    assert weights == pytest.approx([0.030855, 0.149486, 0.819659], abs=1e-6)


def test_top_two_weights_are_those_of_russo() -> None:
    """reference/STATISTICS.md, section 7.5: psi for phi = (.0215, .1438, .8347), b = .5."""
    weights = allocation_weights([0.0215, 0.1438, 0.8347], method="top_two", floor=0.0)
    assert weights == pytest.approx([0.066839, 0.436547, 0.496615], abs=1e-6)


def test_top_two_of_two_variants_is_an_even_split() -> None:
    """With b = 1/2: phi_1 / 2 + phi_2 / 2, by hand."""
    weights = allocation_weights([0.9, 0.1], method="top_two", floor=0.0)
    assert weights == pytest.approx([0.5, 0.5], abs=1e-12)


def test_top_two_shares_the_second_choice_when_one_variant_is_certain() -> None:
    weights = allocation_weights([0.0, 1.0, 0.0], method="top_two", floor=0.0, top_two_coin=0.7)
    assert weights == pytest.approx([0.15, 0.7, 0.15], abs=1e-12)


def test_top_two_keeps_its_digits_when_one_variant_is_nearly_certain() -> None:
    """The two challengers stand 3 : 1, however small both are."""
    weights = allocation_weights([1.0, 3e-20, 1e-20], method="top_two", floor=0.0)
    assert weights == pytest.approx([0.5, 0.375, 0.125], abs=1e-12)


def test_the_floor_never_takes_more_than_a_twentieth_of_all_units() -> None:
    """K = 10, f = 0.05: the floor used is 0.05 / 10 = 0.005."""
    weights = allocation_weights(np.eye(10)[0], method="thompson", floor=0.05)
    assert weights == pytest.approx([0.955, *[0.005] * 9], abs=1e-12)


def test_control_gets_its_share_and_the_rest_are_scaled() -> None:
    """p_c = max(0.1, 0); the others times (1 - 0.1) / 1, by hand."""
    weights = allocation_weights([0.0, 0.3, 0.7], method="thompson", floor=0.0, control_index=0, control_share=0.1)
    assert weights == pytest.approx([0.1, 0.27, 0.63], abs=1e-12)


def test_a_control_above_its_share_stays_as_it_is() -> None:
    weights = allocation_weights([0.4, 0.6], method="thompson", floor=0.0, control_index=0, control_share=0.1)
    assert weights == pytest.approx([0.4, 0.6], abs=1e-12)


def test_no_variant_falls_below_its_floor_when_control_is_lifted() -> None:
    """Scaling alone would leave the second variant 0.01 * 0.5 / 0.99; by hand it is lifted to 0.01, the third gives."""
    weights = allocation_weights([0.0, 0.0, 1.0], method="thompson", floor=0.01, control_index=0, control_share=0.5)
    assert weights == pytest.approx([0.5, 0.01, 0.49], abs=1e-12)


def test_retired_variants_get_exactly_nothing_and_raise_the_floor_of_nobody() -> None:
    weights = allocation_weights(
        [[0.5, 0.2, 0.3], [0.2, 0.2, 0.6]],
        method="thompson",
        floor=0.01,
        available=[[True, False, True], [True, True, True]],
    )
    assert weights[0, 1] == 0.0
    assert weights[0] == pytest.approx([0.01 + 0.98 * 0.625, 0.0, 0.01 + 0.98 * 0.375], abs=1e-12)
    assert weights[1] == pytest.approx([0.01 + 0.97 * 0.2, 0.01 + 0.97 * 0.2, 0.01 + 0.97 * 0.6], abs=1e-12)


def test_fixed_weights_are_taken_as_they_are_among_the_available() -> None:
    weights = allocation_weights(
        [[0.1, 0.2, 0.7]], method="fixed", floor=0.01, fixed_weights=[1.0, 1.0, 2.0], available=[True, False, True]
    )
    assert weights == pytest.approx(np.array([[1 / 3, 0.0, 2 / 3]]), abs=1e-12)


@pytest.mark.parametrize("method", ["thompson", "top_two"])
def test_a_single_variant_gets_everything(method: Method) -> None:
    weights = allocation_weights([0.3, 0.7], method=method, floor=0.01, available=[False, True], top_two_coin=0.0)
    assert weights.tolist() == [0.0, 1.0]


@given(
    st.lists(st.floats(0.0, 1.0), min_size=2, max_size=8).filter(lambda best: sum(best) > 1e-6),
    st.sampled_from(["thompson", "top_two"]),
    st.floats(0.0, 0.1),
    st.floats(0.0, 0.9),
)
def test_weights_sum_to_one_and_respect_floor_and_control_share(
    best: list[float], method: Method, floor: float, share: float
) -> None:
    weights = allocation_weights(best, method=method, floor=floor, control_index=1, control_share=share)
    assert weights.sum() == pytest.approx(1.0, abs=1e-12)
    assert (weights >= min(floor, 0.05 / len(best)) - 1e-12).all()
    assert weights[1] >= share - 1e-12


def test_the_order_of_variants_does_not_matter() -> None:
    rng = np.random.default_rng(3)
    best = rng.dirichlet(np.full(5, 0.3), size=20)
    order = np.array([3, 1, 4, 0, 2])
    weights = allocation_weights(best, method="top_two", floor=0.01, control_index=4, control_share=0.2)
    shuffled = allocation_weights(best[:, order], method="top_two", floor=0.01, control_index=2, control_share=0.2)
    assert shuffled == pytest.approx(weights[:, order], abs=1e-12)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"floor": 0.5}, "floor"),
        ({"floor": -0.1}, "floor"),
        ({"floor": float("nan")}, "floor"),
        ({"floor": 0.0, "control_share": 0.1}, "control_index"),
        ({"floor": 0.0, "control_share": 0.1, "control_index": 2}, "control_index"),
        ({"floor": 0.0, "control_share": 0.1, "control_index": 0, "available": [False, True]}, "control_index"),
        ({"floor": 0.0, "control_share": 1.0, "control_index": 0}, "control_share"),
        ({"floor": 0.0, "available": [False, False]}, "available"),
        ({"floor": 0.0, "method": "fixed"}, "fixed_weights"),
        ({"floor": 0.0, "method": "fixed", "fixed_weights": [0.0, 0.0]}, "fixed_weights"),
        ({"floor": 0.0, "method": "top_two", "top_two_coin": 1.5}, "top_two_coin"),
    ],
)
def test_impossible_requests_are_refused_by_name(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(InvalidAllocation, match=message) as refused:
        allocation_weights([0.5, 0.5], **{"method": "thompson", **arguments})  # type: ignore[arg-type]
    assert refused.value.code == "invalid_allocation"


def test_probabilities_that_are_not_numbers_are_refused() -> None:
    with pytest.raises(InvalidAllocation, match="probability_best"):
        allocation_weights([np.nan, 0.5], method="thompson", floor=0.0)


def test_burn_in_counts_units_over_all_segments() -> None:
    units = [[60, 90], [50, 9]]
    assert not burn_in_complete(units, burn_in=100)
    assert burn_in_complete(units, burn_in=99)
    assert burn_in_complete([[100, 0]], burn_in=100, available=[True, False])
