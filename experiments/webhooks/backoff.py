"""When a message that was not taken is sent again, and when a webhook that takes nothing is given up."""

from datetime import datetime, timedelta
from typing import Final

PAUSES: Final = tuple(
    timedelta(seconds=seconds)
    for seconds in (5, 300, 1_800, 7_200, 18_000, 36_000, 50_400, 72_000, 86_400)  # 5 s … 24 h: over three days in all
)
MAX_ATTEMPTS: Final = len(PAUSES) + 1
GIVE_UP_AFTER: Final = timedelta(days=5)  # without any success, over all messages
LONGEST_WISH: Final = timedelta(days=1)  # of a receiver's Retry-After
_JITTER: Final = 0.2


def next_attempt(n_attempts: int, *, now: datetime, chance: float, wish: timedelta | None = None) -> datetime | None:
    """When to send again after so many attempts; None after the last.

    Args:
        n_attempts: Made so far, 1 at least.
        now: When the last one failed.
        chance: In [0, 1): draws pauses out by up to a fifth, so that what failed together does not come together again.
        wish: The receiver's Retry-After; a pause is never shorter, and a wish never longer than a day.

    >>> from datetime import UTC
    >>> noon = datetime(2026, 1, 1, 12, tzinfo=UTC)
    >>> str(next_attempt(1, now=noon, chance=0.5)), next_attempt(MAX_ATTEMPTS, now=noon, chance=0.5)
    ('2026-01-01 12:00:05.500000+00:00', None)
    """
    if n_attempts >= MAX_ATTEMPTS:
        return None
    pause = PAUSES[n_attempts - 1] * (1.0 + _JITTER * chance)
    return now + (pause if wish is None else max(pause, min(wish, LONGEST_WISH)))
