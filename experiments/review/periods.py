"""Policies and programmes by period: what each 30 days (the unit of both) showed by themselves."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import numpy as np

from experiments.decisions.hashing import PERIOD_SECONDS
from experiments.review.answer import shown, variants_of
from experiments.review.money import money_of
from experiments.review.reading import Reading
from experiments.review.strata import Strata

_DAYS = PERIOD_SECONDS // 86_400


def by_period(reading: Reading, *, treated: str, as_of: datetime) -> list[dict[str, Any]]:
    """Results of the units of each period, oldest first; units of the last may still respond, and more may come.

    Args:
        reading: Of a series whose units are customers in a period.
        treated: The variant whose money is told, against control; per month only of periods that have ended.
        as_of: The moment of the review.
    """
    periods = np.unique(reading.units.day // _DAYS)
    return [_period(reading, int(period), treated=treated, as_of=as_of) for period in periods]


def _period(reading: Reading, period: int, *, treated: str, as_of: datetime) -> dict[str, Any]:
    units = _of_period(reading.units, period)
    own = replace(
        reading,
        units=units,
        strata=reading.measured(units),
        net=None if reading.net is None else _of_period(reading.net, period),
    )
    visible, keys = shown(own), own.units.variants
    n_segments = len(own.units.segments)
    rows = [variants_of(visible, row, variants=keys, weights={}) for row in range(n_segments + 1)]
    for variant in (variant for row in rows for variant in row):
        del variant["weight"]  # it moves within a period
    money = None
    if own.net is not None:
        whole = _units(own) if (period + 1) * PERIOD_SECONDS <= as_of.timestamp() else None
        money = money_of(own.net, winner=treated, currency=own.currency, metric=own.money_metric, monthly_units=whole)
    return {
        "from": _moment(period),
        "until": _moment(period + 1),
        "segments": [{"segment": key, "variants": row} for key, row in zip(own.units.segments, rows[:-1], strict=True)],
        "overall": {"variants": rows[-1]},
        "money": money,
    }


def _of_period(strata: Strata, period: int) -> Strata:
    return strata.chosen(strata.day // _DAYS == period)


def _units(reading: Reading) -> float:
    """The period's own units: a period is a month of 30 days."""
    return float(reading.units.n_units.sum())


def _moment(period: int) -> str:
    return datetime.fromtimestamp(period * PERIOD_SECONDS, tz=UTC).isoformat()
