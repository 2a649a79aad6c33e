"""Where posteriors are integrated: over the log odds of a rate, where its density fades at both ends; a mean itself."""

import numpy as np
from numpy.typing import NDArray
from scipy import special

from optimizer.posteriors import BetaPosterior, Posterior, StudentPosterior
from optimizer.rows import mirrored

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]

OUTSIDE = 1e-10  # mass beyond each end of the range, at most

_LEAST_COUNT = 8.0  # of alpha and beta from which on bounds are found in closed form
_FAR = 6.5  # normal score of the bounds then, a little more than the 6.36 of that mass: these cumulants are not all

_LEAST_RATE = 1e-300


def bounds(posterior: Posterior) -> tuple[Floats, Floats]:
    """Between which coordinates nearly all mass lies, and hardly more than that, of the shape of the parameters."""
    if isinstance(posterior, StudentPosterior):
        return tails(posterior, np.array(OUTSIDE))
    low, high = _from_cumulants(posterior)
    few = np.minimum(posterior.alpha, posterior.beta) < _LEAST_COUNT
    if few.any():
        exact = tails(BetaPosterior(posterior.alpha[few], posterior.beta[few]), np.array(OUTSIDE))
        low[few], high[few] = exact
    return low, high


def _from_cumulants(rates: BetaPosterior) -> tuple[Floats, Floats]:
    """Bounds of log odds, the logarithm of one gamma variable less that of another, from four cumulants.

    Source: Cornish & Fisher (1938), Revue de l'Institut International de Statistique 5(4).
    """
    own, other = _of_log_gamma(rates.alpha), _of_log_gamma(rates.beta)
    mean, third = own[0] - other[0], own[2] - other[2]
    variance, fourth = own[1] + other[1], own[3] + other[3]
    sd = np.sqrt(variance)
    skew, excess = third / sd**3, fourth / variance**2
    middle = mean + sd * skew * (_FAR**2 - 1.0) / 6.0
    away = sd * (_FAR + excess * (_FAR**3 - 3.0 * _FAR) / 24.0 - skew**2 * (2.0 * _FAR**3 - 5.0 * _FAR) / 36.0)
    return middle - away, middle + away


def _of_log_gamma(count: Floats) -> tuple[Floats, ...]:
    """Four cumulants of the logarithm of a gamma variable: polygamma functions, by their series (DLMF 5.15.8)."""
    one = 1.0 / count
    return (
        special.psi(count),
        one * (1.0 + one * (0.5 + one / 6.0)),
        -(one**2) * (1.0 + one * (1.0 + one / 2.0)),
        one**3 * (2.0 + one * (3.0 + one * 2.0)),
    )


def tails(posterior: Posterior, q: Floats) -> tuple[Floats, Floats]:
    """Coordinates of the quantiles q and 1 - q, for small q without loss of digits."""
    if isinstance(posterior, StudentPosterior):
        lower = posterior.ppf(q)
        return lower, 2.0 * posterior.location - lower
    return coordinate(posterior, posterior.ppf(q)), -coordinate(posterior, mirrored(posterior).ppf(q))


def coordinate(posterior: Posterior, outcome: Floats) -> Floats:
    """Where outcomes lie; rates of 0 and less lie at some -700."""
    if isinstance(posterior, StudentPosterior):
        return outcome
    return np.asarray(special.logit(np.clip(outcome, _LEAST_RATE, 1.0)))


def outcome(posterior: Posterior, at: Floats) -> Floats:
    """The outcomes at some coordinates."""
    return np.asarray(special.expit(at)) if isinstance(posterior, BetaPosterior) else at


def stretch(posterior: Posterior, at: Floats) -> Floats:
    """How much outcome there is to one step of the coordinate."""
    if isinstance(posterior, StudentPosterior):
        return np.ones(at.shape)
    return np.asarray(special.expit(at) * special.expit(-at))


def width(posterior: Posterior) -> Floats:
    """About one standard deviation of the coordinate, of the shape of the parameters."""
    if isinstance(posterior, StudentPosterior):
        return posterior.scale
    return np.asarray(np.sqrt(1.0 / posterior.alpha + 1.0 / posterior.beta))


def density(posterior: Posterior, at: Floats) -> Floats:
    """Density in the coordinate."""
    if isinstance(posterior, StudentPosterior):
        return posterior.pdf(at)
    larger = -np.log1p(np.exp(-np.abs(at)))  # logarithms of the two chances, the larger and the smaller
    smaller = larger - np.abs(at)
    is_low, a, b = at <= 0.0, posterior.alpha, posterior.beta
    log_density = np.where(is_low, a, b) * smaller + np.where(is_low, b, a) * larger - special.betaln(a, b)
    return np.asarray(np.exp(log_density))


def cdf(posterior: Posterior, at: Floats) -> Floats:
    """Probability that the coordinate is at most this."""
    tail, is_low = _tail(posterior, at)
    return np.asarray(np.where(is_low, tail, 1.0 - tail))


def shortfall(posterior: Posterior, at: Floats) -> Floats:
    """Mean by which outcomes fall short of that at a coordinate: the integral of the distribution function up to it.

    NaN for Student posteriors of 1 degree of freedom or fewer: they have no mean.
    """
    below = cdf(posterior, at)
    if isinstance(posterior, BetaPosterior):
        upto = BetaPosterior(posterior.alpha + 1.0, posterior.beta)
        return np.asarray(special.expit(at) * below - posterior.mean * cdf(upto, at))
    above, more = at - posterior.location, posterior.degrees_of_freedom - 1.0
    square = (more + 1.0) * posterior.scale**2 + above**2
    beyond = np.divide(square * posterior.pdf(at), more, out=np.full(square.shape, np.nan), where=more > 0.0)
    return np.asarray(above * below + beyond)


def score(posterior: Posterior, at: Floats) -> Floats:
    """Normal score of that probability, with all digits at both ends."""
    tail, is_low = _tail(posterior, at)
    beyond = special.ndtri(np.maximum(tail, 1e-300))
    return np.asarray(np.where(is_low, beyond, -beyond))


def _tail(posterior: Posterior, at: Floats) -> tuple[Floats, Flags]:
    """Probability of what lies beyond, away from the centre, and whether that is below."""
    is_low = at <= coordinate(posterior, posterior.mean)
    if isinstance(posterior, StudentPosterior):
        away = np.abs(at - posterior.location) / posterior.scale
        return np.asarray(special.stdtr(posterior.degrees_of_freedom, -away)), is_low
    a, b = np.where(is_low, posterior.alpha, posterior.beta), np.where(is_low, posterior.beta, posterior.alpha)
    return np.asarray(special.betainc(a, b, special.expit(np.where(is_low, at, -at)))), is_low
