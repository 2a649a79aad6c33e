"""How often a key may ask: a quota of requests in a window, counted in each web process for itself."""

import math
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from time import monotonic
from typing import Final

OFF: Final = "off"
PATTERN: Final = r"^(?:off|[1-9][0-9]{0,8}/(?:second|minute|hour|day))$"
SAID: Final = "a number of requests and a time, such as 100/second (or minute, hour, day), or off"
_SECONDS: Final = {"second": 1, "minute": 60, "hour": 3_600, "day": 86_400}
_REMEMBERED: Final = 10_000


@dataclass(frozen=True, slots=True)
class Quota:
    """So many requests in so many seconds."""

    n_requests: int
    seconds: int


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a caller stands after a request: how many are left until the window ends, and whether this one was."""

    quota: Quota
    n_left: int
    ends_in_seconds: int
    is_allowed: bool


@lru_cache(maxsize=1_000)
def parse_quota(text: str) -> Quota | None:
    """A quota as settings and keys say it; None for ``off``.

    Raises:
        ValueError: It is none.

    >>> parse_quota("100/minute")
    Quota(n_requests=100, seconds=60)
    """
    if re.fullmatch(PATTERN, text) is None:
        raise ValueError(SAID)
    count, _, window = text.partition("/")
    return None if text == OFF else Quota(int(count), _SECONDS[window])


class RateLimits:
    """Counts requests by caller; a window begins with a caller's first request and holds a process's share.

    Args:
        n_processes: Web processes that share each quota evenly, rounded up.
        clock: Seconds that only grow.
    """

    def __init__(self, *, n_processes: int = 1, clock: Callable[[], float] = monotonic) -> None:
        self._n_processes = n_processes
        self._clock = clock
        self._lock = threading.Lock()
        self._windows: dict[str, tuple[float, int]] = {}

    def count(self, caller: str, quota: Quota) -> Standing:
        """Count a request of a caller; one that is refused counts for nothing."""
        now = self._clock()
        share = math.ceil(quota.n_requests / self._n_processes)
        with self._lock:
            ends_at, n_used = self._windows.get(caller, (0.0, 0))
            if now >= ends_at:
                self._make_room(now)
                ends_at, n_used = now + quota.seconds, 0
            is_allowed = n_used < share
            n_used = min(n_used + 1, share)
            self._windows[caller] = (ends_at, n_used)
        return Standing(quota, share - n_used, math.ceil(ends_at - now), is_allowed)

    def _make_room(self, now: float) -> None:
        """Forget windows that are over, once there are many; and if none is, all of them."""
        if len(self._windows) >= _REMEMBERED:
            self._windows = {caller: one for caller, one in self._windows.items() if now < one[0]}
        if len(self._windows) >= _REMEMBERED:
            self._windows.clear()
