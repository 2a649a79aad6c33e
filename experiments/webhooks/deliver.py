"""Deliveries as the sender sees them: claiming what is due, writing down how it went, forgetting what is old.

A claim is an UPDATE that only one process wins. It ends by itself when its sender is lost, so every message is sent at
least once: a receiver that is told twice knows it by the message's id.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

import structlog
from sqlalchemy import func, select, update
from sqlmodel import Session, col, delete

from experiments.tables import Webhook, WebhookDelivery, WebhookMessage
from experiments.webhooks.backoff import GIVE_UP_AFTER, MAX_ATTEMPTS, next_attempt
from experiments.webhooks.define import disable
from experiments.webhooks.outbox import lock

log = structlog.get_logger(__name__)

ACTOR: Final = "webhooks"
MAX_EACH: Final = 2  # sent to one webhook at once: a slow one must not take all senders
CLAIM: Final = timedelta(seconds=60)  # well over what an attempt may take
KEPT: Final = timedelta(days=30)
LOST: Final = "sender_lost"
GONE: Final = 410
_SLOW: Final = {429, 502, 504}
_SLOW_PAUSE: Final = timedelta(minutes=1)
MAX_PRUNED: Final = 1_000

_delivery: Any = WebhookDelivery.__table__  # type: ignore[attr-defined]  # SQLModel's type stub lacks it
_webhook: Any = Webhook.__table__  # type: ignore[attr-defined]  # as above
_message: Any = WebhookMessage.__table__  # type: ignore[attr-defined]  # as above
_d, _w, _m = _delivery.c, _webhook.c, _message.c


@dataclass(frozen=True, slots=True)
class Parcel:
    """A claimed delivery: all that its sender must know. ``keys`` are secrets: never to be logged."""

    webhook: str
    message: str
    n_attempts: int
    url: str
    keys: tuple[str, ...]
    body: bytes
    sent_at: datetime

    def __repr__(self) -> str:
        """Without the URL and the secrets."""
        return f"Parcel({self.webhook!r}, {self.message!r}, n_attempts={self.n_attempts})"


@dataclass(frozen=True, slots=True)
class Answer:
    """How an attempt went: the status that came back, or what was wrong; ``wish``: the receiver's Retry-After."""

    status: int | None = None
    error: str | None = None
    wish: timedelta | None = None

    @property
    def is_good(self) -> bool:
        """Whether the receiver has taken the message."""
        return self.status is not None and 200 <= self.status < 300


@dataclass(frozen=True, slots=True)
class Due:
    """A delivery that may be sent now."""

    webhook: str
    message: str
    n_attempts: int
    next_attempt_at: datetime


def find_due(session: Session, *, now: datetime, limit: int, busy: Mapping[str, int] | None = None) -> list[Due]:
    """Deliveries that are due, the oldest first, of no webhook more than it may have at once.

    Args:
        session: May be one that only reads.
        now: On the database's clock.
        limit: How many.
        busy: How many are being sent to webhooks already.
    """
    place = func.row_number().over(partition_by=_d.webhook, order_by=(_d.next_attempt_at, _d.message)).label("place")
    may = (_w.status == "active") & (_w.slow_until.is_(None) | (_w.slow_until <= now))
    due = select(_d.webhook, _d.message, _d.n_attempts, _d.next_attempt_at, place)
    due = due.join(_webhook, _w.key == _d.webhook).where(_d.status == "pending", _d.next_attempt_at <= now, may)
    ranked = due.subquery()
    first = select(ranked).where(ranked.c.place <= MAX_EACH).order_by(ranked.c.next_attempt_at, ranked.c.message)
    free = [
        row for row in session.connection().execute(first) if row.place <= MAX_EACH - (busy or {}).get(row.webhook, 0)
    ]
    return [Due(row.webhook, row.message, row.n_attempts, row.next_attempt_at) for row in free[:limit]]


