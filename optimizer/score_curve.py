"""Distribution functions at many places: as polynomials, since each value of the function itself costs much.

The normal score of a posterior's distribution function is nearly straight in its coordinate, so that a polynomial
through few values tells it everywhere. Its last coefficients say where it can't be trusted.

Source: Trefethen (2013), Approximation Theory and Approximation Practice, chapters 3 and 8.
"""

from dataclasses import dataclass

import numpy as np
from numpy.polynomial import chebyshev
from numpy.typing import NDArray
from scipy import special

from optimizer.coordinate import bounds, coordinate, score
from optimizer.posteriors import Posterior
from optimizer.rows import chosen

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]
Index = NDArray[np.intp]

_PLACES = chebyshev.chebpts1(24)
_LAST = 3  # coefficients that must have faded
_FADED = 1e-7  # of a normal score: the polynomial is nearer than that
_NOTHING = 1e-13


@dataclass(frozen=True, slots=True)
class ScoreCurve:
    """Polynomials of posteriors' scores over nearly all of their mass.

    Attributes:
        posterior: Of some rows, shape (n_rows, 1).
        low: Lower end of the range, in the coordinate, shape (n_rows, 1).
        high: Upper end.
        coefficients: Of Chebyshev polynomials, shape (n_coefficients, n_rows, 1).
        trusted: Rows whose function is exact to 2e-8 (1e-8 where alpha and beta are 8 at least), shape (n_rows,).
    """

    posterior: Posterior
    low: Floats
    high: Floats
    coefficients: Floats
    trusted: Flags

    @classmethod
    def of(cls, posterior: Posterior) -> "ScoreCurve":
        """Through the posteriors' own values at a few places each."""
        low, high = bounds(posterior)
        scores = score(posterior, low + (high - low) * (_PLACES + 1.0) / 2.0)
        fitted = np.asarray(chebyshev.chebfit(_PLACES, scores.T, _PLACES.size - 1), dtype=np.float64)
        trusted = np.abs(fitted[-_LAST:]).max(axis=0) <= _FADED
        used = np.flatnonzero((np.abs(fitted) > _NOTHING)[:, trusted].any(axis=1)).max(initial=1)
        return cls(posterior, low, high, fitted[: used + 1, :, np.newaxis], trusted)

    def cdf(self, outcome: Floats, rows: Index) -> Floats:
        """P(a row's outcome is at most this), shape (n_chosen, n_places); 1e-10 beyond the range, or 1 less that.

        Args:
            outcome: The same shape.
            rows: Which rows it is asked of, shape (n_chosen,).
        """
        low, high = self.low[rows], self.high[rows]
        places = np.clip((2.0 * coordinate(self.posterior, outcome) - low - high) / (high - low), -1.0, 1.0)
        scores = chebyshev.chebval(places, self.coefficients[:, rows], tensor=False)
        return np.asarray(special.ndtr(scores))

    def chosen(self, rows: Index) -> "ScoreCurve":
        """The curves of some rows."""
        return ScoreCurve(
            chosen(self.posterior, rows),
            self.low[rows],
            self.high[rows],
            self.coefficients[:, rows],
            self.trusted[rows],
        )
