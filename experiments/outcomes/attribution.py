"""Which decisions an outcome counts for.

An outcome that names its decision counts there and for the same customer's programme decision of that placement (else
those who report by decision would seem worth less than those held out). One that names a customer counts in each series
once, for the latest decision before it. A metric counts it inside its window, which starts at the decision, and while
it is not late.

Where a series names an exposure event, the window starts at the first of these that the decision has. Which outcomes a
decision keeps does not hang on its exposure, which may be reported later, or be corrected: what it keeps is counted
again whenever its exposure moves, so that the order of arrival does not matter.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from decimal import Decimal

from experiments.decisions.hashing import series_of
from experiments.series import PinnedMetric, SeriesMetrics

CLOCK_SKEW = timedelta(minutes=5)  # a named decision may seem to come after its outcome by so much
MAX_WINDOW = timedelta(days=366)  # the longest that a metric may have
EXPOSURE_REACH = timedelta(days=90)  # a unit that has not met its variant by then does not count
REACH = EXPOSURE_REACH + MAX_WINDOW  # an outcome later than that counts for no decision


@dataclass(frozen=True, slots=True)
class OutcomeRow:
    """An outcome as reported; ``customer_id`` or ``decision_id`` is given. ``value`` in the metric's unit.

    ``placement``: by customer, only decisions of this one count; None: of any.
    ``machine``: why it is taken for a machine's; None for people's.
    """

    id: bytes
    source: str
    outcome_id: str | None
    decision_id: bytes | None
    customer_id: str | None
    occasion_id: str | None
    event: str
    value: Decimal | None
    occurred_at: datetime
    received_at: datetime
    is_future: bool = False
    placement: str | None = None
    machine: str | None = None


@dataclass(frozen=True, slots=True)
class DecisionRef:
    """A stored decision, as far as counting needs it."""

    id: bytes
    customer_id: str
    occasion_id: str | None
    segment: str
    variant: str
    allocation_version: int
    decided_at: datetime
    covariate: float | None = None
    exposed_at: datetime | None = None

    @property
    def starts_at(self) -> datetime:
        """When its windows start, and from when its unit counts: at its exposure where it has one."""
        return self.decided_at if self.exposed_at is None else self.exposed_at


@dataclass(frozen=True, slots=True)
class Hit:
    """One metric of one decision that counts an outcome; ``covariate`` is the unit's, None where its series has none.

    A ratio is hit once, even if the outcome feeds both of its parts.
    """

    decision: DecisionRef
    metric: PinnedMetric
    covariate: Decimal | None = None


@dataclass(frozen=True, slots=True)
class Attributed:
    """Where an outcome counts; ``status``: ``attributed``, ``late``, ``unattributed``, ``waiting`` (for a decision).

    ``kept``: decisions, of series with an exposure event, that keep it whether or not it counts now; ``exposes``: those
    of them that it says were met.
    """

    outcome: OutcomeRow
    hits: tuple[Hit, ...]
    status: str
    kept: tuple[bytes, ...] = ()
    exposes: tuple[bytes, ...] = ()

    @property
    def decisions(self) -> set[bytes]:
        """All decisions that it belongs to."""
        return {*self.kept, *(hit.decision.id for hit in self.hits)}


def attribute(
    outcome: OutcomeRow,
    *,
    named: Mapping[bytes, DecisionRef],
    by_customer: Mapping[str, list[DecisionRef]],
    metrics: Mapping[int, SeriesMetrics],
) -> Attributed:
    """Say where an outcome counts.

    Args:
        outcome: As reported.
        named: Decisions by id.
        by_customer: Decisions by customer, the earliest first.
        metrics: Pinned metrics by series number.
    """
    decisions = _decisions(outcome, named=named, by_customer=by_customer, metrics=metrics)
    if not decisions:
        return Attributed(outcome, (), "waiting")
    read = [hit for decision in decisions for hit in hits_of(outcome, decision, series=metrics[series_of(decision.id)])]
    hits = tuple(hit for hit in read if not is_late(outcome, hit))
    kept = [decision for decision in decisions if keeps(outcome, decision, series=metrics[series_of(decision.id)])]
    exposes = tuple(one.id for one in kept if is_exposure(outcome, one, series=metrics[series_of(one.id)]))
    awaited = any(one.exposed_at is None for one in kept)
    if hits or exposes or awaited:
        status = "attributed"
    else:
        is_late_exposure = any(outcome.event == metrics[series_of(one.id)].exposure for one in decisions)
        status = "late" if read or is_late_exposure else "unattributed"
    return Attributed(outcome, hits, status, tuple(one.id for one in kept), exposes)


def hits_of(outcome: OutcomeRow, decision: DecisionRef, *, series: SeriesMetrics) -> Iterable[Hit]:
    """The metrics of a decision whose event and window an outcome meets."""
    if series.exposure is not None and decision.exposed_at is None:
        return
    age = outcome.occurred_at - decision.starts_at
    covariate = series.covariate_of(decision.covariate)
    for metric in series.metrics:
        is_known = metric.since is None or outcome.received_at >= metric.since
        if metric.reads(outcome.event) and is_known and -CLOCK_SKEW <= age < metric.window:
            yield Hit(decision, metric, covariate)


def is_late(outcome: OutcomeRow, hit: Hit) -> bool:
    """Whether an outcome was received after the window and the grace that follows it."""
    return outcome.received_at > hit.decision.starts_at + hit.metric.window + hit.metric.grace


def is_exposure(outcome: OutcomeRow, decision: DecisionRef, *, series: SeriesMetrics) -> bool:
    """Whether an outcome says that the unit of a decision met its variant; it is late when outcomes of it would be."""
    age = outcome.occurred_at - decision.decided_at
    in_time = -CLOCK_SKEW <= age < EXPOSURE_REACH and outcome.received_at <= outcome.occurred_at + series.patience
    return outcome.event == series.exposure and outcome.machine is None and in_time


def keeps(outcome: OutcomeRow, decision: DecisionRef, *, series: SeriesMetrics) -> bool:
    """Whether an outcome could count for a decision if its exposure came, or were, at another time."""
    if series.exposure is None:
        return False
    age = outcome.occurred_at - decision.decided_at
    could = any(metric.reads(outcome.event) and age < EXPOSURE_REACH + metric.window for metric in series.metrics)
    return is_exposure(outcome, decision, series=series) or (could and age >= -CLOCK_SKEW)


def exposed(decision: DecisionRef, outcomes: Iterable[OutcomeRow], *, series: SeriesMetrics) -> DecisionRef:
    """A decision with its exposure: the first that any of the outcomes reports, and never before the decision."""
    times = [one.occurred_at for one in outcomes if is_exposure(one, decision, series=series)]
    return replace(decision, exposed_at=max(min(times), decision.decided_at) if times else None)


def _decisions(
    outcome: OutcomeRow,
    *,
    named: Mapping[bytes, DecisionRef],
    by_customer: Mapping[str, list[DecisionRef]],
    metrics: Mapping[int, SeriesMetrics],
) -> list[DecisionRef]:
    if outcome.decision_id is None:
        theirs = by_customer.get(outcome.customer_id or "", [])
        if outcome.placement is not None:
            theirs = [ref for ref in theirs if metrics[series_of(ref.id)].placement == outcome.placement]
        return _latest_per_series(theirs, outcome, skew=timedelta(0))
    decision = named.get(outcome.decision_id)
    if decision is None:
        return []
    placement = metrics[series_of(decision.id)].placement
    others = _latest_per_series(by_customer.get(decision.customer_id, ()), outcome, skew=CLOCK_SKEW)
    return [decision, *(ref for ref in others if _is_programme(ref, metrics, placement=placement) and ref != decision)]


def _is_programme(decision: DecisionRef, metrics: Mapping[int, SeriesMetrics], *, placement: str) -> bool:
    series = metrics[series_of(decision.id)]
    return series.kind == "programme" and series.placement == placement


def _latest_per_series(decisions: Iterable[DecisionRef], outcome: OutcomeRow, *, skew: timedelta) -> list[DecisionRef]:
    """The latest decision before an outcome in each series; a named occasion leaves out the other occasions.

    The skew is that of a named decision: else the treated would lose to the programme what the held out keep.
    """
    latest: dict[int, DecisionRef] = {}
    for decision in decisions:
        other = None not in (outcome.occasion_id, decision.occasion_id) and outcome.occasion_id != decision.occasion_id
        if decision.decided_at <= outcome.occurred_at + skew and not other:
            latest[series_of(decision.id)] = decision
    return list(latest.values())
