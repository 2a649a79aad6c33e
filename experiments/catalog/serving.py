"""What every segment of a placement gets, as it will be once the last change is in effect."""

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from itertools import groupby
from typing import Any

from sqlmodel import Session, col, select

from experiments.catalog.definition_store import Defined, get_definition, segment_keys
from experiments.catalog.definitions import BUILT_IN_SEGMENTATIONS
from experiments.catalog.lifecycle import open_segments
from experiments.learning.allocations import newest_allocations
from experiments.send_plans.pinned import PinnedSendPlan
from experiments.tables import Allocation, Definition, Experiment, PolicyVersion, Series

Split = tuple[str, int]  # a segmentation and its version


@dataclass(frozen=True, slots=True)
class Served:
    """Who decides for a segment of a segmentation's version: an experiment's series, a policy's, or else the default.

    ``is_pinned``: the placement itself has gone on to another segmentation, or version of it.
    """

    segment: str
    split: Split
    source: str
    series: Series | None = None
    policy_version: int | None = None
    is_pinned: bool = False

    def to_json(self) -> dict[str, Any]:
        """Segment, segmentation (its key and version if pinned, else None), source, experiment, policy_version.

        Of an experiment with a send plan also ``send_plan``: the plan and how far it has come.
        """
        series = self.series if self.source == "experiment" else None
        plan = None if series is None else PinnedSendPlan.from_json(series.send_plan)
        return {
            "segment": self.segment,
            "segmentation": {"key": self.split[0], "version": self.split[1]} if self.is_pinned else None,
            "source": self.source,
            "experiment": None if series is None else series.experiment,
            "policy_version": self.policy_version,
            **({} if plan is None else {"send_plan": _said(plan, self.segment)}),
        }


def now_serving(session: Session, placement: str) -> list[dict[str, Any]]:
    """What every segment gets, in the order of ``serving``; holdout and overrides aside.

    Returns:
        One dict a segment: segment, segmentation (key and version where a series is pinned to another than the
        placement's current one, else None), source (experiment, policy or default), experiment, policy_version, and
        weights by variant.
    Raises:
        PlacementNotFound: No such placement.
    """
    default = get_definition(session, "placement", key=placement).body["default"]["key"]
    lines = serving(session, placement)
    newest = allocations_of(session, lines)
    return [line.to_json() | {"weights": _weights(line, newest, default=default)} for line in lines]


def serving(session: Session, placement: str) -> list[Served]:
    """Who decides for whom, as decisions will ask: the first line whose segment a customer is in decides.

    Running experiments, then the policy, each for the segments of the segmentation that it is pinned to, then the
    default for what is left of the placement's current segmentation. Under one segmentation lines are in its order.

    Raises:
        PlacementNotFound: No such placement.
    """
    segmentation = get_definition(session, "placement", key=placement).body["segmentation"]
    current = get_definition(session, "segmentation", key=segmentation)
    now, lines = (current.key, current.version), dict[tuple[Split, str], Served]()
    for line in [*_of_experiments(session, placement, now=now), *_of_policy(session, placement, now=now)]:
        lines.setdefault((line.split, line.segment), line)
    for key in segment_keys(current):
        lines.setdefault((now, key), Served(key, now, "default"))
    return _reached(session, lines.values())


def current_policy(session: Session, placement: str) -> PolicyVersion | None:
    """The newest version of a placement's policy."""
    query = select(PolicyVersion).where(PolicyVersion.placement == placement)
    return session.exec(query.order_by(col(PolicyVersion.version).desc()).limit(1)).first()


def allocations_of(session: Session, lines: Iterable[Served]) -> dict[int, dict[str, Allocation]]:
    """The newest allocation of each segment of the series that serve, by the series' number."""
    numbers = {line.series.number or 0 for line in lines if line.series is not None}
    return {number: newest_allocations(session, number) for number in numbers}


def _of_experiments(session: Session, placement: str, *, now: Split) -> Iterator[Served]:
    running = select(Series).join(Experiment, col(Experiment.series) == Series.number)
    running = running.where(Experiment.placement == placement, Experiment.status == "running")
    for series in session.exec(running.order_by(col(Series.number))).all():
        split = _split(series)
        for segment in open_segments(series):
            yield Served(segment, split, "experiment", series, is_pinned=split != now)


def _of_policy(session: Session, placement: str, *, now: Split) -> list[Served]:
    """By segmentation, that of the latest promotion first."""
    policy = current_policy(session, placement)
    if policy is None:
        return []
    numbers = {entry["series"] for entry in policy.entries.values()}
    found = {row.number: row for row in session.exec(select(Series).where(col(Series.number).in_(numbers)))}
    by_split: dict[Split, list[Served]] = {}
    for segment, entry in sorted(policy.entries.items(), key=lambda item: -item[1]["series"]):
        series = found[entry["series"]]
        split = _split(series)
        line = Served(segment, split, "policy", series, policy.version, is_pinned=split != now)
        by_split.setdefault(split, []).append(line)
    return [line for lines in by_split.values() for line in lines]


def _reached(session: Session, lines: Iterable[Served]) -> list[Served]:
    """Lines of one segmentation in its order; none after those that together have every segment of one."""
    left: dict[Split, list[str]] = {}
    reached: list[Served] = []
    for split, group in groupby(lines, key=lambda line: line.split):
        own = {line.segment: line for line in group}
        keys = left[split] if split in left else _segments(session, split)
        reached += [own[key] for key in keys if key in own]
        left[split] = [key for key in keys if key not in own]
        if not left[split]:
            break
    return reached


def _said(plan: PinnedSendPlan, segment: str) -> dict[str, Any]:
    """The plan as one segment's line says it."""
    winner = plan.winners.get(segment)
    return plan.shown() | {"winners": {} if winner is None else {segment: asdict(winner)}}


def _split(series: Series) -> Split:
    return series.segmentation, series.segmentation_version


def _segments(session: Session, split: Split) -> list[str]:
    key, version = split
    if version == 0:
        body = BUILT_IN_SEGMENTATIONS[key].model_dump(mode="json")
    else:
        body = session.get_one(Definition, ("segmentation", key, version)).body
    return segment_keys(Defined("segmentation", key, version, body))


def _weights(line: Served, newest: dict[int, dict[str, Allocation]], *, default: str) -> dict[str, float]:
    if line.series is None:
        return {default: 1.0}
    weights = newest[line.series.number or 0][line.segment].weights
    return {key: weight for key, weight in weights.items() if weight > 0}
