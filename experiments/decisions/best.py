"""The best variant of every segment now: for lists that are sent without asking for each customer. Records nothing."""

from collections.abc import Sequence
from typing import Any

from sqlmodel import Session, col, select

from experiments.catalog.definition_store import get_definition
from experiments.catalog.definitions import EVERYONE
from experiments.catalog.serving import now_serving
from experiments.learning.allocations import newest_allocations
from experiments.tables import Allocation, Experiment, PolicyVersion, SeriesVariant


def best_variants(session: Session, placement: str) -> list[dict[str, Any]]:
    """For each segment of a placement: the policy's variant, else the leader of the experiment on it, else the default.

    Returns:
        One dict a segment, in order: segment, variant, content (templates as defined), deliver, source, experiment,
        policy_version, and probability: that the variant is the best one, by the evidence of its promotion or by what
        the newest weights came from; None if unknown.
    Raises:
        PlacementNotFound: No such placement.
    """
    default = get_definition(session, "placement", key=placement).body["default"]
    newest = select(PolicyVersion).where(PolicyVersion.placement == placement)
    policies = session.exec(newest.order_by(col(PolicyVersion.version).desc())).all()
    return [_best(session, line, default=default, policies=policies) for line in now_serving(session, placement)]


def _best(
    session: Session, line: dict[str, Any], *, default: dict[str, Any], policies: Sequence[PolicyVersion]
) -> dict[str, Any]:
    kept = {name: line[name] for name in ("segment", "source", "experiment", "policy_version")}
    if line["source"] == "policy":
        segment = line["segment"] if line["segment"] in policies[0].entries else EVERYONE
        entry = policies[0].entries[segment]
        return kept | _variant(session, entry["series"], key=entry["variant"]) | _evidence(policies, segment)
    if line["source"] == "experiment":
        query = select(Experiment.series).where(Experiment.key == line["experiment"])
        return kept | _leader(session, session.exec(query).one() or 0, segment=line["segment"])
    shown = {name: default[name] for name in ("content", "deliver")}
    return kept | {"variant": default["key"], **shown, "probability": None}


def _evidence(policies: Sequence[PolicyVersion], segment: str) -> dict[str, Any]:
    """The probability that the promotion of what stands in a segment was based on."""
    entry = policies[0].entries[segment]
    promoted = (policy for policy in policies if segment in policy.evidence and policy.entries[segment] == entry)
    rows = [row for policy in promoted for row in policy.evidence[segment]["variants"]]
    found = (row["probability_best"] for row in rows if row["variant"] == entry["variant"])
    return {"probability": next(found, None)}


def _leader(session: Session, series: int, *, segment: str) -> dict[str, Any]:
    """The variant most probably the best; before anything is learned, the control."""
    newest = newest_allocations(session, series)
    allocation = newest[segment] if segment in newest else newest[EVERYONE]
    probabilities = {key: _probability(allocation, key) for key in allocation.basis}
    if not any(probabilities.values()):
        control = select(SeriesVariant.key).where(SeriesVariant.series == series, col(SeriesVariant.is_control))
        return _variant(session, series, key=session.exec(control).one()) | {"probability": None}
    key = max(probabilities, key=lambda key: probabilities[key] or 0.0)
    return _variant(session, series, key=key) | {"probability": probabilities[key]}


def _probability(allocation: Allocation, key: str) -> float | None:
    said: float | None = allocation.basis[key].get("probability_best")
    return said


def _variant(session: Session, series: int, *, key: str) -> dict[str, Any]:
    variant = session.get_one(SeriesVariant, (series, key))
    return {"variant": key, "content": variant.content, "deliver": variant.deliver}
