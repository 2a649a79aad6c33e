"""What a send plan refuses."""

from datetime import datetime

from experiments.errors import ExperimentsError


class SendPlanDecided(ExperimentsError):
    """A change of weights after a send plan has its winner, which everyone else is to get."""

    code = "send_plan_decided"

    def __init__(self, key: str, *, wanted: str) -> None:
        super().__init__(f"The send plan of experiment {key!r} has its winner: {wanted}.")


class WinnerOverdue(ExperimentsError):
    """A send plan whose winner is long due: most likely no background process runs."""

    code = "winner_overdue"

    def __init__(self, due: datetime) -> None:
        super().__init__(
            f"The winner that was due at {due.isoformat()} does not come: is the background process running, and was"
            " anybody tested?"
        )
