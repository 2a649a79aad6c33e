"""Tallies as strata: units of one segment, day and allocation version, all given variants by the same weights."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from experiments.catalog.definitions import EVERYONE
from experiments.tallies.read import Tallies, Weights

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Flags = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Strata:
    """Units and sums of one metric by stratum, sorted by segment.

    Attributes:
        segments: Keys of the segments; some may have no stratum.
        variants: Keys of the variants.
        control: Index of the control.
        segment: Index of each stratum's segment, shape (n_strata,).
        day: Days since 1970 of its decisions, shape (n_strata,).
        version: Allocation version, shape (n_strata,).
        n_units: Shape (n_strata, n_variants), as all that follow.
        n_responders: Units with a response.
        total: Sum of unit totals, in the metric's unit.
        squares: Sum of their squares.
        propensity: The logged weights; rows sum to 1.
        more: Sums that ratios and covariates need beside these, by name.
        overall: The same strata as the row over all segments reads them, where that differs (a ratio over all segments
            is no mean of theirs).
    """

    segments: tuple[str, ...]
    variants: tuple[str, ...]
    control: int
    segment: Ints
    day: Ints
    version: Ints
    n_units: Floats
    n_responders: Floats
    total: Floats
    squares: Floats
    propensity: Floats
    more: Mapping[str, Floats] = field(default_factory=dict)
    overall: "Strata | None" = None

    def padded(self, values: Floats, *, fill: float = 0.0) -> Floats:
        """Values by stratum as (n_segments, most strata of a segment, n_variants), filled up at the end."""
        first = np.searchsorted(self.segment, np.arange(len(self.segments) + 1))
        longest = int(np.diff(first).max(initial=1))
        out = np.full((len(self.segments), max(longest, 1), values.shape[1]), fill)
        out[self.segment, np.arange(self.segment.size) - first[self.segment]] = values
        return out

    def layers(self) -> list[Floats]:
        """What methods for bandit data take, each padded by segment, strata in time order.

        Units, totals, squares and responders of variants that had a weight; the weights; and the mean expected of each
        variant before the stratum.
        """
        n = np.where(self.propensity > 0.0, self.n_units, 0.0)
        sums = n, np.where(n > 0.0, self.total, 0.0), np.where(n > 0.0, self.squares, 0.0)
        counted = [*sums, np.minimum(self.n_responders, n)]
        weights = self.padded(self.propensity, fill=1.0 / n.shape[1])
        return [*map(self.padded, counted), weights, self.padded(self.expected_before())]

    def expected_before(self) -> Floats:
        """Pooled mean of each variant over the segment's earlier strata; for its first, that of all its variants.

        That one isn't of the past, but hardly depends on any one unit; 0 instead would double the width of intervals of
        outcomes far from zero.
        """
        first = np.searchsorted(self.segment, self.segment)

        def before(values: Floats) -> Floats:
            running = np.cumsum(np.concatenate([np.zeros((1, values.shape[1])), values]), axis=0)
            earlier: Floats = running[:-1] - running[first]
            return earlier

        units = before(self.n_units)
        own = self.total.sum(axis=1, keepdims=True) / np.maximum(self.n_units.sum(axis=1, keepdims=True), 1.0)
        expected: Floats = np.where(units > 0.0, before(self.total) / np.maximum(units, 1.0), own)
        return expected

    def by_segment(self, values: Floats) -> Floats:
        """Values summed to (n_segments, n_variants)."""
        sums = np.zeros((len(self.segments), values.shape[1]))
        np.add.at(sums, self.segment, values)
        return sums

    def placed(self, values: Floats, *, like: "Strata") -> Floats:
        """Values by stratum in the order of another's strata; 0 for strata that are not here."""
        where = {key: i for i, key in enumerate(like.keys())}
        out = np.zeros(like.n_units.shape)
        out[[where[key] for key in self.keys()]] = values
        return out

    def chosen(self, rows: Flags) -> "Strata":
        """Some of the strata, shape (n_strata,), under the same segments."""
        return replace(
            self,
            segment=self.segment[rows],
            day=self.day[rows],
            version=self.version[rows],
            n_units=self.n_units[rows],
            n_responders=self.n_responders[rows],
            total=self.total[rows],
            squares=self.squares[rows],
            propensity=self.propensity[rows],
            more={name: values[rows] for name, values in self.more.items()},
            overall=None if self.overall is None else self.overall.chosen(rows),
        )

    def keys(self) -> list[tuple[int, int, int]]:
        """(segment, day, version) of each stratum."""
        return list(zip(self.segment.tolist(), self.day.tolist(), self.version.tolist(), strict=True))

    def pooled(self) -> "Strata":
        """The same units; strata of a segment with equal weights are put together, since nothing is to be adjusted."""
        first, of = _alike(np.column_stack([self.segment, self.propensity.round(12)]))
        summed = _summing(of, first.size)
        return self._put_together(summed, segment=self.segment[first], first=first, segments=self.segments)

    def has_one_weighting(self) -> bool:
        """Whether all units, of all segments, were given variants by the same weights."""
        used = self.propensity[self.n_units.sum(axis=1) > 0.0]
        return bool(np.ptp(used, axis=0).max(initial=0.0) < 1e-9) if len(used) else True

    def as_one_segment(self) -> "Strata":
        """All units as one stratum of one segment."""
        count = min(1, self.segment.size)
        zeros = np.zeros(self.segment.size, dtype=np.int64)
        first = np.zeros(count, dtype=np.int64)
        return self._put_together(_summing(zeros, count), segment=first, first=first, segments=("",))

    def _put_together(
        self, summed: Callable[[Floats], Floats], *, segment: Ints, first: Ints, segments: tuple[str, ...]
    ) -> "Strata":
        return replace(
            self,
            segments=segments,
            segment=segment,
            day=self.day[first],
            version=self.version[first],
            n_units=summed(self.n_units),
            n_responders=summed(self.n_responders),
            total=summed(self.total),
            squares=summed(self.squares),
            propensity=self.propensity[first],
            more={},
            overall=None,
        )


