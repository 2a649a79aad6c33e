"""Personalise or not: is giving each segment its own variant worth it, compared with the one best for all?"""

from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from optimizer.errors import InvalidArgument
from optimizer.prequential import PrequentialValue

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]
Index = NDArray[np.intp]
Verdict = Literal["personalise", "one_for_all", "undecided"]

_POTENTIAL_DRAWS = 1_000
_FEWEST_DRAWS = 100
_MOST_NUMBERS = 2_000_000  # of all draws together: 16 MB; a mean over many segments needs few draws


class Quantity(Protocol):
    """One number with a posterior: a mixture of normals, or draws."""

    @property
    def mean(self) -> Floats:
        """Posterior mean, shape ()."""

    def probability_above(self, size: float) -> Floats:
        """P(quantity > size), shape ()."""

    def interval(self, level: float) -> tuple[Floats, Floats]:
        """Central credible interval."""


class EffectPosterior(Protocol):
    """What `hierarchy.SegmentEffects` and `partial_pooling.Pooled` both are."""

    @property
    def mean(self) -> Floats:
        """Posterior means of the effects, positive is better, shape (n_segments, n_variants)."""

    @property
    def available(self) -> Flags:
        """Variants that can win, the same shape."""

    def combined(self, weights: ArrayLike) -> Quantity:
        """Posterior of a weighted sum of effects."""

    def draws(self, n_draws: int, *, rng: np.random.Generator) -> Floats:
        """Joint draws of the effects, shape (n_draws, n_segments, n_variants)."""


@dataclass(frozen=True, slots=True)
class Personalisation:
    """Whether to personalise, and what that rests on. Values are shares of the overall base: 0.02 is 2 % of it.

    Attributes:
        verdict: "personalise", "one_for_all", or "undecided".
        reason: Why, in words.
        one_for_all: The variant that is best if all segments get the same.
        chosen: The variant each segment would get, shape (n_segments,).
        differs: Segments that would get another than the one for all, shape (n_segments,).
        value: Posterior mean of what the segments' own choices add to the one for all.
        low: Lower end of its central credible interval.
        high: Upper end.
        probability_worth: P(value > worth).
        potential: Posterior mean of what knowing every segment's truly best variant would add: an upper bound of all
            that more data could bring.
        check: What later days said of the choices of earlier ones, if given.
    """

    verdict: Verdict
    reason: str
    one_for_all: int
    chosen: Index
    differs: Flags
    value: float
    low: float
    high: float
    probability_worth: float
    potential: float
    check: PrequentialValue | None


def value_shares(n_units: ArrayLike, base: ArrayLike) -> Floats:
    """What a relative effect in each segment counts for overall: units x base, as shares.

    A gain of 2 % in a segment adds 0.02 base_s n_s outcomes; over sum(base_s n_s) that is 0.02 x share_s of the overall
    base. For effects in outcome units pass a base of 1.

    Args:
        n_units: Units (or customers) of each segment, shape (n_segments,).
        base: Control's mean outcome in it, NaN where not known: then the segment counts for nothing, the same shape.
    Returns:
        Shares, summing to 1, shape (n_segments,).
    Raises:
        InvalidArgument: Shapes differ, negative, or no segment with units and a base.

    >>> value_shares([100, 300], [0.3, 0.1])
    array([0.5, 0.5])
    """
    units, size = np.asarray(n_units, dtype=np.float64), np.asarray(base, dtype=np.float64)
    if units.ndim != 1 or units.shape != size.shape:
        raise InvalidArgument("base", f"shape {size.shape} does not fit units of shape {units.shape}")
    worth = np.where(np.isfinite(size), units * np.nan_to_num(size), 0.0)
    if not (np.isfinite(worth).all() and (worth >= 0.0).all() and worth.sum() > 0.0):
        raise InvalidArgument("n_units", "no segment has units and a base, or one is negative or not finite")
    shares: Floats = worth / worth.sum()
    return shares


