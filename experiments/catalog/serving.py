"""What every segment of a placement gets, as it will be once the last change is in effect."""

from typing import Any

from sqlmodel import Session, col, select

from experiments.catalog.definition_store import Defined, get_definition, segment_keys
from experiments.catalog.definitions import EVERYONE
from experiments.catalog.lifecycle import open_segments
from experiments.learning.allocations import newest_allocations
from experiments.tables import Experiment, PolicyVersion, Series


def now_serving(session: Session, placement: str) -> list[dict[str, Any]]:
    """For each segment of a placement's current segmentation: the experiment on it, else the policy, else the default.

    Holdout and overrides aside. A series that is pinned to another segmentation is listed only if that is ``everyone``.

    Returns:
        One dict a segment, in order: segment, source (experiment, policy or default), experiment, policy_version, and
        weights by variant.
    Raises:
        PlacementNotFound: No such placement.
    """
    defined = get_definition(session, "placement", key=placement)
    segmentation = get_definition(session, "segmentation", key=defined.body["segmentation"])
    serving = _of_default(segmentation, default=defined.body["default"]["key"])
    for line in _of_policy(session, placement, segmentation=segmentation) + _of_experiments(
        session, placement, segmentation=segmentation
    ):
        serving[line["segment"]] = line
    return list(serving.values())


def current_policy(session: Session, placement: str) -> PolicyVersion | None:
    """The newest version of a placement's policy."""
    query = select(PolicyVersion).where(PolicyVersion.placement == placement)
    return session.exec(query.order_by(col(PolicyVersion.version).desc()).limit(1)).first()


def _of_default(segmentation: Defined, *, default: str) -> dict[str, dict[str, Any]]:
    weights = {default: 1.0}
    return {key: _line(key, source="default", weights=weights) for key in segment_keys(segmentation)}


def _of_policy(session: Session, placement: str, *, segmentation: Defined) -> list[dict[str, Any]]:
    policy = current_policy(session, placement)
    if policy is None or not policy.entries:
        return []
    numbers = {entry["series"] for entry in policy.entries.values()}
    found = {row.number: row for row in session.exec(select(Series).where(col(Series.number).in_(numbers)))}
    lines = []
    for number, series in found.items():
        own = [segment for segment, entry in policy.entries.items() if entry["series"] == number]
        lines += _of_series(session, series, segmentation=segmentation, segments=own)
    return [{**line, "source": "policy", "policy_version": policy.version} for line in lines]


def _of_experiments(session: Session, placement: str, *, segmentation: Defined) -> list[dict[str, Any]]:
    running = select(Series).join(Experiment, col(Experiment.series) == Series.number)
    running = running.where(Experiment.placement == placement, Experiment.status == "running")
    lines = []
    for series in session.exec(running).all():
        covered = _of_series(session, series, segmentation=segmentation, segments=open_segments(series))
        lines += [{**line, "source": "experiment", "experiment": series.experiment} for line in covered]
    return lines


def _of_series(session: Session, series: Series, *, segmentation: Defined, segments: list[str]) -> list[dict[str, Any]]:
    """The weights of a series in those of its segments that the placement's segmentation has."""
    newest = newest_allocations(session, series.number or 0)
    served = {}
    for segment in segment_keys(segmentation):
        own = EVERYONE if series.segmentation == EVERYONE else segment
        if own in segments and (own == EVERYONE or series.segmentation == segmentation.key):
            served[segment] = newest[own].weights
    return [_line(segment, source="", weights=weights) for segment, weights in served.items()]


def _line(segment: str, *, source: str, weights: dict[str, float]) -> dict[str, Any]:
    return {
        "segment": segment,
        "source": source,
        "experiment": None,
        "policy_version": None,
        "weights": {key: weight for key, weight in weights.items() if weight > 0},
    }
