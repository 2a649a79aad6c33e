"""How much harm each variant surely does, by segment and over all, from tallies; which of it is too much."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlmodel import Session, col, select

from experiments.catalog.definitions import ExperimentDefinition, Guardrail
from experiments.catalog.lifecycle import open_segments
from experiments.guardrails.pauses import pauses_at
from experiments.review.reading import pinned_metric, variants_of_series
from experiments.review.strata import Strata, strata_of
from experiments.review.unit_values import unit_values
from experiments.series import PinnedMetric
from experiments.tables import Allocation, Series, SeriesVariant, VariantPause
from experiments.tallies.days import NO_HOURS
from experiments.tallies.read import read_tallies, read_weights
from optimizer.guardrail import HarmBound, SharedLevel, harm_bound, shared_level

Flags = NDArray[np.bool_]

_HOUR = 3600.0


@dataclass(frozen=True, slots=True)
class Watched:
    """What one guardrail watches, as read at one moment.

    Attributes:
        guardrail: As defined.
        metric: As pinned.
        strata: All units decided by then, matured or not, in the segments that it watches.
        level: Of its bounds.
        counted: Strata that count for each variant: those since its last pause there ended, shape
            (n_strata, n_variants).
        open: Where a variant may be paused: not control, nor retired or paused already, in segments that have not left
            the experiment, shape (n_segments, n_variants).
    """

    guardrail: Guardrail
    metric: PinnedMetric
    strata: Strata
    level: SharedLevel
    counted: Flags
    open: Flags


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a guardrail found.

    Attributes:
        watched: What it watches.
        by_segment: Shape (n_segments, n_variants).
        whole: Over the segments where a variant may still be paused after those that do harm by themselves, shape
            (1, n_variants); None with one segment.
    """

    watched: Watched
    by_segment: HarmBound
    whole: HarmBound | None

    def harmful(self) -> Flags:
        """Where a variant is to be paused now, shape (n_segments, n_variants)."""
        alone = self.own_harm()
        if self.whole is None:
            return alone
        return alone | (self.watched.open & (self.whole.bound > self.watched.guardrail.max_harm))

    def own_harm(self) -> Flags:
        """Where a segment by itself shows harm, shape (n_segments, n_variants)."""
        return self.watched.open & (self.by_segment.bound > self.watched.guardrail.max_harm)


@dataclass(frozen=True, slots=True)
class Harm:
    """A variant that does too much harm in a segment; ``evidence``: the bound that says so, for the database."""

    segment: str
    variant: str
    metric: str
    evidence: dict[str, Any]


def watch(session: Session, series: Series, *, definition: ExperimentDefinition, as_of: datetime) -> list[Bounds]:
    """What the guardrails of an experiment find.

    A segment whose own bound shows harm is taken out before the whole is looked at: harm in one segment must not pause
    the variant in another.

    Args:
        session: Reads one state of the database.
        series: The experiment's.
        definition: The experiment's.
        as_of: Units decided by (the hour of) then are read, and pauses made by then.
    """
    variants = variants_of_series(session, series.number or 0)
    pauses = pauses_at(session, series.number, moment=as_of)
    reader = _Reader(session, series, variants, pauses, as_of)
    return [bounds_of(reader.watched(guardrail)) for guardrail in definition.guardrails]


def bounds_of(watched: Watched) -> Bounds:
    """The bounds of all that a guardrail watches."""
    by_segment = _bound(watched, watched.counted, level=watched.level.segment, as_one=False)
    if watched.level.whole is None:
        return Bounds(watched, by_segment, None)
    left = watched.open & ~(by_segment.bound > watched.guardrail.max_harm)
    counted = watched.counted & left[watched.strata.segment]
    return Bounds(watched, by_segment, _bound(watched, counted, level=watched.level.whole, as_one=True))


def harms_of(found: Bounds) -> Iterator[Harm]:
    """Every variant that does too much harm in a segment, by itself or over all of them."""
    strata, own = found.watched.strata, found.own_harm()
    for row, column in np.argwhere(found.harmful()).tolist():
        evidence = _evidence(found, row, column=column, alone=bool(own[row, column]))
        yield Harm(strata.segments[row], strata.variants[column], found.watched.metric.key, evidence)


def _evidence(found: Bounds, row: int, *, column: int, alone: bool) -> dict[str, Any]:
    watched, level = found.watched, found.watched.level
    bound = found.by_segment if alone or found.whole is None else found.whole
    at = (row, column) if bound is found.by_segment else (0, column)
    return {
        "segment": watched.strata.segments[row] if alone else None,
        "harm": float(bound.harm[at]),
        "bound": float(bound.bound[at]),
        "n_events": float(bound.n_events[at]),
        "max_harm": watched.guardrail.max_harm,
        "probability": watched.guardrail.probability,
        "level": level.segment if alone or level.whole is None else level.whole,
    }


