"""What each variant's mean outcome is, and how it differs from control's, per segment and over all."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from experiments.priors import beta_prior, mean_prior
from experiments.review.strata import Strata
from experiments.series import PinnedPrior
from optimizer.errors import NoVariation
from optimizer.posteriors import MeanPrior, Posterior, beta_posterior, mean_posterior, weak_mean_prior
from optimizer.standardise import Standardised, across_segments, block_differences, block_means

Floats = NDArray[np.float64]

ENOUGH_RESPONDERS = 20  # fewer, and a variant's variance is not yet known from its own units


@dataclass(frozen=True, slots=True)
class Estimates:
    """Estimates by segment, the last row over all segments; shapes (n_segments + 1, n_variants) unless said.

    Attributes:
        n_units: Units.
        n_responders: Units with a response.
        mean: Outcome per unit, in the metric's unit: plain where weights never moved, else control's mean over all
            strata plus the standardised difference. NaN without units.
        variance: Sampling variance of the mean; NaN where there is none.
        difference: From control, in the metric's unit; NaN where the two were never randomised together.
        difference_variance: Its sampling variance.
        within: Sum of squares of unit totals around the plain mean.
        plain: Where means and differences are the plain ones, shape (n_segments + 1,).
        covered: Share of the units that the difference over all segments could be made from, shape (n_variants,).
        control: Index of the control.
    """

    n_units: Floats
    n_responders: Floats
    mean: Floats
    variance: Floats
    difference: Floats
    difference_variance: Floats
    within: Floats
    plain: NDArray[np.bool_]
    covered: Floats
    control: int


def estimate(strata: Strata) -> Estimates:
    """Compare variants within strata of equal weights, then over segments by their share of units.

    Where all units of a segment (or of all segments) were given variants by the same weights, pooling them is right and
    the plain means come out. Where weights moved, differences are Mantel-Haenszel's over the strata of a segment, and
    the overall ones are those of the segments, weighted by all of their units: shifting traffic can't turn them round.
    """
    segments = _of_segments(strata.pooled())
    whole = strata.overall or strata
    if strata.has_one_weighting():
        return _stacked(segments, _of_segments(whole.as_one_segment()))
    return _stacked(segments, _over_all(segments if whole is strata else _of_segments(whole.pooled())))


def posterior_of(estimates: Estimates, *, is_rate: bool, prior: PinnedPrior | None = None) -> Posterior | None:
    """Posterior of every mean: Beta for rates, Student for counts and money, from the metric's prior or a weak one.

    Adjusted means enter with as many units as give their variance. A Student posterior leans on the pooled variance of
    all variants only below 20 responders, where its own says little; above, it is the classical one to all printed
    digits. None if nothing varies, so that there is no scale.
    """
    n, mean, within = effective(estimates, is_rate=is_rate)
    if is_rate:
        alpha, beta = beta_prior(prior)
        return beta_posterior(np.minimum(mean * n, n), n, prior_alpha=alpha, prior_beta=beta)
    sums = {"total": mean * n, "sum_squares": within + mean**2 * n}
    try:
        weak = weak_mean_prior(
            n[:-1],
            total=sums["total"][:-1],
            sum_squares=sums["sum_squares"][:-1],
            n_responders=_responders(estimates, n)[:-1],
        )
    except NoVariation:
        return None
    own = MeanPrior(mean=weak.mean, weight=1e-3, variance=weak.variance, degrees_of_freedom=1.0)
    shy, sure = (mean_posterior(n, prior=mean_prior(prior, one), **sums) for one in (weak, own))
    enough = estimates.n_responders >= ENOUGH_RESPONDERS
    return type(sure)(
        np.where(enough, sure.location, shy.location),
        np.where(enough, sure.scale, shy.scale),
        np.where(enough, sure.degrees_of_freedom, shy.degrees_of_freedom),
    )


def _responders(estimates: Estimates, n: Floats) -> Floats:
    return np.minimum(estimates.n_responders, n)


def effective(estimates: Estimates, *, is_rate: bool) -> tuple[Floats, Floats, Floats]:
    """Units, mean and sum of squares around it that stand for each estimate, shapes (n_segments + 1, n_variants).

    Where weights moved, as many units as give the estimate's variance.
    """
    known = np.isfinite(estimates.mean)
    n = np.where(known, estimates.n_units, 0.0)
    mean = np.where(known, estimates.mean, 0.0)
    mean = mean.clip(0.0, 1.0) if is_rate else mean
    spread = mean * (1.0 - mean) if is_rate else _ratio(estimates.within, np.maximum(n - 1.0, 1.0))
    adjusted = known & ~estimates.plain[:, np.newaxis] & (estimates.variance > 0.0) & (spread > 0.0)
    units = np.where(adjusted, np.minimum(_ratio(spread, np.where(adjusted, estimates.variance, 1.0)), n), n)
    return units, mean, estimates.within * _ratio(units, np.maximum(n, 1.0))


def _of_segments(strata: Strata) -> Estimates:
    n, total, squares = strata.padded(strata.n_units), strata.padded(strata.total), strata.padded(strata.squares)
    differences = block_differences(n, total, sum_squares=squares, control_index=strata.control)
    levels = block_means(n, total, sum_squares=squares)
    plain = (n.sum(axis=2) > 0.0).sum(axis=1) <= 1
    sums = n.sum(axis=1), total.sum(axis=1), squares.sum(axis=1)
    return _estimates(
        differences,
        level=levels.estimate,
        level_variance=levels.variance,
        sums=sums,
        n_responders=strata.by_segment(strata.n_responders),
        plain=plain,
        control=strata.control,
    )


def _over_all(segments: Estimates) -> Estimates:
    """The overall row: differences and control's mean over the segments' mix of units."""
    mix = segments.n_units.sum(axis=1)
    differences = across_segments(segments.difference, segments.difference_variance, mix=mix)
    levels = across_segments(segments.mean, segments.variance, mix=mix)
    n, mean = segments.n_units, np.nan_to_num(segments.mean)
    total = n * mean
    sums = n.sum(axis=0), total.sum(axis=0), (segments.within + n * mean**2).sum(axis=0)
    return _estimates(
        _row(differences),
        level=levels.estimate[np.newaxis],
        level_variance=levels.variance[np.newaxis],
        sums=(sums[0][np.newaxis], sums[1][np.newaxis], sums[2][np.newaxis]),
        n_responders=segments.n_responders.sum(axis=0, keepdims=True),
        plain=np.zeros(1, dtype=np.bool_),
        control=segments.control,
    )


def _estimates(
    differences: Standardised,
    *,
    level: Floats,
    level_variance: Floats,
    sums: tuple[Floats, Floats, Floats],
    n_responders: Floats,
    plain: NDArray[np.bool_],
    control: int,
) -> Estimates:
    """Means that agree with the differences: control's level plus each difference; plain where there is none."""
    n, total, squares = sums
    within = np.maximum(squares - _ratio(total**2, n), 0.0)
    compared = differences.estimable & np.isfinite(level[:, [control]])
    difference = np.where(compared, differences.estimate, np.nan)
    variance = np.where(compared, differences.variance, np.nan)
    own = np.maximum(variance - level_variance[:, [control]], 0.0)
    own[:, control] = level_variance[:, control]
    mean = np.where(compared, level[:, [control]] + np.nan_to_num(difference), _ratio(total, n))
    return Estimates(
        n_units=n,
        n_responders=n_responders,
        mean=np.where(n > 0.0, mean, np.nan),
        variance=np.where(compared, own, level_variance),
        difference=difference,
        difference_variance=variance,
        within=within,
        plain=plain,
        covered=differences.covered[-1],
        control=control,
    )


def _row(differences: Standardised) -> Standardised:
    return Standardised(
        differences.estimate[np.newaxis], differences.variance[np.newaxis], differences.covered[np.newaxis]
    )


def _stacked(segments: Estimates, overall: Estimates) -> Estimates:
    def both(name: str) -> Floats:
        return np.concatenate([getattr(segments, name), getattr(overall, name)])

    return Estimates(
        n_units=both("n_units"),
        n_responders=both("n_responders"),
        mean=both("mean"),
        variance=both("variance"),
        difference=both("difference"),
        difference_variance=both("difference_variance"),
        within=both("within"),
        plain=np.concatenate([segments.plain, overall.plain]),
        covered=overall.covered,
        control=segments.control,
    )


def _ratio(top: Floats, bottom: Floats) -> Floats:
    ratio: Floats = np.divide(top, bottom, out=np.zeros(np.broadcast(top, bottom).shape), where=bottom > 0.0)
    return ratio
