"""Reading a snapshot from the database, a few queries for all of it."""

from collections import defaultdict
from collections.abc import Mapping
from datetime import datetime
from itertools import pairwise

from sqlmodel import Session, col, func, select

from experiments.catalog.content import Format, compile_content
from experiments.catalog.definition_store import LIVE, current_definitions
from experiments.catalog.definitions import (
    BUILT_IN_SEGMENTATIONS,
    AttributeDefinition,
    PlacementDefinition,
    SegmentationDefinition,
)
from experiments.customers.aliases import has_people
from experiments.decisions.hashing import ShareHash, UnitHash, Wheel
from experiments.mail_events.intakes import events_of
from experiments.mail_events.signatures import Trust
from experiments.segments.rules import Segmentation, compile_segmentation
from experiments.send_plans.pinned import PinnedSendPlan
from experiments.series import PinnedCovariate
from experiments.snapshot.plans import (
    FOREVER,
    IntakePlan,
    KeyPlan,
    PlacementPlan,
    Policy,
    SendTest,
    SeriesPlan,
    Snapshot,
    VariantPlan,
)
from experiments.tables import (
    Allocation,
    ApiKey,
    Definition,
    Experiment,
    Intake,
    Override,
    PolicyVersion,
    Series,
    SeriesVariant,
    VariantPause,
    Workspace,
)

_VERSIONS_IN_SIGHT = 5  # the policy in effect, and those that soon will be


def load_snapshot(session: Session) -> Snapshot:
    """Read everything of the present version."""
    workspace = session.exec(select(Workspace)).one()
    attributes = {
        row.key: AttributeDefinition.model_validate(row.body) for row in current_definitions(session, "attribute")
    }
    definitions = {
        row.key: PlacementDefinition.model_validate(row.body) for row in current_definitions(session, "placement")
    }
    keys = {row.id: _key(row) for row in session.exec(select(ApiKey).where(col(ApiKey.revoked_at).is_(None)))}
    policies, segmentations = _policy_versions(session), _Segmentations(session, attributes)
    series = _series_plans(session, workspace, definitions=definitions, segmentations=segmentations, policies=policies)
    own = defaultdict(list)
    for plan in series.values():
        own[plan.placement].append(plan)
    return Snapshot(
        version=workspace.snapshot_version,
        holdout_secret=workspace.holdout_secret,
        attributes=attributes,
        placements={
            key: _placement(
                key,
                definition,
                segmentation=segmentations.newest(definition.segmentation),
                own=own[key],
                policies=[_policy(version, series) for version in policies[key]],
            )
            for key, definition in definitions.items()
        },
        overrides={(row.placement, row.customer_id): row.variant for row in session.exec(select(Override))},
        keys=keys,
        has_people=has_people(session.connection()),
        origins=frozenset(origin for key in keys.values() for origin in key.origins or ()),
        intakes={row.key: _intake(row) for row in session.exec(select(Intake))},
    )


class _Segmentations:
    """Segmentations, each version compiled once: whoever is in one segment of it need not be asked for again."""

    def __init__(self, session: Session, attributes: Mapping[str, AttributeDefinition]) -> None:
        self._session = session
        self._attributes = attributes
        self._newest = {row.key: row.version for row in current_definitions(session, "segmentation")}
        self._compiled = {
            (key, 0): compile_segmentation(definition, attributes) for key, definition in BUILT_IN_SEGMENTATIONS.items()
        }

    def newest(self, key: str) -> Segmentation:
        return self.at(key, self._newest.get(key, 0))

    def at(self, key: str, version: int) -> Segmentation:
        found = self._compiled.get((key, version))
        if found is None:
            body = self._session.get_one(Definition, ("segmentation", key, version)).body
            found = compile_segmentation(SegmentationDefinition.model_validate(body), self._attributes)
            self._compiled[key, version] = found
        return found


def _seconds(moment: datetime | None) -> float:
    return FOREVER if moment is None else moment.timestamp()


def _key(row: ApiKey) -> KeyPlan:
    return KeyPlan(
        row.id,
        row.name,
        row.secret_hash,
        frozenset(row.scopes),
        _seconds(row.expires_at),
        origins=None if row.origins is None else frozenset(row.origins),
        events=frozenset(row.events or ()),
        rate_limit=row.rate_limit,
    )


def _intake(row: Intake) -> IntakePlan:
    return IntakePlan(row.key, row.provider, Trust(tuple(row.secrets), row.tolerance_seconds), events_of(row))


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
    definitions: Mapping[str, PlacementDefinition],
    segmentations: _Segmentations,
    policies: Mapping[str, list[PolicyVersion]],
) -> dict[int, SeriesPlan]:
    """Plans of every series that can still decide."""
    in_policies = {
        entry["series"] for versions in policies.values() for row in versions for entry in row.entries.values()
    }
    running = session.exec(select(Experiment.series).where(col(Experiment.status).in_(LIVE))).all()
    wanted = in_policies | {number for number in running if number is not None}
    deciding = col(Series.number).in_(wanted) | (Series.kind == "programme")
    rows = session.exec(select(Series).where(deciding).order_by(col(Series.number))).all()
    numbers = {row.number for row in rows}
    variants, wheels = _variants(session, numbers), _weights(session, numbers)
    returned, paused = _returned(policies), _paused(session, numbers)
    return {
        row.number or 0: _series_plan(
            row,
            secret=workspace.secret,
            segmentation=segmentations.at(row.segmentation, row.segmentation_version),
            variants=variants[row.number or 0],
            weights=wheels[row.number or 0],
            paused=frozenset(paused[row.number or 0]),
            returned=returned[row.experiment] if row.kind == "experiment" else {},
            content_format=definitions[row.placement].format,
        )
        for row in rows
    }


