"""What money differs by, and who is best. Expected values: by hand, draws, the quadrature for means, symmetry."""

import numpy as np
import pytest
from scipy import special

from optimizer.comparison import best_and_loss, probability_best
from optimizer.errors import InvalidArgument
from optimizer.hurdle import HurdlePosterior
from optimizer.hurdle_comparison import difference_parts, drawn_comparison
from optimizer.posteriors import BetaPosterior, StudentPosterior


def _money(alpha: list[float], beta: list[float], location: list[float], scale: list[float]) -> HurdlePosterior:
    amount = StudentPosterior(np.array(location), np.array(scale), np.full(len(scale), 30.0))
    return HurdlePosterior(BetaPosterior(np.array(alpha), np.array(beta)), amount)


SHOP = _money([10.0, 12.0, 9.0], [90.0, 88.0, 91.0], [50.0, 45.0, 56.0], [4.0, 3.0, 5.0])


def test_more_payers_of_smaller_amounts_by_hand() -> None:
    """From 10 % of 50 to 12 % of 45: 0.02 * 47.5 = 0.95 more by payers, 5 * 0.11 = 0.55 less by amounts."""
    parts = difference_parts(SHOP, control_index=0)
    assert parts.from_payers[:2] == pytest.approx([0.0, 0.95])
    assert parts.from_amounts[:2] == pytest.approx([0.0, -0.55])


def test_the_parts_sum_to_the_difference_in_every_segment() -> None:
    rng = np.random.default_rng(1)
    chance = BetaPosterior(rng.uniform(1.0, 9.0, size=(5, 3)), rng.uniform(50.0, 99.0, size=(5, 3)))
    amount = StudentPosterior(rng.normal(size=(5, 3)), rng.uniform(1.0, 2.0, size=(5, 3)), np.full((5, 3), 12.0))
    money = HurdlePosterior(chance, amount)
    parts = difference_parts(money, control_index=1)
    assert parts.from_payers + parts.from_amounts == pytest.approx(money.mean - money.mean[:, 1:2], rel=1e-12)


def test_control_and_variant_change_places_by_changing_signs() -> None:
    there, back = difference_parts(SHOP, control_index=0), difference_parts(SHOP, control_index=1)
    assert there.from_payers[1] == pytest.approx(-back.from_payers[0])
    assert there.from_amounts[1] == pytest.approx(-back.from_amounts[0])
    assert there.from_amounts_sd[1] == pytest.approx(back.from_amounts_sd[0])


def test_the_spread_of_each_part_is_that_of_draws() -> None:
    """400,000 draws of p, q, a and b: both moments of both parts, within 5 of their Monte Carlo errors."""
    rng, size = np.random.default_rng(20261210), (400_000, 3)
    p = rng.beta(SHOP.chance.alpha, SHOP.chance.beta, size=size)
    a = SHOP.amount.location + SHOP.amount.scale * rng.standard_t(30.0, size=size)
    parts = difference_parts(SHOP, control_index=0)
    for mean, sd, drawn in (
        (parts.from_payers, parts.from_payers_sd, (p - p[:, :1]) * (a + a[:, :1]) / 2.0),
        (parts.from_amounts, parts.from_amounts_sd, (a - a[:, :1]) * (p + p[:, :1]) / 2.0),
    ):
        squares = (drawn - mean) ** 2
        assert (np.abs(drawn.mean(axis=0) - mean) <= 5.0 * sd / np.sqrt(size[0])).all()
        assert (np.abs(squares.mean(axis=0) - sd**2) <= 5.0 * squares.std(axis=0) / np.sqrt(size[0])).all()
        assert sd[0] == 0.0


def test_where_all_pay_the_draws_agree_with_the_quadrature_for_means() -> None:
    """A chance of 1 leaves the amounts, of which `probability_best` and `expected_loss` are known without draws."""
    money = _money([1e12] * 3, [1.0] * 3, [50.0, 53.0, 48.0], [2.0, 3.0, 1.0])
    drawn = drawn_comparison(money, rng=np.random.default_rng(20261211), n_draws=200_000)
    assert (np.abs(drawn.probability_best - probability_best(money.amount)) < 5.0 * drawn.probability_best_error).all()
    assert (np.abs(drawn.expected_loss - best_and_loss(money.amount)[1]) < 5.0 * drawn.expected_loss_error).all()


