"""How variants compare under independent posteriors: expected loss, chance to beat control, uplift."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from optimizer.errors import InvalidArgument
from optimizer.posteriors import BetaPosterior, Posterior, StudentPosterior

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]

# Panels run between these normal scores of every posterior involved, with Gauss-Legendre nodes inside.
_SCORES = np.array([-7.5, -6.0, -4.7, -3.6, -2.6, -1.7, -0.85, 0.0, 0.85, 1.7, 2.6, 3.6, 4.7, 6.0, 7.5])
_LEVELS = special.ndtr(_SCORES)
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(6)
_ROWS_AT_ONCE = 500

_ROOT_STEPS = 40
_ROOT_TOLERANCE = 1e-8


@dataclass(frozen=True, slots=True)
class Uplift:
    """Treated minus control, with a central credible interval.

    Attributes:
        estimate: Difference of posterior means, or their ratio minus 1, shape (..., n_variants).
        low: Lower end of the interval, the same shape. All three are NaN where not estimable.
        high: Upper end.
        estimable: False where a relative uplift makes no sense, because control's mean is not clearly above zero.
    """

    estimate: Floats
    low: Floats
    high: Floats
    estimable: Flags


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
        reach = float(special.ndtri(0.5 + _checked_level(level) / 2.0)) * self.sd
        return self.mean - reach, self.mean + reach


def expected_loss(posterior: Posterior, *, higher_is_better: bool = True) -> Floats:
    """Mean outcome given up by shipping each variant instead of the truly best one, by quadrature.

    E[max_j theta_j - theta_k] is the integral of F_k (1 - prod_{j != k} F_j), never negative, taken over panels between
    the quantiles of every variant, so that posteriors of wildly different widths are all resolved. Relative error
    about 1e-6 of the widest posterior's scale or better.

    Args:
        posterior: Independent posteriors, shape (..., n_variants).
        higher_is_better: False mirrors: the best variant is the one with the lowest mean.
    Returns:
        Expected loss, shape (..., n_variants), in outcome units, all >= 0.
    Raises:
        InvalidArgument: A Student posterior without a mean (degrees of freedom of 1 or fewer).
    Source: Stucchio (2015), "Bayesian A/B Testing at VWO"; the integral by Fubini.

    >>> expected_loss(BetaPosterior(np.array([1.0, 1.0]), np.array([1.0, 1.0]))).round(6)
    array([0.166667, 0.166667])
    """
    if isinstance(posterior, StudentPosterior) and (posterior.degrees_of_freedom <= 1.0).any():
        raise InvalidArgument("posterior", "1 or fewer degrees of freedom give no mean, so no expected loss")
    shape = posterior.mean.shape
    loss = np.empty((int(np.prod(shape[:-1])), shape[-1]))
    for start in range(0, loss.shape[0], _ROWS_AT_ONCE):
        part = slice(start, start + _ROWS_AT_ONCE)
        loss[part] = _loss_of_rows(_rows(posterior, part), higher_is_better=higher_is_better)
    return loss.reshape(shape)


def probability_beats(posterior: Posterior, *, control_index: int, higher_is_better: bool = True) -> Floats:
    """Posterior probability that each variant is better than control; 0 for control, which can't beat itself.

    Args:
        posterior: Independent posteriors, shape (..., n_variants).
        control_index: Which variant is the control.
        higher_is_better: False: better means lower.
    Returns:
        Probabilities, shape (..., n_variants), to about 1e-8.
    Raises:
        InvalidArgument: No such control.
    Source: P(theta_k > theta_c) as an average of one posterior's distribution function over the other.

    >>> probability_beats(BetaPosterior(np.array([1.0, 2.0]), np.array([1.0, 1.0])), control_index=0).round(6)
    array([0.      , 0.666667])
    """
    at_most = _Pair.of(posterior, control_index).probability_at_most(0.0, factor=1.0)
    beats: Floats = np.clip(1.0 - at_most if higher_is_better else at_most, 0.0, 1.0)
    beats[..., control_index] = 0.0
    return beats


def absolute_uplift(posterior: Posterior, *, control_index: int, level: float = 0.95) -> Uplift:
    """Difference of each variant's mean from control's, with the exact central credible interval.

    The distribution of the difference is computed by quadrature and inverted; nothing is taken to be normal.

    Args:
        posterior: Independent posteriors, shape (..., n_variants).
        control_index: Which variant is the control.
        level: Posterior probability of the interval, in (0, 1).
    Returns:
        In outcome units; the control's own entry is 0, [0, 0].
    Raises:
        InvalidArgument: No such control, or a level outside (0, 1).

    >>> uplift = absolute_uplift(BetaPosterior(np.array([1.0, 1.0]), np.array([1.0, 1.0])), control_index=0)
    >>> uplift.low.round(4), uplift.high.round(4)  # triangular on [-1, 1]: 1 - sqrt(0.05)
    (array([ 0.    , -0.7764]), array([0.    , 0.7764]))
    """
    pair = _Pair.of(posterior, control_index)
    ends = []
    for probability, (low, high) in zip(_tails(level), pair.brackets(level, relative=False), strict=True):
        end = _root(lambda t: pair.probability_at_most(t, factor=1.0), probability, low=low, high=high)
        end[..., control_index] = 0.0
        ends.append(end)
    mean = posterior.mean
    estimate = mean - mean[..., control_index : control_index + 1]
    return Uplift(estimate, ends[0], ends[1], np.ones(mean.shape, dtype=np.bool_))


def relative_uplift(posterior: Posterior, *, control_index: int, level: float = 0.95) -> Uplift:
    """Each variant's mean over control's, minus 1, with the exact central credible interval of that ratio.

    The interval inverts P(theta_k <= r theta_control), the Bayesian twin of Fieller's, so it excludes 0 exactly when
    that of the absolute uplift does. Like Fieller's it has no meaning when control's mean is near zero: estimable means
    that control's mean is as many standard deviations above zero as the level asks for, and that control's quantile at
    (1 - level) / 4 is positive.

    Args:
        posterior: Independent posteriors, shape (..., n_variants).
        control_index: Which variant is the control.
        level: Posterior probability of the interval, in (0, 1).
    Returns:
        As shares of control (0.1 is one tenth more); NaN where `estimable` is False; 0 for control.
    Raises:
        InvalidArgument: No such control, or a level outside (0, 1).
    Source: Fieller (1954), JRSS B 16(2), for the condition.
    """
    pair = _Pair.of(posterior, control_index)
    reach = float(special.ndtri(0.5 + _checked_level(level) / 2.0))
    mean, control = posterior.mean, slice(control_index, control_index + 1)
    clear = (mean > reach * posterior.sd) & (posterior.ppf((1.0 - level) / 4.0) > 0.0)
    known = np.broadcast_to(clear[..., control], mean.shape)
    ends = []
    for probability, (low, high) in zip(_tails(level), pair.brackets(level, relative=True), strict=True):
        bounds = {"low": np.where(known, low, 1.0), "high": np.where(known, high, 1.0)}
        ratio = _root(lambda t: pair.probability_at_most(0.0, factor=t), probability, **bounds)
        ratio[..., control_index] = 1.0
        ends.append(np.where(known, ratio - 1.0, np.nan))
    base = np.where(known, mean[..., control], np.nan)
    return Uplift(mean / base - 1.0, ends[0], ends[1], known)


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
        InvalidArgument: No such control.
    Source: Deng, Knoblich & Lu (2018), KDD, "Applying the delta method in metric analytics".

    >>> effect, error = relative_effect([0.1, 0.108], [0.09 / 10_000, 0.096336 / 10_000], control_index=0)
    >>> effect.round(4), error.round(7)
    (array([0.  , 0.08]), array([0.       , 0.0448678]))
    """
    means, variances = np.asarray(mean, dtype=np.float64), np.asarray(variance, dtype=np.float64)
    control = _control(means.shape, control_index)
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


