"""Partial pooling as JSON: all that a chart and its caption need; what is not known is null."""

from dataclasses import dataclass
from datetime import datetime
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from experiments.analyses.requests import HierarchyRequest
from experiments.review.answer import number, pair
from experiments.review.estimates import Estimates
from experiments.review.reading import Reading
from experiments.review.shrinkage import judged, said_of

if TYPE_CHECKING:
    from optimizer.partial_pooling import Pooled

Floats = NDArray[np.float64]

_LIBRARIES: Final = ("numpy", "pymc", "nutpie")
_SAYS: Final = (
    "Every segment has its level and every variant its average effect; a segment's own effects vary around the averages"
    " with the standard deviation tau. The fewer units a segment has, the nearer its effects are drawn to the averages."
)


@dataclass(frozen=True, slots=True)
class Source:
    """What was asked of which data."""

    request: HierarchyRequest
    reading: Reading
    as_of: datetime
    series: int
    n_chains: int

    @property
    def sign(self) -> float:
        """Turns "positive is better" into the metric's own direction."""
        return 1.0 if self.reading.metric.higher_is_better else -1.0


def answer(source: Source, found: Estimates, *, pooled: "Pooled", seconds: float) -> dict[str, Any]:
    """All that partial pooling has found.

    Effects are a variant's mean minus control's, as in results; ``relative`` ones in units of the segment's base, the
    size of control's mean.

    Args:
        source: What was asked.
        found: The estimates that it started from.
        pooled: What came out.
        seconds: That it took.
    """
    metric = source.reading.metric
    return {
        "metric": {
            "key": metric.key,
            "version": metric.version,
            "kind": metric.kind,
            "direction": "increase" if metric.higher_is_better else "decrease",
            "currency": metric.currency,
        },
        "data": {
            "as_of": source.as_of.isoformat(),
            "series": source.series,
            "n_units": int(found.n_units[:-1].sum()),
            "matured_share": source.reading.matured_share,
        },
        "model": _model(source),
        "segments": [_segment(source, found, pooled=pooled, row=row) for row in range(len(pooled.base))],
        "personalise": _personalise(source, found, pooled=pooled),
        "averages": _averages(source, pooled),
        "tau": _summary(pooled.tau, level=source.request.level),
        "diagnostics": _diagnostics(source, pooled, seconds=seconds),
    }


def _personalise(source: Source, found: Estimates, *, pooled: "Pooled") -> dict[str, Any]:
    matured = source.reading.matured
    judgement, reason = judged(
        pooled,
        matured,
        n_units=found.n_units[:-1].sum(axis=1),
        base=pooled.base,
        higher_is_better=source.reading.metric.higher_is_better,
        rng=np.random.default_rng(source.request.seed),
        average_sd=source.request.average_sd,
        tau_scale=source.request.tau_scale,
    )
    return said_of(judgement, reason, matured=matured)


def _model(source: Source) -> dict[str, Any]:
    request = source.request
    is_rate = source.reading.is_rate
    return {
        "says": _SAYS,
        "likelihood": "binomial" if is_rate else "normal",
        "scale": "log odds" if is_rate else "relative to the base",
        "priors": {"average_sd": request.average_sd, "tau_scale": request.tau_scale},
        "level": request.level,
        "seed": request.seed,
        "libraries": {name: version(name) for name in _LIBRARIES},
    }


def _segment(source: Source, found: Estimates, *, pooled: "Pooled", row: int) -> dict[str, Any]:
    variants = source.reading.matured.variants
    return {
        "segment": source.reading.matured.segments[row],
        "n_units": int(found.n_units[row].sum()),
        "base": number(pooled.base[row]),
        "variants": [
            {
                "variant": key,
                "n_units": int(found.n_units[row, index]),
                "n_responders": int(found.n_responders[row, index]),
                "observed": number(found.mean[row, index]),
                "mean": number(pooled.level[row, index]),
                "interval": pair(pooled.level_low[row, index], pooled.level_high[row, index]),
                "probability_best": number(pooled.probability_best[row, index]),
                "effect": None if index == found.control else _effect(source, pooled, row=row, index=index),
            }
            for index, key in enumerate(variants)
        ],
    }


def _effect(source: Source, pooled: "Pooled", *, row: int, index: int) -> dict[str, Any]:
    """Against control, in the metric's own direction."""
    ends = sorted((source.sign * pooled.low[row, index], source.sign * pooled.high[row, index]))
    mean, base = source.sign * pooled.mean[row, index], pooled.base[row]
    return {
        "relative": number(mean),
        "interval": pair(*ends),
        "sd": number(pooled.sd[row, index]),
        "absolute": number(mean * base),
        "absolute_interval": pair(ends[0] * base, ends[1] * base),
        "probability_better": number(pooled.probability_above[row, index]),
    }


def _averages(source: Source, pooled: "Pooled") -> list[dict[str, Any]]:
    """Average effects over segments, on the model's scale."""
    return [
        {"variant": key, **_summary(source.sign * pooled.average[:, index], level=source.request.level)}
        for index, key in enumerate(source.reading.matured.variants)
        if index != pooled.control_index
    ]


def _summary(draws: Floats, *, level: float) -> dict[str, Any]:
    low, high = np.quantile(draws, [(1.0 - level) / 2.0, (1.0 + level) / 2.0])
    return {"mean": number(draws.mean()), "interval": pair(low, high), "sd": number(draws.std())}


def _diagnostics(source: Source, pooled: "Pooled", *, seconds: float) -> dict[str, Any]:
    request = source.request
    return {
        "r_hat": pooled.r_hat,
        "ess": pooled.ess,
        "n_divergent": pooled.n_divergent,
        "n_chains": source.n_chains,
        "n_draws": request.draws,
        "n_tune": request.tune,
        "seconds": round(seconds, 2),
    }
