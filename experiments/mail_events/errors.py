"""What is wrong with a webhook, or with where it comes in."""

from experiments.errors import ExperimentsError


class IntakeNotFound(ExperimentsError):
    """No such intake of webhooks."""

    code = "intake_not_found"

    def __init__(self, key: str) -> None:
        super().__init__(f"There is no intake {key!r}.")


class BadSignature(ExperimentsError):
    """A webhook whose signature, or password, is missing or wrong."""

    code = "bad_signature"

    def __init__(self, why: str) -> None:
        super().__init__(f"The signature is refused: {why}.")


class StaleSignature(ExperimentsError):
    """A webhook that was signed too long ago, or in the future."""

    code = "stale_signature"

    def __init__(self, age_seconds: float, *, tolerance_seconds: int) -> None:
        when = f"{abs(age_seconds):.0f} seconds {'ago' if age_seconds > 0 else 'in the future'}"
        super().__init__(f"The signature was made {when}; this intake takes {tolerance_seconds} (tolerance_seconds).")


class TokenReplayed(ExperimentsError):
    """A webhook whose single-use token came with another body before."""

    code = "replayed"

    def __init__(self) -> None:
        super().__init__("The signature's token came with another body before, and works only once.")
