"""The heartbeat of a process that runs an analysis: a thread that says that it lives, and how far it is."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

import structlog
from sqlalchemy import Engine

from experiments.analyses.queue import beat
from experiments.database import AWAY, transaction

log = structlog.get_logger(__name__)

BEAT_SECONDS: Final = 5.0


@contextmanager
def beating(
    engine: Engine, *, holder: str, on_lost: Callable[[], None], every_seconds: float = BEAT_SECONDS
) -> Iterator[Callable[[float], None]]:
    """Beat while the block runs; it gets a function to say how far it is (0 to 1), which the next beat writes.

    Args:
        engine: Of the database; while that is away, beats are left out.
        holder: Of the analysis.
        on_lost: Called, in the beating thread, when the analysis is no longer the holder's.
        every_seconds: Between two beats.
    """
    state = _State()
    thread = threading.Thread(
        target=_beat_on, args=(engine, state), kwargs={"holder": holder, "on_lost": on_lost, "every": every_seconds}
    )
    thread.daemon = True
    thread.start()
    try:
        yield state.report
    finally:
        state.stop.set()
        thread.join()


class _State:
    """What the two threads share."""

    def __init__(self) -> None:
        self.stop = threading.Event()
        self.progress = 0.0

    def report(self, progress: float) -> None:
        self.progress = min(max(progress, 0.0), 1.0)


def _beat_on(engine: Engine, state: _State, *, holder: str, on_lost: Callable[[], None], every: float) -> None:
    while not state.stop.wait(every):
        try:
            with transaction(engine) as session:
                is_held = beat(session, holder=holder, progress=state.progress)
        except AWAY as error:
            log.warning("database_away", error=type(error).__name__)
            continue
        if not is_held:
            on_lost()
            return
