"""What analysts define: put, get and list attributes, segmentations, placements and metrics.

Every change makes a new version (the ETag); a body that says what the current one says makes none.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from typing import Any, Final, Literal

from pydantic import BaseModel
from sqlmodel import Session, col, func, select

from experiments.access import audit
from experiments.catalog import programme
from experiments.catalog.definitions import (
    BUILT_IN_METRICS,
    BUILT_IN_SEGMENTATIONS,
    COVARIATE_TYPES,
    AttributeDefinition,
    MetricDefinition,
    PlacementDefinition,
    SegmentationDefinition,
    parse_definition,
    window_hours,
)
from experiments.database import bump_snapshot, database_now
from experiments.errors import (
    DefinitionNotFound,
    FieldError,
    InvalidDefinition,
    InvalidInput,
    PlacementInUse,
    PlacementNotFound,
    PreconditionFailed,
)
from experiments.input.checks import KEY_PATTERN, shown
from experiments.segments.rules import compile_segmentation
from experiments.segments.syntax import conditions
from experiments.series import PinnedDenominator, PinnedMetric, PinnedPrior
from experiments.tables import Definition, Experiment, Series

Kind = Literal["attribute", "segmentation", "placement", "metric"]
BUILT_IN: Final[Mapping[str, Mapping[str, BaseModel]]] = {
    "segmentation": BUILT_IN_SEGMENTATIONS,
    "metric": BUILT_IN_METRICS,
}
LIVE: Final = ("running", "paused")


@dataclass(frozen=True, slots=True)
class Defined:
    """A definition as it now is. ``version`` 0: built in. ``created``: by this very call."""

    kind: str
    key: str
    version: int
    body: dict[str, Any]
    created: bool = False


def put_attribute(session: Session, key: str, *, payload: object, actor: str, if_match: int | None = None) -> Defined:
    """Declare an attribute.

    Raises:
        InvalidDefinition: Its type would change under rules that read it, it would no longer do as the covariate that
            it is of an experiment that goes on, or it is wrong in itself.
        PreconditionFailed: It is not at version ``if_match``.
    """
    definition = parse_definition(AttributeDefinition, payload)
    current = _open(session, "attribute", key=key, if_match=if_match)
    if current is not None and current.body["type"] != definition.type:
        _refuse_if_read(session, key)
    _refuse_if_covariate(session, key, definition=definition)
    return _store(session, definition, kind="attribute", key=key, current=current, actor=actor)


def put_segmentation(
    session: Session, key: str, *, payload: object, actor: str, if_match: int | None = None
) -> Defined:
    """Define a segmentation; what runs keeps the version that it started with.

    Raises:
        InvalidDefinition: A rule does not fit the declared attributes, or ``everyone`` would be replaced.
        PreconditionFailed: It is not at version ``if_match``.
    """
    if key in BUILT_IN_SEGMENTATIONS:
        raise InvalidDefinition([FieldError("", f"{shown(key)} is built in and can't be replaced")])
    definition = parse_definition(SegmentationDefinition, payload)
    current = _open(session, "segmentation", key=key, if_match=if_match)
    compile_segmentation(definition, declared_attributes(session))
    return _store(session, definition, kind="segmentation", key=key, current=current, actor=actor)


def put_metric(session: Session, key: str, *, payload: object, actor: str, if_match: int | None = None) -> Defined:
    """Define a metric, or a built-in one anew; what runs keeps the version that it started with.

    Raises:
        InvalidDefinition: It is wrong in itself.
        PreconditionFailed: It is not at version ``if_match``.
    """
    definition = parse_definition(MetricDefinition, payload)
    current = _open(session, "metric", key=key, if_match=if_match)
    return _store(session, definition, kind="metric", key=key, current=current, actor=actor)


def put_placement(session: Session, key: str, *, payload: object, actor: str, if_match: int | None = None) -> Defined:
    """Define a placement; its programme opens with it and follows its holdout's share.

    Raises:
        InvalidDefinition: No such segmentation, or it is wrong in itself.
        PlacementInUse: Its channel or format would change under running experiments.
        PreconditionFailed: It is not at version ``if_match``.
    """
    definition = parse_definition(PlacementDefinition, payload)
    current = _open(session, "placement", key=key, if_match=if_match)
    if find_definition(session, "segmentation", key=definition.segmentation) is None:
        raise InvalidDefinition([missing("/segmentation", definition.segmentation, kind="segmentation")])
    if current is not None:
        _refuse_change_in_use(session, current, definition=definition)
    stored = _store(session, definition, kind="placement", key=key, current=current, actor=actor)
    share, now = definition.holdout.share, database_now(session)
    if current is None:
        metrics = [pin_metric(session, metric, channel=definition.channel) for metric in BUILT_IN_METRICS]
        programme.open_programme(session, key, share=share, metrics=metrics, now=now)
    elif current.body["holdout"]["share"] != share:
        programme.change_share(session, key, share=share, now=now)
    return stored


def get_definition(session: Session, kind: Kind, *, key: str) -> Defined:
    """The current version of a definition; version 0 of what is built in and was not defined anew.

    Raises:
        PlacementNotFound: No such placement.
        DefinitionNotFound: No such attribute, segmentation or metric.
    """
    found = find_definition(session, kind, key=key)
    if found is None:
        raise PlacementNotFound(key) if kind == "placement" else DefinitionNotFound(kind, key=key)
    return found


def find_definition(session: Session, kind: Kind, *, key: str) -> Defined | None:
    """As ``get_definition``, or None."""
    if not is_key(key):
        return None
    query = select(Definition).where(Definition.kind == kind, Definition.key == key)
    row = session.exec(query.order_by(col(Definition.version).desc()).limit(1)).first()
    if row is not None:
        return Defined(kind, key, row.version, row.body)
    built_in = BUILT_IN.get(kind, {}).get(key)
    return None if built_in is None else Defined(kind, key, 0, built_in.model_dump(mode="json"))


def list_definitions(session: Session, kind: Kind, *, cursor: str | None = None, limit: int = 100) -> list[Defined]:
    """Current definitions of a kind by key, built-in ones too; ``cursor`` is the last key that the caller has seen."""
    keys = (
        set(session.exec(select(Definition.key).where(Definition.kind == kind).distinct()))
        | BUILT_IN.get(kind, {}).keys()
    )
    page = sorted(key for key in keys if cursor is None or key > cursor)[:limit]
    return [get_definition(session, kind, key=key) for key in page]


def current_definitions(session: Session, kind: str) -> Iterable[Definition]:
    """The highest version of every definition of a kind."""
    newest = (
        select(Definition.key, func.max(Definition.version).label("version"))
        .where(Definition.kind == kind)
        .group_by(Definition.key)
        .subquery()
    )
    return session.exec(
        select(Definition)
        .where(Definition.kind == kind)
        .join(newest, (col(Definition.key) == newest.c.key) & (col(Definition.version) == newest.c.version))
    )


def declared_attributes(session: Session) -> dict[str, AttributeDefinition]:
    """All attributes as they are declared now."""
    rows = current_definitions(session, "attribute")
    return {row.key: AttributeDefinition.model_validate(row.body) for row in rows}


def segment_keys(segmentation: Defined) -> list[str]:
    """The segments of a segmentation in their order, everyone else last."""
    return [*(segment["key"] for segment in segmentation.body["segments"]), segmentation.body["otherwise"]]


def pin_metric(session: Session, key: str, *, channel: str) -> PinnedMetric:
    """A metric whole, as it is now, for a series to keep.

    Raises:
        DefinitionNotFound: No such metric.
    """
    found = get_definition(session, "metric", key=key)
    metric = MetricDefinition.model_validate(found.body)
    return PinnedMetric(
        key=key,
        version=found.version,
        event=metric.event,
        kind=metric.kind,
        window=timedelta(hours=window_hours(metric, channel=channel)),
        grace=timedelta(hours=metric.grace_hours),
        higher_is_better=metric.direction == "increase",
        cap=None if metric.cap is None else Decimal(repr(metric.cap)),
        currency=metric.currency,
        aggregate=(metric.aggregate or "sum") if metric.kind == "ratio" else None,
        denominator=None if metric.denominator is None else PinnedDenominator(**metric.denominator.model_dump()),
        prior=None if metric.prior is None else PinnedPrior(**metric.prior.model_dump()),
    )


def _open(session: Session, kind: Kind, *, key: str, if_match: int | None) -> Defined | None:
    """Begin a change: lock out the others, and return what there is."""
    check_key(key)
    bump_snapshot(session)
    current = find_definition(session, kind, key=key)
    check_version(f"{kind}/{key}", if_match, current=None if current is None else current.version)
    return current


def is_key(text: str) -> bool:
    """Whether a text can be the key of anything; what can't needn't be looked for."""
    return re.fullmatch(KEY_PATTERN, text) is not None


def check_key(key: str) -> None:
    """Refuse what can't be a key.

    Raises:
        InvalidInput: It has other characters, or too many.
    """
    if not is_key(key):
        raise InvalidInput([FieldError("", f"a key is up to 128 letters, digits, '.', '_' and '-', not {shown(key)}")])


def check_version(subject: str, if_match: int | None, *, current: int | None) -> None:
    """Honour If-Match.

    Raises:
        PreconditionFailed: It is not at the version that the caller means.
    """
    if if_match is not None and if_match != current:
        raise PreconditionFailed(subject, wanted=if_match, current=current)


def _store(
    session: Session, definition: BaseModel, *, kind: Kind, key: str, current: Defined | None, actor: str
) -> Defined:
    body = definition.model_dump(mode="json")
    if current is not None and audit.canonical(current.body) == audit.canonical(body):
        return current
    version = 1 if current is None else current.version + 1
    now = database_now(session)
    session.add(Definition(kind=kind, key=key, version=version, body=body, created_at=now, created_by=actor))
    session.flush()
    audit.record(session, actor=actor, action="put", subject=f"{kind}/{key}", detail={"version": version})
    return Defined(kind, key, version, body, created=current is None)


def missing(pointer: str, key: str, *, kind: str) -> FieldError:
    """What is wrong with a name that names nothing."""
    return FieldError(pointer, f"there is no {kind} {shown(key)}")


def _refuse_if_read(session: Session, attribute: str) -> None:
    """Rules that were checked against an attribute's type must go on meaning what they say."""
    current = {(row.key, row.version) for row in current_definitions(session, "segmentation")}
    live = select(Series.segmentation, Series.segmentation_version).outerjoin(Experiment)
    pinned = session.exec(live.where((col(Series.kind) == "policy") | col(Experiment.status).in_(LIVE))).all()
    for key, version in sorted(current.union(pinned)):
        row = session.get(Definition, ("segmentation", key, version))
        rules = [] if row is None else [segment["rule"] for segment in row.body["segments"]]
        if any(condition["attribute"] == attribute for rule in rules for _, condition in conditions(rule)):
            detail = f"can't change: version {version} of the segmentation {key!r} reads the attribute"
            raise InvalidDefinition([FieldError("/type", detail)])


def _refuse_if_covariate(session: Session, attribute: str, *, definition: AttributeDefinition) -> None:
    """What a running experiment captures of its units must go on being captured, and kept."""
    wrong = [] if definition.type in COVARIATE_TYPES else ["/type"]
    wrong += [] if definition.stored else ["/stored"]
    if not wrong:
        return
    query = select(Experiment.key, Series.covariate).join(Series, col(Series.number) == Experiment.series)
    live = session.exec(query.where(col(Experiment.status).in_(LIVE)).order_by(col(Experiment.key)))
    readers = [key for key, covariate in live if covariate is not None and covariate["attribute"] == attribute]
    if readers:
        detail = f"can't change: the attribute is the covariate of the experiment {readers[0]!r}"
        raise InvalidDefinition([FieldError(pointer, detail) for pointer in wrong])


def _refuse_change_in_use(session: Session, current: Defined, *, definition: PlacementDefinition) -> None:
    query = select(Experiment.key).where(Experiment.placement == current.key, col(Experiment.status).in_(LIVE))
    live = session.exec(query.order_by(col(Experiment.key))).all()
    for field in ("channel", "format"):
        if live and current.body[field] != getattr(definition, field):
            raise PlacementInUse(current.key, field=field, experiments=live)
