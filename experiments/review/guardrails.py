"""Guardrails as results show them, and as verdicts read them."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlmodel import Session

from experiments.catalog.definitions import ExperimentDefinition
from experiments.guardrails.pauses import Place, pauses_at
from experiments.review.answer import number
from experiments.review.harm import Bounds, watch
from experiments.tables import Series, VariantPause
from optimizer.guardrail import HarmBound

Flags = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class SegmentGuardrails:
    """What guardrails say of a segment, or of all together.

    Attributes:
        is_guarded: Whether the experiment has any.
        refused: Variants that must not be shipped there, and why.
        too_early: Variants of which a guardrail has seen too little to say anything.
    """

    is_guarded: bool = False
    refused: Mapping[str, str] = field(default_factory=dict)
    too_early: frozenset[str] = frozenset()

    def gate(self, winner: str) -> dict[str, Any]:
        """The gate of a verdict for this winner; it passes, with a note, where there are too few events to speak."""
        why = self.refused.get(winner)
        gate = {"gate": "guardrails", "value": why, "threshold": None, "passed": why is None}
        if not self.is_guarded:
            return gate | {"passed": None, "note": "The experiment has no guardrails."}
        early = why is None and winner in self.too_early
        return gate | ({"note": "A guardrail has seen too few events to speak yet."} if early else {})


@dataclass(frozen=True, slots=True)
class GuardrailFindings:
    """What the guardrails of an experiment have found by a moment, and what they had paused then.

    Attributes:
        bounds: One a guardrail.
        paused: Places with the pauses that held then, by metric.
        verdicts: What verdicts read, by segment and (None) over all.
    """

    bounds: Sequence[Bounds]
    paused: Mapping[Place, Mapping[str, VariantPause]]
    verdicts: Mapping[str | None, SegmentGuardrails]

    def of(self, segment: str | None) -> SegmentGuardrails:
        """What a verdict reads: of one segment, or (None) of all together, where harm in any of them counts."""
        return self.verdicts.get(segment, SegmentGuardrails(bool(self.bounds)))

    def available(self, live: Flags, *, segments: Sequence[str]) -> Flags:
        """Which variants can win, shape (n_segments + 1, n_variants): where others are left, not those paused.

        Args:
            live: Not retired, shape (n_variants,).
            segments: Of the review; its last row is over all of them.
        """
        can_win = np.tile(live, (len(segments) + 1, 1))
        if not self.bounds:
            return can_win
        variants, control = self.bounds[0].watched.strata.variants, self.bounds[0].watched.strata.control
        for row, segment in enumerate(segments):
            free = np.array([(segment, key) not in self.paused for key in variants]) & live
            if np.delete(free, control).any():
                can_win[row] = free
        return can_win

    def shown(self, segment: str | None) -> list[dict[str, Any]]:
        """The ``guardrails`` of results; of one segment alone beside the whole if it is named."""
        return [self._shown(bounds, segment=segment) for bounds in self.bounds]

    def _shown(self, bounds: Bounds, *, segment: str | None) -> dict[str, Any]:
        guardrail, level = bounds.watched.guardrail, bounds.watched.level
        return {
            "metric": guardrail.metric,
            "max_harm": guardrail.max_harm,
            "probability": guardrail.probability,
            "level_used": {"segment": level.segment, "whole": level.whole},
            "segments": [
                self._row(row, metric=guardrail.metric)
                for row in _rows(bounds)
                if segment is None or row.segment in {None, segment}
            ],
        }

    def _row(self, row: "_Row", *, metric: str) -> dict[str, Any]:
        pause = self.paused.get((row.segment or "", row.variant), {}).get(metric)
        return {
            "segment": row.segment,
            "variant": row.variant,
            "harm": number(row.harm),
            "bound": number(row.bound),
            "n_events": row.n_events,
            "paused_at": None if pause is None else pause.paused_at.isoformat(),
            "status": "harm" if pause is not None else row.status,
            "reason": _why_silent(row) if pause is None and row.status == "not_yet" else None,
        }


def _why_silent(row: "_Row") -> str:
    if row.segment is None:
        return "too few events where the variant is still watched: segments that show harm by themselves are left out"
    return "too few events of the variant or of control, weighed by their shares; a control_share keeps both watched"


UNGUARDED = SegmentGuardrails()
NO_GUARDRAILS = GuardrailFindings((), {}, {})


def find(session: Session, series: Series, *, definition: ExperimentDefinition, as_of: datetime) -> GuardrailFindings:
    """What an experiment's guardrails have found.

    Args:
        session: Reads.
        series: The experiment's.
        definition: The experiment's.
        as_of: Units decided by then (to the hour) are read, and pauses that held then.
    """
    if not definition.guardrails:
        return NO_GUARDRAILS
    paused: dict[Place, dict[str, VariantPause]] = {}
    for pause in pauses_at(session, series.number, moment=as_of):
        if pause.lifted_at is None or pause.lifted_at > as_of:
            paused.setdefault((pause.segment, pause.variant), {})[pause.metric] = pause
    bounds = watch(session, series, definition=definition, as_of=as_of)
    return GuardrailFindings(bounds, paused, _verdicts(bounds, paused))


def _verdicts(
    bounds: Sequence[Bounds], paused: Mapping[Place, Mapping[str, VariantPause]]
) -> Mapping[str | None, SegmentGuardrails]:
    refused: dict[str | None, dict[str, str]] = defaultdict(dict)
    early: dict[str | None, set[str]] = defaultdict(set)
    for (segment, variant), by_metric in paused.items():
        why = f"{variant} is paused in {segment} by the guardrail on {' and '.join(by_metric)}"
        refused[segment][variant] = refused[None][variant] = why
    for one in bounds:
        for row in _rows(one):
            if row.status == "harm":
                for place in (row.segment, None):
                    refused[place].setdefault(row.variant, _too_harmful(one, row))
            elif row.status == "not_yet":
                early[row.segment].add(row.variant)
                early[None].update({row.variant} if one.whole is None else ())
    places = [*refused, *early]
    return {
        place: SegmentGuardrails(is_guarded=True, refused=refused[place], too_early=frozenset(early[place]))
        for place in places
    }


@dataclass(frozen=True, slots=True)
class _Row:
    """What a guardrail knows of a variant in a segment (None: over all where it is not paused)."""

    segment: str | None
    variant: str
    harm: float
    bound: float
    n_events: float
    status: str


def _rows(bounds: Bounds) -> Iterator[_Row]:
    strata = bounds.watched.strata
    parts: list[tuple[HarmBound, Sequence[str | None]]] = [(bounds.by_segment, strata.segments)]
    if bounds.whole is not None:
        parts.append((bounds.whole, [None]))
    for found, segments in parts:
        for i, segment in enumerate(segments):
            for k, variant in enumerate(strata.variants):
                if k != strata.control:
                    yield _row(found, (i, k), segment=segment, variant=variant, bounds=bounds)


def _row(found: HarmBound, at: tuple[int, int], *, segment: str | None, variant: str, bounds: Bounds) -> _Row:
    is_harm = bool(found.bound[at] > bounds.watched.guardrail.max_harm)
    status = "harm" if is_harm else "ok" if found.speaks[at] else "not_yet"
    return _Row(segment, variant, float(found.harm[at]), float(found.bound[at]), float(found.n_events[at]), status)


def _too_harmful(bounds: Bounds, row: _Row) -> str:
    where = "over all segments" if row.segment is None else f"in {row.segment}"
    most = bounds.watched.guardrail.max_harm
    return f"{row.variant} harms {bounds.watched.metric.key} by more than {row.bound:.4g} {where}, above {most:g}"
