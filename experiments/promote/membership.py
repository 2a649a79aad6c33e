"""Which segments are with their experiment: leaving it for the policy, and coming back."""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from sqlmodel import Session, col, select

from experiments.catalog.definition_store import LIVE
from experiments.catalog.lifecycle import open_segments
from experiments.tables import Experiment, Series


def leave(experiment: Experiment, series: Series, *, segments: Iterable[str], at: datetime) -> bool:
    """Take segments out of an experiment; it is concluded when none is left. Says whether it is.

    Args:
        experiment: Locked, as its series.
        series: The experiment's.
        segments: Those that left it before stay as they are.
        at: When the policy that takes them over is in effect.
    """
    left = {segment: at.isoformat() for segment in segments if segment not in series.closed_segments}
    series.closed_segments = {**series.closed_segments, **left}
    experiment.version += 1
    if experiment.status != "concluded" and set(series.segments) <= set(series.closed_segments):
        experiment.status, experiment.ended_at = "concluded", at
        series.closes_at = series.closes_at or at
    return experiment.status == "concluded"


def give_back(session: Session, entries: Mapping[str, Any]) -> dict[str, str]:
    """Give segments that lose their policy back to the experiments that run or are paused; allocations go on.

    Args:
        session: The caller's transaction; ``bump_snapshot`` has been called.
        entries: Of the policy, as they stood.
    Returns:
        Segment to experiment, of those given back: not those that another experiment has taken since.
    """
    returned: dict[str, str] = {}
    for key, segments in _by_experiment(entries).items():
        experiment, series = _locked(session, key)
        if experiment.status not in LIVE:
            continue
        taken = _taken(session, series)
        back = [segment for segment in segments if segment in series.closed_segments and segment not in taken]
        series.closed_segments = {key: at for key, at in series.closed_segments.items() if key not in back}
        experiment.version += bool(back)
        returned |= dict.fromkeys(back, key)
    session.flush()
    return returned


def leave_again(session: Session, entries: Mapping[str, Any], *, at: datetime) -> dict[str, str]:
    """Take segments whose promotion is brought back out of the experiments that have them.

    Args:
        session: The caller's transaction; ``bump_snapshot`` has been called.
        entries: Of the policy, as they will stand.
        at: When the policy is in effect.
    Returns:
        Segment to experiment, of those that left.
    """
    left: dict[str, str] = {}
    for key, segments in _by_experiment(entries).items():
        experiment, series = _locked(session, key)
        open_ = [segment for segment in open_segments(series) if segment in segments]
        if open_ and experiment.status in LIVE:
            leave(experiment, series, segments=open_, at=at)
            left |= dict.fromkeys(open_, key)
    session.flush()
    return left


def _by_experiment(entries: Mapping[str, Any]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for segment, entry in entries.items():
        found.setdefault(entry["experiment"], []).append(segment)
    return found


def _locked(session: Session, key: str) -> tuple[Experiment, Series]:
    experiment = session.get_one(Experiment, key, with_for_update=True, populate_existing=True)
    return experiment, session.get_one(Series, experiment.series, with_for_update=True, populate_existing=True)


def _taken(session: Session, series: Series) -> set[str]:
    """Segments of a series that other live experiments have; all, if they cut the customers up in another way."""
    query = select(Series).join(Experiment, col(Experiment.series) == Series.number)
    query = query.where(Experiment.placement == series.placement, col(Experiment.status).in_(LIVE))
    taken: set[str] = set()
    for other in session.exec(query.where(Series.number != series.number)):
        open_ = open_segments(other)
        same = other.segmentation == series.segmentation
        taken.update(open_ if same or not open_ else series.segments)
    return taken
