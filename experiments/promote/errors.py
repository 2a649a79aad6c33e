"""What is refused about policies of targeting."""

from experiments.errors import ExperimentsError


class TargetingRefused(ExperimentsError):
    """A policy of targeting that its study does not bear out, or that there is no place for."""

    code = "targeting_refused"
