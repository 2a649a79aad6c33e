"""Whether giving each segment its own variant is worth it, as JSON: from pooled effects, checked on later days."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from experiments.analyses.kinds.hierarchy_answer import Source
from experiments.review.answer import number, pair
from experiments.review.estimates import Estimates
from experiments.review.strata import Strata

if TYPE_CHECKING:
    from optimizer.partial_pooling import Pooled
    from optimizer.prequential import DayStrata, PrequentialValue


def personalisation(source: Source, found: Estimates, *, pooled: "Pooled") -> dict[str, Any]:
    """The verdict, what it is worth, and what later days say; values are shares of the overall base.

    Args:
        source: What was asked.
        found: The estimates that pooling started from; segments count by their matured units.
        pooled: What came out.
    """
    from optimizer.personalise import personalise_or_not, value_shares
    from optimizer.prequential import prequential_value

    request, metric = source.request, source.reading.metric
    check = prequential_value(
        _by_day(source.reading.matured),
        control_index=pooled.control_index,
        available=pooled.available,
        higher_is_better=metric.higher_is_better,
        average_sd=request.average_sd,
        tau_scale=request.tau_scale,
    )
    n_units = found.n_units[:-1].sum(axis=1)
    judged = personalise_or_not(
        pooled,
        shares=value_shares(n_units, pooled.base),
        rng=np.random.default_rng(request.seed),
        check=check,
    )
    variants, segments = source.reading.matured.variants, source.reading.matured.segments
    known = np.isfinite(pooled.base)
    base = float((n_units * np.nan_to_num(pooled.base)).sum() / n_units[known].sum())
    return {
        "verdict": judged.verdict,
        "reason": judged.reason,
        "one_for_all": variants[judged.one_for_all],
        "chosen": {segment: variants[index] for segment, index in zip(segments, judged.chosen, strict=True)},
        "value": number(judged.value),
        "interval": pair(judged.low, judged.high),
        "probability_worth": number(judged.probability_worth),
        "potential": number(judged.potential),
        "base": number(base),
        "check": _checked(check),
    }


def _by_day(strata: Strata) -> "DayStrata":
    from optimizer.prequential import DayStrata

    return DayStrata(
        segment=strata.segment,
        day=strata.day,
        n_units=strata.n_units,
        total=strata.total,
        sum_squares=strata.squares,
        propensity=strata.propensity,
        n_segments=len(strata.segments),
    )


def _checked(check: "PrequentialValue") -> dict[str, Any]:
    """What later days say of the choices of earlier ones, in outcome units; null where it is not estimable."""
    said = asdict(check)
    return said | {name: number(said[name]) for name in ("value", "standard_error", "relative")}
