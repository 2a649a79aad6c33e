"""How money compares between variants: what a difference is made of, and which variant is best, by draws."""

from dataclasses import dataclass
from operator import itemgetter

import numpy as np
from numpy.typing import NDArray

from optimizer.errors import InvalidArgument
from optimizer.hurdle import HurdlePosterior, sd_of_product

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class DifferenceParts:
    """What makes a variant's money per unit differ from control's, in outcome units; 0 for control.

    Attributes:
        from_payers: Posterior mean of the part from more (or fewer) payers, shape (..., n_variants).
        from_amounts: The same of the part from larger (or smaller) amounts; the two sum to the difference.
        from_payers_sd: Posterior standard deviation of the first part.
        from_amounts_sd: The same of the second.
    """

    from_payers: Floats
    from_amounts: Floats
    from_payers_sd: Floats
    from_amounts_sd: Floats


def difference_parts(posterior: HurdlePosterior, *, control_index: int) -> DifferenceParts:
    """Split each variant's difference from control: p a - q b = (p - q) (a + b) / 2 + (a - b) (p + q) / 2.

    p and a are the chance and amount of the variant, q and b those of control. Each factor changes while the other is
    halfway between the two, so neither is favoured by going first (the Shapley value of two factors). Both parts are
    products of independent quantities, so their means and standard deviations are exact.

    Raises:
        InvalidArgument: No such control.
    Source: Kitagawa (1955), JASA 50(272).
    """
    n_variants = posterior.mean.shape[-1] if posterior.mean.ndim > 0 else 0
    if not 0 <= control_index < n_variants:
        raise InvalidArgument("control_index", f"{control_index} is none of {n_variants} variants")
    control = slice(control_index, control_index + 1)
    gaps, halves = [], []
    for factor in (posterior.chance, posterior.amount):
        mean, sd = factor.mean, factor.sd
        spread = np.hypot(sd, sd[..., control])
        spread[..., control_index] = 0.0
        gaps.append((mean - mean[..., control], spread))
        halves.append(((mean + mean[..., control]) / 2.0, spread / 2.0))
    return DifferenceParts(
        gaps[0][0] * halves[1][0],
        gaps[1][0] * halves[0][0],
        sd_of_product(gaps[0], halves[1]),
        sd_of_product(gaps[1], halves[0]),
    )


@dataclass(frozen=True, slots=True)
class DrawnComparison:
    """How variants compare, from posterior draws, with what chance adds by drawing; shape (..., n_variants) each.

    Attributes:
        probability_best: Share of the draws in which the variant is best; they sum to 1.
        probability_best_error: Monte Carlo standard error; above 0 even where the share is 0 or 1.
        expected_loss: Mean outcome given up by shipping the variant instead of the best one, in outcome units, >= 0.
        expected_loss_error: Monte Carlo standard error; 0 where no draw lost anything.
    """

    probability_best: Floats
    probability_best_error: Floats
    expected_loss: Floats
    expected_loss_error: Floats


def drawn_comparison(
    posterior: HurdlePosterior, *, rng: np.random.Generator, n_draws: int = 20_000, higher_is_better: bool = True
) -> DrawnComparison:
    """Probability to be best and expected loss of every variant, from draws.

    With k of n draws the error of a share is sqrt(s (1 - s) / n), s = (k + 1/2) / (n + 1): at most 0.0036 by default.

    Args:
        posterior: Independent posteriors, shape (..., n_variants).
        rng: Source of the draws; the same state gives the same answer.
        n_draws: At least 2.
        higher_is_better: False mirrors: the best variant is the one with the lowest mean.
    Raises:
        InvalidArgument: Fewer than 2 draws.
    """
    if n_draws < 2:
        raise InvalidArgument("n_draws", f"{n_draws} is fewer than 2")
    shape = posterior.mean.shape
    rows = posterior.mapped(lambda values: values.reshape(-1, shape[-1]))
    shares, losses, loss_errors = (np.zeros(rows.mean.shape) for _ in range(3))
    for row in range(len(shares)):
        draws = rows.mapped(itemgetter(row)).draws(n_draws, rng=rng)
        draws = draws if higher_is_better else -draws
        lost = draws.max(axis=1, keepdims=True) - draws
        shares[row] = np.bincount(lost.argmin(axis=1), minlength=shape[-1]) / n_draws
        losses[row], loss_errors[row] = lost.mean(axis=0), lost.std(axis=0, ddof=1) / np.sqrt(n_draws)
    inside = (shares * n_draws + 0.5) / (n_draws + 1.0)
    errors = np.sqrt(inside * (1.0 - inside) / n_draws)
    return DrawnComparison(*(values.reshape(shape) for values in (shares, errors, losses, loss_errors)))
