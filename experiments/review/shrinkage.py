"""Effects of segments, each leaning on all the others, and what they say to the question: personalise or not?"""

from dataclasses import dataclass
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from experiments.review.answer import LEVEL, number, pair
from experiments.review.estimates import Estimates, effective
from experiments.review.strata import Strata
from optimizer.errors import InvalidArgument
from optimizer.hierarchy import SegmentEffects, segment_effects
from optimizer.personalise import EffectPosterior, Personalisation, personalise_or_not, value_shares
from optimizer.prequential import DayStrata, PrequentialValue, prequential_value
from optimizer.relative_means import RelativeMeans, relative_means

Floats = NDArray[np.float64]

SEED: Final = 20_261_125  # a review of the same tallies says the same
AVERAGE_SD: Final = 0.2  # relative: changes of a message beyond 40 % are rare
TAU_SCALE: Final = 0.1
_N_DRAWS: Final = 2_000


@dataclass(frozen=True, slots=True)
class Shrunk:
    """The closed form of partial pooling; positive is better within, turned back to the metric's direction when said.

    Attributes:
        effects: Posterior of the segments' effects, relative to their bases; None where there is none.
        base: Size of each segment's base, in outcome units, NaN where not known, shape (n_segments,).
        best: P(variant is best) by segment, shape (n_segments, n_variants).
        personalisation: Whether the segments' own choices are worth it; None where that is not estimable.
        reason: Why it isn't.
        sign: 1, or -1 where lower is better.
        matured: What it was made from.
        told: Mean, lower and upper end of the effects, each of shape (n_segments, n_variants); empty without effects.
    """

    effects: SegmentEffects | None
    base: Floats
    best: Floats
    personalisation: Personalisation | None
    reason: str | None
    sign: float
    matured: Strata
    told: tuple[Floats, ...] = ()

    @classmethod
    def of(
        cls,
        matured: Strata,
        found: Estimates,
        *,
        is_rate: bool,
        higher_is_better: bool,
        available: NDArray[np.bool_],
    ) -> Self:
        """Pool the segments' estimates of matured units.

        Args:
            matured: Their strata.
            found: Their estimates, the last row over all.
            is_rate: Whether units count with 0 or 1.
            higher_is_better: Direction of the metric.
            available: Variants that can win, broadcasts to (n_segments + 1, n_variants).
        """
        can_win = np.broadcast_to(available, found.mean.shape)[:-1]
        sign = 1.0 if higher_is_better else -1.0
        seen = _relative(found, is_rate=is_rate)
        n_compared = int((np.isfinite(seen.estimate).sum(axis=1) > 1).sum())
        if n_compared < 2:
            few = f"not estimable: {n_compared} segments have matured outcomes of two variants, and it takes two"
            return cls(None, seen.base, np.zeros(seen.estimate.shape), None, few, sign, matured)
        effects = segment_effects(
            seen.estimate,
            seen.variance,
            control_index=found.control,
            available=can_win,
            higher_is_better=higher_is_better,
            average_sd=AVERAGE_SD,
            tau_scale=TAU_SCALE,
        )
        rng = np.random.default_rng(SEED)
        best = effects.probability_best(rng=rng, n_draws=_N_DRAWS)
        answer, why = judged(
            effects,
            matured,
            n_units=found.n_units[:-1].sum(axis=1),
            base=seen.base,
            higher_is_better=higher_is_better,
            rng=rng,
        )
        told = effects.mean, *effects.effects.interval(LEVEL)
        return cls(effects, seen.base, best, answer, why, sign, matured, told)

    def said(self, row: int, index: int) -> dict[str, Any]:
        """The ``shrunk`` effect of a variant in a segment; None for control and over all."""
        if self.effects is None or row == len(self.base) or index == self.matured.control:
            return {"shrunk": None}
        at = row, index
        effect, *ends = (self.sign * values[at] for values in self.told)
        (low, high), base = sorted(ends), self.base[row]
        return {
            "shrunk": {
                "relative": number(effect),
                "relative_interval": pair(low, high),
                "absolute": number(effect * base),
                "interval": pair(low * base, high * base),
                "probability_best": number(self.best[at]),
                "shrinkage": number(self.effects.shrinkage[at]),
            }
        }

    def personalise(self) -> dict[str, Any]:
        """The answer to "personalise or not?", and how much segments differ (tau, relative to the base)."""
        answer = said_of(self.personalisation, self.reason, matured=self.matured)
        if self.effects is None:
            return answer
        mean, low, high = self.effects.tau_interval(LEVEL)
        return {**answer, "tau": {"mean": mean, "interval": pair(low, high)}}


