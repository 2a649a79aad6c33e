"""From a series' tallies to the next weights of its segments: arrays for all segments at once, no database.

Counts are made comparable across time first (``optimizer.exposure``), since base rates move while weights move.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from datetime import datetime, timedelta
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from experiments.catalog.definitions import ExperimentDefinition
from experiments.priors import beta_prior, mean_prior
from experiments.series import PinnedMetric
from experiments.tables import Allocation
from experiments.tallies.read import Ages, Blocks, Tallies
from optimizer.allocation import LARGEST_FLOOR_SHARE, allocation_weights, burn_in_complete
from optimizer.comparison import probability_best
from optimizer.delay import N_EDGES, DelayNotIdentified, delay_curve, matured_fraction
from optimizer.exposure import exposure, half_life_weights
from optimizer.posteriors import (
    BetaPosterior,
    Posterior,
    StudentPosterior,
    beta_posterior,
    mean_posterior,
    weak_mean_priors,
)

Floats = NDArray[np.float64]

MIN_MOVE = 0.01  # a new version is worth its row when a weight moves by this much
MAX_AGE = timedelta(hours=1)  # or when the newest one is this old and the counts have changed
_MAX_CELLS = 500_000  # of one padded array of blocks
_DAY_SECONDS = 86_400.0


@dataclass(frozen=True, slots=True)
class Learnable:
    """An experiment that learns, as read at one moment.

    Attributes:
        series: Its series' number.
        definition: As it is now.
        goal: The pinned metric that it learns from.
        tallies: Of the goal, over all its segments.
        ages: First responses of the goal by age.
        newest: The current allocation of each segment that has not left the series.
        available: Which of the tallies' variants are neither retired nor paused in a segment, shape
            (n_segments, n_variants).
        control: Index of the control among the tallies' variants.
    """

    series: int
    definition: ExperimentDefinition
    goal: PinnedMetric
    tallies: Tallies
    ages: Ages
    newest: Mapping[str, Allocation]
    available: NDArray[np.bool_]
    control: int


@dataclass(frozen=True, slots=True)
class NewWeights:
    """The next allocation of one segment, and the counts that it was computed from."""

    series: int
    segment: str
    version: int
    weights: dict[str, float]
    basis: dict[str, Any]


def new_weights(learnable: Learnable, *, now: datetime) -> list[NewWeights]:
    """The segments whose weights should change, with their next allocation; none while the burn-in lasts.

    Raises:
        OptimizerError: The tallies allow no posterior yet (``NoVariation``: nobody has responded), or are impossible.
    """
    tallies, available = learnable.tallies, learnable.available
    n_units = tallies.by_variant(tallies.n_units)
    if not burn_in_complete(n_units, burn_in=learnable.definition.burn_in, available=available.any(axis=0)):
        return []
    exposed, posterior = _posteriors(learnable, now)
    best, weights = np.zeros(n_units.shape), np.zeros(n_units.shape)
    parameters = _parameters(posterior)
    patterns, pattern_of = np.unique(available, axis=0, return_inverse=True)
    for pattern, columns in enumerate(patterns):
        rows = np.flatnonzero(pattern_of.reshape(-1) == pattern)
        among = probability_best(
            _chosen(posterior, rows, columns=columns), higher_is_better=learnable.goal.higher_is_better
        )
        best[np.ix_(rows, columns)] = among
        weights[rows] = _weights(learnable, best[rows], available=columns)
    counts = _Counts(
        n_units, tallies.by_variant(tallies.n_responders), exposed.n_units, parameters, posterior.mean, best
    )
    return list(_changed(learnable, weights, counts=counts, now=now))


@dataclass(frozen=True, slots=True)
class _Counts:
    """What the weights came from, shapes (n_segments, n_variants)."""

    n_units: Floats
    n_responders: Floats
    exposure: Floats
    posterior: Mapping[str, Floats]
    mean: Floats
    probability_best: Floats

    def basis(self, segment: int, variant: int) -> dict[str, Any]:
        """As kept with the allocation."""
        at = segment, variant
        return {
            "n_units": int(self.n_units[at]),
            "n_responders": int(self.n_responders[at]),
            "exposure": float(self.exposure[at]),
            "posterior": {name: float(values[at]) for name, values in self.posterior.items()},
            "mean": float(self.mean[at]),
            "probability_best": float(self.probability_best[at]),
        }


def _weights(learnable: Learnable, best: Floats, *, available: NDArray[np.bool_]) -> Floats:
    definition = learnable.definition
    return allocation_weights(
        best,
        method=definition.method,
        floor=min(definition.floor, LARGEST_FLOOR_SHARE / int(available.sum())),
        control_index=learnable.control,
        control_share=definition.control_share,
        available=available,
    )


def _changed(learnable: Learnable, weights: Floats, *, counts: _Counts, now: datetime) -> Iterator[NewWeights]:
    """Segments where a weight moved by a point, or the newest version is an hour old and its counts have changed."""
    keys = learnable.tallies.variants
    for i, segment in enumerate(learnable.tallies.segments):
        newest = learnable.newest.get(segment)
        if newest is None:
            continue
        moved = max(abs(weights[i, k] - newest.weights.get(key, 0.0)) for k, key in enumerate(keys)) >= MIN_MOVE
        if not moved and (now - newest.created_at < MAX_AGE or counts.n_units[i].sum() == 0):
            continue
        basis = {key: counts.basis(i, k) for k, key in enumerate(keys) if learnable.available[i, k]}
        if moved or basis != newest.basis:
            shares = dict(zip(keys, map(float, weights[i]), strict=True))
            yield NewWeights(learnable.series, segment, newest.version + 1, shares, basis)


def _chosen(posterior: Posterior, rows: NDArray[np.intp], *, columns: NDArray[np.bool_]) -> Posterior:
    at = np.ix_(rows, columns)
    if isinstance(posterior, BetaPosterior):
        return BetaPosterior(posterior.alpha[at], posterior.beta[at])
    return StudentPosterior(posterior.location[at], posterior.scale[at], posterior.degrees_of_freedom[at])


def _parameters(posterior: Posterior) -> dict[str, Floats]:
    return {field.name: getattr(posterior, field.name) for field in fields(posterior)}


class _Exposed(NamedTuple):
    """Effective units and responders, shapes (n_segments, n_variants)."""

    n_units: Floats
    n_responders: Floats


@dataclass(frozen=True, slots=True)
class _Observed:
    """Counts of blocks as `exposure` takes them: shapes (n_blocks, n_variants), of the weight (n_blocks,)."""

    n_units: Floats
    n_responders: Floats
    matured: Floats
    block_weight: Floats


def _posteriors(learnable: Learnable, now: datetime) -> tuple[_Exposed, Posterior]:
    """Effective exposure and posterior of every variant in every segment, shapes (n_segments, n_variants)."""
    tallies, half_life = learnable.tallies, learnable.definition.half_life_hours
    blocks, ages = tallies.blocks(), tallies.age_seconds(now)
    n_units = tallies.by_block(tallies.n_units, blocks)
    seen = tallies.by_block(tallies.n_units * _matured(learnable, ages, now=now), blocks)
    block_weight = np.ones(blocks.segment.size)
    if half_life is not None:
        mean_age = tallies.by_block(tallies.n_units * ages, blocks).sum(axis=1) / n_units.sum(axis=1)
        block_weight = half_life_weights(mean_age, half_life * 3600.0)
    observed = _Observed(
        n_units=n_units,
        n_responders=tallies.by_block(tallies.n_responders, blocks),
        matured=np.divide(seen, n_units, out=np.ones(seen.shape), where=n_units > 0.0),
        block_weight=block_weight,
    )
    exposed = _exposures(observed, blocks, n_segments=len(tallies.segments))
    if learnable.goal.kind == "binary":
        alpha, beta = beta_prior(learnable.goal.prior)
        return exposed, beta_posterior(exposed.n_responders, exposed.n_units, prior_alpha=alpha, prior_beta=beta)
    row_weight = block_weight[blocks.of_row]
    total = tallies.by_variant(tallies.capped_total * row_weight)
    squares = tallies.by_variant(tallies.capped_squares * row_weight)
    weak = weak_mean_priors(
        exposed.n_units, total=total, sum_squares=squares, n_responders=exposed.n_responders
    ).chosen(slice(-1))
    prior = mean_prior(learnable.goal.prior, weak)
    return exposed, mean_posterior(exposed.n_units, total=total, sum_squares=squares, prior=prior)


def _matured(learnable: Learnable, age_seconds: Floats, *, now: datetime) -> Floats:
    """Share of the responses of each row's units that their age lets us see; 1 while no delay curve is identified."""
    ages = learnable.ages
    days, cohort = np.unique(ages.day, return_inverse=True)
    first = np.zeros((days.size, len(ages.variants), N_EDGES + 1))
    np.add.at(first, (cohort, ages.variant, ages.age_bin), ages.n_first)
    youngest = np.maximum(now.timestamp() - (days + 1) * _DAY_SECONDS, 0.0)
    curve = delay_curve(first, age_seconds=youngest, window_seconds=learnable.goal.window.total_seconds())
    if isinstance(curve, DelayNotIdentified):
        return np.ones(age_seconds.shape)
    return matured_fraction(age_seconds, curve)[np.arange(age_seconds.size), learnable.tallies.variant]


