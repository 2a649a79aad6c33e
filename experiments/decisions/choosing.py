"""Choosing a variant from the snapshot: no query, no clock, no chance but the unit's hash."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from experiments.catalog.definitions import EVERYONE
from experiments.decisions.hashing import holdout_uniform, period_of
from experiments.decisions.rows import DecisionRow
from experiments.errors import VariantNotFound
from experiments.segments.rules import Segmentation
from experiments.snapshot.plans import PlacementPlan, SeriesPlan, Snapshot, VariantPlan

HELD_OUT = "held_out"
TREATED = "treated"
WAITING = "waiting"


@dataclass(frozen=True, slots=True)
class Asked:
    """Who is asked for. ``typed``: attributes by their declaration, for rules and templates; ``stored``: those kept.

    ``called``: the id that the caller knows, where the person is decided for under another; ``has_aliases``: the person
    has several ids.
    """

    customer_id: str
    occasion_id: str | None = None
    typed: Mapping[str, Any] = field(default_factory=dict)
    stored: dict[str, Any] = field(default_factory=dict)
    preview: str | bool | None = None
    called: str | None = None
    has_aliases: bool = False
    public_only: bool = False


@dataclass(slots=True)  # not frozen: that alone made choosing a third slower, or more
class Choice:
    """What was chosen and why. ``rows`` are to be written, the answer's own first; none for overrides and previews.

    ``decide_after``: the unit waits until then, seconds since 1970, and none of the rows is its own.
    """

    placement: PlacementPlan
    asked: Asked
    source: str
    reason: str
    segment: str
    variant: VariantPlan
    series: SeriesPlan | None = None
    rows: tuple[DecisionRow, ...] = ()
    decide_after: float | None = None


@dataclass(frozen=True, slots=True)
class Moment:
    """When a choice is made. ``is_stale``: the snapshot may lack changes in effect; not ``is_usable``: too old."""

    at: datetime
    seconds: float
    is_stale: bool
    is_usable: bool


def choose(snapshot: Snapshot, placement: PlacementPlan, *, asked: Asked, moment: Moment) -> Choice:
    """Override or preview, holdout, experiment, policy, default: the first that applies.

    Raises:
        VariantNotFound: The preview names no variant of the placement.
    """
    segments = _Segments(asked.typed)
    quality = _for_quality(snapshot, placement, asked=asked, segments=segments)
    if quality is not None:
        return quality
    choice = _chosen(snapshot, placement, asked=asked, moment=moment, segments=segments)
    return choice if asked.preview is None else replace(choice, source="preview", rows=())


def _chosen(
    snapshot: Snapshot, placement: PlacementPlan, *, asked: Asked, moment: Moment, segments: "_Segments"
) -> Choice:
    holdout = placement.definition.holdout
    if holdout.share > 0 and holdout_uniform(snapshot.holdout_secret, asked.customer_id) < holdout.share:
        shown = placement.default
        if holdout.gets == "nothing":
            shown = VariantPlan(shown.key, shown.content, deliver=False)
        return _enrolled(
            placement, asked, moment=moment, segments=segments, variant=shown, source="holdout", reason="held_out"
        )
    choice, reason = _from_series(placement, asked, moment=moment, segments=segments)
    if choice is None:
        shown = placement.default
        return _enrolled(
            placement, asked, moment=moment, segments=segments, variant=shown, source="default", reason=reason
        )
    if holdout.share > 0:
        choice.rows += (_programme_row(placement, asked, moment=moment, segments=segments, variant=TREATED),)
    return choice


def find_variant(placement: PlacementPlan, key: str) -> VariantPlan | None:
    """A variant by its key, wherever the placement has it: running experiments, the policy, the default."""
    series = [*placement.experiments]
    series += [plan for policy in placement.policies[:1] for _, entries in policy.entries for plan in entries.values()]
    found = (plan.variants[key] for plan in series if key in plan.variants)
    return next(found, placement.default if placement.default.key == key else None)


class _Segments:
    """A customer's segment in each segmentation, worked out once a request."""

    __slots__ = ("_known", "typed")

    def __init__(self, typed: Mapping[str, Any]) -> None:
        self.typed = typed
        self._known: dict[int, str] = {}

    def of(self, segmentation: Segmentation) -> str:
        known = self._known.get(id(segmentation))
        if known is None:
            known = self._known[id(segmentation)] = segmentation.segment_of(self.typed)
        return known


def _for_quality(snapshot: Snapshot, placement: PlacementPlan, *, asked: Asked, segments: _Segments) -> Choice | None:
    """Overrides and previews: asked for by QA, never counted."""
    if isinstance(asked.preview, str):
        key, source = asked.preview, "preview"
    else:
        override = snapshot.overrides.get((placement.key, asked.called or asked.customer_id))
        if override is None:
            return None
        key, source = override, "override"
    variant = find_variant(placement, key)
    if variant is None and source == "preview":
        raise VariantNotFound(key, placement=placement.key)
    if variant is None:  # its experiment is over
        return None
    segment = segments.of(placement.segmentation)
    return Choice(placement, asked, source=source, reason=source, segment=segment, variant=variant)


