"""How much segments' effects differ: the marginal posterior of their standard deviation, on a grid that finds it."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

_NODES = 33
_ZOOMS = 4
_DEPTH = 18.0  # log density below the peak at which the posterior is taken to end: e^-18 of it
_WIDEST = 100.0  # scales; the first grid is geometric from 1e-3 to here


@dataclass(frozen=True, slots=True)
class TauGrid:
    """Nodes of tau with their posterior weights, and the average effects given each.

    Attributes:
        tau: Nodes, ascending, shape (n_nodes,).
        weight: Posterior probabilities, summing to 1, the same shape.
        average: Posterior mean of the average effects given the node, control's 0, shape (n_nodes, n_variants).
        covariance: Their posterior covariance given the node, shape (n_nodes, n_variants, n_variants).
    """

    tau: Floats
    weight: Floats
    average: Floats
    covariance: Floats


def tau_grid(estimate: Floats, precision: Floats, *, prior: Floats, control_index: int, scale: float) -> TauGrid:
    """Find where tau's posterior lies and lay equal steps over it.

    A first geometric grid brackets the peak; each zoom lays equal steps over what lies within e^-18 of it, so that
    1,000 segments of 10^9 units, which pin tau to 2 %, are resolved as well as 3 small ones. Weights are trapezoidal.

    Args:
        estimate: Estimates, 0 where there is none, shape (n_segments, n_variants).
        precision: Their sampling precisions, 0 where there is none, the same shape.
        prior: Prior precisions of the average effects, shape (n_variants,); control's is not read.
        control_index: Which variant is the control: its average is 0.
        scale: Of tau's half-normal prior.
    """
    free = np.delete(np.arange(prior.size), control_index)
    tau = np.concatenate([[0.0], scale * np.geomspace(1e-3, _WIDEST, _NODES)])
    for _ in range(_ZOOMS):
        density = _conditional(tau, estimate, precision=precision, prior=prior, free=free)[0] - 0.5 * (tau / scale) ** 2
        inside = np.flatnonzero(density > density.max() - _DEPTH)
        low, high = tau[max(inside[0] - 1, 0)], tau[min(inside[-1] + 1, tau.size - 1)]
        tau = np.linspace(low, high, _NODES)
    log_likelihood, average, covariance = _conditional(tau, estimate, precision=precision, prior=prior, free=free)
    density = log_likelihood - 0.5 * (tau / scale) ** 2
    weight = np.exp(density - density.max())
    weight[[0, -1]] *= 0.5
    return TauGrid(tau, weight / weight.sum(), average, covariance)


def _conditional(
    tau: Floats, estimate: Floats, *, precision: Floats, prior: Floats, free: NDArray[np.intp]
) -> tuple[Floats, Floats, Floats]:
    """Log likelihood of each tau (up to a constant), and the averages' mean and covariance given it.

    With gain = 1 / (sampling variance + tau^2) and the flat level integrated out, a segment tells of the averages by
    the precision diag(gain) - gain gain' / sum(gain); segments add up.
    """
    n_variants = prior.size
    told = 1.0 + precision * (tau**2)[:, np.newaxis, np.newaxis]
    gain = precision / told
    total = gain.sum(axis=2)
    safe = np.where(total > 0.0, total, 1.0)
    share = gain / safe[..., np.newaxis]
    rest = estimate - (share * estimate).sum(axis=2, keepdims=True)
    told_of_averages = -np.einsum("tsk,tsl->tkl", gain, share)
    told_of_averages[:, np.arange(n_variants), np.arange(n_variants)] += gain.sum(axis=1)
    matrix = told_of_averages[:, free[:, np.newaxis], free] + np.diag(prior[free])
    pull = (gain * rest).sum(axis=1)[:, free]
    inverse = np.linalg.inv(matrix) if free.size else matrix
    mean = np.einsum("tkl,tl->tk", inverse, pull)
    squares = (gain * rest**2).sum(axis=(1, 2)) - (pull * mean).sum(axis=1)
    volume = np.log(told).sum(axis=(1, 2)) + np.log(safe).sum(axis=1) + np.linalg.slogdet(matrix)[1]
    average = np.zeros((tau.size, n_variants))
    covariance = np.zeros((tau.size, n_variants, n_variants))
    average[:, free] = mean
    covariance[:, free[:, np.newaxis], free] = inverse
    return -0.5 * (squares + volume), average, covariance
