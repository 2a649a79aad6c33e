"""What a review starts from: the strata of one metric of a series, all units and the matured ones."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache, partial

import numpy as np
from numpy.typing import NDArray
from sqlmodel import Session, col, select

from experiments.catalog.definitions import EVERYONE
from experiments.customers.aliases import n_merged
from experiments.database import database_now
from experiments.decisions.hashing import series_range
from experiments.errors import (
    ExperimentNotFound,
    FieldError,
    InvalidInput,
    MetricNotMeasured,
    ResultsImpossible,
    SegmentNotFound,
    WrongState,
)
from experiments.review.money import costs_of, monthly_units, net_of_costs, value_metric
from experiments.review.strata import Strata, strata_of
from experiments.review.unit_values import CovariateUse, UnitValues, unit_values
from experiments.series import PinnedMetric
from experiments.tables import Experiment, Series, SeriesVariant
from experiments.tallies.exposures import Exposures, read_exposures
from experiments.tallies.read import Tallies, Weights, read_tallies, read_weights
from optimizer.errors import OptimizerError

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]
_HOUR = 3600.0
_DAY = 86_400.0
STARTED = ("running", "paused", "concluded")
_FIRST = datetime(1980, 1, 1, tzinfo=UTC)  # long before any series, and far from where arithmetic ends


@dataclass(frozen=True, slots=True)
class Reading:
    """One metric of a series (or of several, joined).

    Attributes:
        metric: As pinned.
        units: All units decided by then, as tallied.
        matured_units: Those whose window and grace have passed.
        strata: All units with what they count with (``unit_values``).
        matured: The matured ones.
        uncapped: As ``strata``, with totals as they came; None where the metric has no cap.
        covariate: What the series' covariate does for this metric; None without one.
        first_hour: Of the matured decisions of each segment, hours since 1970, NaN if none, shape (n_segments,).
        last_hour: The last such hour.
        n_lacking: Units that lacked an attribute.
        n_merged: Units of persons who, under another id, had an earlier one with another variant.
        monthly_units: Units in 30 days at the present rate; None from less than a day.
        weights: Current weights by segment.
        net: Strata of what units are worth in money after costs; None if nothing is money.
        currency: Of ``net``, as far as it is known.
        money_metric: Key of the metric whose totals, uncapped, are that money; None where there are costs alone.
        exposures: How many units were decided and how many met their variant; None where they count from decisions.
    """

    metric: PinnedMetric
    units: Strata
    matured_units: Strata
    strata: Strata
    matured: Strata
    uncapped: Strata | None
    covariate: CovariateUse | None
    first_hour: Floats
    last_hour: Floats
    n_lacking: float
    n_merged: int
    monthly_units: float | None
    weights: Mapping[str, Mapping[str, float]]
    net: Strata | None
    currency: str | None
    money_metric: str | None
    exposures: Exposures | None = None

    @property
    def matured_share(self) -> float | None:
        """Matured units among all; None without any."""
        units = float(self.units.n_units.sum())
        return float(self.matured_units.n_units.sum()) / units if units else None

    @property
    def is_rate(self) -> bool:
        """Whether units count with 0 or 1; less what a covariate foretells they don't."""
        return self.metric.kind == "binary" and not (self.covariate is not None and self.covariate.is_used)

    def measured(self, units: Strata) -> Strata:
        """What some of the units count with: a ratio of a part is no part of the whole's."""
        used = self.covariate is not None and self.covariate.is_used
        attribute = self.covariate.attribute if self.covariate is not None and used else None
        return unit_values(units, metric=self.metric, covariate=attribute).strata

    @property
    def days(self) -> Floats:
        """Full days of matured decisions by segment and (last) over all, shape (n_segments + 1,)."""
        known = np.isfinite(self.first_hour)
        if not known.any():
            return np.zeros(known.size + 1)
        first = np.append(self.first_hour, self.first_hour[known].min())
        last = np.append(self.last_hour, self.last_hour[known].max())
        days: Floats = np.nan_to_num(np.floor((last + 1.0 - first) / 24.0))
        return days