def said_of(found: Personalisation | None, reason: str | None, *, matured: Strata) -> dict[str, Any]:
    """An answer to "personalise or not?" as JSON: values are shares of the overall mean, positive is better."""
    if found is None:
        return {"verdict": None, "reason": reason}
    return {
        "verdict": found.verdict,
        "reason": found.reason,
        "one_for_all": matured.variants[found.one_for_all],
        "would_differ": {
            key: matured.variants[found.chosen[row]] for row, key in enumerate(matured.segments) if found.differs[row]
        },
        "value": number(found.value),
        "interval": pair(found.low, found.high),
        "probability_worth": number(found.probability_worth),
        "potential": number(found.potential),
        "check": None if found.check is None else _said(found.check),
    }


def _relative(found: Estimates, *, is_rate: bool) -> RelativeMeans:
    n_units, mean, _ = effective(found, is_rate=is_rate)
    means = np.where(n_units > 0.0, mean, np.nan)
    return relative_means(means[:-1], found.variance[:-1], n_units=n_units[:-1], control_index=found.control)


def judged(
    effects: EffectPosterior,
    matured: Strata,
    *,
    n_units: Floats,
    base: Floats,
    higher_is_better: bool,
    rng: np.random.Generator,
    average_sd: float = AVERAGE_SD,
    tau_scale: float = TAU_SCALE,
) -> tuple[Personalisation | None, str | None]:
    """Whether segments should each get a variant of their own, or why that is not estimable.

    Args:
        effects: Joint posterior of the segments' effects, relative to their bases.
        matured: Strata that later days are checked on.
        n_units: Of each segment, shape (n_segments,).
        base: Size of each segment's base, NaN where not known, the same shape.
        higher_is_better: Direction of the metric.
        rng: For the draws behind the value of perfect knowledge.
        average_sd: Prior standard deviation of average effects, for the choices of earlier days.
        tau_scale: Prior scale of how far segments differ, likewise.
    """
    try:
        shares = value_shares(n_units, base)
        first = personalise_or_not(effects, shares=shares, rng=rng)
        if first.verdict != "personalise":
            return first, None  # later days could only say less
        check = prequential_value(
            _by_day(matured),
            control_index=matured.control,
            available=effects.available,
            higher_is_better=higher_is_better,
            average_sd=average_sd,
            tau_scale=tau_scale,
        )
        return personalise_or_not(effects, shares=shares, rng=rng, check=check), None
    except InvalidArgument as error:
        return None, f"not estimable: {error}"


def _by_day(matured: Strata) -> DayStrata:
    drawn = matured.propensity > 0.0
    return DayStrata(
        segment=matured.segment,
        day=matured.day,
        n_units=np.where(drawn, matured.n_units, 0.0),
        total=np.where(drawn, matured.total, 0.0),
        sum_squares=np.where(drawn, matured.squares, 0.0),
        propensity=matured.propensity,
        n_segments=len(matured.segments),
    )


def _said(check: PrequentialValue) -> dict[str, Any]:
    return {
        "value": number(check.value),
        "standard_error": number(check.standard_error),
        "relative": number(check.relative),
        "n_units": number(check.n_units),
        "n_periods": check.n_periods,
        "reason": None if check.estimable else f"not estimable: {check.reason}",
    }
