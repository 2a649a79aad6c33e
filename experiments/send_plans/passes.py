"""Deciding a whole list of a send in one go: those tested, then, when the winner is there, everyone."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from experiments.decide import Decided
from experiments.send_plans.errors import WinnerOverdue

PATIENCE: Final = timedelta(minutes=5)
_PAUSE_SECONDS: Final = 2.0  # between two questions once the winner is due
_LONGEST_SLEEP_SECONDS: Final = 60.0  # so that the clock is looked at, whatever the machine did meanwhile


@dataclass(slots=True)
class Waiting:
    """Those of a list who wait, counted as its answers go by: how many, and the first of them, to ask for again."""

    n_waiting: int = 0
    first: Any = None
    until: datetime | None = None

    def see(self, decided: Decided | None, row: Any) -> None:
        """Count an answer (None: the row had an error); ``row`` is what it was asked with."""
        if decided is None or decided.decide_after is None:
            return
        if self.until is None:
            self.first, self.until = row, decided.decide_after
        self.n_waiting += 1


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What waiting needs of the world.

    Attributes:
        now: The time.
        sleep: Lets so many seconds pass.
        tell: Called after the first pass, and before each sleep: how many wait, and until when.
    """

    now: Callable[[], datetime]
    sleep: Callable[[float], None]
    tell: Callable[[int, datetime], None]


def decide_with_winner(
    run: Callable[[], Waiting], *, ask_again: Callable[[Any], Decided], around: Surroundings
) -> Waiting:
    """Run a list until nobody in it waits for the winner of a send plan.

    Each pass decides the whole list and writes its whole output, in the order of the input: the first has those to be
    sent at once, who must be sent before anybody can respond, and marks the others; the last has everyone. Who was
    decided keeps the answer, so a pass more changes nothing, and a list takes constant memory, however long.

    Args:
        run: Decides the list, and says who waits.
        ask_again: Decides for one row of it.
        around: Clock and sleep.
    Returns:
        What the last pass said: nobody waits.
    Raises:
        WinnerOverdue: Five minutes have passed and the background process has not seen the test begin, or it has not
            written the winner five minutes after it was due.
    """
    waiting = run()
    while waiting.until is not None:
        _await_winner(waiting, ask_again=ask_again, around=around)
        waiting = run()
    return waiting


def _await_winner(waiting: Waiting, *, ask_again: Callable[[Any], Decided], around: Surroundings) -> None:
    """Sleep until one who waits does so no more. While nobody has started the test's clock, the time moves on."""
    due = waiting.until
    first_due = due or around.now()
    while due is not None:
        left = (due - around.now()).total_seconds()
        if left < -PATIENCE.total_seconds() or due > first_due + PATIENCE:
            raise WinnerOverdue(first_due)
        around.tell(waiting.n_waiting, due)
        around.sleep(min(max(left, _PAUSE_SECONDS), _LONGEST_SLEEP_SECONDS))
        due = ask_again(waiting.first).decide_after