def _enrolled(
    placement: PlacementPlan,
    asked: Asked,
    *,
    moment: Moment,
    segments: _Segments,
    variant: VariantPlan,
    source: str,
    reason: str,
) -> Choice:
    """An answer of the programme itself: to the held out, and where nothing else decides."""
    side = HELD_OUT if source == "holdout" else TREATED
    row = _programme_row(placement, asked, moment=moment, segments=segments, variant=side)
    return Choice(
        placement,
        asked,
        source=source,
        reason=reason,
        segment=row.segment,
        variant=variant,
        series=placement.programme,
        rows=(row,),
    )


def _programme_row(
    placement: PlacementPlan, asked: Asked, *, moment: Moment, segments: _Segments, variant: str
) -> DecisionRow:
    """The enrolment of a customer in a period, on either side of the holdout."""
    programme, share = placement.programme, placement.definition.holdout.share
    id_, _ = programme.hash(asked.customer_id, str(period_of(moment.seconds)))
    return DecisionRow(
        id=id_,
        customer_id=asked.customer_id,
        occasion_id=None,
        segment=segments.of(placement.segmentation),
        variant=variant,
        allocation_version=programme.wheels[EVERYONE][0],
        propensity=share if variant == HELD_OUT else 1.0 - share,
        decided_at=moment.at,
        attributes=asked.stored or None,
        lacks_attribute=_lacks(placement.segmentation, asked),
        stale=moment.is_stale,
        has_aliases=asked.has_aliases,
    )


def _from_series(
    placement: PlacementPlan, asked: Asked, *, moment: Moment, segments: _Segments
) -> tuple[Choice | None, str]:
    """A running experiment that covers the segment, else the policy; None and why if neither."""
    if not moment.is_usable:
        return None, "snapshot_stale"
    for series in placement.experiments:
        segment = segments.of(series.segmentation)
        if series.is_open(segment, moment.seconds):
            if series.unit == "occasion" and asked.occasion_id is None:
                return None, "occasion_id_missing"
            if series.send_test is not None and not series.send_test.has(_unit(series, asked, moment=moment)):
                return _waiting(placement, asked, series=series, segment=segment, moment=moment), ""
            return _spin(placement, asked, series=series, segment=segment, moment=moment, source="experiment"), ""
    policy = placement.policy_at(moment.seconds)
    for segmentation, entries in policy.entries if policy is not None else ():
        segment = segments.of(segmentation)
        winner = entries.get(segment)
        if winner is not None:
            return _spin(placement, asked, series=winner, segment=segment, moment=moment, source="policy"), ""
    return None, "no_experiment_or_policy"


def _spin(
    placement: PlacementPlan, asked: Asked, *, series: SeriesPlan, segment: str, moment: Moment, source: str
) -> Choice:
    id_, uniform = series.hash(*_unit(series, asked, moment=moment))
    version, wheel = series.wheels[segment]
    key, propensity = wheel.pick(uniform)
    row = DecisionRow(
        id=id_,
        customer_id=asked.customer_id,
        occasion_id=asked.occasion_id if series.unit == "occasion" else None,
        segment=segment,
        variant=key,
        allocation_version=version,
        propensity=propensity,
        decided_at=moment.at,
        attributes=asked.stored or None,
        lacks_attribute=_lacks(series.segmentation, asked),
        stale=moment.is_stale,
        has_aliases=asked.has_aliases,
    )
    row.awaits_exposure = series.has_exposure
    if series.covariate is not None:
        row.covariate, row.of_covariate = series.covariate.of(asked.typed), series.covariate
    return Choice(
        placement,
        asked,
        source=source,
        reason="allocated",
        segment=segment,
        variant=series.variants[key],
        series=series,
        rows=(row,),
    )


def _waiting(placement: PlacementPlan, asked: Asked, *, series: SeriesPlan, segment: str, moment: Moment) -> Choice:
    """A unit outside the test of a send plan, before there is a winner: nothing is sent, nor chosen for good."""
    due = moment.seconds if series.send_test is None else series.send_test.winner_due(moment.seconds)
    return Choice(
        placement,
        asked,
        source=WAITING,
        reason="outside_test" if moment.seconds < due else "winner_pending",
        segment=segment,
        variant=VariantPlan(placement.default.key, placement.default.content, deliver=False),
        series=series,
        decide_after=due,
    )


def _unit(series: SeriesPlan, asked: Asked, *, moment: Moment) -> tuple[str, ...]:
    if series.unit == "occasion":
        return asked.customer_id, asked.occasion_id or ""
    if series.unit == "period":
        return asked.customer_id, str(period_of(moment.seconds))
    return (asked.customer_id,)


def _lacks(segmentation: Segmentation, asked: Asked) -> bool:
    return not segmentation.attributes <= asked.typed.keys()
