"""Taking a batch of Segment's messages: durable when it returns, and a bad one harms no other."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final

from experiments.customers.aliases import Link
from experiments.customers.traits import TRAITS, Traits
from experiments.errors import FieldError, InvalidInput
from experiments.input.attributes import coerce
from experiments.record import Recorded, Rejected
from experiments.tracking.messages import Message, read_message
from experiments.worker import Worker

MAX_MESSAGES: Final = 2_500
_AT_ONCE: Final = 1_000


@dataclass(frozen=True, slots=True)
class Tracked:
    """What became of a batch.

    ``ignored``: page, screen, group, and what a page may not do (join ids, tell attributes); ``n_dropped``: attributes
    that are not declared, or that a page told.
    """

    success: bool
    accepted: int
    duplicates: int
    ignored: int
    n_dropped: int
    rejected: list[Rejected]


@dataclass(frozen=True, slots=True)
class Sender:
    """Who sends: outcome ids are unique within ``source``.

    ``events``: those that a page may report; it may not join ids or tell of customers, since anybody can read its key.
    """

    source: str
    events: Collection[str] | None


def track(
    worker: Worker, items: Sequence[object], *, kind: str | None, sent_at: datetime | None, sender: Sender
) -> Tracked:
    """Take messages.

    Args:
        worker: The process's.
        items: JSON, at most ``MAX_MESSAGES``.
        kind: What all of them are; None: each says so.
        sent_at: When they were sent, on the client's clock.
        sender: Who sends.
    Raises:
        InvalidInput: Too many.
        JournalBusy: They couldn't be written now; send all of them again.
    """
    if len(items) > MAX_MESSAGES:
        raise InvalidInput([FieldError("/batch", f"must be at most {MAX_MESSAGES} messages, not {len(items)}")])
    now = worker.snapshots.now()
    good: list[tuple[int, Message]] = []
    rejected: list[Rejected] = []
    for index, item in enumerate(items):
        try:
            good.append((index, read_message(item, kind=kind, sent_at=sent_at, received_at=now)))
        except InvalidInput as error:
            rejected.append(Rejected(index, "invalid_message", str(error)))
    n_dropped = 0
    if sender.events is not None:
        n_dropped = sum(len(message.traits) for _, message in good)
        good = [(index, replace(message, joins=None, traits={})) for index, message in good]
    worker.decider.join_all([Link(*message.joins) for _, message in good if message.joins is not None])
    n_dropped += _tell_traits(worker, [message for _, message in good])
    recorded = _record(worker, [(i, one.outcome) for i, one in good if one.outcome is not None], sender=sender)
    n_told = sum(message.joins is not None or bool(message.traits) for _, message in good)
    rejected = sorted([*rejected, *recorded.rejected], key=lambda one: one.index)
    ignored = sum(message.outcome is None for _, message in good) - n_told
    return Tracked(
        success=True,
        accepted=recorded.accepted + n_told,
        duplicates=recorded.duplicates,
        ignored=ignored,
        n_dropped=n_dropped,
        rejected=rejected,
    )


def _record(worker: Worker, outcomes: Sequence[tuple[int, dict[str, Any]]], *, sender: Sender) -> Recorded:
    accepted, duplicates = 0, 0
    rejected: list[Rejected] = []
    for start in range(0, len(outcomes), _AT_ONCE):
        part = outcomes[start : start + _AT_ONCE]
        done = worker.recorder.record([one for _, one in part], source=sender.source, events=sender.events)
        accepted, duplicates = accepted + done.accepted, duplicates + done.duplicates
        rejected += [Rejected(part[one.index][0], one.code, one.detail) for one in done.rejected]
    return Recorded(accepted, duplicates, rejected, {})


def _tell_traits(worker: Worker, messages: Sequence[Message]) -> int:
    """Keep declared attributes; returns how many were dropped."""
    snapshot = worker.snapshots.current
    declared = {} if snapshot is None else snapshot.attributes
    rows, n_dropped = [], 0
    for message in messages:
        usable = {name: value for name, value in message.traits.items() if name in declared}
        stored = coerce(usable, declared, text=False).stored
        stored |= {name: None for name, value in usable.items() if value is None}
        n_dropped += len(message.traits) - len(stored)
        if stored:
            rows.append(Traits(message.customer_id, stored))
    for start in range(0, len(rows), _AT_ONCE):
        worker.journal.write(TRAITS, rows[start : start + _AT_ONCE])
    worker.people.forget(*(row.customer_id for row in rows))
    return n_dropped
