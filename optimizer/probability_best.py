"""Each variant's posterior probability of being the best, by quadrature."""

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy import special

from optimizer.posteriors import Posterior, StudentPosterior
from optimizer.rows import chosen, mapped, mirrored

Floats = NDArray[np.float64]

# Mass left out beyond each end of the integration range, per variant.
TAIL = 1e-10
# One rule over the whole range: few nodes first, more for the segments that fail its checks.
SINGLE_RULES = (64, 160)
SUM_TOLERANCE = 1e-8
MASS_TOLERANCE = 1e-7
# Panels between every posterior's own quantiles, for the segments that fail those rules too.
PANEL_NODES = 16
PANEL_TAILS = np.array([1e-10, 1e-8, 1e-6, 1e-5, 1e-4, 1e-3, 0.01, 0.1, 0.5])
# Elements evaluated at once: small enough for the processor's cache.
CHUNK = 300_000


def probability_best(posterior: Posterior, *, higher_is_better: bool = True) -> Floats:
    """Probability that each variant's mean outcome is the best of its segment, the posteriors being independent.

    P_k is the integral of f_k times the other variants' F_j. Rates are integrated over their log odds, where a density
    that is singular in [0, 1] (Jeffreys' prior) is smooth; means over their own values. The range starts at the largest
    of the variants' lower tails, below which nothing can win. A single Gauss-Legendre rule serves most segments, and
    two free checks find the others: the raw probabilities must sum to 1 within 1e-8, and the rule must return each
    density's known mass over the range within 1e-7 (the sum alone let an error of 2e-6 through in 20,000 hard random
    cases: errors of two variants can cancel). The others get panels between every posterior's own quantiles.

    Absolute error below 1e-6, in tests below 1e-7, for 0.1 <= alpha, beta <= 1e9 and degrees of freedom >= 1.

    Args:
        posterior: Parameters of shape (n_segments, n_variants) or (n_variants,), at least one variant.
        higher_is_better: False mirrors everything: the lowest mean is then the best.
    Returns:
        Probabilities of the shape of the parameters; each segment's sum to 1.
    Source: Evans & Swartz (2000), Approximating Integrals, for the rules; the checks are our own.

    >>> from optimizer.posteriors import BetaPosterior
    >>> probability_best(BetaPosterior(np.array([5.0, 5.0]), np.array([9.0, 9.0])))
    array([0.5, 0.5])
    """
    shape = posterior.mean.shape
    oriented = posterior if higher_is_better else mirrored(posterior)
    segments = mapped(oriented, lambda parameter: parameter.reshape(-1, parameter.shape[-1]))
    best = np.ones(segments.mean.shape)
    pending = np.arange(0 if segments.mean.size == len(best) else len(best))
    for n_nodes in SINGLE_RULES:
        raw, trusted = _single_rule(chosen(segments, pending), n_nodes)
        best[pending[trusted]] = raw[trusted]
        pending = pending[~trusted]
    if pending.size > 0:
        best[pending] = _panel_rule(chosen(segments, pending))
    best /= best.sum(axis=1, keepdims=True)
    return best.reshape(shape)


@dataclass(frozen=True, slots=True)
class _Panels:
    """Intervals of the integration coordinate, each belonging to one row (segment)."""

    row: NDArray[np.intp]
    low: Floats
    high: Floats


def _single_rule(segments: Posterior, n_nodes: int) -> tuple[Floats, NDArray[np.bool_]]:
    lower, upper = _tails(segments, np.array(TAIL))
    low, high = lower.max(axis=1), upper.max(axis=1)
    raw, mass = _integrate(segments, _Panels(np.arange(low.size), low, high), n_nodes=n_nodes)
    mass_below = _density_and_cdf(segments, low[:, None])[1]
    trusted = (np.abs(raw.sum(axis=1) - 1.0) <= SUM_TOLERANCE) & (
        np.abs(mass + mass_below - 1.0).max(axis=1, initial=0.0) <= MASS_TOLERANCE
    )
    return raw, trusted


def _panel_rule(segments: Posterior) -> Floats:
    lower, upper = _tails(_expanded(segments), PANEL_TAILS)
    low, high = lower[..., 0].max(axis=1, keepdims=True), upper[..., 0].max(axis=1, keepdims=True)
    edges = np.concatenate([lower, upper], axis=2).reshape(len(low), 2 * lower[0].size)
    edges = np.sort(np.clip(edges, low, high), axis=1)
    row, first = np.nonzero(np.diff(edges, axis=1) > 0.0)
    panels = _Panels(row, edges[row, first], edges[row, first + 1])
    return _integrate(segments, panels, n_nodes=PANEL_NODES)[0]


def _integrate(segments: Posterior, panels: _Panels, *, n_nodes: int) -> tuple[Floats, Floats]:
    """Integrals over the panels of each variant's winning density, and of its plain density, per row."""
    nodes, node_weights = _rule(n_nodes)
    n_variants = segments.mean.shape[-1]
    won, mass = np.zeros((len(segments.mean), n_variants)), np.zeros((len(segments.mean), n_variants))
    step = max(1, CHUNK // (n_nodes * max(1, n_variants)))
    for start in range(0, panels.row.size, step):
        row, low = panels.row[start : start + step], panels.low[start : start + step, None]
        half = (panels.high[start : start + step, None] - low) / 2.0
        at = low + half * (1.0 + nodes)
        pdf, cdf = _density_and_cdf(_expanded(chosen(segments, row)), at[:, None, :])
        weighted = pdf * (half * node_weights)[:, None, :]
        np.add.at(mass, row, weighted.sum(axis=2))
        # Every cdf is at least TAIL here, so dividing is safe.
        np.add.at(won, row, (weighted / cdf * cdf.prod(axis=1, keepdims=True)).sum(axis=2))
    return won, mass


@cache
def _rule(n_nodes: int) -> tuple[Floats, Floats]:
    nodes, node_weights = np.polynomial.legendre.leggauss(n_nodes)
    return nodes, node_weights


def _density_and_cdf(posterior: Posterior, at: Floats) -> tuple[Floats, Floats]:
    """Density and distribution function in the integration coordinate (log odds of a rate; a mean itself)."""
    if isinstance(posterior, StudentPosterior):
        return posterior.pdf(at), posterior.cdf(at)
    log_larger = -np.log1p(np.exp(-np.abs(at)))
    log_smaller = log_larger - np.abs(at)
    below = at <= 0.0
    a, b = np.where(below, posterior.alpha, posterior.beta), np.where(below, posterior.beta, posterior.alpha)
    pdf: Floats = np.exp(a * log_smaller + b * log_larger - special.betaln(posterior.alpha, posterior.beta))
    tail = np.asarray(special.betainc(a, b, np.exp(log_smaller)), dtype=np.float64)
    return pdf, np.where(below, tail, 1.0 - tail)


def _tails(posterior: Posterior, q: Floats) -> tuple[Floats, Floats]:
    """Integration coordinates of the quantiles q and 1 - q, for small q without loss of digits."""
    if isinstance(posterior, StudentPosterior):
        lower = posterior.ppf(q)
        return lower, 2.0 * posterior.location - lower
    return _log_odds(posterior.ppf(q)), -_log_odds(mirrored(posterior).ppf(q))


def _log_odds(rate: Floats) -> Floats:
    log_odds: Floats = np.log(np.maximum(rate, 1e-300)) - np.log1p(-rate)
    return log_odds


def _expanded(posterior: Posterior) -> Posterior:
    return mapped(posterior, lambda parameter: parameter[..., None])