def _bound(watched: Watched, counted: Flags, *, level: float, as_one: bool) -> HarmBound:
    """Bounds by segment or, as one, over all; variants for which the same strata count are worked out together."""
    strata = watched.strata
    shape = (1 if as_one else len(strata.segments), len(strata.variants))
    harm, bound = np.full(shape, np.nan), np.full(shape, -np.inf)
    n_events, speaks = np.zeros(shape), np.zeros(shape, dtype=np.bool_)
    patterns, pattern_of = np.unique(counted, axis=1, return_inverse=True)
    for pattern, rows in enumerate(patterns.T):
        columns = pattern_of.reshape(-1) == pattern
        one = _bound_of(strata.chosen(rows), watched.metric, level=level, as_one=as_one)
        for kept, values in zip((harm, bound, n_events, speaks), one, strict=True):
            kept[:, columns] = values[:, columns]
    return HarmBound(harm, bound, n_events, speaks)


def _bound_of(strata: Strata, metric: PinnedMetric, *, level: float, as_one: bool) -> tuple[NDArray[Any], ...]:
    strata = unit_values(strata, metric=metric, covariate=None).strata
    strata = (as_one and strata.overall) or strata
    drawn = strata.propensity > 0.0
    events = _events(strata, metric)
    arrays = [np.where(drawn, values, 0.0) for values in (strata.n_units, strata.total, strata.squares, events)]
    equal = 1.0 / len(strata.variants)
    layers = [strata.padded(values) for values in arrays]
    layers.append(strata.padded(strata.propensity, fill=equal))
    if as_one:
        layers = [layer.reshape(1, -1, layer.shape[-1]) for layer in layers]
    n_units, total, squares, n_events, propensity = layers
    found = harm_bound(
        n_units,
        total,
        sum_squares=squares,
        n_events=n_events,
        propensity=propensity,
        control_index=strata.control,
        higher_is_better=metric.higher_is_better,
        level=level,
    )
    return found.harm, found.bound, found.n_events, found.speaks


def _events(strata: Strata, metric: PinnedMetric) -> NDArray[np.float64]:
    """Units that responded; of a rate above one half, those that did not."""
    mostly = strata.n_responders.sum() > 0.5 * strata.n_units.sum()
    if metric.kind == "binary" and mostly:
        return strata.n_units - strata.n_responders
    return np.minimum(strata.n_responders, strata.n_units)  # units of ratios that are not estimable are left out


@dataclass(frozen=True, slots=True)
class _Reader:
    """Reads what guardrails of one series watch."""

    session: Session
    series: Series
    variants: Sequence[SeriesVariant]
    pauses: Sequence[VariantPause]
    as_of: datetime

    def watched(self, guardrail: Guardrail) -> Watched:
        number, before = self.series.number or 0, int(self.as_of.timestamp() // _HOUR) + 1
        segments = guardrail.segments or tuple(self.series.segments)
        metric = pinned_metric(self.series, guardrail.metric)
        tallies = read_tallies(
            self.session, number, metric=metric.key, segments=segments, before_hour=before, by_hour=NO_HOURS
        )
        control = next(variant.key for variant in self.variants if variant.is_control)
        weights = read_weights(self.session, number)
        strata = strata_of(tallies, weights, control=control, capped=metric.cap is not None)
        level = shared_level(guardrail.probability, n_variants=len(self.variants) - 1, n_segments=len(strata.segments))
        return Watched(guardrail, metric, strata, level, self._counted(strata), self._open(strata))

    def _open(self, strata: Strata) -> Flags:
        still = set(open_segments(self.series))
        paused = {(row.segment, row.variant) for row in self.pauses if not self._is_lifted(row)}
        can = [not variant.is_control and variant.retired_at is None for variant in self.variants]
        rows = [
            [
                possible and segment in still and (segment, variant.key) not in paused
                for variant, possible in zip(self.variants, can, strict=True)
            ]
            for segment in strata.segments
        ]
        return np.array(rows, dtype=np.bool_).reshape(len(strata.segments), len(self.variants))

    def _counted(self, strata: Strata) -> Flags:
        """Strata of the versions since a variant was last let back."""
        first = np.zeros((len(strata.segments), len(strata.variants)), dtype=np.int64)
        column = {key: i for i, key in enumerate(strata.variants)}
        let_back = self._let_back()
        for i, segment in enumerate(strata.segments):
            for variant, version in let_back.get(segment, {}).items():
                first[i, column[variant]] = version
        counted: Flags = strata.version[:, np.newaxis] >= first[strata.segment]
        return counted

    def _let_back(self) -> Mapping[str, Mapping[str, int]]:
        """By segment, the variants whose pause was lifted, and the allocation version that brought them back."""
        ended: dict[str, dict[str, datetime]] = defaultdict(dict)
        for row in self.pauses:
            if row.lifted_at is not None and self._is_lifted(row):
                earlier = ended[row.segment].get(row.variant, row.lifted_at)
                ended[row.segment][row.variant] = max(row.lifted_at, earlier)
        if not ended:
            return {}
        earliest = min(at for by_variant in ended.values() for at in by_variant.values())
        query = select(Allocation.segment, Allocation.version, Allocation.created_at)
        query = query.where(Allocation.series == self.series.number, col(Allocation.created_at) >= earliest)
        first: dict[str, dict[str, int]] = defaultdict(dict)
        for segment, version, created_at in self.session.exec(query.order_by(col(Allocation.version).desc())):
            first[segment] |= {key: version for key, at in ended.get(segment, {}).items() if created_at >= at}
        return first

    def _is_lifted(self, row: VariantPause) -> bool:
        return row.lifted_at is not None and row.lifted_at <= self.as_of
