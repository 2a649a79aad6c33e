"""Pauses of variants in segments: which there are, and what they do to weights."""

from collections.abc import Collection, Iterable, Mapping
from datetime import datetime
from typing import Any

from sqlmodel import Session, col, select

from experiments.tables import Series, SeriesVariant, VariantPause

Place = tuple[str, str]  # a segment and a variant


def paused_places(session: Session, series: int | None) -> frozenset[Place]:
    """Where variants of a series are paused now."""
    query = select(VariantPause.segment, VariantPause.variant)
    query = query.where(VariantPause.series == series, col(VariantPause.lifted_at).is_(None))
    return frozenset((segment, variant) for segment, variant in session.exec(query))


def live_pauses(session: Session, series: int | None) -> list[VariantPause]:
    """The pauses of a series that have not been lifted, the oldest first."""
    query = select(VariantPause).where(VariantPause.series == series, col(VariantPause.lifted_at).is_(None))
    return list(session.exec(query.order_by(col(VariantPause.id))))


def pauses_at(session: Session, series: int | None, *, moment: datetime) -> list[VariantPause]:
    """All pauses of a series that had been made by a moment, the oldest first; they may have been lifted since."""
    query = select(VariantPause).where(VariantPause.series == series, VariantPause.paused_at <= moment)
    return list(session.exec(query.order_by(col(VariantPause.id))))


def live_by_segment(session: Session, series: Series) -> dict[str, list[str]]:
    """The variants that each segment's units may get, in order: neither retired nor paused there."""
    query = select(SeriesVariant.key).where(
        SeriesVariant.series == series.number, col(SeriesVariant.retired_at).is_(None)
    )
    live = list(session.exec(query.order_by(col(SeriesVariant.position))))
    paused = paused_places(session, series.number)
    return {segment: [key for key in live if (segment, key) not in paused] for segment in series.segments}


def to_control(weights: Mapping[str, float], *, paused: Collection[str], control: str) -> dict[str, float]:
    """Weights of which control has those of paused variants, too; the others keep theirs.

    >>> to_control({"a": 0.5, "b": 0.25, "c": 0.25}, paused=["c"], control="a")
    {'a': 0.75, 'b': 0.25, 'c': 0.0}
    """
    freed = sum(weights.get(key, 0.0) for key in paused)
    kept = {key: 0.0 if key in paused else weight for key, weight in weights.items()}
    return {**kept, control: kept[control] + freed}


def pauses_json(pauses: Iterable[VariantPause]) -> list[dict[str, Any]]:
    """Pauses as doors show them."""
    return [
        {
            "segment": row.segment,
            "variant": row.variant,
            "metric": row.metric,
            "paused_at": row.paused_at,
            "evidence": row.evidence,
        }
        for row in pauses
    ]