def strata_of(
    tallies: Tallies,
    weights: Weights,
    *,
    control: str,
    capped: bool = False,
    chosen: Flags | None = None,
) -> Strata:
    """Group a series' tallies into strata.

    Args:
        tallies: Of one metric.
        weights: Of every (segment, version); a programme's are those of ``everyone``.
        control: Key of the control.
        capped: Read the capped sums.
        chosen: Rows of the tallies to read, by default all, shape (n_rows,).
    """
    blocks = tallies.blocks()
    read = np.ones(tallies.n_units.shape) if chosen is None else chosen.astype(np.float64)
    total, squares = (
        (tallies.capped_total, tallies.capped_squares) if capped else (tallies.total, tallies.total_squares)
    )

    def summed(values: Floats) -> Floats:
        return tallies.by_block(values * read, blocks)

    return Strata(
        segments=tallies.segments,
        variants=tallies.variants,
        control=tallies.variants.index(control),
        segment=blocks.segment,
        day=blocks.day,
        version=blocks.version,
        n_units=summed(tallies.n_units),
        n_responders=summed(tallies.n_responders),
        total=summed(total),
        squares=summed(squares),
        propensity=_propensities(tallies, weights, segment=blocks.segment, version=blocks.version),
        more={name: summed(values) for name, values in _more(tallies, capped=capped).items()},
    )


def _more(tallies: Tallies, *, capped: bool) -> dict[str, Floats]:
    """Row sums of ratios and covariates, those with unit totals capped or not."""
    found: dict[str, Floats] = {}
    if tallies.denominator.any():
        product = tallies.denominator_capped if capped else tallies.denominator_total
        found |= {"denominator": tallies.denominator, "denominator_squares": tallies.denominator_squares}
        found["denominator_product"] = product
    if tallies.has_covariate:
        product = tallies.covariate_capped if capped else tallies.covariate_total
        found |= {"covariate": tallies.covariate, "covariate_squares": tallies.covariate_squares}
        found |= {"covariate_product": product, "covariate_denominator": tallies.covariate_denominator}
        found["covariate_missing"] = tallies.covariate_missing
    return found