def personalise_or_not(
    effects: EffectPosterior,
    *,
    shares: ArrayLike,
    rng: np.random.Generator,
    check: PrequentialValue | None = None,
    worth: float = 0.01,
    most_missed: float = 0.03,
    certainty: float = 0.95,
) -> Personalisation:
    """Judge the choices by segment against the one best variant, both fixed from posterior means.

    value = sum_s share_s (effect_{s, chosen(s)} - effect_{s, one}). Choosing by the maximum of every draw instead would
    count noise as value: with flat posteriors it finds "value" in 98 % of worlds without any. Even so the means must be
    those of a model that shrinks interactions, as both kinds of `effects` do.

    personalise: P(value > worth) >= certainty, and later days (if given) were estimable and not on the other side of 0.
    one_for_all: P(value > worth) <= 1 - certainty, and perfect knowledge would add at most `most_missed` on average.
    undecided: anything else, with the reason.

    Args:
        effects: Joint posterior of the segments' effects.
        shares: What an effect in each segment counts for: `value_shares`, >= 0, summing to 1, shape (n_segments,).
        rng: For the draws behind `potential`.
        check: From `prequential_value`. None: there were no days to check on, and the posterior decides alone.
        worth: Least value that personalising is worth, as a share of the overall base.
        most_missed: Most expected loss against perfect knowledge at which one for all is called settled.
        certainty: Posterior probability asked for, in (0.5, 1).
    Raises:
        InvalidArgument: Shares of another shape, negative or not summing to 1; a setting out of range; or no variant
            that can win in every segment.
    Source: Athey & Wager (2021), Econometrica 89(1), for value against the best constant policy; the rule is our own.
    """
    share = np.asarray(shares, dtype=np.float64)
    _check_settings(share, effects, worth=worth, most_missed=most_missed, certainty=certainty)
    mean = effects.mean
    one = _one_for_all(mean, effects.available, share=share)
    own = np.where(effects.available, mean, -np.inf).argmax(axis=1)
    chosen = np.where((share > 0.0) & effects.available.any(axis=1), own, one)
    everyone = np.arange(mean.shape[1])
    value = effects.combined(share[:, np.newaxis] * ((everyone == chosen[:, np.newaxis]) - 1.0 * (everyone == one)))
    low, high = value.interval(certainty)
    probability = float(value.probability_above(worth))
    potential = _potential(effects, share=share, one=one, rng=rng)
    verdict, reason = _verdict(
        probability, certainty=certainty, worth=worth, potential=potential, most_missed=most_missed, check=check
    )
    return Personalisation(
        verdict=verdict,
        reason=reason,
        one_for_all=one,
        chosen=chosen,
        differs=chosen != one,
        value=float(value.mean),
        low=float(low),
        high=float(high),
        probability_worth=probability,
        potential=potential,
        check=check,
    )


def _verdict(
    probability: float,
    *,
    certainty: float,
    worth: float,
    potential: float,
    most_missed: float,
    check: PrequentialValue | None,
) -> tuple[Verdict, str]:
    said = f"The segments' own choices add more than {worth:.1%} of the overall mean with probability {probability:.3f}"
    if probability >= certainty:
        return _checked(said, check)
    if probability > 1.0 - certainty:
        return "undecided", f"{said}: neither surely more nor surely not."
    if potential > most_missed:
        missed = f"perfect knowledge of the segments might still add {potential:.1%} of it"
        return "undecided", f"{said}, but so little is known of how they differ that {missed}."
    return "one_for_all", f"{said}; even perfect knowledge of them would add {potential:.1%} on average."


def _checked(said: str, check: PrequentialValue | None) -> tuple[Verdict, str]:
    if check is None:
        return "personalise", f"{said}."
    if not check.estimable:
        return "undecided", f"{said}, but this can't be checked on later days yet: {check.reason}."
    if check.value < 0.0:
        return "undecided", f"{said}, but on later days the choices of earlier ones did worse than one for all."
    return "personalise", f"{said}, and later days don't contradict it."


def _one_for_all(mean: Floats, available: Flags, *, share: Floats) -> int:
    everywhere = available[share > 0.0].all(axis=0)
    if not everywhere.any():
        raise InvalidArgument("available", "no variant can win in every segment, so there is none for all")
    return int(np.where(everywhere, share @ mean, -np.inf).argmax())


def _potential(effects: EffectPosterior, *, share: Floats, one: int, rng: np.random.Generator) -> float:
    n_draws = int(np.clip(_MOST_NUMBERS // max(effects.mean.size, 1), _FEWEST_DRAWS, _POTENTIAL_DRAWS))
    draws = effects.draws(n_draws, rng=rng)
    of_one = draws[..., one].copy()
    draws[:, ~(effects.available | (np.arange(draws.shape[2]) == one))] = -np.inf
    return float(((draws.max(axis=2) - of_one) @ share).mean())


def _check_settings(
    share: Floats, effects: EffectPosterior, *, worth: float, most_missed: float, certainty: float
) -> None:
    n_segments = effects.mean.shape[0]
    if share.shape != (n_segments,) or not (np.isfinite(share).all() and (share >= 0.0).all()):
        raise InvalidArgument("shares", f"shape {share.shape} is not ({n_segments},), or one is negative or not finite")
    if abs(share.sum() - 1.0) > 1e-6:
        raise InvalidArgument("shares", f"they sum to {share.sum()}, not 1")
    if not (0.0 <= worth < np.inf and 0.0 <= most_missed < np.inf):
        raise InvalidArgument("worth", f"{worth} or most_missed {most_missed} is negative or not finite")
    if not 0.5 < certainty < 1.0:
        raise InvalidArgument("certainty", f"{certainty} is not between 0.5 and 1")
