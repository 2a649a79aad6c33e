"""Posteriors that are normal given a scale which is not known: mixtures of normals over the nodes of its grid."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special

from optimizer.errors import InvalidArgument
from optimizer.roots import bracketed_root, secant_root

Floats = NDArray[np.float64]
Index = NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class NormalMixture:
    """Quantities, each a mixture of normals with the same weights.

    Attributes:
        weight: Probability of each node, summing to 1, shape (n_nodes,).
        node_mean: Mean given the node, shape (n_nodes, ...).
        node_sd: Standard deviation given the node, >= 0, the same shape.
    """

    weight: Floats
    node_mean: Floats
    node_sd: Floats

    @property
    def mean(self) -> Floats:
        """Mean of each quantity, shape (...)."""
        return np.tensordot(self.weight, self.node_mean, axes=1)

    @property
    def sd(self) -> Floats:
        """Standard deviation of each quantity, shape (...)."""
        between = (self.node_mean - self.mean) ** 2
        sd: Floats = np.sqrt(np.tensordot(self.weight, self.node_sd**2 + between, axes=1))
        return sd

    def probability_above(self, size: float) -> Floats:
        """P(quantity > size), shape (...); of one without spread, 0 or 1."""
        return np.clip(np.tensordot(self.weight, _above(size, mean=self.node_mean, sd=self.node_sd), axes=1), 0.0, 1.0)

    def interval(self, level: float) -> tuple[Floats, Floats]:
        """Central credible interval: its ends, each of shape (...).

        Raises:
            InvalidArgument: A level outside (0, 1).

        >>> one = NormalMixture(np.array([0.5, 0.5]), np.zeros((2, 1)), np.array([[1.0], [1.0]]))
        >>> [end.round(4) for end in one.interval(0.95)]
        [array([-1.96]), array([1.96])]
        """
        if not 0.0 < level < 1.0:
            raise InvalidArgument("level", f"{level} is not between 0 and 1")
        tail = (1.0 - level) / 2.0
        return self._quantile(tail), self._quantile(1.0 - tail)

    def _quantile(self, probability: float) -> Floats:
        shape = self.node_mean.shape[1:]
        centre, spread = self.mean.reshape(-1), self.sd.reshape(-1)
        found = centre.copy()
        spreads = np.flatnonzero(spread > 0.0)
        mean = self.node_mean.reshape(self.weight.size, -1)[:, spreads]
        sd = self.node_sd.reshape(self.weight.size, -1)[:, spreads]

        def below(at: Floats, index: Index) -> Floats:
            return self.weight @ (1.0 - _above(at, mean=mean[:, index], sd=sd[:, index]))

        root, reached = secant_root(below, probability, around=(centre[spreads], spread[spreads]))
        left = np.flatnonzero(~reached)
        if left.size:
            ends = mean[:, left] + special.ndtri(probability) * sd[:, left]
            root[left] = bracketed_root(
                lambda at, index: below(at, left[index]), probability, low=ends.min(axis=0), high=ends.max(axis=0)
            )
        found[spreads] = root
        return found.reshape(shape)


def _above(size: Floats | float, *, mean: Floats, sd: Floats) -> Floats:
    score = np.divide(mean - size, sd, out=np.where(mean > size, np.inf, -np.inf), where=sd > 0.0)
    above: Floats = special.ndtr(score)
    return above
