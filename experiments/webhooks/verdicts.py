"""Telling of verdicts: from time to time the background process looks whether a live experiment has reached one.

A review of a wide experiment takes a second, so looks take a tenth of the process's time at most, and happen only while
somebody wants to hear of verdicts. A verdict must hold for two looks before it is told.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

import structlog
from sqlalchemy import Engine, or_
from sqlmodel import Session, col, select

from experiments.catalog.definition_store import LIVE
from experiments.database import database_now, reading, transaction
from experiments.errors import ExperimentsError
from experiments.learning.lease import LEARNING, take
from experiments.review.results import results
from experiments.tables import Experiment, Series, VerdictsTold
from experiments.webhooks.news import tell_of_verdicts
from experiments.webhooks.outbox import VERDICT, anybody_listens, lock, shortened

log = structlog.get_logger(__name__)

LOOK_EVERY: Final = timedelta(minutes=10)
TELL_EVERY: Final = timedelta(days=1)  # of one segment: what wavers is told once a day at most
UNDECIDED: Final = "keep_running"
_SHARE: Final = 0.1
_OVERALL: Final = ""

Verdict = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Look:
    """What a review showed: the verdict of each segment that is still with the experiment ("": over all)."""

    experiment: str
    metric: str
    as_of: str
    rows: Mapping[str, Verdict]


class Verdicts:
    """Looks at one experiment at a time.

    Args:
        engine: Of a migrated database.
        clock: In seconds: for the share of time that looks may take.
    """

    def __init__(self, engine: Engine, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._engine = engine
        self._clock = clock
        self._not_before = -float("inf")

    def look(self, *, holder: str, lease_seconds: float) -> str | None:
        """Look at the experiment that waits longest for it, if any is due; returns its key.

        Args:
            holder: Of the learner's lease: one process looks.
            lease_seconds: How long it then has it.
        """
        began = self._clock()
        if began < self._not_before:
            return None
        with reading(self._engine) as session:
            key = next_experiment(session, now=database_now(session))
            found = None if key is None else review(session, key)
        if key is None:
            return None
        with transaction(self._engine) as session:
            lock(session)
            if take(session, LEARNING, holder=holder, seconds=lease_seconds) is None:
                return None
            note(session, key, look=found, now=database_now(session))
        self._not_before = self._clock() + (self._clock() - began) * (1.0 / _SHARE - 1.0)
        return key


def next_experiment(session: Session, *, now: datetime) -> str | None:
    """The live experiment whose last look is the longest ago, ten minutes at least; None, too, if nobody listens."""
    if not anybody_listens(session, VERDICT):
        return None
    looked_at = col(VerdictsTold.looked_at)
    query = select(Experiment.key).outerjoin(VerdictsTold, col(VerdictsTold.experiment) == Experiment.key)
    query = query.where(col(Experiment.status).in_(LIVE), or_(looked_at.is_(None), looked_at <= now - LOOK_EVERY))
    return session.exec(query.order_by(looked_at.is_not(None), looked_at, col(Experiment.key)).limit(1)).first()


def review(session: Session, key: str) -> Look | None:
    """The verdicts of an experiment by its goal; None where there can't be a review now."""
    try:
        answer = results(session, key, is_brief=True)
    except ExperimentsError as error:
        log.warning("not_reviewed", experiment=key, code=error.code)
        return None
    series = session.exec(select(Series).join(Experiment).where(Experiment.key == key)).one()
    rows = {row["segment"]: row for row in answer["segments"] if row["segment"] not in series.closed_segments}
    return Look(key, answer["metric"], answer["as_of"], {_OVERALL: answer["overall"], **rows})


def note(session: Session, key: str, *, look: Look | None, now: datetime) -> list[dict[str, Any]]:
    """Keep what a look showed, and tell of verdicts that held since the last one; returns what was told.

    A verdict that is lost again is not told; reached again, with the same winner, it is not told twice.

    Args:
        session: The caller's transaction.
        key: The experiment's.
        look: What was seen; None leaves all as it is, for the next look.
        now: On the database's clock.
    """
    row = session.get(VerdictsTold, key, with_for_update=True, populate_existing=True)
    if row is None:
        row = VerdictsTold(experiment=key, looked_at=now, seen={}, told={})
        session.add(row)
    row.looked_at = now
    if look is None:
        session.flush()
        return []
    decided = {place: one for place, one in look.rows.items() if one["verdict"] != UNDECIDED}
    new = {
        place: one
        for place, one in decided.items()
        if row.seen.get(place) == _mark(one) and _is_news(one, row.told.get(place), now=now)
    }
    said = [_said(place, one, before=row.told.get(place)) for place, one in new.items()]
    row.seen = {place: _mark(one) for place, one in decided.items()}
    row.told = row.told | {place: [*_mark(one), now.isoformat()] for place, one in new.items()}
    session.flush()
    if said:
        experiment = session.get_one(Experiment, key)
        tell_of_verdicts(session, experiment, metric=look.metric, as_of=look.as_of, verdicts=said)
    return said


def _mark(one: Verdict) -> list[str | None]:
    return [one["verdict"], one["winner"]]


def _is_news(one: Verdict, told: list[Any] | None, *, now: datetime) -> bool:
    if told is None:
        return True
    return told[:2] != _mark(one) and datetime.fromisoformat(told[2]) <= now - TELL_EVERY


def _said(place: str, one: Verdict, *, before: list[Any] | None) -> dict[str, Any]:
    return {
        "segment": None if place == _OVERALL else place,
        "verdict": one["verdict"],
        "previous": UNDECIDED if before is None else before[0],
        "winner": one["winner"],
        "reason": shortened(one["reason"]),
    }