def started_series(session: Session, key: str, *, segment: str | None) -> tuple[Experiment, Series]:
    """An experiment that has started, and its series.

    Args:
        session: Reads.
        key: The experiment's.
        segment: One that it must cover, if any.
    Raises:
        ExperimentNotFound: No such experiment.
        WrongState: It has not started.
        SegmentNotFound: It does not cover the segment.
    """
    experiment = session.get(Experiment, key)
    if experiment is None:
        raise ExperimentNotFound(key)
    if experiment.series is None:
        raise WrongState(key, status=experiment.status, allowed=STARTED)
    series = session.get_one(Series, experiment.series)
    if segment is not None and segment not in series.segments:
        raise SegmentNotFound(segment, subject=f"Experiment {key!r}")
    return experiment, series


def moment_of(session: Session, as_of: datetime | None) -> datetime:
    """The moment that a review is of, by default now.

    Raises:
        InvalidInput: It is in the future, where nothing has matured yet, or before 1980, where nothing had begun.
    """
    now = database_now(session)
    if as_of is not None and not _FIRST <= as_of <= now:
        wrong = "before 1980" if as_of < _FIRST else "in the future"
        raise InvalidInput([FieldError("/as_of", f"must not be {wrong}: {as_of.isoformat()}")])
    return as_of or now


@contextmanager
def in_domain_words() -> Iterator[None]:
    """Say in the domain's words what mathematics refuse.

    Raises:
        ResultsImpossible: The sums contradict each other.
    """
    try:
        yield
    except OptimizerError as error:
        raise ResultsImpossible(str(error)) from error


def variants_of_series(session: Session, number: int) -> Sequence[SeriesVariant]:
    """The variants of a series in order, retired ones too."""
    query = select(SeriesVariant).where(SeriesVariant.series == number).order_by(col(SeriesVariant.position))
    return session.exec(query).all()


def pinned_metrics(series: Series) -> list[PinnedMetric]:
    """The metrics that a series measures; an experiment's goal comes first."""
    return [PinnedMetric.from_json(metric) for metric in series.metrics]


def pinned_metric(series: Series, key: str | None) -> PinnedMetric:
    """A metric of a series, by default its first.

    Raises:
        MetricNotMeasured: The series doesn't measure it.
    """
    pinned = pinned_metrics(series)
    found = next((metric for metric in pinned if key in {None, metric.key}), None)
    if found is None:
        raise MetricNotMeasured(key or "", measured=[metric.key for metric in pinned])
    return found


