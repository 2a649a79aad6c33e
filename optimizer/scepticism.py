"""The relative effect of a variant on control, seen with a prior that expects little."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from optimizer.errors import InvalidArgument

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class ScepticalPosterior:
    """Normal posterior of a relative effect.

    Attributes:
        mean: Posterior mean of the relative effect.
        sd: Its posterior standard deviation.
        probability_beats_control: Probability that the variant is better than control.
        loss_if_shipped: Expected loss of shipping the variant: the mean of the harm it may do, relative to control.
        loss_if_kept: Expected loss of keeping control: the mean of the gain that is given up.
    """

    mean: Floats
    sd: Floats
    probability_beats_control: Floats
    loss_if_shipped: Floats
    loss_if_kept: Floats

    def interval(self, level: float) -> tuple[Floats, Floats]:
        """Central credible interval of the relative effect, as (low, high)."""
        if not 0.0 < level < 1.0:
            raise InvalidArgument("level", f"{level} is not between 0 and 1")
        reach = float(special.ndtri(0.5 + level / 2.0)) * self.sd
        return self.mean - reach, self.mean + reach


def relative_effect(mean: ArrayLike, variance: ArrayLike, *, control_index: int) -> tuple[Floats, Floats]:
    """Relative effect of each variant on control and its standard error, by the delta method.

    Args:
        mean: Estimated mean outcomes, shape (..., n_variants).
        variance: Their sampling variances (of the means, not of units), independent, the same shape.
        control_index: Which variant is the control.
    Returns:
        (effect, standard_error), shape (..., n_variants): (m_k - m_c) / |m_c|; NaN where control's mean is within two
        standard errors of zero, where no relative effect is estimable; 0 and 0 for control.
    Raises:
        InvalidArgument: No such control, or shapes differ.
    Source: Deng, Knoblich & Lu (2018), KDD, "Applying the delta method in metric analytics".

    >>> effect, error = relative_effect([0.1, 0.108], [0.09 / 10_000, 0.096336 / 10_000], control_index=0)
    >>> effect.round(4), error.round(7)
    (array([0.  , 0.08]), array([0.       , 0.0448678]))
    """
    means, variances = np.asarray(mean, dtype=np.float64), np.asarray(variance, dtype=np.float64)
    if means.shape != variances.shape or means.ndim == 0 or not 0 <= control_index < means.shape[-1]:
        raise InvalidArgument("control_index", f"{control_index} is none of the variants of shape {means.shape}")
    control = slice(control_index, control_index + 1)
    base, base_variance = means[..., control], variances[..., control]
    size = np.where(np.abs(base) > 2.0 * np.sqrt(base_variance), np.abs(base), np.nan)
    effect = (means - base) / size
    error = np.sqrt(variances + base_variance * (means / size) ** 2) / size
    error[..., control_index] = np.where(np.isnan(size[..., 0]), np.nan, 0.0)
    return effect, error


def sceptical_posterior(
    effect: ArrayLike, standard_error: ArrayLike, *, prior_sd: float, higher_is_better: bool = True
) -> ScepticalPosterior:
    """Posterior of a relative effect under the prior N(0, prior_sd^2), which expects most changes to do little.

    Args:
        effect: Estimated relative effects, any shape.
        standard_error: Their standard errors, > 0, the same shape.
        prior_sd: Standard deviation of true relative effects, > 0; infinity is the flat prior.
        higher_is_better: False: a negative effect is a gain.
    Raises:
        InvalidArgument: Effects not finite, standard errors not positive, or prior_sd not positive.
    Source: precision weighting (Gelman et al., BDA3, section 2.5); losses in closed form, mu Phi(mu/s) + s phi(mu/s).

    >>> flat = sceptical_posterior(0.08, 0.0448678, prior_sd=np.inf)
    >>> flat.probability_beats_control.round(5), flat.loss_if_shipped.round(6), flat.loss_if_kept.round(6)
    (np.float64(0.96271), np.float64(0.000668), np.float64(0.080668))
    """
    effects, errors = np.asarray(effect, dtype=np.float64), np.asarray(standard_error, dtype=np.float64)
    if not (np.isfinite(effects).all() and np.isfinite(errors).all() and (errors > 0.0).all()):
        raise InvalidArgument("effect or standard_error", "it is not finite, or the standard error is not positive")
    if not prior_sd > 0.0:
        raise InvalidArgument("prior_sd", f"{prior_sd} is not positive")
    precision = errors**-2.0 + prior_sd**-2.0
    mean, sd = np.asarray(effects / errors**2 / precision), np.asarray(precision**-0.5)
    gain = mean if higher_is_better else -mean
    probability = special.ndtr(gain / sd)
    density = sd * np.exp(-0.5 * (gain / sd) ** 2) / np.sqrt(2.0 * np.pi)
    shipped = np.maximum(density - gain * special.ndtr(-gain / sd), 0.0)
    kept = np.maximum(density + gain * probability, 0.0)
    return ScepticalPosterior(mean, sd, probability, shipped, kept)
