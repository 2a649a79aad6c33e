"""A kind of analysis for tests: it does at once whatever it is told to do, here or in a process of its own."""

import sys
import time
from collections.abc import Callable, Mapping
from datetime import timedelta
from threading import Event
from typing import Any, Literal

import numpy as np
from sqlalchemy import Engine, update
from sqlmodel import Session, col

from experiments.analyses import __main__ as child
from experiments.analyses.ask import ask_for
from experiments.analyses.errors import AnalysisRefused
from experiments.analyses.kinds import KINDS, Finding, Kind, Progress
from experiments.analyses.queue import Job
from experiments.analyses.requests import AnalysisRequest
from experiments.database import database_now, reading, transaction
from experiments.tables import Analysis
from optimizer.errors import InvalidCounts
from tests.experiments.review_world import KEY, start_experiment

COMMAND = (sys.executable, "-c", "from tests.experiments.tiny_analysis import run_child; run_child()")
GO_ON = Event()  # what an analysis that waits waits for

Does = Literal["answer", "refuse", "contradict", "say nan", "crash", "wait", "hang"]


class TinyRequest(AnalysisRequest):
    kind: Literal["tiny"]
    does: Does = "answer"


TINY = Kind(TinyRequest, "tests.experiments.tiny_analysis", ("binary",))


def read(session: Session, job: Job, *, progress: Progress) -> Mapping[str, Any]:  # noqa: ARG001  # nothing to read
    assert session.get(Analysis, job.id) is not None
    return job.parameters


def compute(data: Mapping[str, Any], *, progress: Callable[[float], None]) -> Finding:
    match data["does"]:
        case "refuse":
            raise AnalysisRefused("There is one segment; it takes two.")
        case "contradict":
            raise InvalidCounts("n_units", "is negative")
        case "crash":
            raise ZeroDivisionError
        case "wait":
            progress(0.5)
            assert GO_ON.wait(20)
        case "hang":
            time.sleep(60)
    mean = float(np.random.default_rng(data["seed"]).random())
    return Finding({"mean": float("nan") if data["does"] == "say nan" else mean})


def run_child() -> None:
    """What a process for one analysis does, in a process that knows this kind too."""
    KINDS["tiny"] = TINY
    sys.exit(child.main(sys.argv[1]))


def start(engine: Engine) -> None:
    """Start an experiment that analyses can be asked for."""
    with transaction(engine) as session:
        start_experiment(session)


def ask(engine: Engine, does: Does = "answer", **more: Any) -> str:
    """Ask for a tiny analysis of the experiment; its id."""
    with transaction(engine) as session:
        request = {"kind": "tiny", "does": does} | more
        return ask_for(session, KEY, request=request, actor="test").id


def find(engine: Engine, id_: str) -> Analysis:
    """An analysis as it is now."""
    with reading(engine) as session:
        return session.get_one(Analysis, id_)


def silence(engine: Engine, id_: str, *, seconds: float) -> None:
    """Let an analysis's last heartbeat be so long ago."""
    with transaction(engine) as session:
        then = database_now(session) - timedelta(seconds=seconds)
        session.connection().execute(update(Analysis).where(col(Analysis.id) == id_).values(heartbeat_at=then))
