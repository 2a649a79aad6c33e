"""What each variant's mean outcome is, and how it differs from control's, per segment and over all."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from experiments.priors import beta_prior, mean_prior
from experiments.review.strata import Strata
from experiments.series import PinnedPrior
from optimizer.errors import NoVariation
from optimizer.joint_means import joint_means, quasi_variances
from optimizer.posteriors import MeanPrior, Posterior, beta_posterior, mean_posterior, weak_mean_priors
from optimizer.standardise import across_segments

Floats = NDArray[np.float64]

ENOUGH_RESPONDERS = 20  # fewer, and a variant's variance is not yet known from its own units


@dataclass(frozen=True, slots=True)
class Estimates:
    """Estimates by segment, the last row over all segments; shapes (n_segments + 1, n_variants) unless said.

    Attributes:
        n_units: Units.
        n_responders: Units with a response.
        mean: Outcome per unit, in the metric's unit: plain where weights never moved, else standardised over strata.
            NaN without units.
        level_variance: Sampling variance of the mean; NaN where there is none.
        variance: Quasi-variance: those of two variants add up to about the variance of their difference. The sampling
            variance itself where means are plain.
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
    level_variance: Floats
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
    the plain means come out. Where weights moved, all variants of a segment are fitted at once within its strata
    (``optimizer.joint_means``), and the overall differences are those of the segments, weighted by all of their units:
    shifting traffic can't turn them round.
    """
    segments, contrasts = _of_segments(strata.pooled())
    whole = strata.overall or strata
    if strata.has_one_weighting():
        return _stacked(segments, _of_segments(whole.as_one_segment())[0])
    parts, between = (segments, contrasts) if whole is strata else _of_segments(whole.pooled())
    return _stacked(segments, _over_all(parts, between))


def posterior_of(
    estimates: Estimates, *, is_rate: bool, prior: PinnedPrior | None = None, of_levels: bool = False
) -> Posterior | None:
    """Posterior of every mean: Beta for rates, Student for counts and money, from the metric's prior or a weak one.

    Adjusted means enter with as many units as give their variance: to be compared with each other (the default), or
    each by itself (``of_levels``). A Student posterior leans on the pooled variance of its segment's variants (of all,
    where they too have few responders) only below 20 responders, where its own says little; above, it is nearly the
    classical one (of 20 units 3 % narrower).
    None if nothing varies, so that there is no scale.
    """
    n, mean, within = effective(estimates, is_rate=is_rate, of_levels=of_levels)
    if is_rate:
        alpha, beta = beta_prior(prior)
        return beta_posterior(np.minimum(mean * n, n), n, prior_alpha=alpha, prior_beta=beta)
    sums = {"total": mean * n, "sum_squares": within + mean**2 * n}
    try:
        weak = weak_mean_priors(
            n[:-1],
            total=sums["total"][:-1],
            sum_squares=sums["sum_squares"][:-1],
            n_responders=_responders(estimates, n)[:-1],
        )
    except NoVariation:
        return None
    varies = (n > 1.0) & (within > 1e-12 * sums["sum_squares"])
    variance = np.where(varies, within / np.maximum(n - 1.0, 1.0), weak.variance)
    own = MeanPrior(mean=weak.mean, weight=1e-3, variance=variance, degrees_of_freedom=1.0)
    shy, sure = (mean_posterior(n, prior=mean_prior(prior, one), **sums) for one in (weak, own))
    enough = estimates.n_responders >= ENOUGH_RESPONDERS
    return type(sure)(
        np.where(enough, sure.location, shy.location),
        np.where(enough, sure.scale, shy.scale),
        np.where(enough, sure.degrees_of_freedom, shy.degrees_of_freedom),
    )


def _responders(estimates: Estimates, n: Floats) -> Floats:
    return np.minimum(estimates.n_responders, n)


def effective(estimates: Estimates, *, is_rate: bool, of_levels: bool = False) -> tuple[Floats, Floats, Floats]:
    """Units, mean and sum of squares around it that stand for each estimate, shapes (n_segments + 1, n_variants).

    Where weights moved, as many units as give the estimate's variance.
    """
    variance = estimates.level_variance if of_levels else estimates.variance
    known = np.isfinite(estimates.mean)
    n = np.where(known, estimates.n_units, 0.0)
    mean = np.where(known, estimates.mean, 0.0)
    mean = mean.clip(0.0, 1.0) if is_rate else mean
    spread = mean * (1.0 - mean) if is_rate else _ratio(estimates.within, np.maximum(n - 1.0, 1.0))
    adjusted = known & ~estimates.plain[:, np.newaxis] & (variance > 0.0) & (spread > 0.0)
    units = np.where(adjusted, np.minimum(_ratio(spread, np.where(adjusted, variance, 1.0)), n), n)
    return units, mean, estimates.within * _ratio(units, np.maximum(n, 1.0))


def _of_segments(strata: Strata) -> tuple[Estimates, Floats]:
    """Estimates of segments, and the variances of all their contrasts."""
    n, total, squares = strata.padded(strata.n_units), strata.padded(strata.total), strata.padded(strata.squares)
    found = joint_means(n, total, sum_squares=squares)
    units, sums = n.sum(axis=1), total.sum(axis=1)
    control = found.estimate[:, [strata.control]]
    contrast = found.contrast_variance[:, strata.control]
    known = np.isfinite(contrast)
    plain = (n.sum(axis=2) > 0.0).sum(axis=1) <= 1
    quasi = quasi_variances(found.variance[~plain], found.contrast_variance[~plain])
    variance = found.variance.copy()
    variance[~plain] = quasi
    estimates = Estimates(
        n_units=units,
        n_responders=strata.by_segment(strata.n_responders),
        mean=np.where(plain[:, np.newaxis], _plain_means(sums, units), found.estimate),
        level_variance=found.variance,
        variance=variance,
        difference=np.where(known, found.estimate - control, np.nan),
        difference_variance=contrast,
        within=np.maximum(squares.sum(axis=1) - _ratio(sums**2, units), 0.0),
        plain=plain,
        covered=known[-1].astype(np.float64) if len(known) else np.zeros(n.shape[2]),
        control=strata.control,
    )
    return estimates, found.contrast_variance


def _plain_means(total: Floats, n: Floats) -> Floats:
    return np.where(n > 0.0, _ratio(total, n), np.nan)


def _over_all(segments: Estimates, contrasts: Floats) -> Estimates:
    """The overall row: any two variants compared in the segments that compare them, by the mix of all units."""
    mix, control = segments.n_units.sum(axis=1), segments.control
    differences = across_segments(segments.difference, segments.difference_variance, mix=mix)
    levels = across_segments(segments.mean, segments.level_variance, mix=mix)
    compared = differences.estimable & np.isfinite(levels.estimate[control])
    mean = np.where(compared, levels.estimate[control] + differences.estimate, levels.estimate)
    own = np.nan_to_num(segments.mean)
    n, total = segments.n_units.sum(axis=0), (segments.n_units * own).sum(axis=0)
    squares = (segments.within + segments.n_units * own**2).sum(axis=0)
    between = _combined(contrasts, mix=mix)
    return Estimates(
        n_units=n[np.newaxis],
        n_responders=segments.n_responders.sum(axis=0, keepdims=True),
        mean=np.where(n > 0.0, mean, np.nan)[np.newaxis],
        level_variance=levels.variance[np.newaxis],
        variance=quasi_variances(levels.variance, between)[np.newaxis],
        difference=np.where(compared, differences.estimate, np.nan)[np.newaxis],
        difference_variance=np.where(compared, differences.variance, np.nan)[np.newaxis],
        within=np.maximum(squares - _ratio(total**2, n), 0.0)[np.newaxis],
        plain=np.zeros(1, dtype=np.bool_),
        covered=differences.covered,
        control=control,
    )


def _combined(contrasts: Floats, *, mix: Floats) -> Floats:
    """Variances of overall contrasts, each over the segments that have it, shape (n_variants, n_variants)."""
    known = np.isfinite(contrasts)
    weight = np.where(known, mix[:, np.newaxis, np.newaxis], 0.0)
    total = weight.sum(axis=0)
    top = (weight**2 * np.where(known, contrasts, 0.0)).sum(axis=0)
    return np.where(total > 0.0, _ratio(top, total**2), np.nan)


def _stacked(segments: Estimates, overall: Estimates) -> Estimates:
    def both(name: str) -> Floats:
        return np.concatenate([getattr(segments, name), getattr(overall, name)])

    return Estimates(
        n_units=both("n_units"),
        n_responders=both("n_responders"),
        mean=both("mean"),
        level_variance=both("level_variance"),
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
