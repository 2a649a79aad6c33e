"""What a bandit's data say about a difference: the plain one, and two that know how the weights moved."""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from optimizer.adaptive_contrast import effective_responders
from optimizer.errors import InvalidArgument
from optimizer.paired_sums import Method, Pairs, adaptively_weighted, difference_of_means, pairs_of
from optimizer.sequential import SMALLEST_RESPONDERS, checked_sums

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]

NOTE_SCORE = 3.0  # standard errors between two estimates that their noise does not explain
REASONS = {
    "is_control": "the control is not compared with itself",
    "never_randomised_together": "no unit came while the variant and control both had positive weights",
    "no_unit": "the variant or control got no unit while both had positive weights",
    "few_responders": (
        f"the variant or control has fewer than {SMALLEST_RESPONDERS} effective responders"
        " (of a frequent rate: units without a response)"
    ),
    "no_variation": "the outcomes do not vary",
}


@dataclass(frozen=True, slots=True)
class Difference:
    """Variant minus control, by one method; NaN and the whole line where it is not estimable.

    Attributes:
        estimate: In outcome units, shape (..., n_variants).
        standard_error: In outcome units, the same shape.
        degrees_of_freedom: Of Student's distribution of the estimate over its error, the same shape.
        low: Lower end of the confidence interval, for one look.
        high: Upper end.
        p_value: Two-sided, for one look: below 1 - level just where the interval excludes 0.
    """

    estimate: Floats
    standard_error: Floats
    degrees_of_freedom: Floats
    low: Floats
    high: Floats
    p_value: Floats

    @classmethod
    def of(cls, estimate: Floats, standard_error: Floats, *, degrees_of_freedom: Floats, level: float) -> Self:
        """With Student's interval; NaN estimates are not estimable."""
        known = np.isfinite(estimate)
        reach = special.stdtrit(degrees_of_freedom, (1.0 + level) / 2.0)
        margin = np.where(known, reach * standard_error, np.inf)
        centre = np.where(known, estimate, 0.0)
        size = -np.abs(estimate)
        score = np.divide(size, standard_error, out=np.where(size < 0.0, -np.inf, size), where=standard_error != 0.0)
        p_value = 2.0 * special.stdtr(degrees_of_freedom, score)
        return cls(estimate, standard_error, degrees_of_freedom, centre - margin, centre + margin, p_value)


@dataclass(frozen=True, slots=True)
class BanditEstimates:
    """The same difference by three methods, shapes (..., n_variants).

    Attributes:
        naive: Difference of the pooled sample means, as if weights had never moved. Biased where they did.
        inverse_propensity: Each unit counts 1 / propensity, self-normalised.
        adaptive: Adaptively weighted and augmented: the one to trust.
        gap: Naive minus adaptive; NaN where not estimable.
        gap_standard_error: Of the gap, from the units that both estimates share.
        reason: Code of `REASONS` where not estimable, else "".
    """

    naive: Difference
    inverse_propensity: Difference
    adaptive: Difference
    gap: Floats
    gap_standard_error: Floats
    reason: NDArray[np.str_]

    @property
    def estimable(self) -> Flags:
        """Where there are estimates."""
        estimable: Flags = self.reason == ""
        return estimable

    @property
    def disagree(self) -> Flags:
        """Where naive and adaptive lie further apart than their noise explains: trust the adaptive one.

        The rule: the gap is over 3 of its standard errors, and over half a standard error of the adaptive estimate
        (a smaller gap changes no conclusion).
        """
        return lies_apart(self.gap, self.gap_standard_error, standard_error=self.adaptive.standard_error)


def lies_apart(gap: Floats, gap_standard_error: Floats, *, standard_error: Floats) -> Flags:
    """Whether two estimates lie further apart than noise explains; False where the gap is NaN.

    Args:
        gap: Naive minus adaptive estimate, any shape.
        gap_standard_error: Of the gap, the same shape.
        standard_error: Of the adaptive estimate, the same shape.
    Source: own rule.
    """
    size = np.abs(gap)
    apart: Flags = (size > NOTE_SCORE * gap_standard_error) & (size > 0.5 * standard_error)
    return apart


