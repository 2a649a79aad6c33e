"""Posteriors of a variant's mean outcome: Beta for rates, Student for means."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from optimizer.errors import InvalidCounts, InvalidPosterior, NoVariation

Floats = NDArray[np.float64]

PRIOR_RESPONDERS_FOR_MEAN = 1.0
PRIOR_RESPONDERS_FOR_VARIANCE = 10.0


@dataclass(frozen=True, slots=True)
class BetaPosterior:
    """Independent Beta posteriors of rates.

    Attributes:
        alpha: Pseudo-count of responders, > 0, shape (..., n_variants).
        beta: Pseudo-count of the other units, > 0, the same shape.
    Raises:
        InvalidPosterior: Shapes differ, or a parameter is not finite and positive.

    >>> BetaPosterior(np.array([2.0]), np.array([6.0])).mean
    array([0.25])
    """

    alpha: Floats
    beta: Floats

    def __post_init__(self) -> None:
        _require_positive(self.alpha, self.beta, name="alpha and beta")

    @property
    def mean(self) -> Floats:
        """Posterior mean of each rate."""
        return np.asarray(self.alpha / (self.alpha + self.beta))

    @property
    def sd(self) -> Floats:
        """Posterior standard deviation of each rate."""
        total = self.alpha + self.beta
        sd: Floats = np.sqrt(self.alpha * self.beta / (total + 1.0)) / total
        return sd

    def pdf(self, x: ArrayLike) -> Floats:
        """Density at x, which broadcasts against the parameters; zero outside [0, 1]."""
        at = np.asarray(x, dtype=np.float64)
        inside = np.clip(at, 0.0, 1.0)
        log_pdf = special.xlogy(self.alpha - 1.0, inside) + special.xlog1py(self.beta - 1.0, -inside)
        pdf: Floats = np.where(at == inside, np.exp(log_pdf - special.betaln(self.alpha, self.beta)), 0.0)
        return pdf

    def cdf(self, x: ArrayLike) -> Floats:
        """Probability that the rate is at most x."""
        inside = np.clip(np.asarray(x, dtype=np.float64), 0.0, 1.0)
        return np.asarray(special.betainc(self.alpha, self.beta, inside), dtype=np.float64)

    def ppf(self, q: ArrayLike) -> Floats:
        """Quantile at probability q."""
        quantile = special.betaincinv(self.alpha, self.beta, np.asarray(q, dtype=np.float64))
        return np.asarray(quantile, dtype=np.float64)

    def interval(self, level: float) -> tuple[Floats, Floats]:
        """Central credible interval at the stated level, as (low, high)."""
        tail = (1.0 - level) / 2.0
        high = special.betainccinv(self.alpha, self.beta, tail)
        return self.ppf(tail), np.asarray(high, dtype=np.float64)


@dataclass(frozen=True, slots=True)
class StudentPosterior:
    """Independent Student posteriors of means.

    Attributes:
        location: Centre, in outcome units, shape (..., n_variants).
        scale: Spread, > 0, in outcome units, the same shape.
        degrees_of_freedom: > 0, the same shape.
    Raises:
        InvalidPosterior: Shapes differ, or a parameter is not finite, or scale or degrees of freedom are not positive.

    >>> StudentPosterior(np.array([1.0]), np.array([2.0]), np.array([4.0])).sd.round(6)
    array([2.828427])
    """

    location: Floats
    scale: Floats
    degrees_of_freedom: Floats

    def __post_init__(self) -> None:
        _require_positive(self.scale, self.degrees_of_freedom, name="scale and degrees_of_freedom")
        if self.location.shape != self.scale.shape or not np.isfinite(self.location).all():
            raise InvalidPosterior("location", f"has shape {self.location.shape} or is not finite")

    @property
    def mean(self) -> Floats:
        """Centre of each posterior (its mean where the degrees of freedom exceed 1)."""
        return self.location

    @property
    def sd(self) -> Floats:
        """Posterior standard deviation; infinite where the degrees of freedom are 2 or fewer."""
        df = self.degrees_of_freedom
        sd: Floats = np.where(df > 2.0, self.scale * np.sqrt(df / np.maximum(df - 2.0, 1e-300)), np.inf)
        return sd

    def pdf(self, x: ArrayLike) -> Floats:
        """Density at x, which broadcasts against the parameters."""
        df = self.degrees_of_freedom
        z = self._standardised(x)
        log_norm = -special.betaln(df / 2.0, 0.5) - 0.5 * np.log(df) - np.log(self.scale)
        pdf: Floats = np.exp(log_norm - (df + 1.0) / 2.0 * np.log1p(z * z / df))
        return pdf

    def cdf(self, x: ArrayLike) -> Floats:
        """Probability that the mean is at most x."""
        cdf: Floats = special.stdtr(self.degrees_of_freedom, self._standardised(x))
        return cdf

    def ppf(self, q: ArrayLike) -> Floats:
        """Quantile at probability q."""
        quantile = special.stdtrit(self.degrees_of_freedom, np.asarray(q, dtype=np.float64))
        ppf: Floats = self.location + self.scale * quantile
        return ppf

    def interval(self, level: float) -> tuple[Floats, Floats]:
        """Central credible interval at the stated level, as (low, high)."""
        low = self.ppf((1.0 - level) / 2.0)
        return low, 2.0 * self.location - low

    def _standardised(self, x: ArrayLike) -> Floats:
        z: Floats = (np.asarray(x, dtype=np.float64) - self.location) / self.scale
        return z


Posterior = BetaPosterior | StudentPosterior


@dataclass(frozen=True, slots=True)
class MeanPrior:
    """Normal-inverse-chi-squared prior of a mean and a variance.

    Attributes:
        mean: Centre, in outcome units; a number, or an array that broadcasts to (..., n_variants), as all of these.
        weight: Units that the centre is worth, > 0.
        variance: Guess of the variance of one unit's outcome, > 0.
        degrees_of_freedom: Units that this guess is worth, > 0.
    """

    mean: float | Floats
    weight: float | Floats
    variance: float | Floats
    degrees_of_freedom: float | Floats

    def __post_init__(self) -> None:
        if not np.isfinite(self.mean).all():
            raise InvalidPosterior("mean", f"is {self.mean}")
        for name, value in (
            ("weight", self.weight),
            ("variance", self.variance),
            ("degrees_of_freedom", self.degrees_of_freedom),
        ):
            if not (np.isfinite(value) & (np.asarray(value) > 0.0)).all():
                raise InvalidPosterior(name, f"is {value}")

    def chosen(self, rows: slice | NDArray[np.intp]) -> "MeanPrior":
        """The priors of some rows, where all parameters are arrays."""
        parameters = (getattr(self, name) for name in self.__dataclass_fields__)
        return MeanPrior(*(np.asarray(values)[rows] for values in parameters))


def beta_posterior(
    n_responders: ArrayLike, n_units: ArrayLike, *, prior_alpha: ArrayLike = 1.0, prior_beta: ArrayLike = 1.0
) -> BetaPosterior:
    """Posterior of each variant's rate from how many of its units responded.

    Args:
        n_responders: Units that responded, 0 <= n_responders <= n_units, shape (..., n_variants).
        n_units: Units, or exposures: may be fractional; the same shape.
        prior_alpha: Prior pseudo-responders, > 0; broadcasts.
        prior_beta: Prior pseudo-units that did not respond, > 0; broadcasts.
    Raises:
        InvalidCounts: Not finite, negative, or more responders than units.
        InvalidPosterior: A prior parameter is not positive.
    Source: Gelman et al., Bayesian Data Analysis, 3rd edition, section 2.4.

    >>> beta_posterior([3], [10]).mean.round(4)
    array([0.3333])
    """
    responders, units = np.broadcast_arrays(_counts(n_responders, "n_responders"), _counts(n_units, "n_units"))
    if (responders > units * (1.0 + 1e-12)).any():
        raise InvalidCounts("n_responders", "exceeds n_units")
    alpha = responders + np.asarray(prior_alpha, dtype=np.float64)
    beta = np.maximum(units - responders, 0.0) + np.asarray(prior_beta, dtype=np.float64)
    return BetaPosterior(alpha, beta)


def mean_posterior(
    n_units: ArrayLike, *, total: ArrayLike, sum_squares: ArrayLike, prior: MeanPrior
) -> StudentPosterior:
    """Posterior of each variant's mean outcome from count, sum and sum of squares.

    Normal-inverse-chi-squared: the mean's marginal posterior is Student with prior df + n degrees of freedom.

    Args:
        n_units: Units, >= 0, may be fractional, shape (..., n_variants).
        total: Sum of the units' outcomes, the same shape.
        sum_squares: Sum of their squares, the same shape.
        prior: A proper prior; `weak_mean_prior` derives one.
    Raises:
        InvalidCounts: Not finite, a negative count, or sums that contradict each other (Cauchy-Schwarz).
    Source: Gelman et al., Bayesian Data Analysis, 3rd edition, section 3.3.

    >>> prior = MeanPrior(mean=0.0, weight=1.0, variance=1.0, degrees_of_freedom=1.0)
    >>> mean_posterior([3.0], total=[6.0], sum_squares=[14.0], prior=prior).location
    array([1.5])
    """
    n, sums, squares = np.broadcast_arrays(
        _counts(n_units, "n_units"), _finite(total, "total"), _finite(sum_squares, "sum_squares")
    )
    within = _within_squares(n, sums=sums, squares=squares)
    weight = prior.weight + n
    df = prior.degrees_of_freedom + n
    sample_mean = np.divide(sums, n, out=np.zeros(n.shape) + prior.mean, where=n > 0.0)
    between = prior.weight * n / weight * (sample_mean - prior.mean) ** 2
    variance = (prior.degrees_of_freedom * prior.variance + within + between) / df
    return StudentPosterior((prior.weight * prior.mean + sums) / weight, np.sqrt(variance / weight), df)


def weak_mean_prior(
    n_units: ArrayLike, *, total: ArrayLike, sum_squares: ArrayLike, n_responders: ArrayLike
) -> MeanPrior:
    """A weak, proper prior of means, from the sums pooled over all variants and segments.

    Most units of a money metric are zeros, so a hundred units may hold no payer at all, and their own variance, zero,
    would be taken for certainty. Information is therefore counted in responders: the prior mean is worth the units that
    hold one responder, and the prior variance the units that hold ten. A variant with r responders then gives its own
    variance the weight r / (r + 10).

    Args:
        n_units: Units, any shape; everything is summed.
        total: Sums of outcomes, the same shape.
        sum_squares: Sums of squared outcomes, the same shape.
        n_responders: Units whose outcome is not zero, the same shape.
    Raises:
        InvalidCounts: As `mean_posterior`, or no responder although the outcomes vary.
        NoVariation: All outcomes are equal (or there are fewer than two): no scale to learn.
    Source: own rule in the family of Gelman et al., Bayesian Data Analysis, 3rd edition, section 3.3.

    >>> weak_mean_prior([900, 100], total=[90, 10], sum_squares=[900, 100], n_responders=[9, 1]).weight
    100.0
    """
    n = np.asarray(_counts(n_units, "n_units").sum())
    sums, squares = np.asarray(_finite(total, "total").sum()), np.asarray(_finite(sum_squares, "sum_squares").sum())
    within = float(_within_squares(n, sums=sums, squares=squares))
    if n < 2.0 or within <= 1e-12 * float(squares):
        raise NoVariation(float(n))
    responders = float(_counts(n_responders, "n_responders").sum())
    if not 0.0 < responders <= n:
        raise InvalidCounts("n_responders", f"is {responders:g} among {n:g} units whose outcomes vary")
    units_per_responder = float(n) / responders
    return MeanPrior(
        mean=float(sums / n),
        weight=PRIOR_RESPONDERS_FOR_MEAN * units_per_responder,
        variance=within / (float(n) - 1.0),
        degrees_of_freedom=PRIOR_RESPONDERS_FOR_VARIANCE * units_per_responder,
    )


def weak_mean_priors(
    n_units: ArrayLike,
    *,
    total: ArrayLike,
    sum_squares: ArrayLike,
    n_responders: ArrayLike,
    least_responders: float = 20.0,
) -> MeanPrior:
    """The weak priors of segments: each from its own variants where these have enough responders, else from all.

    What companies pay may be a thousand times what people do. The variance of all, even if it counts as one unit, is
    then larger than all that a thousand people's units say of themselves.

    Args:
        n_units: Units, shape (n_segments, n_variants).
        total: Sums of outcomes, the same shape.
        sum_squares: Sums of squared outcomes, the same shape.
        n_responders: Units whose outcome is not zero, the same shape.
        least_responders: Of a segment, from which on it speaks for itself; if its outcomes vary.
    Returns:
        Parameters of shape (n_segments + 1, 1); the last row is of all.
    Raises:
        InvalidCounts: As `weak_mean_prior`.
        NoVariation: As that, of all segments together.
    Source: as `weak_mean_prior`.

    >>> priors = weak_mean_priors(
    ...     [[50], [50]], total=[[50], [5e4]], sum_squares=[[100], [1e8]], n_responders=[[50], [50]]
    ... )
    >>> priors.mean.ravel().tolist()
    [1.0, 1000.0, 500.5]
    """
    counted = _counts(n_units, "n_units"), _finite(total, "total"), _finite(sum_squares, "sum_squares")
    responders = _counts(n_responders, "n_responders")
    whole = weak_mean_prior(counted[0], total=counted[1], sum_squares=counted[2], n_responders=responders)
    n, sums, squares, responded = (values.sum(axis=1, keepdims=True) for values in (*counted, responders))
    within = _within_squares(n, sums=sums, squares=squares)
    own = (responded >= max(least_responders, 1.0)) & (n >= 2.0) & (within > 1e-12 * squares)
    n, responded = np.where(own, n, 2.0), np.where(own, responded, 1.0)
    per_responder = n / responded

    def or_whole(values: Floats, of_all: float | Floats) -> Floats:
        return np.vstack([np.where(own, values, of_all), np.reshape(of_all, (1, 1))])

    return MeanPrior(
        mean=or_whole(sums / n, whole.mean),
        weight=or_whole(PRIOR_RESPONDERS_FOR_MEAN * per_responder, whole.weight),
        variance=or_whole(within / (n - 1.0), whole.variance),
        degrees_of_freedom=or_whole(PRIOR_RESPONDERS_FOR_VARIANCE * per_responder, whole.degrees_of_freedom),
    )


def _within_squares(n: Floats, *, sums: Floats, squares: Floats) -> Floats:
    explained = np.divide(sums * sums, n, out=np.zeros(n.shape), where=n > 0.0)
    slack = 1e-9 * np.abs(squares)
    if (explained > squares + slack).any() or ((n == 0.0) & ((sums != 0.0) | (squares != 0.0))).any():
        raise InvalidCounts("sum_squares", "contradicts n_units and total")
    within: Floats = np.maximum(squares - explained, 0.0)
    return within


def _finite(values: ArrayLike, name: str) -> Floats:
    array = np.asarray(values, dtype=np.float64)
    if not np.isfinite(array).all():
        raise InvalidCounts(name, "is not finite everywhere")
    return array


def _counts(values: ArrayLike, name: str) -> Floats:
    array = _finite(values, name)
    if (array < 0.0).any():
        raise InvalidCounts(name, f"is negative ({array.min():g})")
    return array


def _require_positive(first: Floats, second: Floats, *, name: str) -> None:
    if first.shape != second.shape:
        raise InvalidPosterior(name, f"has shapes {first.shape} and {second.shape}")
    for values in (first, second):
        if not (np.isfinite(values).all() and (values > 0.0).all()):
            raise InvalidPosterior(name, "are not finite and positive")