def _returned(policies: Mapping[str, list[PolicyVersion]]) -> Mapping[str | None, dict[str, float]]:
    """When roll-backs give segments back, by experiment: at once, if what they undo was not in effect yet."""
    found: Mapping[str | None, dict[str, float]] = defaultdict(dict)
    for undone, row in (pair for rows in policies.values() for pair in pairwise(reversed(rows))):
        if row.action == "rollback" and undone.effective_at <= row.created_at:
            for segment, experiment in row.evidence["returned"].items():
                found[experiment][segment] = row.effective_at.timestamp()
    return found


def _variants(session: Session, numbers: set[int | None]) -> Mapping[int, list[SeriesVariant]]:
    found = defaultdict(list)
    query = select(SeriesVariant).where(col(SeriesVariant.series).in_(numbers)).order_by(col(SeriesVariant.position))
    for row in session.exec(query):
        found[row.series].append(row)
    return found


def _paused(session: Session, numbers: set[int | None]) -> Mapping[int, set[tuple[str, str]]]:
    found: Mapping[int, set[tuple[str, str]]] = defaultdict(set)
    columns = select(VariantPause.series, VariantPause.segment, VariantPause.variant)
    for series, *place in session.exec(
        columns.where(col(VariantPause.series).in_(numbers), col(VariantPause.lifted_at).is_(None))
    ):
        found[series].add((place[0], place[1]))
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
    paused: frozenset[tuple[str, str]],
    returned: Mapping[str, float],
    content_format: Format,
) -> SeriesPlan:
    number = row.number or 0
    return SeriesPlan(
        number=number,
        kind=row.kind,
        placement=row.placement,
        experiment=row.experiment,
        unit=row.unit,
        hash=UnitHash(secret, number),
        opens_at=row.opens_at.timestamp(),
        closes_at=_seconds(row.closes_at),
        closed_segments={key: datetime.fromisoformat(at).timestamp() for key, at in row.closed_segments.items()},
        returned_segments=returned,
        segmentation=segmentation,
        segments=frozenset(row.segments),
        wheels={
            segment: (version, Wheel.of({one.key: shares[one.key] for one in variants if one.key in shares}))
            for segment, (version, shares) in weights.items()
        },
        variants={variant.key: _variant_plan(variant, content_format) for variant in variants},
        control=next(variant.key for variant in variants if variant.is_control),
        covariate=PinnedCovariate.from_json(row.covariate),
        paused=paused,
        send_test=_send_test(row, secret=secret),
        has_exposure=row.exposure is not None,
    )


def _send_test(row: Series, *, secret: bytes) -> SendTest | None:
    plan = PinnedSendPlan.from_json(row.send_plan)
    if plan is None or plan.decided_at is not None:
        return None
    due = None if plan.decide_after is None else plan.decide_after.timestamp()
    return SendTest(ShareHash(secret, row.number or 0), plan.test_share, plan.winner_after.total_seconds(), due)


def _variant_plan(variant: SeriesVariant, content_format: Format) -> VariantPlan:
    content = compile_content(variant.content, format=content_format)
    return VariantPlan(variant.key, content, variant.deliver, is_retired=variant.retired_at is not None)


def _placement(
    key: str,
    definition: PlacementDefinition,
    *,
    segmentation: Segmentation,
    own: list[SeriesPlan],
    policies: list[Policy],
) -> PlacementPlan:
    default = definition.default
    (programme,) = (plan for plan in own if plan.kind == "programme")
    return PlacementPlan(
        key=key,
        definition=definition,
        segmentation=segmentation,
        default=VariantPlan(default.key, compile_content(default.content, format=definition.format), default.deliver),
        experiments=tuple(plan for plan in own if plan.kind == "experiment"),
        policies=tuple(policies),
        programme=programme,
    )


def _policy(row: PolicyVersion, series: Mapping[int, SeriesPlan]) -> Policy:
    by_segmentation: dict[int, tuple[Segmentation, dict[str, SeriesPlan]]] = {}
    newest_first = sorted(row.entries.items(), key=lambda item: -item[1]["series"])  # the latest promotion goes first
    for segment, entry in newest_first:
        plan = series[entry["series"]]
        by_segmentation.setdefault(id(plan.segmentation), (plan.segmentation, {}))[1][segment] = plan
    return Policy(row.version, row.effective_at.timestamp(), tuple(by_segmentation.values()))
