"""The best variant of every segment now: for lists that are sent without asking for each customer. Records nothing."""

from typing import Any

from sqlmodel import Session, col, select

from experiments.allocations import newest_allocations
from experiments.catalog import get_definition
from experiments.definitions import EVERYONE
from experiments.serving import now_serving
from experiments.tables import Allocation, Experiment, PolicyVersion, SeriesVariant


def best_variants(session: Session, placement: str) -> list[dict[str, Any]]:
    """For each segment of a placement: the policy's variant, else the leader of the experiment on it, else the default.

    Returns:
        One dict a segment, in order: segment, variant, content (templates as defined), deliver, source, experiment,
        policy_version, and probability: that the variant is the best one by the newest weights' basis, None if unknown.
    Raises:
        PlacementNotFound: No such placement.
    """
    placed = get_definition(session, "placement", key=placement).body
    lines = now_serving(session, placement)
    entries = _policy_entries(session, placement)
    return [_best(session, line, default=placed["default"], entry=entries.get(line["segment"])) for line in lines]


def _best(
    session: Session, line: dict[str, Any], *, default: dict[str, Any], entry: dict[str, Any] | None
) -> dict[str, Any]:
    kept = {name: line[name] for name in ("segment", "source", "experiment", "policy_version")}
    if line["source"] == "policy" and entry is not None:
        allocation = _newest(session, entry["series"], segment=line["segment"])
        return kept | _variant(session, entry["series"], key=entry["variant"], allocation=allocation)
    if line["source"] == "experiment":
        series = session.exec(select(Experiment.series).where(Experiment.key == line["experiment"])).one() or 0
        allocation = _newest(session, series, segment=line["segment"])
        return kept | _variant(
            session, series, key=_leader(session, series, allocation=allocation), allocation=allocation
        )
    shown = {"variant": default["key"], "content": default["content"], "deliver": default["deliver"]}
    return kept | shown | {"probability": None}


def _policy_entries(session: Session, placement: str) -> dict[str, dict[str, Any]]:
    newest = select(PolicyVersion).where(PolicyVersion.placement == placement)
    policy = session.exec(newest.order_by(col(PolicyVersion.version).desc()).limit(1)).first()
    return {} if policy is None else dict(policy.entries)


def _newest(session: Session, series: int, *, segment: str) -> Allocation:
    newest = newest_allocations(session, series)
    return newest[segment] if segment in newest else newest[EVERYONE]


def _leader(session: Session, series: int, *, allocation: Allocation) -> str:
    """The variant most probably the best; before anything is learned, the control."""
    if allocation.basis:
        return max(allocation.basis, key=lambda key: _probability(allocation, key) or 0.0)
    control = select(SeriesVariant.key).where(SeriesVariant.series == series, col(SeriesVariant.is_control))
    key: str = session.exec(control).one()
    return key


def _probability(allocation: Allocation, key: str) -> float | None:
    said: float | None = allocation.basis.get(key, {}).get("probability_best")
    return said


def _variant(session: Session, series: int, *, key: str, allocation: Allocation) -> dict[str, Any]:
    variant = session.get_one(SeriesVariant, (series, key))
    return {
        "variant": key,
        "content": variant.content,
        "deliver": variant.deliver,
        "probability": _probability(allocation, key),
    }
