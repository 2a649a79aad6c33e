"""Running one analysis to its end, in this process."""

import time
from collections.abc import Callable
from typing import Final

import structlog
from sqlalchemy import Engine
from sqlmodel import Session

from experiments.analyses import queue
from experiments.analyses.heartbeat import BEAT_SECONDS, beating
from experiments.analyses.kinds import KINDS, Finding, Progress
from experiments.analyses.queue import Job
from experiments.database import AWAY, reading, transaction
from experiments.errors import ExperimentsError
from experiments.input.checks import check_json
from experiments.tables import AnalysisModel
from optimizer.errors import OptimizerError

log = structlog.get_logger(__name__)

MAX_RESULT_BYTES: Final = 32_000_000
_MAX_RESULT_DEPTH: Final = 20
_PAUSES_SECONDS: Final = (0.5, 1.0, 2.0, 4.0, 8.0)  # between attempts to store: hours of work are worth some patience


def run_one(
    engine: Engine, *, holder: str, on_lost: Callable[[], None], beat_seconds: float = BEAT_SECONDS
) -> Job | None:
    """Claim the oldest queued analysis and run it to its end; None if there is none.

    What the domain or the mathematics refuses ends it as ``failed``. Anything else that goes wrong is raised: whoever
    started this process queues the analysis again.

    Args:
        engine: Of the database.
        holder: Unlike that of any other process.
        on_lost: Called from another thread when the analysis is no longer the holder's: it was cancelled, or passed on.
        beat_seconds: Between two signs of life.
    """
    with transaction(engine) as session:
        job = queue.claim(session, holder=holder, kinds=KINDS)
    if job is None:
        return None
    began = time.monotonic()
    try:
        with beating(engine, holder=holder, on_lost=on_lost, every_seconds=beat_seconds) as progress:
            found = _computed(engine, job, progress=progress)
    except (ExperimentsError, OptimizerError) as error:
        code, detail = error.code, str(error)
        stored = _insist(engine, lambda session: queue.fail(session, holder=holder, code=code, detail=detail))
        log.warning("analysis_refused", id=job.id, kind=job.kind, code=code, stored=stored)
    else:
        stored = _insist(engine, lambda session: _kept(session, job, holder=holder, found=found))
        seconds = round(time.monotonic() - began, 1)
        log.info("analysis_done", id=job.id, kind=job.kind, seconds=seconds, stored=stored)
    return job


def _computed(engine: Engine, job: Job, *, progress: Progress) -> Finding:
    method = KINDS[job.kind].method()
    with reading(engine) as session:
        data = method.read(session, job, progress=progress)
    found = method.compute(data, progress=progress)
    check_json(found.result, max_depth=_MAX_RESULT_DEPTH, max_bytes=MAX_RESULT_BYTES, pointer="/result")
    return found


def _kept(session: Session, job: Job, *, holder: str, found: Finding) -> bool:
    """Store a finding whole; False, and nothing is stored, if the analysis is no longer the holder's."""
    if not queue.finish(session, holder=holder, result=found.result):
        return False
    if found.model is not None:
        session.merge(AnalysisModel(analysis=job.id, model=found.model))
    return True


def _insist(engine: Engine, write: Callable[[Session], bool]) -> bool:
    """Write, again and again while the database is away; the last failure is raised."""
    for pause in _PAUSES_SECONDS:
        try:
            with transaction(engine) as session:
                return write(session)
        except AWAY as error:
            log.warning("database_away", error=type(error).__name__)
            time.sleep(pause)
    with transaction(engine) as session:
        return write(session)
