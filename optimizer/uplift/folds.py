"""Folds in order of time: a model of earlier customers is judged on later ones, as it would be used."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from optimizer.errors import InvalidArgument


def chronological_folds(customer: ArrayLike, *, n_folds: int) -> NDArray[np.intp]:
    """The fold of each unit, shape (n_units,): customers stand in the order of their first units, as many in each fold.

    Args:
        customer: Whole numbers, of units in the order of time, shape (n_units,); all units of one share a fold.
        n_folds: How many.
    Raises:
        InvalidArgument: Fewer customers than folds.

    >>> chronological_folds([7, 7, 3, 5, 3, 9], n_folds=2)
    array([0, 0, 0, 1, 0, 1])
    """
    _, first, label = np.unique(np.asarray(customer), return_index=True, return_inverse=True)
    if not 1 <= n_folds <= first.size:
        raise InvalidArgument("n_folds", f"is {n_folds} for {first.size} customers")
    fold = np.empty(first.size, dtype=np.intp)
    fold[np.argsort(first, kind="stable")] = np.arange(first.size) * n_folds // first.size
    return fold[label]
