"""Taking what a sender delivers: durable when it returns, and a bad event harms no other."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import blake2b
from typing import Any, Final

from experiments.errors import InvalidInput
from experiments.journal import Journal
from experiments.mail_events.errors import IntakeNotFound, TokenReplayed
from experiments.mail_events.events import MailEvent
from experiments.mail_events.providers import PROVIDERS
from experiments.mail_events.rows import MailRow, Token
from experiments.mail_events.signatures import Delivery
from experiments.outcomes.attribution import OutcomeRow
from experiments.record import FUTURE, Rejected, outcome_key
from experiments.snapshot.holder import Snapshots
from experiments.snapshot.plans import IntakePlan

MAIL: Final = "mail"
_AT_ONCE: Final = 1_000
_SINGLE_LANE: Final = 100
_KEPT_AFTER: Final = timedelta(minutes=5)  # a token, once its signature is too old anyway


@dataclass(frozen=True, slots=True)
class Taken:
    """What became of a delivery. ``ignored``: events of kinds not recorded, or of emails without our arguments.

    ``machines``: of those accepted, how many are taken for a machine's at once.
    """

    accepted: int
    duplicates: int
    ignored: int
    machines: int
    rejected: list[Rejected]


class Receiver:
    """The inside of the webhooks' door: one per process."""

    def __init__(self, snapshots: Snapshots, journal: Journal) -> None:
        self._snapshots = snapshots
        self._journal = journal

    def intake(self, key: str) -> IntakePlan:
        """An intake, without a query where it is known.

        Raises:
            IntakeNotFound: No such intake.
        """
        snapshot = self._snapshots.current
        found = None if snapshot is None else snapshot.intakes.get(key)
        found = found or self._snapshots.look_again().intakes.get(key)  # it may have been made a moment ago
        if found is None:
            raise IntakeNotFound(key)
        return found

    def now(self) -> datetime:
        """The time on the database's clock."""
        return self._snapshots.now()

    def take(self, intake: IntakePlan, body: Any, *, delivery: Delivery, token: str | None) -> Taken:
        """Take what a delivery holds, whose signature has been checked.

        Args:
            intake: Where it came in.
            body: Its JSON.
            delivery: As it came.
            token: What works once, if it has any.
        Raises:
            InvalidInput: The body is no list of events.
            TokenReplayed: The token came with another body before.
            JournalBusy: It couldn't be written now; it must be sent again.
        """
        provider, source = PROVIDERS[intake.provider], f"intake/{intake.key}"
        once = None if token is None else _token(intake, token, delivery=delivery)
        rows: list[MailRow] = []
        rejected: list[Rejected] = []
        items = provider.items(body)
        for index, item in enumerate(items):
            try:
                event = provider.read(item)
            except InvalidInput as error:
                rejected.append(Rejected(index, "invalid_event", str(error)))
                continue
            name = None if event is None or not event.is_ours else intake.events[event.kind]
            if event is not None and name is not None:
                rows.append(_row(event, name=name, source=source, received_at=delivery.received_at, token=once))
        statuses = self._write(rows)
        if "replayed" in statuses:
            raise TokenReplayed
        n_new = sum(status != "duplicate" for status in statuses)
        return Taken(
            accepted=n_new,
            duplicates=len(statuses) - n_new,
            ignored=len(items) - len(rejected) - len(rows),
            machines=sum(row.outcome.machine is not None for row in rows),
            rejected=rejected,
        )

    def _write(self, rows: Sequence[MailRow]) -> list[str]:
        write = self._journal.write if len(rows) <= _SINGLE_LANE else self._journal.write_bulk
        statuses: list[str] = []
        for start in range(0, len(rows), _AT_ONCE):
            statuses += write(MAIL, rows[start : start + _AT_ONCE])
        return statuses


def _row(event: MailEvent, *, name: str, source: str, received_at: datetime, token: Token | None) -> MailRow:
    outcome = OutcomeRow(
        id=outcome_key(source, event.id),
        source=source,
        outcome_id=event.id,
        decision_id=None if event.decision_id is None else bytes.fromhex(event.decision_id),
        customer_id=event.customer_id,
        occasion_id=event.occasion_id,
        event=name,
        value=None,
        occurred_at=event.occurred_at,
        received_at=received_at,
        is_future=event.occurred_at > received_at + FUTURE,
        machine=event.machine,
    )
    message = None if event.message is None else outcome_key(source, f"message {event.message}")
    return MailRow(outcome, event.kind, message, token)


def _token(intake: IntakePlan, token: str, *, delivery: Delivery) -> Token:
    forget_at = delivery.received_at + 2 * timedelta(seconds=intake.trust.tolerance_seconds) + _KEPT_AFTER
    digest = blake2b(delivery.body, digest_size=16).digest()
    return Token(outcome_key(f"intake/{intake.key}", f"token {token}"), digest, forget_at)
