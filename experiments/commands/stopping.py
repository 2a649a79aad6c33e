"""How commands that go on and on are told to end."""

import os
import signal
import sys
import threading


def stopping(*, until_parent_exits: bool = False) -> threading.Event:
    """An event that is set when this process is told to end (SIGTERM, SIGINT), or when standard input closes."""
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    if until_parent_exits:
        threading.Thread(target=_stop_at_end_of_input, args=(stop,), daemon=True).start()
    return stop


def _stop_at_end_of_input(stop: threading.Event) -> None:
    while os.read(sys.stdin.fileno(), 65_536):  # unbuffered: a lock of Python's that is held at exit aborts it
        pass
    stop.set()