def test_where_amounts_are_sure_the_draws_agree_with_the_quadrature_for_rates() -> None:
    money = _money([10.0, 14.0], [90.0, 86.0], [50.0, 50.0], [1e-9, 1e-9])
    drawn = drawn_comparison(money, rng=np.random.default_rng(20261212), n_draws=200_000, higher_is_better=False)
    exact = probability_best(money.chance, higher_is_better=False)
    lost = 50.0 * best_and_loss(money.chance, higher_is_better=False)[1]
    assert (np.abs(drawn.probability_best - exact) < 5.0 * drawn.probability_best_error).all()
    assert (np.abs(drawn.expected_loss - lost) < 5.0 * drawn.expected_loss_error).all()


def test_monte_carlo_errors_are_the_spread_of_repeated_answers() -> None:
    """400 repeats of 500 draws: their standard deviation is known to 3.5 %; 18 % (5 errors) allowed."""
    rng = np.random.default_rng(20261213)
    repeats = [drawn_comparison(SHOP, rng=rng, n_draws=500) for _ in range(400)]
    best, lost = (np.array([getattr(r, name) for r in repeats]) for name in ("probability_best", "expected_loss"))
    assert repeats[0].probability_best_error == pytest.approx(best.std(axis=0), rel=0.18)
    errors = np.mean([r.expected_loss_error for r in repeats], axis=0)
    assert errors == pytest.approx(lost.std(axis=0), rel=0.18)


def test_a_share_of_no_draws_is_not_taken_for_certain() -> None:
    """By hand: s = 0.5 / 1001, sqrt(s (1 - s) / 1000) = 0.00071; the best one never loses."""
    money = _money([1e3, 1e3], [1e4, 1e4], [50.0, 500.0], [1.0, 1.0])
    drawn = drawn_comparison(money, rng=np.random.default_rng(1), n_draws=1000)
    assert drawn.probability_best.tolist() == [0.0, 1.0]
    assert drawn.probability_best_error == pytest.approx([0.000706577] * 2, rel=1e-5)
    assert drawn.expected_loss[1] == 0.0
    assert drawn.expected_loss[0] == pytest.approx(450.0 / 11.0, rel=0.01)


def test_the_same_seed_gives_the_same_answer_and_segments_keep_their_shape() -> None:
    money = SHOP.mapped(lambda values: np.stack([values, values[::-1]]))
    first, second = (drawn_comparison(money, rng=np.random.default_rng(7), n_draws=4_000) for _ in range(2))
    assert first.probability_best.tolist() == second.probability_best.tolist()
    assert first.expected_loss.shape == (2, 3)
    assert first.probability_best.sum(axis=1) == pytest.approx([1.0, 1.0])
    error = np.hypot(first.probability_best_error[0], first.probability_best_error[1, ::-1])
    assert (np.abs(first.probability_best[0] - first.probability_best[1, ::-1]) < 5.0 * error).all()


def test_a_single_variant_is_best() -> None:
    drawn = drawn_comparison(SHOP.mapped(lambda values: values[:1]), rng=np.random.default_rng(8), n_draws=10)
    assert drawn.probability_best.tolist() == [1.0]
    assert drawn.expected_loss.tolist() == [0.0]


def test_probability_best_is_calibrated() -> None:
    """1,000 worlds of two variants from the prior: of those said best with chance s, a share s is.

    sum (best - s) over its standard deviation sqrt(sum s (1 - s)), in each half; false alarm 1 in 10**6 each.
    """
    rng = np.random.default_rng(20261214)
    alpha, location = rng.uniform(2.0, 20.0, size=(1_000, 2)), rng.normal(50.0, 5.0, size=(1_000, 2))
    money = HurdlePosterior(
        BetaPosterior(alpha, np.full(alpha.shape, 100.0)),
        StudentPosterior(location, np.full(alpha.shape, 8.0), np.full(alpha.shape, 12.0)),
    )
    truth = money.draws(1, rng=rng)[0]
    said = drawn_comparison(money, rng=rng, n_draws=2_000).probability_best[:, 0]
    best = truth[:, 0] > truth[:, 1]
    for half in (said < 0.5, said >= 0.5):
        z = (best[half] - said[half]).sum() / np.sqrt((said[half] * (1.0 - said[half])).sum())
        assert 2.0 * special.ndtr(-abs(z)) > 1e-6


def test_what_can_not_be_is_refused() -> None:
    for control in (-1, 3):
        with pytest.raises(InvalidArgument, match="control_index"):
            difference_parts(SHOP, control_index=control)
    with pytest.raises(InvalidArgument, match="n_draws"):
        drawn_comparison(SHOP, rng=np.random.default_rng(1), n_draws=1)
