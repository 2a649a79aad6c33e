"""Which variant is best when most changes are expected to do little: effects that share one control, shrunk."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from optimizer.errors import InvalidArgument

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class ScepticalEffects:
    """Normal posterior of every variant's relative effect, with what all of them owe to the one control.

    Given the error of control's mean, shared by all, effects are independent; so effect_k = centre_k + tie_k x error +
    own noise. Control's entries are 0.

    Attributes:
        mean: Posterior means, positive is better, shape (..., n_variants).
        tie: How far each moves with control's error, the same shape.
        own_variance: Variance of the noise of its own, the same shape.
        shared_variance: Posterior variance of control's error, shape (...).
        available: Variants that can win, shape (..., n_variants).
    """

    mean: Floats
    tie: Floats
    own_variance: Floats
    shared_variance: Floats
    available: NDArray[np.bool_]

    @property
    def sd(self) -> Floats:
        """Posterior standard deviation of each effect, shape (..., n_variants)."""
        sd: Floats = np.sqrt(self.own_variance + self.tie**2 * self.shared_variance[..., np.newaxis])
        return sd

    @property
    def best(self) -> NDArray[np.intp]:
        """The available variant with the best posterior mean, shape (...)."""
        best: NDArray[np.intp] = np.where(self.available, self.mean, -np.inf).argmax(axis=-1)
        return best

    def probability_best(self) -> Floats:
        """P(the best one is truly best), at least: 1 minus the rivals' summed chances (exact for two variants)."""
        gap, sd, rivals = self._rivals()
        with np.errstate(divide="ignore", invalid="ignore"):
            ahead = np.where(sd > 0.0, special.ndtr(gap / sd), 0.0)
        probability: Floats = np.maximum(0.0, 1.0 - np.where(rivals, ahead, 0.0).sum(axis=-1))
        return probability

    def expected_loss(self) -> Floats:
        """Mean effect given up by the best one, at most: the sum over rivals of E max(0, rival - best), relative."""
        gap, sd, rivals = self._rivals()
        score = np.divide(gap, sd, out=np.zeros(gap.shape), where=sd > 0.0)
        density = np.exp(-0.5 * score**2) / np.sqrt(2.0 * np.pi)
        loss = np.maximum(gap * special.ndtr(score) + sd * density, 0.0)
        total: Floats = np.where(rivals, loss, 0.0).sum(axis=-1)
        return total

    def probability_within(self, size: float) -> Floats:
        """P(|effect| < size) of each variant, shape (..., n_variants); 1 for control."""
        sd = np.maximum(self.sd, 1e-300)
        inside: Floats = special.ndtr((size - self.mean) / sd) - special.ndtr((-size - self.mean) / sd)
        return inside

    def _rivals(self) -> tuple[Floats, Floats, NDArray[np.bool_]]:
        """Each variant's effect minus the best one's: mean, standard deviation, and which are rivals at all."""
        best = self.best[..., np.newaxis]
        gap = self.mean - np.take_along_axis(self.mean, best, axis=-1)
        tie = self.tie - np.take_along_axis(self.tie, best, axis=-1)
        own = self.own_variance + np.take_along_axis(self.own_variance, best, axis=-1)
        variance = own + tie**2 * self.shared_variance[..., np.newaxis]
        rivals = self.available.copy()
        np.put_along_axis(rivals, best, values=False, axis=-1)
        return gap, np.sqrt(variance), rivals


def sceptical_effects(
    effect: ArrayLike,
    variance: ArrayLike,
    *,
    control_variance: ArrayLike,
    control_index: int,
    prior_sd: ArrayLike,
    higher_is_better: bool = True,
    available: ArrayLike = True,
) -> ScepticalEffects:
    """Posterior of relative effects under independent priors N(0, prior_sd^2), their errors tied by the common control.

    Args:
        effect: Estimated relative effects, NaN where there is none (the prior then stays), shape (..., n_variants).
        variance: Their sampling variances, the same shape.
        control_variance: The part of these that is control's own and so common to all, shape (...).
        control_index: Which variant is the control.
        prior_sd: Standard deviation of true relative effects, > 0, shape (...) or a number for all.
        higher_is_better: False: a negative effect is a gain; results are mirrored, so that positive is better.
        available: Variants that can win, broadcasts to (..., n_variants).
    Raises:
        InvalidArgument: Shapes differ, a negative variance, no such control, or prior_sd not positive and finite.
    Source: Gelman et al., Bayesian Data Analysis, 3rd edition, sections 2.5 and 5.5, the common error integrated out.

    >>> effects = sceptical_effects(
    ...     [0.0, 0.2195122], [0.0, 0.117466**2], control_variance=0.005, control_index=0, prior_sd=0.3
    ... )
    >>> effects.mean[1].round(4), effects.probability_best().round(4)
    (np.float64(0.1903), np.float64(0.9591))
    """
    effects, variances = np.asarray(effect, dtype=np.float64), np.asarray(variance, dtype=np.float64)
    shared = np.asarray(control_variance, dtype=np.float64)
    if effects.shape != variances.shape or shared.shape != effects.shape[:-1]:
        raise InvalidArgument("variance", f"shapes {effects.shape}, {variances.shape}, {shared.shape} do not fit")
    if not 0 <= control_index < effects.shape[-1]:
        raise InvalidArgument("control_index", f"{control_index} is none of {effects.shape[-1]} variants")
    prior = np.broadcast_to(np.square(np.asarray(prior_sd, dtype=np.float64)), shared.shape)[..., np.newaxis]
    if not ((prior > 0.0) & (prior < np.inf) & (np.asarray(prior_sd)[..., np.newaxis] > 0.0)).all():
        raise InvalidArgument("prior_sd", f"{prior_sd!r} is not positive and finite")
    if (variances < 0.0).any() or (shared < 0.0).any():
        raise InvalidArgument("variance", "it is negative somewhere")
    known = np.isfinite(effects) & np.isfinite(variances)
    known[..., control_index] = False
    common = np.minimum(shared, np.where(known, variances, np.inf).min(axis=-1))
    common = np.where(np.isfinite(common), common, 0.0)
    own = np.where(known, variances - common[..., np.newaxis], np.inf)
    tie = prior / (own + prior)
    told = np.where(known, effects if higher_is_better else -effects, 0.0)
    pull = 1.0 / (own + prior)
    shared_variance = common / (1.0 + common * pull.sum(axis=-1))
    error = -(pull * told).sum(axis=-1) * shared_variance
    own_variance = prior * (1.0 - tie)
    own_variance[..., control_index] = 0.0
    mean = tie * (told + error[..., np.newaxis])
    can_win = np.broadcast_to(np.asarray(available, dtype=np.bool_), effects.shape)
    return ScepticalEffects(mean, tie, own_variance, shared_variance, can_win)
