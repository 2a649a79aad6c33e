"""Importing a past campaign as it was logged: definitions, a concluded experiment, its decisions and outcomes."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import islice
from typing import Any, Final, Literal

from sqlmodel import Session

from experiments.access import audit
from experiments.campaigns.define import define
from experiments.campaigns.log import Campaign, OutcomeValues
from experiments.campaigns.shares import Design
from experiments.campaigns.versions import Versions, versions_of
from experiments.catalog.definition_store import get_definition, pin_metric
from experiments.catalog.definitions import ExperimentDefinition
from experiments.catalog.experiment_store import put_experiment
from experiments.catalog.lifecycle import series_variant
from experiments.database import bump_snapshot, database_now
from experiments.decisions.hashing import UnitHash
from experiments.decisions.rows import DecisionRow, write_decisions
from experiments.errors import ExperimentExists
from experiments.outcomes.attribution import OutcomeRow
from experiments.outcomes.rows import write_outcomes
from experiments.record import outcome_key
from experiments.series import PinnedCovariate
from experiments.tables import Allocation, Experiment, Series

DECIDED_AT: Final = datetime(2000, 1, 1, tzinfo=UTC)  # of every row where the log has no times
Basis = Literal["given propensities", "observed shares"]
_SLICE: Final = 2_000
_SHARD: Final = 0
_SOURCE: Final = "import"


@dataclass(frozen=True, slots=True)
class Imported:
    """What was imported.

    basis: Where the propensities are from.
    design: How units were randomised, if the shares were observed; None if propensities were given.
    variants: The key here of each value in the file; ``segments`` likewise.
    """

    experiment: str
    placement: str
    n_rows: int
    n_outcomes: int
    basis: Basis
    design: Design | None
    n_versions: int
    variants: dict[str, str]
    segments: dict[str, str]


def load(
    session: Session,
    campaign: Campaign,
    *,
    key: str,
    placement: str,
    actor: str,
    progress: Callable[[int], None] = lambda _n: None,
) -> Imported:
    """Import a campaign as a concluded experiment.

    Decisions are of the log's times, or all of ``DECIDED_AT``; outcomes occurred and arrived at their decision's. The
    caller's transaction makes it all or nothing, and on SQLite holds up every other writer until it ends.

    Args:
        session: To write with.
        campaign: The checked log.
        key: Of the new experiment.
        placement: Its placement; made if it isn't there.
        actor: For the audit.
        progress: Told how many more decisions and outcomes have been written.
    Raises:
        ExperimentExists: There is an experiment of that key.
        UnreadableCampaign: Propensities that are no weights, attributes that do not fit their declaration, a covariate
            that holds no numbers, or a metric of an outcome's name that means something else.
        InvalidDefinition: A covariate that is declared not to be stored, or a constant for missing ones beyond 1e12.
    """
    if session.get(Experiment, key) is not None:
        raise ExperimentExists(key)
    versions = versions_of(campaign)
    defined = define(session, campaign, key=key, placement=placement, actor=actor)
    put_experiment(session, key, payload=defined.experiment.model_dump(mode="json"), actor=actor)
    series = _open_series(session, campaign, key=key, definition=defined.experiment, segmentation=defined.segmentation)
    _add_allocations(session, campaign, series=series, versions=versions)
    writer = _Writer(session, campaign, series=series, versions=versions, attributes=defined.attributes)
    writer.write_decisions(progress)
    writer.write_outcomes(key, progress)
    _conclude(session, key, series=series)
    imported = Imported(
        experiment=key,
        placement=placement,
        n_rows=campaign.n_rows,
        n_outcomes=campaign.n_outcomes,
        basis=_basis(campaign),
        design=None if campaign.shares is None else campaign.shares.design,
        n_versions=sum(len(weights) for weights in versions.weights),
        variants=_mapping(campaign.variants.values, campaign.variants.keys),
        segments=_mapping(campaign.segments.values, campaign.segments.keys),
    )
    detail = {"n_rows": imported.n_rows, "n_outcomes": imported.n_outcomes, "basis": imported.basis}
    audit.record(session, actor=actor, action="import", subject=f"experiment/{key}", detail=detail)
    return imported


def _mapping(values: Sequence[str | None], keys: Sequence[str]) -> dict[str, str]:
    return {value: key for value, key in zip(values, keys, strict=True) if value is not None}


def _basis(campaign: Campaign) -> Basis:
    return "given propensities" if campaign.shares is None else "observed shares"


def _open_series(
    session: Session, campaign: Campaign, *, key: str, definition: ExperimentDefinition, segmentation: tuple[str, int]
) -> Series:
    channel = get_definition(session, "placement", key=definition.placement).body["channel"]
    times = campaign.decided_at or [DECIDED_AT]
    metrics = (definition.goal, *definition.metrics)
    series = Series(
        kind="experiment",
        placement=definition.placement,
        experiment=key,
        unit="customer",
        segmentation=segmentation[0],
        segmentation_version=segmentation[1],
        segments=list(campaign.segments.keys),
        metrics=[pin_metric(session, metric, channel=channel).to_json() for metric in metrics],
        covariate=None if definition.covariate is None else definition.covariate.model_dump(mode="json"),
        opens_at=min(times),
        closes_at=max(times) + timedelta(seconds=1),
        created_at=database_now(session),
    )
    session.add(series)
    session.flush()
    session.add_all(
        series_variant(variant, series=series.number or 0, position=i, now=series.opens_at)
        for i, variant in enumerate(definition.variants)
    )
    return series


def _add_allocations(session: Session, campaign: Campaign, *, series: Series, versions: Versions) -> None:
    session.add_all(
        Allocation(
            series=series.number or 0,
            segment=segment,
            version=version,
            weights=dict(zip(campaign.variants.keys, map(float, weights), strict=True)),
            basis={},
            reason=f"imported: {_basis(campaign)}",
            created_at=series.opens_at,
        )
        for segment, vectors in zip(campaign.segments.keys, versions.weights, strict=True)
        for version, weights in enumerate(vectors, start=1)
    )
    session.flush()


def _conclude(session: Session, key: str, *, series: Series) -> None:
    experiment = session.get_one(Experiment, key)
    experiment.status, experiment.series = "concluded", series.number
    experiment.started_at, experiment.ended_at = series.opens_at, series.closes_at
    experiment.version += 1
    session.flush()


class _Writer:
    """Rows of a log as decisions and outcomes of its series."""

    def __init__(
        self,
        session: Session,
        campaign: Campaign,
        *,
        series: Series,
        versions: Versions,
        attributes: Mapping[str, Sequence[Any]],
    ) -> None:
        self._connection = session.connection()
        self._campaign = campaign
        self._versions = versions
        self._attributes = attributes
        self._covariate = PinnedCovariate.from_json(series.covariate)
        self._hash = UnitHash(bump_snapshot(session).secret, series.number or 0)

    def write_decisions(self, progress: Callable[[int], None]) -> None:
        rows = iter(range(self._campaign.n_rows))
        while part := [self._decision(row) for row in islice(rows, _SLICE)]:
            write_decisions(self._connection, part, shard=_SHARD)
            progress(len(part))

    def write_outcomes(self, experiment: str, progress: Callable[[int], None]) -> None:
        rows = self._outcomes(experiment)
        while part := list(islice(rows, _SLICE)):
            write_outcomes(self._connection, part, shard=_SHARD)
            progress(len(part))

    def _customer(self, row: int) -> str:
        customers = self._campaign.customers
        return f"row-{row + 1}" if customers is None else customers[row]

    def _decided_at(self, row: int) -> datetime:
        times = self._campaign.decided_at
        return DECIDED_AT if times is None else times[row]

    def _decision(self, row: int) -> DecisionRow:
        campaign, customer = self._campaign, self._customer(row)
        stored = {key: values[row] for key, values in self._attributes.items() if values[row] is not None}
        segment_attribute = campaign.segment_attribute
        return DecisionRow(
            id=self._hash(customer)[0],
            customer_id=customer,
            occasion_id=None,
            segment=campaign.segments.keys[campaign.segments.index[row]],
            variant=campaign.variants.keys[campaign.variants.index[row]],
            allocation_version=int(self._versions.of_row[row]),
            propensity=float(campaign.propensity[row]),
            decided_at=self._decided_at(row),
            attributes=stored or None,
            lacks_attribute=segment_attribute is not None and campaign.attributes[segment_attribute][row] is None,
            covariate=None if self._covariate is None else self._covariate.of(stored),
            of_covariate=self._covariate,
        )

    def _outcomes(self, experiment: str) -> Iterator[OutcomeRow]:
        for metric in self._campaign.outcomes:
            n_events = metric.n_events
            for row in n_events.nonzero()[0].tolist():
                for i in range(n_events[row]):
                    yield self._outcome(metric, row, outcome_id=f"{experiment}/{metric.key}/{row + 1}/{i}")

    def _outcome(self, metric: OutcomeValues, row: int, *, outcome_id: str) -> OutcomeRow:
        decided_at = self._decided_at(row)
        return OutcomeRow(
            id=outcome_key(_SOURCE, outcome_id),
            source=_SOURCE,
            outcome_id=outcome_id,
            decision_id=self._hash(self._customer(row))[0],
            customer_id=None,
            occasion_id=None,
            event=metric.event,
            value=Decimal(metric.text[row]) if metric.kind == "mean" else None,
            occurred_at=decided_at,
            received_at=decided_at,
        )
