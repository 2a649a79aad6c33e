"""What a series carries of its definitions: metrics pinned whole when it opened, so that no later change reaches it."""

from collections.abc import Collection
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, Self

from sqlalchemy import Connection, select

from experiments.tables import Series

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


@dataclass(frozen=True, slots=True)
class SeriesMetrics:
    """What attribution needs to know of a series."""

    kind: str
    placement: str
    metrics: tuple[PinnedMetric, ...]


def read_series_metrics(connection: Connection, numbers: Collection[int]) -> dict[int, SeriesMetrics]:
    """The pinned metrics of series, by number."""
    if not numbers:
        return {}
    c = _series.c
    query = select(c.number, c.kind, c.placement, c.metrics).where(c.number.in_(numbers))
    return {
        number: SeriesMetrics(kind, placement, tuple(PinnedMetric.from_json(metric) for metric in metrics))
        for number, kind, placement, metrics in connection.execute(query)
    }
