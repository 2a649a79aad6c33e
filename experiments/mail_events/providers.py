"""The senders whose webhooks are known, one file each."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from experiments.mail_events import customer_io, mailgun, postmark, sendgrid
from experiments.mail_events.events import MailEvent
from experiments.mail_events.signatures import Delivery, Trust

Name = Literal["sendgrid", "mailgun", "postmark", "customerio"]


@dataclass(frozen=True, slots=True)
class Provider:
    """A sender.

    Attributes:
        check: Whether a delivery is its; returns a token that works once, if it has any.
        check_secret: What of a secret is kept.
        items: The events in a body.
        read: One of them; None where it says nothing here.
        final_status: What keeps it from sending again what it need not send again; None where nothing does.
    """

    check: Callable[[Trust, Delivery], str | None]
    check_secret: Callable[..., str]
    items: Callable[[Any], list[Any]]
    read: Callable[[object], MailEvent | None]
    final_status: int | None = None


PROVIDERS: Final[Mapping[str, Provider]] = {
    "sendgrid": Provider(sendgrid.check, sendgrid.check_secret, sendgrid.items, sendgrid.read),
    "mailgun": Provider(mailgun.check, mailgun.check_secret, mailgun.items, mailgun.read, final_status=406),
    "postmark": Provider(postmark.check, postmark.check_secret, postmark.items, postmark.read),
    "customerio": Provider(customer_io.check, customer_io.check_secret, customer_io.items, customer_io.read),
}
