"""What a series carries of its definitions: metrics pinned whole when it opened, so that no later change reaches it."""

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, Final, Self

from sqlalchemy import Connection, select

from experiments.tables import Series

MAX_COVARIATE: Final = 1e12  # in size; larger ones are taken as this
_series: Any = Series.__table__  # type: ignore[attr-defined]  # SQLModel's type stub lacks it


@dataclass(frozen=True, slots=True)
class PinnedDenominator:
    """What a ratio divides by; ``aggregate``: ``sum`` of values or ``count`` of outcomes."""

    event: str
    aggregate: str


@dataclass(frozen=True, slots=True)
class PinnedPrior:
    """The mean outcome expected of a unit, in the metric's unit, and the units that this is worth."""

    mean: float
    n_units: float


@dataclass(frozen=True, slots=True)
class PinnedMetric:
    """A metric as a series reads it. ``kind``: binary, count, mean or ratio; ``cap`` and totals in the metric's unit.

    ``aggregate``: of a ratio, whether its numerator is the ``sum`` of values or the ``count`` of outcomes.
    ``since``: a metric that joined later (a programme's) counts only what was received from then on.
    """

    key: str
    version: int
    event: str
    kind: str
    window: timedelta
    grace: timedelta
    higher_is_better: bool
    cap: Decimal | None
    currency: str | None
    since: datetime | None = None
    aggregate: str | None = None
    denominator: PinnedDenominator | None = None
    prior: PinnedPrior | None = None

    @classmethod
    def from_json(cls, pinned: dict[str, Any]) -> Self:
        """Read what ``to_json`` gave."""
        return cls(
            key=pinned["key"],
            version=pinned["version"],
            event=pinned["event"],
            kind=pinned["kind"],
            window=timedelta(hours=pinned["window_hours"]),
            grace=timedelta(hours=pinned["grace_hours"]),
            higher_is_better=pinned["direction"] == "increase",
            cap=None if pinned["cap"] is None else Decimal(pinned["cap"]),
            currency=pinned["currency"],
            since=None if pinned["since"] is None else datetime.fromisoformat(pinned["since"]),
            aggregate=pinned.get("aggregate"),  # absent in what was pinned before there were ratios
            denominator=PinnedDenominator(**pinned["denominator"]) if pinned.get("denominator") else None,
            prior=PinnedPrior(**pinned["prior"]) if pinned.get("prior") else None,
        )

    def to_json(self) -> dict[str, Any]:
        """As kept in ``series.metrics``."""
        return {
            "key": self.key,
            "version": self.version,
            "event": self.event,
            "kind": self.kind,
            "window_hours": self.window / timedelta(hours=1),
            "grace_hours": self.grace / timedelta(hours=1),
            "direction": "increase" if self.higher_is_better else "decrease",
            "cap": None if self.cap is None else str(self.cap),
            "currency": self.currency,
            "since": None if self.since is None else self.since.isoformat(),
            "aggregate": self.aggregate,
            "denominator": None if self.denominator is None else asdict(self.denominator),
            "prior": None if self.prior is None else asdict(self.prior),
        }

    def reads(self, event: str) -> bool:
        """Whether outcomes of an event say something on the metric: of a ratio, of either of its parts."""
        return event == self.event or (self.denominator is not None and event == self.denominator.event)


@dataclass(frozen=True, slots=True)
class PinnedCovariate:
    """The attribute whose value, as units were decided, predicts their outcomes; ``missing``: what stands for none."""

    attribute: str
    missing: Decimal

    @classmethod
    def from_json(cls, pinned: dict[str, Any] | None) -> Self | None:
        """Read what ``series.covariate`` holds; None where a series has none."""
        return None if pinned is None else cls(pinned["attribute"], Decimal(repr(pinned["missing"])))

    def of(self, attributes: Mapping[str, Any]) -> float | None:
        """A unit's covariate from its typed attributes: booleans are 0 or 1; None where it is missing."""
        value = attributes.get(self.attribute)
        if not isinstance(value, int | float):
            return None
        return min(max(float(value), -MAX_COVARIATE), MAX_COVARIATE)

    def counted(self, value: float | None) -> Decimal:
        """What a unit's covariate, as ``of`` gave it, counts as: to its last digit."""
        return self.missing if value is None else Decimal(repr(value))


@dataclass(frozen=True, slots=True)
class SeriesMetrics:
    """What attribution needs to know of a series. ``exposure``: the event from which its units count, if any."""

    kind: str
    placement: str
    metrics: tuple[PinnedMetric, ...]
    covariate: PinnedCovariate | None = None
    exposure: str | None = None

    @property
    def patience(self) -> timedelta:
        """How long after an exposure it may be received: as long as outcomes of its unit may be."""
        return max((metric.window + metric.grace for metric in self.metrics), default=timedelta(0))

    def covariate_of(self, stored: float | None) -> Decimal | None:
        """What a decision's covariate counts as; None where the series has none."""
        return None if self.covariate is None else self.covariate.counted(stored)


def read_series_metrics(connection: Connection, numbers: Collection[int]) -> dict[int, SeriesMetrics]:
    """The pinned metrics, covariates and exposure events of series, by number."""
    if not numbers:
        return {}
    c = _series.c
    query = select(c.number, c.kind, c.placement, c.metrics, c.covariate, c.exposure).where(c.number.in_(numbers))
    return {
        number: SeriesMetrics(
            kind,
            placement,
            tuple(PinnedMetric.from_json(metric) for metric in metrics),
            PinnedCovariate.from_json(covariate),
            exposure,
        )
        for number, kind, placement, metrics, covariate, exposure in connection.execute(query)
    }