@dataclass(frozen=True, slots=True)
class _Pair:
    """Each variant beside control, with the quantiles that the panels run between."""

    variant: Posterior
    control: Posterior
    variant_edges: Floats
    control_edges: Floats

    @classmethod
    def of(cls, posterior: Posterior, control_index: int) -> "_Pair":
        shape = posterior.mean.shape
        chosen = _control(shape, control_index)
        control = _mapped(posterior, lambda values: np.broadcast_to(values[..., chosen], shape))
        edges = posterior.ppf(_LEVELS.reshape(-1, *(1,) * len(shape)))
        return cls(posterior, control, edges, np.broadcast_to(edges[..., chosen], edges.shape))

    def probability_at_most(self, shift: Floats | float, *, factor: Floats | float) -> Floats:
        """P(theta_variant <= shift + factor * theta_control), the mean over control of the variant's F."""
        slope = np.where(np.equal(factor, 0.0), 1e-300, factor)
        lowest, highest = self.control_edges[0], self.control_edges[-1]
        images = np.clip((self.variant_edges - shift) / slope, lowest, highest)
        edges = np.sort(np.concatenate([self.control_edges, images]), axis=0)
        at, weight = _panels(edges)
        density = self.control.pdf(at)
        part = weight * np.where(np.isfinite(density), density, 0.0)  # a node may round to a pole at 0 or 1
        inside = (part * self.variant.cdf(shift + slope * at)).sum(axis=0)
        mean = np.divide(inside, part.sum(axis=0), out=np.zeros_like(inside), where=inside > 0.0)
        mass = np.diff(self.control.cdf(edges), axis=0)
        below: Floats = (mass * mean).sum(axis=0) / mass.sum(axis=0)
        return below

    def brackets(self, level: float, *, relative: bool) -> list[tuple[Floats, Floats]]:
        """Bounds that surely hold each end of the interval, by the union bound on quantiles of both variants."""
        found = []
        for tail in _tails(level):
            below, above = tail / 2.0, (1.0 - tail) / 2.0
            low, high = self.variant.ppf(below), self.variant.ppf(1.0 - above)
            if not relative:
                found.append((low - self.control.ppf(1.0 - below), high - self.control.ppf(above)))
                continue
            least = low / self.control.ppf(np.where(low > 0.0, 1.0 - below, below))
            most = high / self.control.ppf(np.where(high > 0.0, above, 1.0 - above))
            found.append((least, most))
        return found


