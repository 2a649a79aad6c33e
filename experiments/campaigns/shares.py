"""How a campaign without given propensities was randomised, as far as its counts tell."""

from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import special

Floats = NDArray[np.float64]
Design = Literal["equal", "the same in every segment", "by segment"]

DOUBT: Final = 0.001  # the sample ratio's alarm


@dataclass(frozen=True, slots=True)
class Shares:
    """What was observed, and what was meant.

    Attributes:
        design: The simplest way to randomise that the counts do not contradict (p >= ``DOUBT``).
        observed: Propensities under that design, shape (n_segments, n_variants); rows sum to 1.
        meant: The weights that the sample ratio is checked against: equal ones, or for want of others the observed.
    """

    design: Design
    observed: Floats
    meant: Floats


def observed_shares(counts: NDArray[np.int64]) -> Shares:
    """Shares from units, shape (n_segments, n_variants), every segment and every variant with at least one.

    Where segments were randomised alike, the shares over all of them are the better estimate; and only where equal
    shares were meant can the counts be checked at all.

    Source: Pearson's chi-squared tests, against equal shares (in all and by segment), then against common ones.
    """
    total = counts.sum(axis=0, keepdims=True)
    equal = np.full(counts.shape, 1.0 / counts.shape[1])
    common = np.broadcast_to(total / total.sum(), counts.shape)
    if min(_p_value(total, equal[:1], n_fitted=0), _p_value(counts, equal, n_fitted=0)) >= DOUBT:
        return Shares("equal", common, equal)
    if _p_value(counts, common, n_fitted=counts.shape[1] - 1) >= DOUBT:
        return Shares("the same in every segment", common, common)
    by_segment = counts / counts.sum(axis=1, keepdims=True)
    return Shares("by segment", by_segment, by_segment)


def _p_value(counts: NDArray[np.int64], shares: Floats, *, n_fitted: int) -> float:
    expected = counts.sum(axis=1, keepdims=True) * shares
    freedom = counts.shape[0] * (counts.shape[1] - 1) - n_fitted
    return float(special.chdtrc(freedom, ((counts - expected) ** 2 / expected).sum())) if freedom > 0 else 1.0