def claim(session: Session, due: Due, *, now: datetime) -> Parcel | None:
    """Make a delivery this sender's until the claim ends; None if another was quicker, or it may not be sent any more.

    Args:
        session: One that may write; the delivery is claimed when it commits.
        due: As found.
        now: On the database's clock.
    """
    same = (_d.webhook == due.webhook) & (_d.message == due.message) & (_d.n_attempts == due.n_attempts)
    still = same & (_d.status == "pending") & (_d.next_attempt_at == due.next_attempt_at)
    if due.n_attempts >= MAX_ATTEMPTS:  # senders were lost again and again
        lost = update(_delivery).where(still).values(status="failed", next_attempt_at=None, error=LOST)
        session.connection().execute(lost)
        return None
    change = update(_delivery).where(still)
    change = change.values(n_attempts=due.n_attempts + 1, next_attempt_at=now + CLAIM, attempted_at=now)
    if session.connection().execute(change).rowcount == 0:
        return None
    webhook, message = session.get(Webhook, due.webhook), session.get(WebhookMessage, due.message)
    if webhook is None or message is None or webhook.status != "active":
        return None
    return Parcel(
        webhook=webhook.key,
        message=message.id,
        n_attempts=due.n_attempts + 1,
        url=webhook.url,
        keys=keys_of(webhook, now=now),
        body=message.body.encode(),
        sent_at=now,
    )


def keys_of(webhook: Webhook, *, now: datetime) -> tuple[str, ...]:
    """The secrets that sign now, the newest first."""
    if webhook.previous_secret is None or webhook.previous_until is None or webhook.previous_until <= now:
        return (webhook.secret,)
    return webhook.secret, webhook.previous_secret


def settle(session: Session, parcel: Parcel, *, answer: Answer, now: datetime, chance: float) -> None:
    """Write down how an attempt went, unless the delivery has been claimed anew, or replayed, since.

    Args:
        session: The caller's transaction.
        parcel: As claimed.
        answer: What came back.
        now: On the database's clock.
        chance: In [0, 1), for the next pause.
    """
    lock(session)
    webhook = session.get(Webhook, parcel.webhook, with_for_update=True, populate_existing=True)
    row = session.get(WebhookDelivery, (parcel.webhook, parcel.message), with_for_update=True, populate_existing=True)
    if webhook is None or row is None or row.status != "pending" or row.n_attempts != parcel.n_attempts:
        return
    row.answered, row.error = answer.status, answer.error
    if answer.is_good:
        row.status, row.next_attempt_at, row.delivered_at = "delivered", None, now
        webhook.failing_since = webhook.slow_until = None
    else:
        _postpone(webhook, row, answer=answer, now=now, chance=chance)
    session.flush()
    if not answer.is_good:
        _give_up(session, webhook, answer=answer, now=now)


def _postpone(webhook: Webhook, row: WebhookDelivery, *, answer: Answer, now: datetime, chance: float) -> None:
    row.next_attempt_at = next_attempt(row.n_attempts, now=now, chance=chance, wish=answer.wish)
    if row.next_attempt_at is None:
        row.status = "failed"
    webhook.failing_since = webhook.failing_since or now
    if answer.status in _SLOW:
        wish = answer.wish or timedelta()
        webhook.slow_until = now + min(max(wish, _SLOW_PAUSE), timedelta(days=1))
    log.warning(
        "webhook_failed",
        webhook=webhook.key,
        message=row.message,
        n_attempts=row.n_attempts,
        status=answer.status,
        error=answer.error,
        is_last=row.status == "failed",
    )


def _give_up(session: Session, webhook: Webhook, *, answer: Answer, now: datetime) -> None:
    since = webhook.failing_since or now
    if answer.status == GONE:
        reason = "The receiver answered 410: it is gone for good."
    elif now - since >= GIVE_UP_AFTER:
        reason = f"Nothing has been delivered since {since.isoformat(timespec='seconds')}."
    else:
        return
    disable(session, webhook, actor=ACTOR, reason=reason)
    log.warning("webhook_disabled", webhook=webhook.key, reason=reason)


def prune(session: Session, *, now: datetime) -> int:
    """Forget messages older than 30 days that wait for nobody, with their deliveries; returns how many (some 1,000)."""
    waits = select(_d.message).where(_d.status == "pending")
    old = select(_m.id).where(_m.created_at < now - KEPT, _m.id.not_in(waits)).order_by(_m.id).limit(MAX_PRUNED)
    ids = list(session.connection().execute(old).scalars())
    if ids:
        session.exec(delete(WebhookDelivery).where(col(WebhookDelivery.message).in_(ids)))
        session.exec(delete(WebhookMessage).where(col(WebhookMessage.id).in_(ids)))
    return len(ids)