def read(
    session: Session,
    series: Series,
    *,
    metric: str | None,
    as_of: datetime,
    segments: Collection[str] | None = None,
    machines: bool = False,
) -> Reading:
    """Read one metric of a series.

    Args:
        session: Any; reading on one state of the database keeps several metrics consistent.
        series: Stored.
        metric: By default the first pinned one, the goal.
        as_of: Units decided by (the hour of) then are read, and matured units are those matured then. What they
            answered since is counted: a tally does not keep when responses arrived.
        segments: Only these.
        machines: Count what machines did as if people had.
    Raises:
        MetricNotMeasured: The series doesn't measure it.
    """
    pinned = pinned_metric(series, metric)
    variants = variants_of_series(session, series.number or 0)
    weights = read_weights(session, series.number or 0)
    strata = partial(strata_of, weights=weights, control=next(one.key for one in variants if one.is_control))
    maturing = (as_of - pinned.window - pinned.grace).timestamp()
    hours = int(as_of.timestamp() // _HOUR) + 1, int(maturing // _DAY) * 24
    tallies_of = _reader(session, series, hours=hours, segments=segments, machines=machines)
    tallies, capped = tallies_of(pinned.key), pinned.cap is not None
    measured = _measured(tallies, pinned)
    matured = measured & (_decided_by(tallies, series) <= maturing)
    net, value = _net(pinned, pinned_metrics(series), variants=variants, read_strata=lambda m: strata(tallies_of(m)))
    units, matured_units = (strata(tallies, capped=capped, chosen=chosen) for chosen in (measured, matured))
    values = unit_values(units, metric=pinned, covariate=(series.covariate or {}).get("attribute"))
    return Reading(
        metric=pinned,
        units=units,
        matured_units=matured_units,
        strata=values.strata,
        matured=_alike(matured_units, values, metric=pinned),
        uncapped=_alike(strata(tallies), values, metric=pinned) if capped else None,
        covariate=values.covariate,
        **_hours(tallies, matured),
        n_lacking=float(tallies.n_lacking[measured].sum()),
        n_merged=n_merged(session.connection(), series_range(series.number or 0)),
        monthly_units=_monthly(tallies, measured),
        weights=_current(weights, tallies.segments),
        net=net,
        currency=None if value is None else value.currency,
        money_metric=None if value is None else value.key,
        exposures=_exposures(session, series, tallies=tallies, before_hour=hours[0]),
    )


def _exposures(session: Session, series: Series, *, tallies: Tallies, before_hour: int) -> Exposures | None:
    if series.exposure is None:
        return None
    return read_exposures(
        session,
        series.number or 0,
        event=series.exposure,
        segments=tallies.segments,
        variants=tallies.variants,
        before_hour=before_hour,
    )


def _reader(
    session: Session, series: Series, *, hours: tuple[int, int], segments: Collection[str] | None, machines: bool
) -> Callable[[str], Tallies]:
    """Tallies by metric, each read once: before the first of the hours, and by the hour on the day of the second.

    On that day some have matured and some have not.
    """

    @cache
    def tallies_of(key: str) -> Tallies:
        return read_tallies(
            session,
            series.number or 0,
            metric=key,
            segments=segments,
            before_hour=hours[0],
            by_hour=(hours[1], hours[1] + 24),
            with_machines=machines,
        )

    return tallies_of


def _monthly(tallies: Tallies, measured: Flags) -> float | None:
    hours = tallies.first_hour[measured], tallies.last_hour[measured]
    return monthly_units(*hours, n_units=tallies.n_units[measured])


def _measured(tallies: Tallies, metric: PinnedMetric) -> Flags:
    """Rows of units decided since the metric was counted at all: a programme's may have joined it later."""
    if metric.since is None:
        return np.ones(tallies.hour.shape, dtype=np.bool_)
    return np.asarray(tallies.first_hour >= metric.since.timestamp() // _HOUR)


def _alike(matured_units: Strata, values: UnitValues, *, metric: PinnedMetric) -> Strata:
    """What matured units count with, adjusted by a covariate only if all units are."""
    use = values.covariate
    attribute = use.attribute if use is not None and use.is_used else None
    return unit_values(matured_units, metric=metric, covariate=attribute).strata


def _net(
    asked: PinnedMetric,
    pinned: Sequence[PinnedMetric],
    *,
    variants: Sequence[SeriesVariant],
    read_strata: Callable[[str], Strata],
) -> tuple[Strata | None, PinnedMetric | None]:
    """Strata of what units are worth after costs, and the metric that is money; None where nothing is."""
    costs = costs_of([variant.cost for variant in variants])
    value, goal = value_metric(asked, pinned, costs=costs), pinned[0]
    if value is None and not costs.any:
        return None, None
    paid = None if value is None else read_strata(value.key)
    cost = read_strata(goal.key)  # read later: it has all units that paid has
    same = value is not None and (value.event, value.window, value.grace) == (goal.event, goal.window, goal.grace)
    net = net_of_costs(paid, cost, costs=costs, same_event=same)
    return net, value


def _current(weights: Weights, segments: Sequence[str]) -> dict[str, Mapping[str, float]]:
    newest: dict[str, int] = {}
    for segment, version in weights:
        newest[segment] = max(version, newest.get(segment, 0))
    keys = {segment: segment if segment in newest else EVERYONE for segment in segments}
    return {segment: weights[key, newest[key]] for segment, key in keys.items()}


def _decided_by(tallies: Tallies, series: Series) -> Floats:
    """When all units of each row had been decided, as far as is known: at the end of its hour, or of the series.

    Units may still meet their variants after their series has closed.
    """
    hour_ends = (tallies.hour + 1).astype(np.float64) * _HOUR
    if series.closes_at is None or series.exposure is not None:
        return hour_ends
    return np.minimum(hour_ends, series.closes_at.timestamp())


def _hours(tallies: Tallies, matured: Flags) -> dict[str, Floats]:
    """The first and the last hour with matured decisions of each segment."""
    first, last = np.full(len(tallies.segments), np.inf), np.full(len(tallies.segments), -np.inf)
    np.minimum.at(first, tallies.segment[matured], tallies.first_hour[matured])
    np.maximum.at(last, tallies.segment[matured], tallies.last_hour[matured])
    known = np.isfinite(first)
    return {"first_hour": np.where(known, first, np.nan), "last_hour": np.where(known, last, np.nan)}
