"""For operators and clients' programmers: is it alive, is it ready, how is it doing, what does an error code mean."""

from flask import Response
from pydantic import BaseModel
from sqlalchemy.exc import SQLAlchemyError

from api.answers import json_answer
from api.doors import Doors
from api.errors import RETRY_AFTER_SECONDS, NotFound, meanings
from api.metrics import metrics_text
from api.state import current_worker

doors = Doors("system")

MAX_SNAPSHOT_SECONDS = 5.0  # an older one makes a process not ready


class AliveOut(BaseModel):
    """The process answers."""

    status: str


class ReadyOut(BaseModel):
    """Whether this process can decide and record; each check says ``ok`` or what is wrong."""

    status: str
    checks: dict[str, str]


class MeaningOut(BaseModel):
    """What an error code means."""

    code: str
    status: int
    meaning: str


@doors.open("GET", "/healthz", scope=None, gives=AliveOut)
def alive() -> Response:
    """Say that the process answers."""
    return json_answer({"status": "ok"})


@doors.open("GET", "/readyz", scope=None, gives=ReadyOut, statuses=(200, 503))
def ready() -> Response:
    """Say whether this process can decide and record: database reachable, snapshot fresh, journal healthy."""
    worker = current_worker()
    checks = {
        "database": _database(),
        "snapshot": "ok" if worker.snapshots.age_seconds < MAX_SNAPSHOT_SECONDS else "stale",
        "journal": "ok" if worker.journal.is_healthy else "can't write now",
    }
    is_ready = all(said == "ok" for said in checks.values())
    answer = json_answer(
        {"status": "ok" if is_ready else "not ready", "checks": checks}, status=200 if is_ready else 503
    )
    if not is_ready:
        answer.headers["Retry-After"] = str(RETRY_AFTER_SECONDS)
    return answer


@doors.open("GET", "/metrics", scope="analyse", gives_text=True)
def metrics() -> Response:
    """Counters, durations and states in Prometheus' text format."""
    return Response(metrics_text(current_worker()), content_type="text/plain; version=0.0.4; charset=utf-8")


@doors.open("GET", "/problems/<code>", scope=None, gives=MeaningOut)
def meaning(code: str) -> Response:
    """Say what an error code means; the ``type`` of every problem is such an address."""
    known = meanings().get(code)
    if known is None:
        raise NotFound(f"There is no error code {code[:100]!r}.")
    status, said = known
    return json_answer({"code": code, "status": status, "meaning": said})


def _database() -> str:
    """Ask the database, by looking whether there is a newer snapshot."""
    try:
        current_worker().snapshots.refresh()
    except SQLAlchemyError as error:
        return f"away ({type(error).__name__})"
    return "ok"
