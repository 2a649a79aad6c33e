"""Partial pooling of segments by Markov chains (PyMC, sampled by nutpie), with exact likelihoods."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from optimizer.convergence import bulk_ess, r_hat
from optimizer.errors import InvalidArgument, InvalidCounts, NotConverged
from optimizer.pooling_model import Chains, Problem, sampled
from optimizer.relative_means import RelativeMeans

Floats = NDArray[np.float64]

MOST_R_HAT = 1.01  # Vehtari et al. (2021)
LEAST_ESS = 400.0  # the same: 100 a chain of four
MOST_DIVERGENT = 0.003  # of all draws
LEVEL_SD_LOG_ODDS = 2.0  # prior of a segment's level around the others': rates from 1/50 to 50 times as likely
LEVEL_SD_RELATIVE = 10.0  # the same of a relative level, which is about 1


@dataclass(frozen=True, slots=True)
class Responders:
    """What a binary metric has seen, by segment and variant.

    Attributes:
        n_units: Units, >= 0; effective ones where weights moved, so not always whole, shape (n_segments, n_variants).
        n_responders: Units with a response, 0 <= n_responders <= n_units, the same shape.
    Raises:
        InvalidCounts: Shapes differ, or counts that can't be.
    """

    n_units: Floats
    n_responders: Floats

    def __post_init__(self) -> None:
        if self.n_units.shape != self.n_responders.shape:
            raise InvalidCounts("n_responders", f"has shape {self.n_responders.shape}, n_units {self.n_units.shape}")
        if not (np.isfinite(self.n_units).all() and (self.n_responders >= 0.0).all()):
            raise InvalidCounts("n_units", "is not finite, or responders are negative")
        if not (self.n_responders <= self.n_units).all():
            raise InvalidCounts("n_responders", "is more than n_units, or not a number, somewhere")


@dataclass(frozen=True, slots=True)
class DrawnQuantity:
    """One number known by its posterior draws.

    Attributes:
        drawn: The draws of all chains, shape (n_draws,).
    """

    drawn: Floats

    @property
    def mean(self) -> Floats:
        """Posterior mean, shape ()."""
        return np.asarray(self.drawn.mean())

    @property
    def sd(self) -> Floats:
        """Posterior standard deviation, shape ()."""
        return np.asarray(self.drawn.std())

    def probability_above(self, size: float) -> Floats:
        """P(quantity > size), shape ()."""
        return np.asarray((self.drawn > size).mean())

    def interval(self, level: float) -> tuple[Floats, Floats]:
        """Central credible interval.

        Raises:
            InvalidArgument: A level outside (0, 1).
        """
        if not 0.0 < level < 1.0:
            raise InvalidArgument("level", f"{level} is not between 0 and 1")
        low, high = np.quantile(self.drawn, [(1.0 - level) / 2.0, (1.0 + level) / 2.0])
        return np.asarray(low), np.asarray(high)


@dataclass(frozen=True, slots=True)
class Pooled:
    """Draws from the posterior of every segment's effects, and what they say; shapes (n_segments, n_variants) or said.

    Effects are differences from control in units of the segment's base, positive is better; control's are 0.

    Attributes:
        level: Posterior mean of every variant's mean outcome, in outcome units (a rate of a binary metric); NaN where
            the segment's base is not known.
        level_sd: Its posterior standard deviation.
        level_low: Lower end of its central credible interval.
        level_high: Upper end.
        mean: Posterior mean of every effect.
        sd: Its posterior standard deviation.
        low: Lower end of its central credible interval.
        high: Upper end.
        probability_above: P(effect > 0); 0 for control.
        probability_best: P(variant is the best available one of its segment); rows sum to 1.
        average: Draws of the average effects of the variants over segments (log odds for a binary metric), shape
            (n_draws, n_variants); control's are 0.
        tau: Draws of the standard deviation of segments' effects around the averages, shape (n_draws,).
        effects: Draws of the effects, shape (n_draws, n_segments, n_variants): all that `personalise` needs.
        base: What one unit of effect is, in outcome units, NaN where not known, shape (n_segments,).
        available: Variants that can win.
        control_index: Which variant is the control.
        r_hat: Largest rank-normalised split R-hat over all sampled quantities.
        ess: Smallest bulk effective sample size of them.
        n_divergent: Divergent transitions after tuning, of n_draws.
    """

    level: Floats
    level_sd: Floats
    level_low: Floats
    level_high: Floats
    mean: Floats
    sd: Floats
    low: Floats
    high: Floats
    probability_above: Floats
    probability_best: Floats
    average: Floats
    tau: Floats
    effects: Floats
    base: Floats
    available: NDArray[np.bool_]
    control_index: int
    r_hat: float
    ess: float
    n_divergent: int

    def combined(self, weights: ArrayLike) -> DrawnQuantity:
        """Draws of a weighted sum of effects.

        Args:
            weights: Shape (n_segments, n_variants).
        Raises:
            InvalidArgument: Another shape, or not finite.
        """
        factors = np.asarray(weights, dtype=np.float64)
        if factors.shape != self.available.shape or not np.isfinite(factors).all():
            raise InvalidArgument("weights", f"shape {factors.shape} is not {self.available.shape}, or not finite")
        return DrawnQuantity(np.tensordot(self.effects, factors, axes=2))

    def draws(self, n_draws: int, *, rng: np.random.Generator) -> Floats:
        """So many of the draws of all effects, chosen anew with replacement, (n_draws, n_segments, n_variants)."""
        return self.effects[rng.integers(len(self.effects), size=n_draws)]


def partial_pooling(
    seen: Responders | RelativeMeans,
    *,
    control_index: int,
    seed: int,
    available: ArrayLike = True,
    higher_is_better: bool = True,
    average_sd: float = 0.2,
    tau_scale: float = 0.1,
    level: float = 0.95,
    n_draws: int = 2_000,
    n_tune: int = 1_000,
    n_chains: int = 4,
    cores: int = 2,
    progress: Callable[[float], None] | None = None,
) -> Pooled:
    """Sample the posterior of every segment's effects, each shrunk to the variant's average over segments.

    The model is that of `hierarchy.segment_effects`, with the binomial likelihood of a binary metric in place of normal
    errors: level_s + average_k + interaction_sk, in log odds for `Responders`, relative to the base for
    `RelativeMeans`; interactions N(0, tau^2) for every variant, tau half-normal, averages N(0, average_sd^2).

    Args:
        seen: `Responders` of a binary metric, or `hierarchy.RelativeMeans` (estimates and variances) of any other.
        control_index: Which variant is the control.
        seed: Of all chains; the same seed on the same versions gives the same draws.
        available: Variants that can win, broadcasts to (n_segments, n_variants).
        higher_is_better: False: effects are mirrored, so that positive is better.
        average_sd: Prior standard deviation of the average effects.
        tau_scale: Scale of tau's half-normal prior.
        level: Posterior probability of the intervals, in (0, 1).
        n_draws: Draws kept of each chain. By 1,000 the means of 50 x 5 effects are worth over 4,000 draws, but their
            spreads only 1,200, so that the largest of 250 R-hats comes near 1.01 by chance; 2,000 cost seconds.
        n_tune: Draws of each chain spent on tuning.
        n_chains: Chains, at least 2.
        cores: Chains that run at the same time.
        progress: Called with the share done, from 0 to 1, at the few stages there are (the sampler itself is one).
    Raises:
        InvalidCounts: Responders that can't be.
        InvalidArgument: Shapes differ, fewer than two variants, or a setting out of its range.
        NotConverged: R-hat over 1.01, a bulk effective sample size under 400, or more than 3 divergences in 1,000.
    Source: Gelman et al., Bayesian Data Analysis, 3rd edition, chapter 5; Vehtari et al. (2021), Bayesian Analysis
        16(2), for the diagnostics.
    """
    _check(control_index=control_index, shape=_shape(seen), n_chains=n_chains, n_draws=n_draws, level=level)
    problem = _problem(seen, control_index=control_index, average_sd=average_sd, tau_scale=tau_scale)
    chains = sampled(
        problem, seed=seed, n_draws=n_draws, n_tune=n_tune, n_chains=n_chains, cores=cores, progress=progress
    )
    agreement = required_agreement(chains, control_index=control_index)
    pooled = _summed_up(
        seen,
        chains,
        control_index=control_index,
        available=np.broadcast_to(np.asarray(available, dtype=np.bool_), _shape(seen)),
        sign=1.0 if higher_is_better else -1.0,
        level=level,
        agreement=agreement,
    )
    if progress is not None:
        progress(1.0)
    return pooled


def _shape(seen: Responders | RelativeMeans) -> tuple[int, ...]:
    return (seen.n_units if isinstance(seen, Responders) else seen.estimate).shape


def _check(*, control_index: int, shape: tuple[int, ...], n_chains: int, n_draws: int, level: float) -> None:
    if len(shape) != 2 or shape[0] < 1 or shape[1] < 2:
        raise InvalidArgument("seen", f"shape {shape} is not that of segments by two or more variants")
    if not 0 <= control_index < shape[1]:
        raise InvalidArgument("control_index", f"{control_index} is none of {shape[1]} variants")
    if n_chains < 2 or n_draws < 4:
        raise InvalidArgument("n_draws", f"{n_chains} chains of {n_draws} draws can't be checked against each other")
    if not 0.0 < level < 1.0:
        raise InvalidArgument("level", f"{level} is not between 0 and 1")


def _problem(seen: Responders | RelativeMeans, *, control_index: int, average_sd: float, tau_scale: float) -> Problem:
    for name, scale in (("average_sd", average_sd), ("tau_scale", tau_scale)):
        if not 0.0 < scale < np.inf:
            raise InvalidArgument(name, f"{scale} is not positive and finite")
    estimate, precision, centre = _normal_view(seen)
    binary = isinstance(seen, Responders)
    return Problem(
        estimate=estimate,
        precision=precision,
        counts=(seen.n_units, seen.n_responders) if isinstance(seen, Responders) else None,
        level_centre=centre,
        level_sd=LEVEL_SD_LOG_ODDS if binary else LEVEL_SD_RELATIVE,
        control_index=control_index,
        average_sd=average_sd,
        tau_scale=tau_scale,
    )


def _normal_view(seen: Responders | RelativeMeans) -> tuple[Floats, Floats, float]:
    """Estimates of every place with their precisions, 0 where there is none, and the middle of the levels."""
    if isinstance(seen, RelativeMeans):
        if (seen.variance <= 0.0).any():
            raise InvalidArgument("variance", f"{np.nanmin(seen.variance)} is not positive: no estimate is certain")
        known = np.isfinite(seen.estimate) & np.isfinite(seen.variance)
        precision = np.where(known, 1.0 / np.where(known, seen.variance, 1.0), 0.0)
        centre = float(seen.estimate[known].mean()) if known.any() else 1.0
        return np.where(known, seen.estimate, 0.0), precision, centre
    n, responders = seen.n_units, seen.n_responders
    yes, no = responders + 0.5, n - responders + 0.5
    used = n.sum(axis=1) > 0.0
    pooled = (responders.sum(axis=1)[used] + 0.5) / (n.sum(axis=1)[used] + 1.0)
    centre = float(special.logit(pooled).mean()) if used.any() else 0.0
    return np.log(yes / no), np.where(n > 0.0, 1.0 / (1.0 / yes + 1.0 / no), 0.0), centre


def required_agreement(chains: Chains, *, control_index: int) -> tuple[float, float]:
    """The worst R-hat and the fewest effective draws over tau, averages, and the place of every segment's variant.

    Raises:
        NotConverged: R-hat over 1.01, a bulk effective sample size under 400, or more than 3 divergences in 1,000.
    """
    free = np.delete(chains.average, control_index, axis=2)
    all_of_them = [chains.tau, free, chains.place]
    worst = max(float(r_hat(draws).max()) for draws in all_of_them)
    fewest = min(float(bulk_ess(draws).min()) for draws in all_of_them)
    if not (worst <= MOST_R_HAT and fewest >= LEAST_ESS and chains.n_divergent <= MOST_DIVERGENT * chains.tau.size):
        raise NotConverged(worst, fewest, n_divergent=chains.n_divergent)
    return worst, fewest


def _summed_up(
    seen: Responders | RelativeMeans,
    chains: Chains,
    *,
    control_index: int,
    available: NDArray[np.bool_],
    sign: float,
    level: float,
    agreement: tuple[float, float],
) -> Pooled:
    place = chains.place.reshape(-1, *chains.place.shape[2:])
    means, relative, base = _scaled(seen, place, control_index=control_index)
    effects = sign * (relative - relative[..., control_index, np.newaxis])
    tails = [(1.0 - level) / 2.0, (1.0 + level) / 2.0]
    level_low, level_high = np.quantile(means, tails, axis=0)
    low, high = np.quantile(effects, tails, axis=0)
    return Pooled(
        level=means.mean(axis=0),
        level_sd=means.std(axis=0),
        level_low=level_low,
        level_high=level_high,
        mean=effects.mean(axis=0),
        sd=effects.std(axis=0),
        low=low,
        high=high,
        probability_above=(effects > 0.0).mean(axis=0),
        probability_best=_probability_best(effects, available),
        average=sign * chains.average.reshape(-1, chains.average.shape[2]),
        tau=chains.tau.reshape(-1),
        effects=effects,
        base=base,
        available=available,
        control_index=control_index,
        r_hat=agreement[0],
        ess=agreement[1],
        n_divergent=chains.n_divergent,
    )


def _scaled(seen: Responders | RelativeMeans, place: Floats, *, control_index: int) -> tuple[Floats, Floats, Floats]:
    """Mean outcomes, the same in units of the base, and the base (NaN where the segment had none)."""
    if isinstance(seen, RelativeMeans):
        return place * seen.base[:, np.newaxis], place, seen.base
    means = np.asarray(special.expit(place))
    unit = means[..., control_index].mean(axis=0)
    return means, means / unit[:, np.newaxis], np.where(seen.n_units.sum(axis=1) > 0.0, unit, np.nan)


def _probability_best(effects: Floats, available: NDArray[np.bool_]) -> Floats:
    winner = np.where(available, effects, -np.inf).argmax(axis=2)
    wins = [(winner == variant).mean(axis=0) for variant in range(available.shape[1])]
    return np.where(available.any(axis=1, keepdims=True), np.stack(wins, axis=1), 0.0)
