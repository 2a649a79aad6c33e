"""What a metric's prior means to a posterior: learning and reviewing read the same one."""

from dataclasses import replace

from experiments.series import PinnedPrior
from optimizer.posteriors import MeanPrior


def beta_prior(prior: PinnedPrior | None) -> tuple[float, float]:
    """Pseudo-counts of units that respond and that don't; uniform where no prior is defined.

    >>> beta_prior(PinnedPrior(mean=0.25, n_units=40.0))
    (10.0, 30.0)
    """
    return (1.0, 1.0) if prior is None else (prior.mean * prior.n_units, (1.0 - prior.mean) * prior.n_units)


def mean_prior(prior: PinnedPrior | None, weak: MeanPrior) -> MeanPrior:
    """The prior of a mean: the weak one, with the centre and its weight where they are defined."""
    return weak if prior is None else replace(weak, mean=prior.mean, weight=prior.n_units)
