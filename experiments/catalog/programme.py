"""A placement's programme: the series that enrols customers as held out or treated, to measure the whole."""

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime

from sqlmodel import Session, select

from experiments.catalog.definitions import EVERYONE
from experiments.decisions.choosing import HELD_OUT, TREATED
from experiments.learning.allocations import add_allocations
from experiments.series import PinnedMetric
from experiments.tables import Series, SeriesVariant


def open_programme(
    session: Session, placement: str, *, share: float, metrics: Iterable[PinnedMetric], now: datetime
) -> None:
    """Create the programme of a new placement; ``share`` of the customers are held out."""
    series = Series(
        kind="programme",
        placement=placement,
        unit="period",
        segmentation=EVERYONE,
        segmentation_version=0,
        segments=[EVERYONE],
        metrics=[metric.to_json() for metric in metrics],
        opens_at=now,
        created_at=now,
    )
    session.add(series)
    session.flush()
    for position, key in enumerate((HELD_OUT, TREATED)):
        session.add(
            SeriesVariant(
                series=series.number or 0,
                key=key,
                position=position,
                content={},
                is_control=key == HELD_OUT,
                added_at=now,
            )
        )
    _weigh(session, series, share=share, now=now)


def change_share(session: Session, placement: str, *, share: float, now: datetime) -> None:
    """Hold out another share from now on; holdouts nest, so a larger share keeps everyone who was held out."""
    _weigh(session, _programme(session, placement), share=share, now=now)


def measure(session: Session, placement: str, *, metrics: Iterable[PinnedMetric], since: datetime) -> None:
    """Let the programme count metrics that it lacks, from a moment on; one that it has stays as it was pinned."""
    series = _programme(session, placement)
    known = {metric["key"] for metric in series.metrics}
    new = [replace(metric, since=since).to_json() for metric in metrics if metric.key not in known]
    series.metrics = [*series.metrics, *new]
    session.flush()


def _programme(session: Session, placement: str) -> Series:
    return session.exec(select(Series).where(Series.placement == placement, Series.kind == "programme")).one()


def _weigh(session: Session, series: Series, *, share: float, now: datetime) -> None:
    weights = {EVERYONE: {HELD_OUT: share, TREATED: 1 - share}}
    add_allocations(session, series.number or 0, weights=weights, reason="holdout", now=now)
