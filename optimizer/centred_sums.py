"""Sums of two quantities of the same units, cell by cell, turned into sums about each cell's own means."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from optimizer.errors import InvalidArgument, InvalidCounts

Floats = NDArray[np.float64]
Index = NDArray[np.intp]

_SLACK = 1e-9  # of the squares: what rounding may take from sums that agree


@dataclass(frozen=True, slots=True)
class CentredSums:
    """Two quantities of the units of each cell (a row and a variant), shape (n_rows, n_variants) each.

    Attributes:
        n: Units.
        first: Sum of the first quantity.
        second: Sum of the second.
        first_squares: Sum of squares of the first about its mean in the cell, >= 0.
        second_squares: The same of the second.
        product: Sum of products of both about their means in the cell.
    """

    n: Floats
    first: Floats
    second: Floats
    first_squares: Floats
    second_squares: Floats
    product: Floats

    def squares_of_difference(self, slope: Floats | float) -> Floats:
        """Sum of squares, about its mean in the cell, of the first minus slope times the second; never negative."""
        squares = self.first_squares - slope * (2.0 * self.product - slope * self.second_squares)
        return np.maximum(squares, 0.0)


def centred(n_units: ArrayLike, **sums: ArrayLike) -> CentredSums:
    """Check raw sums and centre them.

    Args:
        n_units: Units, >= 0, may be fractional, shape (n_rows, n_variants).
        sums: By their names, for errors, and in this order: the first quantity, its squares, the second, its squares,
            and the products of both. The same shape.
    Raises:
        InvalidArgument: Not two-dimensional, or shapes differ.
        InvalidCounts: Not finite, negative units, sums without units, or sums that contradict each other.

    >>> two = centred([[2]], y=[[4]], y_squares=[[10]], x=[[6]], x_squares=[[20]], y_times_x=[[14]])  # (1, 2), (3, 4)
    >>> two.first_squares.item(), two.second_squares.item(), two.product.item()
    (2.0, 2.0, 2.0)
    """
    n = np.asarray(n_units, dtype=np.float64)
    if n.ndim != 2:
        raise InvalidArgument("n_units", f"shape {n.shape} is not (strata, variants)")
    wrong = ~(np.isfinite(n) & (n >= 0.0))
    if wrong.any():
        raise InvalidCounts("n_units", f"is {n[wrong][0]:g} somewhere")
    (a, first), (aa, first_raw), (b, second), (bb, second_raw), (ab, product_raw) = (
        (name, _summed(values, name=name, n=n)) for name, values in sums.items()
    )
    first_squares = _squares(first, first_raw, n=n, names=(aa, a))
    second_squares = _squares(second, second_raw, n=n, names=(bb, b))
    product = product_raw - first * _mean(second, n)
    most = np.sqrt(first_squares) * np.sqrt(second_squares) + _SLACK * np.sqrt(first_raw) * np.sqrt(second_raw)
    wrong = np.abs(product) > most * (1.0 + _SLACK)
    if wrong.any():
        raise InvalidCounts(ab, f"{product_raw[wrong][0]:g} contradicts {aa} and {bb}")
    return CentredSums(n, first, second, first_squares, second_squares, product)


def added(values: ArrayLike, *, label: Index, n_labels: int) -> Floats:
    """Rows of equal label added up, shape (n_labels, n_variants).

    Args:
        values: Shape (n_rows, n_variants).
        label: Of each row, below ``n_labels``, shape (n_rows,).
        n_labels: Number of labels.
    """
    rows = np.asarray(values, dtype=np.float64)
    sums = np.zeros((n_labels, *rows.shape[1:]))
    np.add.at(sums, label, rows)
    return sums


def labels_of(values: ArrayLike, *, name: str, n_rows: int) -> Index:
    """Labels of rows as whole numbers.

    Raises:
        InvalidArgument: Not one whole number, 0 or more, for each row.
    """
    labels = np.asarray(values)
    whole = np.issubdtype(labels.dtype, np.integer) or labels.size == 0
    if labels.shape != (n_rows,) or not whole or (labels < 0).any():
        raise InvalidArgument(name, f"{labels.tolist()} is not one whole number, 0 or more, for each of {n_rows} rows")
    return labels.astype(np.intp)


def _summed(values: ArrayLike, *, name: str, n: Floats) -> Floats:
    sums = np.asarray(values, dtype=np.float64)
    if sums.shape != n.shape:
        raise InvalidArgument(name, f"shape {sums.shape} is not {n.shape}, that of n_units")
    if not np.isfinite(sums).all():
        raise InvalidCounts(name, f"is {sums[~np.isfinite(sums)][0]} somewhere")
    orphaned = (n == 0.0) & (sums != 0.0)
    if orphaned.any():
        raise InvalidCounts(name, f"is {sums[orphaned][0]:g} where there are no units")
    return sums


def _squares(total: Floats, squares: Floats, *, n: Floats, names: tuple[str, str]) -> Floats:
    within = squares - total * _mean(total, n)
    wrong = within < -_SLACK * np.abs(squares)
    if wrong.any():
        raise InvalidCounts(names[0], f"{squares[wrong][0]:g} is smaller than {names[1]} squared over n_units")
    return np.maximum(within, 0.0)


def _mean(total: Floats, n: Floats) -> Floats:
    mean: Floats = np.divide(total, n, out=np.zeros(n.shape), where=n > 0.0)
    return mean