def bandit_estimates(
    n_units: ArrayLike,
    total: ArrayLike,
    *,
    sum_squares: ArrayLike,
    propensity: ArrayLike,
    predicted: ArrayLike,
    n_responders: ArrayLike,
    control_index: int,
    is_binary: bool = False,
    level: float = 0.95,
) -> BanditEstimates:
    """Difference of every variant from control by three methods, from sums by time-ordered stratum.

    A stratum holds units that were given variants by the same weights at about the same time: one allocation version
    of one day of one segment. Strata where a variant or control had weight 0 do not count for it. Over segments,
    combine the segments' estimates by a fixed mix (`optimizer.standardise.across_segments`).

    The adaptive estimate is sum(h D) / sum(h) over units, with the score D = G_k - G_control of `aipw_contrast` and
    the evaluation weight h = (1 / p_k + 1 / p_control)^(-1/2) of the stratum. This is Hadad et al.'s "constant
    allocation" for a contrast: with it h D has about the same variance in every stratum, which makes the studentised
    estimate normal although weights depended on outcomes. Both variants share h, so a base rate that drifts cancels.
    The inverse-propensity means are self-normalised (Hajek): adding a constant to all outcomes must not change a
    difference, and a chance surplus of units must not pass for outcomes.

    Args:
        n_units: Matured units, shape (..., n_strata, n_variants).
        total: Sum of the units' outcomes, the same shape.
        sum_squares: Sum of their squares, the same shape.
        propensity: Logged weights of the stratum, rows summing to 1, the same shape.
        predicted: Mean outcome expected of each variant before the stratum, the same shape.
        n_responders: Units that responded, the same shape.
        control_index: Which variant is the control.
        is_binary: Outcomes are 0 or 1; of a frequent one those that did not respond are the scarce ones.
        level: Of the intervals, in (0, 1).
    Raises:
        InvalidCounts: Not finite, negative, or units of a variant whose weight was 0.
        InvalidArgument: Shapes differ, propensities that are no probabilities, no such control, or no such level.
    Source: Hadad, Hirshberg, Zhan, Wager & Athey (2021), PNAS 118(15), arXiv:1911.02768; Hajek (1971).

    >>> found = bandit_estimates(
    ...     [[500, 500], [100, 900]], [[50, 60], [30, 279]], sum_squares=[[50, 60], [30, 279]],
    ...     propensity=[[0.5, 0.5], [0.1, 0.9]], predicted=[[0.1, 0.1], [0.1, 0.12]],
    ...     n_responders=[[50, 60], [30, 279]], control_index=0, is_binary=True,
    ... )
    >>> found.naive.estimate[1].round(3), found.adaptive.estimate[1].round(3), found.disagree[1]
    (np.float64(0.109), np.float64(0.016), np.True_)
    """
    if not 0.0 < level < 1.0:
        raise InvalidArgument("level", f"{level:g} is not between 0 and 1")
    n, sums, squares, share, m = checked_sums(n_units, total, sum_squares, propensity, predicted)
    if not 0 <= control_index < n.shape[-1]:
        raise InvalidArgument("control_index", f"{control_index} is none of {n.shape[-1]} variants")
    pairs = pairs_of(n, sums, squares=squares, share=share, predicted=m, control=control_index)
    naive = difference_of_means(pairs, own_weight=1.0, control_weight=1.0)
    inverse = difference_of_means(pairs, own_weight=1.0 / pairs.own.share, control_weight=1.0 / pairs.control.share)
    adaptive = adaptively_weighted(pairs)
    scarce = effective_responders(n_responders, n, propensity=share, control_index=control_index, is_binary=is_binary)
    reason = _reason(pairs, scarce=scarce, variance=adaptive.variance(pairs), control_index=control_index)
    gap, missing = naive.minus(adaptive), np.where(reason == "", 0.0, np.nan)
    return BanditEstimates(
        naive=_difference(naive, pairs, reason=reason, level=level),
        inverse_propensity=_difference(inverse, pairs, reason=reason, level=level),
        adaptive=_difference(adaptive, pairs, reason=reason, level=level),
        gap=gap.estimate + missing,
        gap_standard_error=np.sqrt(gap.variance(pairs)) + missing,
        reason=reason,
    )


def _reason(pairs: Pairs, *, scarce: Floats, variance: Floats, control_index: int) -> NDArray[np.str_]:
    is_control = np.broadcast_to(np.arange(scarce.shape[-1]) == control_index, scarce.shape)
    n_own, n_control = pairs.own.n.sum(axis=-2), pairs.control.n.sum(axis=-2)
    why = [is_control, pairs.everyone.sum(axis=-2) == 0.0, np.minimum(n_own, n_control) == 0.0]
    why += [scarce < SMALLEST_RESPONDERS, variance <= 0.0]
    return np.select(why, list(REASONS), default="")


def _difference(method: Method, pairs: Pairs, *, reason: NDArray[np.str_], level: float) -> Difference:
    missing = np.where(reason == "", 0.0, np.nan)
    estimate, error = method.estimate + missing, np.sqrt(method.variance(pairs)) + missing
    return Difference.of(estimate, error, degrees_of_freedom=method.degrees_of_freedom(pairs), level=level)
