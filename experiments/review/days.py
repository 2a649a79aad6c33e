"""What was known of each variant at the end of each day."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import date, timedelta
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from experiments.review.answer import among_known, level_intervals, number, pair
from experiments.review.estimates import Estimates, estimate, posterior_of
from experiments.review.reading import Reading
from experiments.review.strata import Strata
from experiments.series import PinnedMetric
from experiments.tallies.read import Weights
from optimizer.posteriors import Posterior
from optimizer.rows import mapped

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_FIRST = date(1970, 1, 1)


def date_of(day: int) -> str:
    """A day since 1970 (UTC) as its date."""
    return (_FIRST + timedelta(days=day)).isoformat()


@dataclass(frozen=True, slots=True)
class Days:
    """Cumulative estimates by day, shapes (n_days, n_rows, n_variants) unless said; NaN where there is none.

    Attributes:
        days: Days since 1970 on which units were decided, shape (n_days,).
        variants: Keys of the variants.
        n_units: Units decided until the end of the day.
        n_responders: Of these, units with a response.
        mean: As ``results`` estimates it.
        low: Lower end of its credible interval.
        high: Upper end.
        best: Probability that the variant is best.
        weight: Its share at the end of the day.
    """

    days: Ints
    variants: tuple[str, ...]
    n_units: Floats
    n_responders: Floats
    mean: Floats
    low: Floats
    high: Floats
    best: Floats
    weight: Floats

    @classmethod
    def of(cls, reading: Reading, weights: Weights, *, rows: Sequence[int]) -> Self:
        """Estimate every day; the posteriors of all days are then compared in one pass.

        Args:
            reading: Of the metric.
            weights: Every allocation version.
            rows: Segments to keep by index; ``n_segments`` is the row over all.
        """
        strata, metric = reading.units, reading.metric
        days = decided_days(strata)
        found = [estimate(reading.measured(strata.chosen(strata.day <= day))) for day in days]
        low, high, best = _compared(found, rows=rows, is_rate=reading.is_rate, metric=metric)

        def by_day(name: str) -> Floats:
            return np.array([getattr(one, name)[rows] for one in found]).reshape(low.shape)

        share = _weights(strata, weights, days=days)
        weight = np.concatenate([share, _mixed(share, found)[:, np.newaxis]], axis=1)[:, rows]
        counts = [_until(strata, values, days=days)[:, rows] for values in (strata.n_units, strata.n_responders)]
        return cls(days, strata.variants, counts[0], counts[1], by_day("mean"), low, high, best, weight)

    def shown(self, row: int) -> list[dict[str, Any]]:
        """One row's days for JSON."""
        return [
            {
                "day": date_of(day),
                "variants": [self._variant(i, row, index=index) for index in range(len(self.variants))],
            }
            for i, day in enumerate(self.days.tolist())
        ]

    def _variant(self, day: int, row: int, *, index: int) -> dict[str, Any]:
        at = day, row, index
        return {
            "variant": self.variants[index],
            "n_units": int(self.n_units[at]),
            "n_responders": int(self.n_responders[at]),
            "mean": number(self.mean[at]),
            "interval": pair(self.low[at], self.high[at]),
            "probability_best": number(self.best[at]),
            "weight": number(self.weight[at]),
        }


def _until(strata: Strata, values: Floats, *, days: Ints) -> Floats:
    """Sums until the end of each day by segment and (last) over all, shape (n_days, n_segments + 1, n_variants)."""
    shape = days.size, len(strata.segments) + 1, len(strata.variants)
    sums = np.zeros(shape)
    at = np.searchsorted(days, strata.day)
    inside = at < days.size
    np.add.at(sums, (at[inside], strata.segment[inside]), values[inside])
    sums[:, -1] = sums[:, :-1].sum(axis=1)
    return sums.cumsum(axis=0)


def decided_days(strata: Strata) -> Ints:
    """The days since 1970 on which units were decided."""
    return np.unique(strata.day[strata.n_units.sum(axis=1) > 0.0])


def _compared(
    found: Sequence[Estimates], *, rows: Sequence[int], is_rate: bool, metric: PinnedMetric
) -> tuple[Floats, Floats, Floats]:
    """Intervals and probabilities to be best; NaN on days when no outcome varied yet."""
    posteriors, levels = (
        [posterior_of(one, is_rate=is_rate, prior=metric.prior, of_levels=of_levels) for one in found]
        for of_levels in (False, True)
    )
    known = [i for i, one in enumerate(posteriors) if one is not None]
    shape = len(found), len(rows), found[0].mean.shape[1] if found else 0
    low, high, best = (np.full(shape, np.nan) for _ in range(3))
    if known:
        together = _stacked([one for one in posteriors if one is not None], rows=rows)
        level_means = [one for i in known if (one := levels[i] or posteriors[i]) is not None]
        mean = np.array([found[i].mean[rows] for i in known])
        low[known], high[known] = level_intervals(_stacked(level_means, rows=rows), mean)
        has_units = np.isfinite(mean)
        flat = mapped(together, lambda values: values.reshape(-1, shape[2]))
        seen = has_units.reshape(-1, shape[2])
        best[known] = among_known(flat, seen, higher_is_better=metric.higher_is_better)[0].reshape(has_units.shape)
    return low, high, best


def _stacked(posteriors: Sequence[Posterior], *, rows: Sequence[int]) -> Posterior:
    names = [field.name for field in fields(posteriors[0])]
    return type(posteriors[0])(*(np.stack([getattr(one, name)[rows] for one in posteriors]) for name in names))


def _weights(strata: Strata, weights: Weights, *, days: Ints) -> Floats:
    """Shares of the newest version used until each day, shape (n_days, n_segments, n_variants); NaN before any."""
    newest = np.zeros((days.size + 1, len(strata.segments)), dtype=np.int64)  # the last row: after the last day
    index = {key: i for i, key in enumerate(strata.segments)}
    np.maximum.at(newest, (np.searchsorted(days, strata.day), strata.segment), strata.version)
    newest = np.maximum.accumulate(newest[:-1], axis=0)
    shares = np.full((*newest.shape, len(strata.variants)), np.nan)
    for key, column in index.items():
        for newest_version in np.unique(newest[:, column]).tolist():
            if (key, newest_version) in weights:
                given = weights[key, newest_version]
                shares[newest[:, column] == newest_version, column] = [given.get(one, 0.0) for one in strata.variants]
    return shares


def _mixed(share: Floats, found: Sequence[Estimates]) -> Floats:
    """Shares over all segments, by their units so far, shape (n_days, n_variants)."""
    units = np.array([one.n_units[:-1].sum(axis=1) for one in found]).reshape(share.shape[:2])
    mix = units / units.sum(axis=1, keepdims=True)
    return np.asarray((mix[:, :, np.newaxis] * np.nan_to_num(share)).sum(axis=1), dtype=np.float64)
