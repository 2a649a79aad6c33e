"""Corrections as results show them: those that touch an experiment, and a warning while one is under way."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlmodel import Session, col, select

from experiments.outcomes.attribution import CLOCK_SKEW, EXPOSURE_REACH
from experiments.series import PinnedMetric
from experiments.tables import Correction, Series

_SHOWN = ("applying", "applied", "reverting")
_UNDER_WAY = ("applying", "reverting")


def correction_json(correction: Correction) -> dict[str, Any]:
    """The part of a correction that every door shows."""
    return {
        "id": correction.id,
        "kind": correction.kind,
        "event": correction.event,
        "from": correction.starts_at,
        "to": correction.ends_at,
        "action": correction.action,
        "reason": correction.reason,
        "n_excluded": correction.n_excluded,
        "status": correction.status,
    }


def corrections_of(session: Session, series: Series) -> list[dict[str, Any]]:
    """The corrections that touch a series, those that are being taken back too, by id.

    One of outcomes touches it if one of its metrics reads the event, in a ratio's denominator too, and if outcomes of
    that time may be counted, or if the event is its exposure; one of decisions, if it is of this experiment or of all,
    and of a time when units of it began to count.
    """
    query = select(Correction).where(col(Correction.status).in_(_SHOWN)).order_by(col(Correction.id))
    metrics = [PinnedMetric.from_json(metric) for metric in series.metrics]
    found = (one for one in session.exec(query) if _touches(one, series, metrics=metrics))
    return [correction_json(one) | {"from": one.starts_at.isoformat(), "to": one.ends_at.isoformat()} for one in found]


def touched(session: Session, correction: Correction) -> list[dict[str, str]]:
    """What a correction touches, or would: the experiments, policies and programmes, by kind and key."""
    found = {
        (series.kind, series.experiment if series.kind == "experiment" and series.experiment else series.placement)
        for series in session.exec(select(Series))
        if _touches(correction, series, metrics=[PinnedMetric.from_json(metric) for metric in series.metrics])
    }
    return [{"kind": kind, "key": key} for kind, key in sorted(found)]


def correction_warnings(corrections: Sequence[Mapping[str, Any]]) -> list[str]:
    """What to say of those that are under way."""
    return [
        f"Correction {one['id']} of {one['event']} outcomes is {one['status']}: counts are still moving."
        for one in corrections
        if one["status"] in _UNDER_WAY
    ]


def _touches(correction: Correction, series: Series, *, metrics: Sequence[PinnedMetric]) -> bool:
    if correction.kind == "decisions":
        is_of_it = correction.experiment is None or (series.kind, series.experiment) == (
            "experiment",
            correction.experiment,
        )
        return is_of_it and _decided_in(correction, series)
    if series.exposure is not None and correction.event == series.exposure and _decided_in(correction, series):
        return True
    return any(_counted_in(correction, series, metric=metric) for metric in metrics)


def _decided_in(correction: Correction, series: Series) -> bool:
    ends = _last_start(series)
    return series.opens_at < correction.ends_at and (ends is None or correction.starts_at < ends)


def _last_start(series: Series) -> datetime | None:
    """When the last unit of a series may begin to count: units may meet their variants after it has closed."""
    if series.closes_at is None:
        return None
    return series.closes_at + (timedelta(0) if series.exposure is None else EXPOSURE_REACH)


def _counted_in(correction: Correction, series: Series, *, metric: PinnedMetric) -> bool:
    events = {metric.event} | ({metric.denominator.event} if metric.denominator else set())
    last = _last_start(series)
    ends = None if last is None else last + metric.window
    in_time = series.opens_at - CLOCK_SKEW < correction.ends_at and (ends is None or correction.starts_at < ends)
    return correction.event in events and in_time
