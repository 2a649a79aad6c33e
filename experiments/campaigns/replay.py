"""The bandit run against a past campaign's log, as if it had decided."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np

from experiments.campaigns.log import Campaign, Floats, OutcomeValues
from experiments.errors import UnreadableCampaign
from optimizer.allocation import LARGEST_FLOOR_SHARE, Method, allocation_weights, burn_in_complete
from optimizer.comparison import probability_best
from optimizer.errors import InvalidArgument, NoVariation
from optimizer.posteriors import Posterior, beta_posterior, mean_posterior, weak_mean_prior
from optimizer.replay import Learned, Policy, Replay, ReplayLog, replay

BATCH: Final = 100  # matched rows between two looks of the learner
BURN_IN: Final = 100
FLOOR: Final = 0.01


@dataclass(frozen=True, slots=True)
class Replayed:
    """A replay in the campaign's words; arrays of ``replay`` have shape (n_segments, n_variants)."""

    metric: str
    variants: tuple[str, ...]
    segments: tuple[str, ...]
    replay: Replay


def replay_campaign(
    campaign: Campaign,
    *,
    metric: str | None,
    method: Method,
    rng: np.random.Generator,
    progress: Callable[[int], None] | None = None,
) -> Replayed:
    """Let a method learn from the log, choosing anew for each row and keeping those where it chose what was logged.

    Args:
        campaign: The checked log.
        metric: Name of an outcome column; None is the first.
        method: ``thompson`` or ``top_two``, with the service's own burn-in and floor, segment by segment.
        rng: Order of rows, rejection and choices.
        progress: Called with the number of rows consumed, after each batch.
    Raises:
        UnreadableCampaign: No such outcome, or too few rows match.
    """
    outcome = _outcome(campaign, metric)
    log = ReplayLog(
        variant=campaign.variants.index,
        propensity=campaign.propensity,
        outcome=outcome.value,
        segment=campaign.segments.index,
        n_variants=len(campaign.variants.keys),
        n_segments=len(campaign.segments.keys),
    )
    try:
        found = replay(log, policy(outcome.kind, method), batch=BATCH, rng=rng, progress=progress)
    except InvalidArgument as error:
        raise UnreadableCampaign(f"it can't be replayed: {error}") from None
    return Replayed(outcome.key, campaign.variants.keys, campaign.segments.keys, found)


def policy(kind: str, method: Method) -> Policy:
    """What the learner would do: equal shares for the burn-in, then weights by the probability of being best."""

    def weights(learned: Learned) -> Floats:
        n_variants = learned.n_units.shape[1]
        equal = np.full(learned.n_units.shape, 1.0 / n_variants)
        if not burn_in_complete(learned.n_units, burn_in=BURN_IN):
            return equal
        try:
            best = probability_best(_posterior(kind, learned))
        except NoVariation:
            return equal
        return allocation_weights(best, method=method, floor=min(FLOOR, LARGEST_FLOOR_SHARE / n_variants))

    return weights


def _posterior(kind: str, learned: Learned) -> Posterior:
    if kind == "binary":
        return beta_posterior(learned.n_responders, learned.n_units)
    sums = {"total": learned.total, "sum_squares": learned.sum_squares}
    prior = weak_mean_prior(learned.n_units, n_responders=learned.n_responders, **sums)
    return mean_posterior(learned.n_units, prior=prior, **sums)


def _outcome(campaign: Campaign, metric: str | None) -> OutcomeValues:
    for outcome in campaign.outcomes:
        if metric in {None, outcome.key, outcome.event}:
            return outcome
    raise UnreadableCampaign(f"there is no outcome {metric!r}; say it with --outcome")
