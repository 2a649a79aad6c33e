"""What lists can be refused for."""

from experiments.errors import ExperimentsError


class ListUnreadable(ExperimentsError):
    """A list that is not what it says it is, or is too long."""

    code = "list_unreadable"

    def __init__(self, why: str) -> None:
        super().__init__(f"The list can't be read: {why}.")
