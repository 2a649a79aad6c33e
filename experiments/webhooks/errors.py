"""What is refused about webhooks."""

from experiments.errors import ExperimentsError


class WebhookNotFound(ExperimentsError):
    """No such webhook."""

    code = "webhook_not_found"

    def __init__(self, key: str) -> None:
        super().__init__(f"There is no webhook {key[:128]!r}.")


class WebhookDisabled(ExperimentsError):
    """A disabled webhook is sent nothing; enable it first."""

    code = "webhook_disabled"

    def __init__(self, key: str) -> None:
        super().__init__(f"The webhook {key!r} is disabled; enable it before anything is sent to it.")
