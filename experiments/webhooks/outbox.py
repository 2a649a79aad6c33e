"""The outbox: messages are written in the transaction of the change that they tell of.

So nothing is told that did not happen, and nothing that happened is lost: whatever is killed when, the message is there
when the change is. The background process delivers (courier.py).
"""

import secrets
from collections.abc import Iterable, Mapping
from datetime import datetime
from itertools import accumulate
from typing import Any, Final, Literal, TypeVar

import orjson
from sqlmodel import Session, col, select

from experiments.column_types import to_microseconds
from experiments.database import database_now
from experiments.tables import Webhook, WebhookDelivery, WebhookMessage, Workspace

EventType = Literal[
    "experiment.started",
    "experiment.paused",
    "experiment.resumed",
    "experiment.concluded",
    "experiment.verdict",
    "variant.paused",
    "policy.promoted",
    "policy.rolled_back",
]
VERDICT: Final = "experiment.verdict"
TEST: Final = "webhook.test"  # goes to one webhook, whatever it wants to hear of
MAX_REASON: Final = 600  # characters; the audit has all of a reason
Item = TypeVar("Item")


def tell(session: Session, type_: EventType, *, data: Mapping[str, Any]) -> str:
    """Write a message, and a delivery for each webhook that wants it; returns the message's id.

    Args:
        session: Of the change itself: both are committed, or neither.
        type_: What happened.
        data: Documented members, under 20 KB; lists in it are cut to fit by ``fitted``.
    """
    lock(session)
    message = write_message(session, type_, data=data)
    for webhook in _listeners(session, type_):
        session.add(new_delivery(webhook, message))
    session.flush()
    return message.id


def write_message(session: Session, type_: str, *, data: Mapping[str, Any]) -> WebhookMessage:
    """A message as it will be sent, without deliveries."""
    now = database_now(session)
    said = {"type": type_, "timestamp": now, "data": data}
    body = orjson.dumps(said, option=orjson.OPT_UTC_Z).decode()
    message = WebhookMessage(id=_new_id(now), type=type_, body=body, created_at=now)
    session.add(message)
    session.flush()
    return message


def new_delivery(webhook: str, message: WebhookMessage) -> WebhookDelivery:
    """A delivery that is due now."""
    return WebhookDelivery(webhook=webhook, message=message.id, next_attempt_at=message.created_at)


def lock(session: Session) -> None:
    """Keep changes of webhooks, and other messages, out until the transaction ends; definitions take the same lock."""
    session.exec(select(Workspace.id).with_for_update()).one()


def anybody_listens(session: Session, type_: EventType) -> bool:
    """Whether an active webhook wants a type of message."""
    return bool(_listeners(session, type_))


def fitted(items: Iterable[Item], *, max_bytes: int) -> list[Item]:
    """The first items, as many as fit into so many bytes of JSON.

    >>> fitted(["a", "b", "c"], max_bytes=8)
    ['a', 'b']
    """
    kept = list(items)
    sizes = accumulate(len(orjson.dumps(item)) + 1 for item in kept)
    return [item for item, size in zip(kept, sizes, strict=True) if size <= max_bytes]


def shortened(reason: str | None) -> str | None:
    """A reason, cut where it is long."""
    return reason if reason is None or len(reason) <= MAX_REASON else reason[:MAX_REASON] + "…"


def _listeners(session: Session, type_: str) -> list[str]:
    query = select(Webhook.key, Webhook.events).where(Webhook.status == "active").order_by(col(Webhook.key))
    return [key for key, events in session.exec(query) if events is None or type_ in events]


def _new_id(now: datetime) -> str:
    """Ids grow with time: microseconds first, then chance."""
    return f"msg_{to_microseconds(now):014x}{secrets.token_hex(9)}"
