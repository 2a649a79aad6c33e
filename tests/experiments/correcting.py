"""For tests of corrections: made, walked over and taken back as the service does, and all that they must not change."""

from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Engine, func
from sqlmodel import select

from experiments.corrections import correct
from experiments.corrections.progress import correct as work
from experiments.corrections.progress import walk_on
from experiments.database import reading, transaction
from experiments.learning.lease import Lease, take
from experiments.outcomes.attribution import OutcomeRow
from experiments.outcomes.rows import write_outcomes
from experiments.tables import (
    Correction,
    Outcome,
    Response,
    Tally,
    TallyAge,
    TallyCovariate,
    TallyProduct,
    TallyResponse,
)
from experiments.tallies.recount import all_series, recount

ACTOR = "key/ann"
HOUR = timedelta(hours=1)
AT = datetime.now(UTC).replace(minute=0, second=0, microsecond=0) - timedelta(days=10)  # when units were decided


def outcomes_body(event: str, since: datetime, until: datetime, **changes: Any) -> dict[str, Any]:
    """A correction of outcomes as a client asks for it."""
    times = {"occurred_from": since.isoformat(), "occurred_to": until.isoformat()}
    return {"event": event, "action": "exclude", "reason": "the tracker was broken"} | times | changes


def hours_body(since: datetime, until: datetime, **changes: Any) -> dict[str, Any]:
    """A correction of decisions as a client asks for it."""
    times = {"decided_from": since.isoformat(), "decided_to": until.isoformat()}
    return {"action": "exclude", "reason": "the site was down"} | times | changes


def make(engine: Engine, body: dict[str, Any]) -> int:
    """Make a correction; returns its id."""
    with transaction(engine) as session:
        id_ = correct.correct(session, request=body, actor=ACTOR).id
        assert id_ is not None
        return id_


def take_back(engine: Engine, id_: int) -> None:
    """Revert a correction."""
    with transaction(engine) as session:
        correct.revert(session, str(id_), request={"reason": "it was fine"}, actor=ACTOR)


def lease_of(engine: Engine, holder: str = "worker") -> Lease:
    """The lease of the background process."""
    with transaction(engine) as session:
        lease = take(session, "learn", holder=holder, seconds=60)
        assert lease is not None
        return lease


def finish(engine: Engine) -> None:
    """Do what the background process does for corrections."""
    work(engine, lease_of(engine))


def chunk(engine: Engine, id_: int, *, size: int, tries: int = 40) -> int | None:
    """One transaction of it; PostgreSQL lets it wait for whoever writes, in other tests' databases, too."""
    for _ in range(tries):
        n_outcomes = walk_on(engine, lease_of(engine), id_=id_, chunk=size)
        if n_outcomes is not None or said(engine, id_)[0] not in {"applying", "reverting"}:
            break
    return n_outcomes


def record(engine: Engine, *rows: OutcomeRow, shard: int = 1) -> list[str]:
    """Store outcomes as a web worker does."""
    with transaction(engine) as session:
        return write_outcomes(session.connection(), rows, shard=shard)


def said(engine: Engine, id_: int) -> tuple[str, int]:
    """Status and number of excluded outcomes of a correction."""
    with reading(engine) as session:
        row = session.get_one(Correction, id_)
        return row.status, row.n_excluded


def marks(engine: Engine) -> dict[bytes, int]:
    """The correction that excludes each outcome, by its id."""
    with reading(engine) as session:
        rows = session.exec(select(Outcome.id, Outcome.excluded_by).where(Outcome.excluded_by != None))  # noqa: E711
        return {id_: by for id_, by in rows if by is not None}


def contents(engine: Engine) -> dict[str, set[tuple[Any, ...]]]:
    """All rows of responses and tallies; the latter are summed over shards, and those that are nothing left out."""
    with reading(engine) as session:
        found = {"response": {tuple(row.model_dump().items()) for row in session.exec(select(Response))}}
        for table in (Tally, TallyResponse, TallyProduct, TallyCovariate, TallyAge):
            sums: dict[tuple[Any, ...], dict[str, Any]] = {}
            for row in session.exec(select(table)):
                values = row.model_dump(exclude={"shard"})
                key = tuple(values.pop(column.name) for column in table.__table__.primary_key if column.name != "shard")  # type: ignore[union-attr]
                have = sums.setdefault(key, dict.fromkeys(values, 0))
                sums[key] = {name: have[name] + value for name, value in values.items()}
            found[table.__name__] = {(*key, *values.items()) for key, values in sums.items() if any(values.values())}
    return found


def assert_recount_agrees(engine: Engine) -> None:
    """Tallies and responses are what the raw rows give, and each correction's count is that of its marks."""
    with reading(engine) as session:
        for number in all_series(session):
            assert recount(session, number).differences == []
        query = select(Outcome.excluded_by, func.count()).group_by(Outcome.excluded_by)  # type: ignore[arg-type]
        counted = dict(session.exec(query).all())
        for row in session.exec(select(Correction).where(Correction.kind == "outcomes")):
            assert row.n_excluded == counted.get(row.id, 0)