def _root(function: Callable[[Floats], Floats], probability: float, *, low: Floats, high: Floats) -> Floats:
    """Where a distribution function reaches the probability, elementwise (Illinois rule on normal scores)."""

    def gap(at: Floats) -> Floats:
        score: Floats = special.ndtri(np.clip(function(at), 1e-15, 1.0 - 1e-15)) - special.ndtri(probability)
        return score

    low, high = low.copy(), high.copy()
    gap_low, gap_high = gap(low), gap(high)
    root, sides, found = low, np.zeros(low.shape), high <= low
    for _ in range(_ROOT_STEPS):
        slope = gap_high - gap_low
        secant = (low * gap_high - high * gap_low) / np.where(slope > 0.0, slope, 1.0)
        between = np.where((secant > low) & (secant < high), secant, (low + high) / 2.0)
        root = np.where(found, root, between)
        gap_root = gap(root)
        found |= np.abs(gap_root) < _ROOT_TOLERANCE
        if found.all():
            break
        side = np.sign(gap_root)
        kept = np.where(side == sides, 0.5, 1.0)  # an end that stays twice counts half
        above, sides = side > 0.0, side
        gap_low, gap_high = np.where(above, gap_low * kept, gap_root), np.where(above, gap_root, gap_high * kept)
        low, high = np.where(above, low, root), np.where(above, root, high)
    return root


def _loss_of_rows(posterior: Posterior, *, higher_is_better: bool) -> Floats:
    """Expected losses of a matrix of posteriors (n_rows, n_variants)."""
    edges = posterior.ppf(_LEVELS[:, np.newaxis, np.newaxis])
    at, weight = _panels(np.sort(np.concatenate(list(np.moveaxis(edges, -1, 0))), axis=0))
    below = posterior.cdf(at[..., np.newaxis])
    worse = below if higher_is_better else 1.0 - below
    ones = np.ones_like(worse[..., :1])
    before = np.cumprod(np.concatenate([ones, worse[..., :-1]], axis=-1), axis=-1)
    after = np.cumprod(np.concatenate([ones, worse[..., :0:-1]], axis=-1), axis=-1)[..., ::-1]
    loss: Floats = np.einsum("nps,npsk->sk", weight, worse * (1.0 - before * after))
    return loss


def _panels(edges: Floats) -> tuple[Floats, Floats]:
    """Gauss-Legendre nodes and weights between neighbouring sorted edges, shape (n_nodes, n_panels, ...)."""
    half = np.diff(edges, axis=0) / 2.0
    return edges[:-1] + half + np.multiply.outer(_NODES, half), np.multiply.outer(_WEIGHTS, half)


def _mapped(posterior: Posterior, change: Callable[[Floats], Floats]) -> Posterior:
    if isinstance(posterior, BetaPosterior):
        return BetaPosterior(change(posterior.alpha), change(posterior.beta))
    location, scale = change(posterior.location), change(posterior.scale)
    return StudentPosterior(location, scale, change(posterior.degrees_of_freedom))


def _rows(posterior: Posterior, part: slice) -> Posterior:
    return _mapped(posterior, lambda values: values.reshape(-1, values.shape[-1])[part])


def _tails(level: float) -> tuple[float, float]:
    tail = (1.0 - _checked_level(level)) / 2.0
    return tail, 1.0 - tail


def _checked_level(level: float) -> float:
    if not 0.0 < level < 1.0:
        raise InvalidArgument("level", f"{level} is not between 0 and 1")
    return level


def _control(shape: tuple[int, ...], control_index: int) -> slice:
    if not shape or not 0 <= control_index < shape[-1]:
        raise InvalidArgument("control_index", f"{control_index} is none of the variants of shape {shape}")
    return slice(control_index, control_index + 1)
