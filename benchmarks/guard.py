"""Runs a command until standard input closes, then ends it and all that it started, however the caller has ended."""

import os
import signal
import subprocess
import sys
from contextlib import suppress

TERM_SECONDS = 12


def main() -> None:
    """Start the command, wait for the end of standard input, stop the command's process group."""
    process = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL, start_new_session=True)
    sys.stdin.read()
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        process.wait(timeout=TERM_SECONDS)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the caller, who closes the pipe
    main()
