"""What a send plan refuses."""

from experiments.errors import ExperimentsError


class SendPlanDecided(ExperimentsError):
    """A change of weights after a send plan has its winner, which everyone else is to get."""

    code = "send_plan_decided"

    def __init__(self, key: str, *, wanted: str) -> None:
        super().__init__(f"The send plan of experiment {key!r} has its winner: {wanted}.")
