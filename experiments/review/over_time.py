"""Results over time: what was known at the end of each day, and whether effects last."""

from datetime import datetime
from typing import Any, Final

from sqlmodel import Session

from experiments.errors import FieldError, InvalidInput
from experiments.review.days import Days, date_of, decided_days
from experiments.review.novelty import WEEK_DAYS, Novelty
from experiments.review.reading import in_domain_words, moment_of, read, started_series
from experiments.review.strata import Strata
from experiments.tallies.read import read_weights

MAX_POINTS: Final = 100_000


@in_domain_words()
def results_over_time(
    session: Session,
    key: str,
    *,
    metric: str | None = None,
    segment: str | None = None,
    as_of: datetime | None = None,
) -> dict[str, Any]:
    """What an experiment had shown at the end of each day, and whether its effects last (novelty).

    A day's row counts all units decided until its end (UTC), estimated as ``results`` does, so the last day is what
    ``results`` shows. What they answered since is counted, too: a tally does not keep when responses arrived. Days on
    which no unit was decided are left out. ``weight`` is the variant's share at the end of the day; over all segments,
    their mix by units so far.

    Args:
        session: May be one that only reads.
        key: Of an experiment that has started.
        metric: By default the goal.
        segment: This one alone beside ``overall``.
        as_of: By default now.
    Raises:
        ExperimentNotFound: No such experiment.
        WrongState: It has not started.
        MetricNotMeasured: It does not measure the metric.
        SegmentNotFound: It does not cover the segment.
        InvalidInput: ``as_of`` is in the future; or more than 100,000 points: ask for one segment.
    """
    _, series = started_series(session, key, segment=segment)
    moment = moment_of(session, as_of)
    reading = read(session, series, metric=metric, as_of=moment)
    strata, days = reading.units, decided_days(reading.units).tolist()
    rows = _rows(strata, segment=segment)
    _refuse_too_many(len(days) * len(rows) * len(strata.variants))
    weights = read_weights(session, series.number or 0)
    known = Days.of(reading, weights, rows=rows)
    first_day = days[0] if days else 0
    novelty = Novelty.of(reading, first_day=first_day)
    shown = [{"days": known.shown(index), "novelty": novelty.shown(row)} for index, row in enumerate(rows)]
    return {
        "experiment": key,
        "metric": reading.metric.key,
        "as_of": moment.isoformat(),
        "first_week": {"from": date_of(first_day), "until": date_of(first_day + WEEK_DAYS)} if days else None,
        "segments": [{"segment": strata.segments[row], **one} for row, one in zip(rows[:-1], shown[:-1], strict=True)],
        "overall": shown[-1],
    }


def _rows(strata: Strata, *, segment: str | None) -> list[int]:
    """The rows of estimates to show, the one over all last."""
    n = len(strata.segments)
    return [*range(n), n] if segment is None else [strata.segments.index(segment), n]


def _refuse_too_many(n_points: int) -> None:
    if n_points > MAX_POINTS:
        detail = f"must be said: all segments together have {n_points:,} points, more than {MAX_POINTS:,}"
        raise InvalidInput([FieldError("/segment", detail)])
