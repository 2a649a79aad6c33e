"""Money as chance to pay times amount, beside the posterior of the mean: which of the two made the difference?"""

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from experiments.review.answer import LEVEL, Detail, number, pair
from experiments.review.estimates import Estimates
from experiments.review.strata import Strata
from optimizer.errors import InvalidCounts, NoVariation
from optimizer.hurdle import HurdlePosterior, hurdle_posterior
from optimizer.hurdle_comparison import DifferenceParts, DrawnComparison, difference_parts, drawn_comparison
from optimizer.posteriors import weak_mean_priors

Floats = NDArray[np.float64]

SEED: Final = 20_261_125  # a review of the same tallies says the same
N_DRAWS: Final = 4_000
MOST_SEGMENTS: Final = 100  # of more, the row over all alone: a segment takes some 20 ms


def hurdle_detail(units: Strata, *, plain: Estimates, higher_is_better: bool) -> Detail:
    """The ``hurdle`` of a variant of a metric that is money, from the sums of all units.

    Where weights moved pooled sums mislead, so there it says so instead.

    Args:
        units: As tallied.
        plain: Of the same units; says where weights moved.
        higher_is_better: Direction of the metric.
    """
    try:
        posterior = _posterior(units)
    except (InvalidCounts, NoVariation):
        reason = "not estimable: fewer than two units have paid, or all have paid the same"
        return lambda _row, _index: {"hurdle": {"reason": reason}}
    low, high = posterior.interval(LEVEL)
    rng = np.random.default_rng(SEED)
    drawn = drawn_comparison(posterior, rng=rng, n_draws=N_DRAWS, higher_is_better=higher_is_better)
    parts = difference_parts(posterior, control_index=units.control)

    first = len(units.segments) + 1 - len(low)  # the first row of results that there is one of

    def said(row: int, index: int) -> dict[str, Any]:
        if row < first:
            return {"hurdle": {"reason": _MANY}}
        if not plain.plain[row]:
            return {"hurdle": {"reason": _MOVED}}
        at = row - first, index
        own = {"mean": number(posterior.mean[at]), "interval": pair(low[at], high[at]), "reason": None}
        return {"hurdle": {**own, **_factors(posterior, at), **_compared(drawn, parts, at=at)}}

    return said


_MANY = f"left out: of more than {MOST_SEGMENTS} segments only all together are told"
_MOVED = "not estimable: weights moved, so the pooled sums of variants can't be compared"


def _posterior(units: Strata) -> HurdlePosterior:
    """By segment and over all (the last row); amounts lean on the segment's payers, or on all payers."""
    sums = [units.by_segment(values) for values in (units.n_units, units.n_responders, units.total, units.squares)]
    priors = weak_mean_priors(sums[1], total=sums[2], sum_squares=sums[3], n_responders=sums[1])
    parts = slice(None) if len(units.segments) <= MOST_SEGMENTS else slice(0)
    prior = priors if parts == slice(None) else priors.chosen(slice(-1, None))
    n, payers, total, squares = (np.vstack([values[parts], values.sum(axis=0)]) for values in sums)
    return hurdle_posterior(n, payers, total=total, sum_squares=squares, prior=prior)


def _factors(posterior: HurdlePosterior, at: tuple[int, int]) -> Mapping[str, Any]:
    return {"chance": number(posterior.chance.mean[at]), "amount": number(posterior.amount.mean[at])}


def _compared(drawn: DrawnComparison, parts: DifferenceParts, *, at: tuple[int, int]) -> Mapping[str, Any]:
    return {
        "from_payers": number(parts.from_payers[at]),
        "from_payers_sd": number(parts.from_payers_sd[at]),
        "from_amounts": number(parts.from_amounts[at]),
        "from_amounts_sd": number(parts.from_amounts_sd[at]),
        "probability_best": number(drawn.probability_best[at]),
        "expected_loss": number(drawn.expected_loss[at]),
        "monte_carlo_error": {
            "probability_best": number(drawn.probability_best_error[at]),
            "expected_loss": number(drawn.expected_loss_error[at]),
            "n_draws": N_DRAWS,
            "seed": SEED,
        },
    }
