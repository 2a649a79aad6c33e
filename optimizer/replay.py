"""A bandit run against the log of a past randomised campaign, without modelling the outcomes."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special

from optimizer.errors import InvalidArgument

Floats = NDArray[np.float64]
Indices = NDArray[np.intp]
Flags = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class ReplayLog:
    """What a randomised campaign left behind, one row a unit.

    Attributes:
        variant: Index of the logged variant, 0 <= variant < n_variants, shape (n_rows,).
        propensity: Probability with which it was chosen, in (0, 1], shape (n_rows,).
        outcome: What the unit did, in outcome units, finite, shape (n_rows,).
        segment: Index of the unit's segment, 0 <= segment < n_segments, shape (n_rows,).
        n_variants: How many variants there were.
        n_segments: How many segments there are.
    Raises:
        InvalidArgument: No rows, shapes differ, or a value out of its range.
    """

    variant: Indices
    propensity: Floats
    outcome: Floats
    segment: Indices
    n_variants: int
    n_segments: int = 1

    def __post_init__(self) -> None:
        shape = self.outcome.shape
        if len(shape) != 1 or shape[0] == 0:
            raise InvalidArgument("outcome", f"shape {shape} is not that of one or more rows")
        for name, indices, count in (
            ("variant", self.variant, self.n_variants),
            ("segment", self.segment, self.n_segments),
        ):
            if indices.shape != shape or indices.min() < 0 or indices.max() >= count:
                raise InvalidArgument(name, f"shape {indices.shape} is not {shape}, or an index is not below {count}")
        if self.propensity.shape != shape or not ((self.propensity > 0.0) & (self.propensity <= 1.0)).all():
            raise InvalidArgument(
                "propensity", f"shape {self.propensity.shape} is not {shape}, or one is not in (0, 1]"
            )
        if not np.isfinite(self.outcome).all():
            raise InvalidArgument("outcome", "it is not finite everywhere")


@dataclass(frozen=True, slots=True)
class Learned:
    """What the policy has seen so far: sums over its matched rows, each of shape (n_segments, n_variants)."""

    n_units: Floats
    n_responders: Floats
    total: Floats
    sum_squares: Floats


Policy = Callable[[Learned], Floats]


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean outcome (or a difference of two) with its standard error and confidence interval, in outcome units."""

    mean: float
    standard_error: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Replay:
    """How a policy would have done.

    Attributes:
        n_rows: Rows in the log.
        n_accepted: Rows left after rejection had made the log uniform.
        n_matched: Of these, rows in which the policy chose the logged variant.
        value: Mean outcome of a unit under the policy, its learning included.
        equal_split: Mean outcome of a unit under equal shares, from all accepted rows.
        difference: value - equal_split; the two share rows, and the interval knows it.
        n_chosen: How often each variant was matched, shape (n_segments, n_variants).
        final_weights: The policy's weights after the last matched row, shape (n_segments, n_variants).
    """

    n_rows: int
    n_accepted: int
    n_matched: int
    value: Estimate
    equal_split: Estimate
    difference: Estimate
    n_chosen: Floats
    final_weights: Floats


def replay(
    log: ReplayLog,
    policy: Policy,
    *,
    batch: int,
    rng: np.random.Generator,
    level: float = 0.95,
    progress: Callable[[int], None] | None = None,
) -> Replay:
    """Run a policy against a log: in shuffled rows, whatever it would have chosen differently is passed over.

    Rows of a non-uniform log are first kept with probability p_min / p, which leaves every variant equally likely
    whatever the segment. Of the rest, a row is matched when the policy, choosing by its current weights, chooses the
    logged variant; matched rows are then distributed as if the policy had run, and only they are learnt from.

    The standard error is that of a martingale, sum of (outcome - mean) squared over matched rows: slightly too large
    when the policy improves on its way, never too small for having adapted.

    Args:
        log: The campaign. Row order carries no time; it is shuffled by the rng.
        policy: From what was learnt, weights of shape (n_segments, n_variants) whose rows sum to 1.
        batch: Matched rows between two calls of the policy, >= 1.
        rng: Order of rows, rejection and choices.
        level: Of the confidence intervals, in (0, 1).
        progress: Called with the number of accepted rows consumed, after each batch.
    Raises:
        InvalidArgument: batch or level out of range, weights that are no probabilities, or under two matched rows.
    Source: Li, Chu, Langford & Wang (2011), WSDM, "Unbiased offline evaluation of contextual-bandit-based news article
        recommendation algorithms", algorithm 2; rejection as in their remark on non-uniform logging.
    """
    if batch < 1:
        raise InvalidArgument("batch", f"{batch} is not positive")
    if not 0.0 < level < 1.0:
        raise InvalidArgument("level", f"{level} is not between 0 and 1")
    rows = _accepted_rows(log, rng)
    uniform = rng.random(rows.size)
    matched = np.zeros(rows.size, dtype=np.bool_)
    learned, weights, start = _nothing(log), _weights(policy, _nothing(log)), 0
    while start < rows.size:
        stop = _consume(log, rows, start=start, batch=batch, weights=weights, uniform=uniform, matched=matched)
        seen = rows[start:stop][matched[start:stop]]
        learned = _added(learned, log=log, rows=seen)
        weights, start = _weights(policy, learned), stop
        if progress is not None:
            progress(stop)
    return _report(log, rows, matched=matched, learned=learned, weights=weights, level=level)