def _exposures(observed: _Observed, blocks: Blocks, *, n_segments: int) -> _Exposed:
    """Exposures of all segments, those of about as many blocks together, padded to the same number of them."""
    n_variants = observed.n_units.shape[1]
    exposed = _Exposed(np.zeros((n_segments, n_variants)), np.zeros((n_segments, n_variants)))
    n_blocks = np.bincount(blocks.segment, minlength=n_segments)
    place = np.arange(blocks.segment.size) - np.repeat(np.cumsum(n_blocks) - n_blocks, n_blocks)  # within its segment
    for segments in _alike(n_blocks, n_variants=n_variants):
        mine = np.flatnonzero(np.isin(blocks.segment, segments))
        row = np.searchsorted(segments, blocks.segment[mine])
        padding = _Padding((segments.size, int(n_blocks[segments].max())), row, place[mine], mine)
        found = exposure(
            padding.of(observed.n_units),
            n_responders=padding.of(observed.n_responders),
            matured=padding.of(observed.matured),
            block_weight=padding.of(observed.block_weight),
        )
        exposed.n_units[segments], exposed.n_responders[segments] = found.n_units, found.n_responders
    return exposed


def _alike(n_blocks: NDArray[np.intp], *, n_variants: int) -> Iterator[NDArray[np.intp]]:
    """Segments in portions, the ones with the fewest blocks first, so that little is padding; each portion ascends."""
    order = np.argsort(n_blocks, kind="stable")
    start = int((n_blocks == 0).sum())
    while start < order.size:
        cells = n_blocks[order[start:]] * n_variants * np.arange(1, order.size - start + 1)
        size = max(1, int(np.searchsorted(cells, _MAX_CELLS)))
        yield np.sort(order[start : start + size])
        start += size


@dataclass(frozen=True, slots=True)
class _Padding:
    """Where the blocks ``mine`` go in an array of shape (n_segments, n_blocks, ...)."""

    shape: tuple[int, int]
    row: NDArray[np.intp]
    place: NDArray[np.intp]
    mine: NDArray[np.intp]

    def of(self, values: Floats) -> Floats:
        array = np.zeros((*self.shape, *values.shape[1:]))
        array[self.row, self.place] = values[self.mine]
        return array
