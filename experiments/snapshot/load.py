"""Reading a snapshot from the database, a few queries for all of it."""

from collections import defaultdict
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlmodel import Session, col, func, select

from experiments.catalog.content import compile_content
from experiments.catalog.definition_store import current_definitions
from experiments.catalog.definitions import (
    BUILT_IN_SEGMENTATIONS,
    AttributeDefinition,
    PlacementDefinition,
    SegmentationDefinition,
)
from experiments.decisions.hashing import UnitHash, Wheel
from experiments.segments.rules import Segmentation, compile_segmentation
from experiments.snapshot.plans import FOREVER, KeyPlan, PlacementPlan, Policy, SeriesPlan, Snapshot, VariantPlan
from experiments.tables import (
    Allocation,
    ApiKey,
    Definition,
    Experiment,
    Override,
    PolicyVersion,
    Series,
    SeriesVariant,
    Workspace,
)

_VERSIONS_IN_SIGHT = 5  # the policy in effect, and those that soon will be


def load_snapshot(session: Session) -> Snapshot:
    """Read everything of the present version."""
    workspace = session.exec(select(Workspace)).one()
    attributes = {
        row.key: AttributeDefinition.model_validate(row.body) for row in current_definitions(session, "attribute")
    }
    placements = list(current_definitions(session, "placement"))
    policies = _policy_versions(session)
    series = _series_plans(session, workspace, attributes=attributes, policies=policies)
    return Snapshot(
        version=workspace.snapshot_version,
        holdout_secret=workspace.holdout_secret,
        attributes=attributes,
        placements={
            row.key: _placement(session, row, series=series, policies=policies[row.key], attributes=attributes)
            for row in placements
        },
        overrides={(row.placement, row.customer_id): row.variant for row in session.exec(select(Override))},
        keys={row.id: _key(row) for row in session.exec(select(ApiKey).where(col(ApiKey.revoked_at).is_(None)))},
    )


def compile_definition(
    session: Session, key: str, *, version: int | None, attributes: Mapping[str, AttributeDefinition]
) -> Segmentation:
    """Compile a segmentation at a version, or at its newest."""
    if key in BUILT_IN_SEGMENTATIONS:
        return compile_segmentation(BUILT_IN_SEGMENTATIONS[key], attributes)
    query = select(Definition).where(Definition.kind == "segmentation", Definition.key == key)
    if version is not None:
        query = query.where(Definition.version == version)
    row = session.exec(query.order_by(col(Definition.version).desc()).limit(1)).one()
    return compile_segmentation(SegmentationDefinition.model_validate(row.body), attributes)


def _seconds(moment: datetime | None) -> float:
    return FOREVER if moment is None else moment.timestamp()


def _key(row: ApiKey) -> KeyPlan:
    return KeyPlan(row.id, row.name, row.secret_hash, frozenset(row.scopes), _seconds(row.expires_at))


def _policy_versions(session: Session) -> Mapping[str, list[PolicyVersion]]:
    """The newest versions of each placement's policy, the newest first."""
    newest = (
        select(PolicyVersion.placement, func.max(PolicyVersion.version).label("version"))
        .group_by(PolicyVersion.placement)
        .subquery()
    )
    query = select(PolicyVersion).join(newest, col(PolicyVersion.placement) == newest.c.placement)
    query = query.where(col(PolicyVersion.version) > newest.c.version - _VERSIONS_IN_SIGHT)
    found = defaultdict(list)
    for row in session.exec(query.order_by(col(PolicyVersion.version).desc())):
        found[row.placement].append(row)
    return found


def _series_plans(
    session: Session,
    workspace: Workspace,
    *,
    attributes: Mapping[str, AttributeDefinition],
    policies: Mapping[str, list[PolicyVersion]],
) -> dict[int, SeriesPlan]:
    """Plans of every series that can still decide."""
    in_policies = {
        entry["series"] for versions in policies.values() for row in versions for entry in row.entries.values()
    }
    running = session.exec(select(Experiment.series).where(col(Experiment.status).in_(("running", "paused")))).all()
    wanted = in_policies | {number for number in running if number is not None}
    rows = session.exec(select(Series).where(col(Series.number).in_(wanted) | (Series.kind == "programme"))).all()
    numbers = {row.number for row in rows}
    variants, wheels = _variants(session, numbers), _weights(session, numbers)
    segmentations: dict[tuple[str, int], Segmentation] = {}
    formats = _formats(session)
    plans = {}
    for row in rows:
        pinned = (row.segmentation, row.segmentation_version)
        if pinned not in segmentations:
            segmentations[pinned] = compile_definition(session, pinned[0], version=pinned[1], attributes=attributes)
        plans[row.number or 0] = _series_plan(
            row,
            secret=workspace.secret,
            segmentation=segmentations[pinned],
            variants=variants[row.number or 0],
            weights=wheels[row.number or 0],
            content_format=formats[row.placement],
        )
    return plans


