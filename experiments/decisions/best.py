"""The best variant of every segment now: for lists that are sent without asking for each customer. Records nothing."""

from collections.abc import Iterable, Mapping
from typing import Any

from sqlmodel import Session, col, select

from experiments.catalog.definition_store import get_definition
from experiments.catalog.serving import Served, allocations_of, serving
from experiments.tables import Allocation, PolicyVersion, SeriesVariant


def best_variants(session: Session, placement: str) -> list[dict[str, Any]]:
    """For each line of ``serving``: the policy's variant, or the leader of the experiment, or the default.

    Returns:
        One dict a segment, the first that a customer is in counts: segment, segmentation (key and version where it is
        not the placement's current one, else None), variant, content (templates as defined), deliver, source,
        experiment, policy_version, and probability: that the variant is the best one, by the evidence of its promotion
        or by what the newest weights came from; None if unknown.
    Raises:
        PlacementNotFound: No such placement.
    """
    default = get_definition(session, "placement", key=placement).body["default"]
    lines = serving(session, placement)
    promoted = _promotions(session, placement, lines=lines)
    newest = allocations_of(session, (line for line in lines if line.source == "experiment"))
    answers = []
    for line in lines:
        number = 0 if line.series is None or line.series.number is None else line.series.number
        if line.source == "policy":
            best = _winner(session, number, segment=line.segment, promotion=promoted[number])
        elif line.source == "experiment":
            best = _leader(session, number, allocation=newest[number][line.segment])
        else:
            best = {"variant": default["key"], "content": default["content"], "deliver": default["deliver"]}
            best["probability"] = None
        answers.append(line.to_json() | best)
    return answers


def _promotions(session: Session, placement: str, *, lines: Iterable[Served]) -> dict[int, PolicyVersion]:
    """The version that promoted each series that stands: a promotion writes both at one moment."""
    moments = {line.series.created_at for line in lines if line.series is not None and line.source == "policy"}
    query = select(PolicyVersion).where(PolicyVersion.placement == placement, PolicyVersion.action == "promote")
    promotions = session.exec(query.where(col(PolicyVersion.created_at).in_(moments))).all()
    return {row.entries[segment]["series"]: row for row in promotions for segment in row.evidence}


def _winner(session: Session, series: int, *, segment: str, promotion: PolicyVersion) -> dict[str, Any]:
    """What was promoted, with the probability that its promotion was based on."""
    key = promotion.entries[segment]["variant"]
    rows = {row["variant"]: row for row in promotion.evidence[segment]["variants"]}
    return _variant(session, series, key=key) | {"probability": rows[key]["probability_best"] if key in rows else None}


def _leader(session: Session, series: int, *, allocation: Allocation) -> dict[str, Any]:
    """The variant most probably the best; before anything is learned, the control."""
    given = [key for key, weight in allocation.weights.items() if weight > 0]
    if len(given) == 1:  # all get it: the winner of a send plan
        said = allocation.basis.get(given[0], {})
        return _variant(session, series, key=given[0]) | {"probability": said.get("probability_best")}
    probabilities = {key: _probability(allocation.basis, key) for key in allocation.basis}
    if not any(probabilities.values()):
        control = select(SeriesVariant.key).where(SeriesVariant.series == series, col(SeriesVariant.is_control))
        return _variant(session, series, key=session.exec(control).one()) | {"probability": None}
    key = max(probabilities, key=lambda key: probabilities[key] or 0.0)
    return _variant(session, series, key=key) | {"probability": probabilities[key]}


def _probability(basis: Mapping[str, Any], key: str) -> float | None:
    said: float | None = basis[key].get("probability_best")
    return said


def _variant(session: Session, series: int, *, key: str) -> dict[str, Any]:
    variant = session.get_one(SeriesVariant, (series, key))
    return {"variant": key, "content": variant.content, "deliver": variant.deliver}
