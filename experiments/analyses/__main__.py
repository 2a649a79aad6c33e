"""A process for one analysis: ``python -m experiments.analyses HOLDER``, started by an ``Analyst``.

It ends when it is done, when its parent is gone (standard input closes), or when the analysis is no longer its own.
"""

import os
import signal
import sys
import threading

import structlog

from experiments.analyses.analyst import LOST
from experiments.analyses.runner import run_one
from experiments.config import read_config
from experiments.database import AWAY, open_engine
from experiments.logs import configure_logs

log = structlog.get_logger(__name__)

_NICE = 10  # decisions and learning go first


def main(holder: str) -> int:
    """Run one analysis, if any is queued; the exit status."""
    config = read_config()
    configure_logs(config)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to parent and child alike: the parent decides
    os.nice(_NICE)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    engine = open_engine(config.database_url)
    try:
        run_one(engine, holder=holder, on_lost=lambda: os._exit(LOST))
    except AWAY as error:
        log.warning("database_away", error=type(error).__name__)
        return 1
    return 0


def _end_with_parent() -> None:
    while os.read(sys.stdin.fileno(), 65_536):
        pass
    os._exit(LOST)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