def _formats(session: Session) -> dict[str, str]:
    return {row.key: row.body.get("format", "json") for row in current_definitions(session, "placement")}


def _variants(session: Session, numbers: set[int | None]) -> Mapping[int, list[SeriesVariant]]:
    found = defaultdict(list)
    query = select(SeriesVariant).where(col(SeriesVariant.series).in_(numbers)).order_by(col(SeriesVariant.position))
    for row in session.exec(query):
        found[row.series].append(row)
    return found


def _weights(session: Session, numbers: set[int | None]) -> Mapping[int, dict[str, tuple[int, dict[str, float]]]]:
    """The newest weights of each segment of series."""
    newest = (
        select(Allocation.series, Allocation.segment, func.max(Allocation.version).label("version"))
        .where(col(Allocation.series).in_(numbers))
        .group_by(col(Allocation.series), col(Allocation.segment))
        .subquery()
    )
    same = (
        (col(Allocation.series) == newest.c.series)
        & (col(Allocation.segment) == newest.c.segment)
        & (col(Allocation.version) == newest.c.version)
    )
    found: Mapping[int, dict[str, tuple[int, dict[str, float]]]] = defaultdict(dict)
    columns = select(Allocation.series, Allocation.segment, Allocation.version, Allocation.weights)
    for series, segment, version, weights in session.exec(columns.join(newest, same)):
        found[series][segment] = (version, weights)
    return found


def _series_plan(
    row: Series,
    *,
    secret: bytes,
    segmentation: Segmentation,
    variants: list[SeriesVariant],
    weights: Mapping[str, tuple[int, dict[str, float]]],
    content_format: Any,
) -> SeriesPlan:
    number = row.number or 0
    order = [variant.key for variant in variants]
    return SeriesPlan(
        number=number,
        kind=row.kind,
        experiment=row.experiment,
        unit=row.unit,
        hash=UnitHash(secret, number),
        opens_at=row.opens_at.timestamp(),
        closes_at=_seconds(row.closes_at),
        closed_segments={key: datetime.fromisoformat(at).timestamp() for key, at in row.closed_segments.items()},
        segmentation=segmentation,
        segments=frozenset(row.segments),
        wheels={
            segment: (version, Wheel.of({key: shares[key] for key in order if key in shares}))
            for segment, (version, shares) in weights.items()
        },
        variants={
            variant.key: VariantPlan(
                variant.key,
                compile_content(variant.content, format=content_format),
                variant.deliver,
                is_retired=variant.retired_at is not None,
            )
            for variant in variants
        },
        control=next(variant.key for variant in variants if variant.is_control),
    )


def _placement(
    session: Session,
    row: Definition,
    *,
    series: Mapping[int, SeriesPlan],
    policies: list[PolicyVersion],
    attributes: Mapping[str, AttributeDefinition],
) -> PlacementPlan:
    definition = PlacementDefinition.model_validate(row.body)
    default = definition.default
    experiments = session.exec(
        select(Experiment.series)
        .where(Experiment.placement == row.key, col(Experiment.status).in_(("running", "paused")))
        .order_by(col(Experiment.series))
    ).all()
    programme = session.exec(select(Series.number).where(Series.placement == row.key, Series.kind == "programme")).one()
    return PlacementPlan(
        key=row.key,
        definition=definition,
        segmentation=compile_definition(session, definition.segmentation, version=None, attributes=attributes),
        default=VariantPlan(default.key, compile_content(default.content, format=definition.format), default.deliver),
        experiments=tuple(series[number] for number in experiments if number is not None),
        policies=tuple(_policy(version, series) for version in policies),
        programme=series[programme or 0],
    )


def _policy(row: PolicyVersion, series: Mapping[int, SeriesPlan]) -> Policy:
    by_segmentation: dict[int, tuple[Segmentation, dict[str, SeriesPlan]]] = {}
    newest_first = sorted(row.entries.items(), key=lambda item: -item[1]["series"])  # the latest promotion goes first
    for segment, entry in newest_first:
        plan = series[entry["series"]]
        by_segmentation.setdefault(id(plan.segmentation), (plan.segmentation, {}))[1][segment] = plan
    return Policy(row.version, row.effective_at.timestamp(), tuple(by_segmentation.values()))
