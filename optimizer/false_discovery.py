"""Which segments' winners may be called proven together."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from optimizer.errors import InvalidArgument


def discoveries(probability_best: ArrayLike, *, rate: float = 0.05) -> NDArray[np.bool_]:
    """The largest set of segments whose expected share of wrong winners is at most the rate.

    Taking segments in order of certainty, the mean of (1 - probability best) over those taken is the posterior
    expectation of the share that is wrong. The set does not depend on how many hopeless segments stand beside it.

    Args:
        probability_best: Posterior probability that the segment's winner is truly best, shape (n_segments,).
        rate: Largest accepted mean of (1 - probability best), in (0, 1).
    Returns:
        True for the segments in the set, shape (n_segments,).
    Raises:
        InvalidArgument: Not one-dimensional, not within [0, 1], or a rate outside (0, 1).
    Source: Newton et al. (2004), Biostatistics 5(2), "Detecting differential gene expression", direct posterior
        probability approach.

    >>> discoveries([0.99, 0.60, 0.93])
    array([ True, False,  True])
    """
    certain = np.asarray(probability_best, dtype=np.float64)
    if certain.ndim != 1:
        raise InvalidArgument("probability_best", f"shape {certain.shape} is not one-dimensional")
    if not ((certain >= 0.0) & (certain <= 1.0)).all():
        raise InvalidArgument("probability_best", "it is not within [0, 1] everywhere")
    if not 0.0 < rate < 1.0:
        raise InvalidArgument("rate", f"{rate} is not between 0 and 1")
    order = np.argsort(-certain, kind="stable")
    expected_share_wrong = np.cumsum(1.0 - certain[order]) / np.arange(1, certain.size + 1)
    chosen = np.zeros(certain.size, dtype=np.bool_)
    chosen[order] = expected_share_wrong <= rate
    return chosen


def adjusted_p_values(p_value: ArrayLike) -> NDArray[np.float64]:
    """Smallest rate of false discoveries at which each is one, by Benjamini and Hochberg.

    Always-valid p-values are one over e-values, so this is the e-BH procedure: the rate holds whenever one stops to
    look, and however the tests depend on each other. Where nothing is true, anything is ever discovered with at most
    that probability (the mean of e-processes is one; Ville).

    Args:
        p_value: Always-valid p-values, shape (n_segments,).
    Returns:
        Of the same shape, in [0, 1]; those at most the rate wanted are discovered.
    Raises:
        InvalidArgument: Not one-dimensional, or not within [0, 1].
    Source: Wang & Ramdas (2022), JRSS B 84(3), arXiv:2009.02824; Benjamini & Hochberg (1995), JRSS B 57(1).

    >>> adjusted_p_values([0.01, 0.5, 0.02]).round(3)
    array([0.03, 0.5 , 0.03])
    """
    values = np.asarray(p_value, dtype=np.float64)
    if values.ndim != 1:
        raise InvalidArgument("p_value", f"shape {values.shape} is not one-dimensional")
    if not ((values >= 0.0) & (values <= 1.0)).all():
        raise InvalidArgument("p_value", "it is not within [0, 1] everywhere")
    order = np.argsort(values, kind="stable")
    scaled = values[order] * values.size / np.arange(1, values.size + 1)
    adjusted = np.empty(values.shape)
    adjusted[order] = np.minimum.accumulate(scaled[::-1])[::-1]
    return adjusted
