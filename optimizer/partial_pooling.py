"""Partial pooling of segments by Markov chains (PyMC, sampled by nutpie): exact likelihoods, no normal approximation."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Responders:
    """What a binary metric has seen, by segment and variant.

    Attributes:
        n_units: Units, >= 0; effective ones where weights moved, so not always whole, shape (n_segments, n_variants).
        n_responders: Units with a response, 0 <= n_responders <= n_units, the same shape.
    """

    n_units: Floats
    n_responders: Floats


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


def partial_pooling(
    seen: "Responders | RelativeMeans",
    *,
    control_index: int,
    seed: int,
    available: ArrayLike = True,
    higher_is_better: bool = True,
    average_sd: float = 0.2,
    tau_scale: float = 0.1,
    level: float = 0.95,
    n_draws: int = 1_000,
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
        n_draws: Draws kept of each chain.
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
    raise NotImplementedError