def _propensities(tallies: Tallies, weights: Weights, *, segment: Ints, version: Ints) -> Floats:
    first, of_block = _alike(np.column_stack([segment, version]))
    rows = []
    for index, number in zip(segment[first].tolist(), version[first].tolist(), strict=True):
        key = (tallies.segments[index], number)
        shares = weights[key] if key in weights else weights[EVERYONE, number]
        rows.append([shares.get(variant, 0.0) for variant in tallies.variants])
    return np.array(rows, dtype=np.float64).reshape(-1, len(tallies.variants))[of_block]


def relabelled(strata: Strata, standing: Sequence[int], *, variants: tuple[str, str]) -> Strata:
    """The strata as two variants: each segment's standing one, and all the others together as the control.

    Args:
        strata: Of a policy's series.
        standing: Index of the standing variant by segment.
        variants: Names of the two: the standing one and the others.
    """
    chosen = np.asarray(standing, dtype=np.int64)[strata.segment][:, np.newaxis]
    is_own = np.arange(len(strata.variants)) == chosen

    def two(values: Floats) -> Floats:
        own = np.take_along_axis(values, chosen, axis=1)
        others = np.where(is_own, 0.0, values)  # added up, since few of them would drown in a difference of sums
        return np.concatenate([own, others.sum(axis=1, keepdims=True)], axis=1)

    return replace(
        strata,
        variants=variants,
        control=1,
        n_units=two(strata.n_units),
        n_responders=two(strata.n_responders),
        total=two(strata.total),
        squares=two(strata.squares),
        propensity=two(strata.propensity).clip(0.0, 1.0),
        more={name: two(values) for name, values in strata.more.items()},
        overall=None,
    )


def joined(parts: Sequence[Strata]) -> Strata:
    """Strata of different series with the same variants and no segment in common, as one."""
    first = parts[0]
    offsets = np.cumsum([0, *(len(part.segments) for part in parts[:-1])])

    def stacked(name: str) -> NDArray[np.float64]:
        return np.concatenate([getattr(part, name) for part in parts])

    return replace(
        first,
        segments=tuple(key for part in parts for key in part.segments),
        segment=np.concatenate([part.segment + offset for part, offset in zip(parts, offsets, strict=True)]),
        day=np.concatenate([part.day for part in parts]),
        version=np.concatenate([part.version for part in parts]),
        n_units=stacked("n_units"),
        n_responders=stacked("n_responders"),
        total=stacked("total"),
        squares=stacked("squares"),
        propensity=stacked("propensity"),
        more=_joined_sums(parts),
        overall=None,
    )


def _joined_sums(parts: Sequence[Strata]) -> dict[str, Floats]:
    names = {name for part in parts for name in part.more}
    return {
        name: np.concatenate([part.more.get(name, np.zeros(part.n_units.shape)) for part in parts]) for name in names
    }


def _alike(rows: Floats | Ints) -> tuple[Ints, Ints]:
    """Groups of equal rows in their order: the first row of each, and the group of every row."""
    order = np.lexsort(rows.T[::-1])  # far faster than np.unique over an axis
    ordered = rows[order]
    is_first = np.ones(len(rows), dtype=np.bool_)
    is_first[1:] = (ordered[1:] != ordered[:-1]).any(axis=1)
    of = np.empty(len(rows), dtype=np.int64)
    of[order] = np.cumsum(is_first) - 1
    return order[is_first], of


def _summing(of: Ints, count: int) -> Callable[[Floats], Floats]:
    def summed(values: Floats) -> Floats:
        sums = np.zeros((count, values.shape[1]))
        np.add.at(sums, of, values)
        return sums

    return summed
