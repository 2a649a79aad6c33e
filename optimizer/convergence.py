"""Whether Markov chains agree, and how many independent draws theirs are worth."""

import numpy as np
from numpy.typing import NDArray
from scipy import special

from optimizer.errors import InvalidArgument

Floats = NDArray[np.float64]


def r_hat(draws: Floats) -> Floats:
    """Rank-normalised split R-hat, the larger of that of the draws and of their distances from the median.

    Args:
        draws: Shape (n_chains, n_draws, ...), at least 2 chains of 4 draws.
    Returns:
        Shape (...): 1 where chains agree; over 1.01 don't read them.
    Raises:
        InvalidArgument: Too few chains or draws.
    Source: Vehtari, Gelman, Simpson, Carpenter & Bürkner (2021), Bayesian Analysis 16(2), sections 3 and 4.
    """
    split = _split(draws)
    folded = np.abs(split - np.median(split, axis=(0, 1)))
    return np.maximum(_plain_r_hat(_normal_scores(split)), _plain_r_hat(_normal_scores(folded)))


def bulk_ess(draws: Floats) -> Floats:
    """Effective sample size in the bulk: of rank-normalised split chains, by Geyer's initial monotone sequence.

    Args:
        draws: Shape (n_chains, n_draws, ...), at least 2 chains of 4 draws.
    Returns:
        Shape (...), in draws; at most n log10(n) of n draws in all, as chains that alternate can seem worth more.
    Raises:
        InvalidArgument: Too few chains or draws.
    Source: Vehtari et al. (2021), equations 10 to 13; Geyer (1992), Statistical Science 7(4).
    """
    scores = _normal_scores(_split(draws))
    shape = scores.shape[2:]
    flat = scores.reshape(*scores.shape[:2], -1)
    found = [_ess(flat[..., quantity]) for quantity in range(flat.shape[2])]
    return np.array(found).reshape(shape)


def _split(draws: Floats) -> Floats:
    """Each chain as two, its halves."""
    if draws.ndim < 2 or draws.shape[0] < 2 or draws.shape[1] < 4:
        raise InvalidArgument("draws", f"shape {draws.shape} is not that of 2 or more chains of 4 or more draws")
    half = draws.shape[1] // 2
    return np.concatenate([draws[:, :half], draws[:, -half:]])


def _normal_scores(split: Floats) -> Floats:
    """Ranks among all draws of a quantity (ties share theirs), as normal quantiles (Blom's)."""
    from scipy.stats import rankdata

    n_all = split.shape[0] * split.shape[1]
    ranks = rankdata(split.reshape(n_all, -1), axis=0, method="average")
    scores: Floats = special.ndtri((ranks - 0.375) / (n_all + 0.25))
    return scores.reshape(split.shape)


def _plain_r_hat(chains: Floats) -> Floats:
    n = chains.shape[1]
    within = chains.var(axis=1, ddof=1).mean(axis=0)
    between = chains.mean(axis=1).var(axis=0, ddof=1)
    # Chains without any spread agree if they stand at the same place.
    ratio = np.divide(between, within, out=np.where(between > 0.0, np.inf, 0.0), where=within > 0.0)
    found: Floats = np.sqrt((n - 1.0) / n + ratio)
    return found


def _ess(chains: Floats) -> float:
    n_chains, n = chains.shape
    covariance = _autocovariance(chains).mean(axis=0)
    within = covariance[0] * n / (n - 1.0)
    total = within * (n - 1.0) / n + chains.mean(axis=1).var(ddof=1)
    if not total > 0.0:
        return float(n_chains * n)
    correlation = 1.0 - (within - covariance) / total
    correlation[0] = 1.0
    pairs = correlation[: n // 2 * 2].reshape(-1, 2).sum(axis=1)
    # The first pair that isn't positive ends the sequence, or else the last one; its first half still counts.
    last = int(np.argmax(pairs <= 0.0)) if (pairs <= 0.0).any() else pairs.size - 1
    kept = np.minimum.accumulate(pairs[:last])
    odd = max(correlation[2 * last], 0.0) if 2 * last < n else 0.0
    n_all = n_chains * n
    time = max(2.0 * kept.sum() - 1.0 + odd, 1.0 / np.log10(n_all))
    return float(n_all / time)


def _autocovariance(chains: Floats) -> Floats:
    """Biased autocovariances of every lag, by Fourier transform."""
    n = chains.shape[1]
    centred = chains - chains.mean(axis=1, keepdims=True)
    spectrum = np.fft.rfft(centred, n=2 * n, axis=1)
    covariance: Floats = np.fft.irfft(np.abs(spectrum) ** 2, axis=1)[:, :n] / n
    return covariance
