"""How many of the segments' winners may be wrong together: the false-discovery bound of verdicts."""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from experiments.catalog.definitions import Gates
from optimizer.false_discovery import adjusted_p_values, discoveries

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Discovered:
    """What the bound says of each segment's winner, and of that over all (the last), which stands for itself.

    Attributes:
        proven: Whether it lets the winner through, shape (n_segments + 1,), as the following.
        wrong_share: Share of wrong winners over the segments as sure as this one: the mean chance of them or, if
            larger, the rate that the always-valid p-values leave.
        sure_at: The always-valid p-value at which a winner passes this bound and the gate of its interval, if the other
            segments stay as sure as they are.
    """

    proven: Flags
    wrong_share: Floats
    sure_at: Floats

    @classmethod
    def of(cls, best: Floats, p_value: Floats, *, compared: Flags, gates: Gates) -> Self:
        """From what is known of the winners.

        Args:
            best: Probability that each is truly best, shape (n_segments + 1,).
            p_value: Always-valid one of its difference (the largest of all rivals' where control wins), the same shape.
            compared: Segments that have two variants to compare, shape (n_segments,).
            gates: With the rate that is allowed.
        """
        rate, alone = gates.false_discovery, 1.0 - gates.interval
        left, sure_at = np.zeros(best.shape), np.full(best.shape, alone)
        rows = np.flatnonzero(compared)
        if rows.size > 1:  # of a segment that alone has anything to compare the gate of the interval is enough
            left[rows] = adjusted_p_values(p_value[rows])
            passed = left[rows] <= rate
            with_it = np.maximum(passed.sum() + ~passed, 1)
            sure_at[rows] = np.minimum(alone, rate * with_it / rows.size)
        likely = np.append(discoveries(best[:-1], rate=rate), discoveries(best[-1:], rate=rate))
        wrong = np.append(_mean_of_surer(1.0 - best[:-1]), 1.0 - best[-1:])
        return cls(likely & (left <= rate), np.maximum(wrong, left), sure_at)


def _mean_of_surer(wrong: Floats) -> Floats:
    """Mean chance to be wrong over all that are as sure as each."""
    order = np.argsort(wrong, kind="stable")
    share = np.empty(wrong.shape)
    share[order] = np.cumsum(wrong[order]) / np.arange(1, wrong.size + 1)
    return share
