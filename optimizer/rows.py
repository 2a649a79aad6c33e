"""Posteriors taken row by row: in parts that bound memory, and by a quick rule where it can be trusted."""

from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
from numpy.typing import NDArray

from optimizer.posteriors import BetaPosterior, Posterior, StudentPosterior

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]

CELLS_AT_ONCE = 8_000  # bounds the memory of one pass to some 10 MB


def mapped(posterior: Posterior, change: Callable[[Floats], Floats]) -> Posterior:
    """The same posterior with every parameter array reshaped or selected alike."""
    if isinstance(posterior, BetaPosterior):
        return BetaPosterior(change(posterior.alpha), change(posterior.beta))
    location, scale = change(posterior.location), change(posterior.scale)
    return StudentPosterior(location, scale, change(posterior.degrees_of_freedom))


def mirrored(posterior: Posterior) -> Posterior:
    """The posterior of 1 minus a rate, or of a mean with its sign turned: the order of variants is the other way."""
    if isinstance(posterior, BetaPosterior):
        return BetaPosterior(posterior.beta, posterior.alpha)
    return StudentPosterior(-posterior.location, posterior.scale, posterior.degrees_of_freedom)


def parts(posterior: Posterior, *, cells: int) -> Iterator[Posterior]:
    """Matrices (n_rows, n_variants) of a few rows each; a row counts as so many cells of memory."""
    n_variants = posterior.mean.shape[-1]
    step = max(1, CELLS_AT_ONCE // cells)
    for start in range(0, max(1, posterior.mean.size // n_variants), step):
        yield mapped(posterior, partial(_rows, part=slice(start, start + step)))


def settled(
    rows: Posterior,
    *,
    quick: Callable[[Posterior, int], tuple[Floats, Flags]],
    efforts: tuple[int, ...],
    sure: Callable[[Posterior], Floats],
) -> Floats:
    """Answers by the quick rule with the least effort that it calls trusted, and by the sure one where none is.

    Args:
        rows: Posteriors, shape (n_rows, n_variants).
        quick: Of some rows and an effort: answers (n_rows, ...), and which rows to trust, shape (n_rows,).
        efforts: What to try, in this order.
        sure: Of some rows: answers of the same shape.
    """
    pending, answer = np.arange(len(rows.mean)), None
    for effort in efforts:
        found, trusted = quick(chosen(rows, pending), effort)
        answer = _put(answer, found, row=pending)
        pending = pending[~trusted]
        if pending.size == 0:
            return answer
    return _put(answer, sure(chosen(rows, pending)), row=pending)


def _put(answer: Floats | None, found: Floats, *, row: NDArray[np.intp]) -> Floats:
    if answer is None:
        return found
    answer[row] = found
    return answer


def chosen(rows: Posterior, row: NDArray[np.intp]) -> Posterior:
    """Some rows of a matrix of posteriors."""
    return mapped(rows, lambda values: values[row])


def _rows(values: Floats, *, part: slice) -> Floats:
    return values.reshape(-1, values.shape[-1])[part]