def _accepted_rows(log: ReplayLog, rng: np.random.Generator) -> Indices:
    order = rng.permutation(log.outcome.size)
    keep = rng.random(order.size) * log.propensity[order] < log.propensity.min()
    accepted: Indices = order[keep]
    return accepted


def _consume(
    log: ReplayLog, rows: Indices, *, start: int, batch: int, weights: Floats, uniform: Floats, matched: Flags
) -> int:
    """Mark the next matched rows under constant weights; return where the batch ends."""
    cumulative = np.cumsum(weights, axis=1)
    cumulative[:, -1] = 1.0
    found = 0
    while start < rows.size and found < batch:
        window = slice(start, start + 2 * log.n_variants * (batch - found))
        ahead = rows[window]
        chosen = (uniform[window, np.newaxis] >= cumulative[log.segment[ahead]]).sum(axis=1)
        hits = np.flatnonzero(chosen == log.variant[ahead])[: batch - found]
        matched[start + hits] = True
        found += hits.size
        start += int(hits[-1]) + 1 if found == batch else ahead.size
    return start


def _weights(policy: Policy, learned: Learned) -> Floats:
    weights = np.asarray(policy(learned), dtype=np.float64)
    if weights.shape != learned.n_units.shape:
        raise InvalidArgument("weights", f"the policy's shape {weights.shape} is not {learned.n_units.shape}")
    if not ((weights >= 0.0).all() and (np.abs(weights.sum(axis=1) - 1.0) < 1e-6).all()):
        raise InvalidArgument("weights", "a row of the policy's is negative or does not sum to 1")
    return weights


def _nothing(log: ReplayLog) -> Learned:
    zeros = np.zeros((log.n_segments, log.n_variants))
    return Learned(zeros, zeros, zeros, zeros)


def _added(learned: Learned, *, log: ReplayLog, rows: Indices) -> Learned:
    cell = log.segment[rows] * log.n_variants + log.variant[rows]
    outcome, shape = log.outcome[rows], learned.n_units.shape

    def sums(values: Floats) -> Floats:
        counted = np.bincount(cell, weights=values, minlength=shape[0] * shape[1])
        return np.asarray(counted, dtype=np.float64).reshape(shape)

    return Learned(
        learned.n_units + sums(np.ones(rows.size)),
        learned.n_responders + sums((outcome != 0.0).astype(np.float64)),
        learned.total + sums(outcome),
        learned.sum_squares + sums(outcome**2),
    )


def _report(
    log: ReplayLog, rows: Indices, *, matched: Flags, learned: Learned, weights: Floats, level: float
) -> Replay:
    outcome, n_matched = log.outcome[rows], int(matched.sum())
    if n_matched < 2:
        raise InvalidArgument("log", f"only {n_matched} rows match the policy's choices")
    value, equal = float(outcome[matched].mean()), float(outcome.mean())
    of_policy = np.where(matched, outcome - value, 0.0) / n_matched
    of_equal = (outcome - equal) / rows.size
    return Replay(
        log.outcome.size,
        rows.size,
        n_matched,
        _estimate(value, influence=of_policy, level=level),
        _estimate(equal, influence=of_equal, level=level),
        _estimate(value - equal, influence=of_policy - of_equal, level=level),
        learned.n_units,
        weights,
    )


def _estimate(mean: float, *, influence: Floats, level: float) -> Estimate:
    error = float(np.sqrt((influence**2).sum()))
    reach = float(special.ndtri(0.5 + level / 2.0)) * error
    return Estimate(mean, error, mean - reach, mean + reach)
