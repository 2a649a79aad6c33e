"""What was sent to a webhook, and sending it again, under the ids of the first time, so that receivers know it."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, Final, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator
from sqlalchemy import or_, select, update
from sqlmodel import Session

from experiments.access import audit
from experiments.database import database_now, upsert
from experiments.errors import FieldError, InvalidInput
from experiments.input.checks import shown
from experiments.input.parsing import parse, refuse
from experiments.promote.requests import Moment
from experiments.tables import Webhook, WebhookDelivery, WebhookMessage
from experiments.webhooks.define import get_webhook
from experiments.webhooks.errors import WebhookDisabled
from experiments.webhooks.outbox import TEST, new_delivery, shortened, write_message

MessageId = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9_]*$")]
_delivery: Any = WebhookDelivery.__table__  # type: ignore[attr-defined]  # SQLModel's type stub lacks it
_message: Any = WebhookMessage.__table__  # type: ignore[attr-defined]  # as above
_d, _m = _delivery.c, _message.c
_AT_ONCE: Final = 500  # rows of one statement


class ReplayRequest(BaseModel):
    """What is sent again: all that happened since a moment, or these messages; without either, all that failed."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    since: Moment = None
    message_ids: Annotated[tuple[MessageId, ...], Field(min_length=1, max_length=1_000, strict=False)] | None = None

    @model_validator(mode="after")
    def _is_one(self) -> Self:
        if self.since is not None and self.message_ids is not None:
            refuse([FieldError("/message_ids", "can't be said beside since: replay twice")])
        return self


@dataclass(frozen=True, slots=True)
class Sent:
    """A delivery as others see it."""

    message_id: str
    type: str
    created_at: datetime
    status: str
    n_attempts: int
    attempted_at: datetime | None
    next_attempt_at: datetime | None
    delivered_at: datetime | None
    last_answer: dict[str, Any] | None


def list_deliveries(session: Session, key: str, *, cursor: str | None = None, limit: int = 100) -> list[Sent]:
    """Deliveries to a webhook, the newest message first; ``cursor`` is the last message that the caller has seen.

    Raises:
        WebhookNotFound: No such webhook.
    """
    get_webhook(session, key)
    query = select(_delivery, _m.type, _m.created_at).join(_message, _m.id == _d.message).where(_d.webhook == key)
    if cursor is not None:
        query = query.where(_d.message < cursor)
    rows = session.connection().execute(query.order_by(_d.message.desc()).limit(limit))
    return [
        Sent(
            message_id=row.message,
            type=row.type,
            created_at=row.created_at,
            status=row.status,
            n_attempts=row.n_attempts,
            attempted_at=row.attempted_at,
            next_attempt_at=row.next_attempt_at,
            delivered_at=row.delivered_at,
            last_answer=_last_answer(row),
        )
        for row in rows
    ]


def _last_answer(row: Any) -> dict[str, Any] | None:
    return None if row.answered is None and row.error is None else {"status": row.answered, "error": row.error}


def send_test(session: Session, key: str, *, actor: str, reason: str | None = None) -> str:
    """Send a message of type ``webhook.test`` to one webhook; returns its id.

    Raises:
        WebhookNotFound: No such webhook.
        WebhookDisabled: It is sent nothing.
    """
    _active(session, key)
    data = {
        "webhook": key,
        "actor": actor,
        "reason": shortened(reason),
        "links": {"deliveries": f"/v1/webhooks/{key}/deliveries"},
    }
    message = write_message(session, TEST, data=data)
    session.add(new_delivery(key, message))
    session.flush()
    return message.id


def replay(session: Session, key: str, *, request: object, actor: str) -> int:
    """Send messages again, with their ids and all attempts before them; returns how many. They are due now.

    Args:
        session: The caller's transaction.
        key: The webhook's.
        request: JSON of a ``ReplayRequest``. Since a moment: of the types that the webhook wants, also what it never
            got. By ids: what it wants or has been sent before.
        actor: For the audit.
    Raises:
        WebhookNotFound: No such webhook.
        WebhookDisabled: It is sent nothing.
        InvalidInput: A field that is wrong, among them ids of no message, or of one that is not for this webhook.
    """
    wanted = parse(ReplayRequest, request)
    webhook = _active(session, key)
    ids = _chosen(session, webhook, wanted=wanted)
    now = database_now(session)
    for start in range(0, len(ids), _AT_ONCE):
        _make_due(session, key, ids=ids[start : start + _AT_ONCE], now=now)
    since = None if wanted.since is None else wanted.since.isoformat()
    detail = {"n_messages": len(ids), "since": since, "by_id": wanted.message_ids is not None}
    audit.record(session, actor=actor, action="replay", subject=f"webhook/{key}", detail=detail)
    return len(ids)


def _active(session: Session, key: str) -> Webhook:
    webhook = get_webhook(session, key, for_update=True)
    if webhook.status != "active":
        raise WebhookDisabled(key)
    return webhook


def _chosen(session: Session, webhook: Webhook, *, wanted: ReplayRequest) -> Sequence[str]:
    is_wanted = _m.type != TEST if webhook.events is None else _m.type.in_(webhook.events)
    if wanted.since is not None:
        query = select(_m.id).where(_m.created_at >= wanted.since, is_wanted)
        return list(session.connection().execute(query.order_by(_m.id)).scalars())
    if wanted.message_ids is None:
        failed = select(_d.message).where(_d.webhook == webhook.key, _d.status == "failed")
        return list(session.connection().execute(failed.order_by(_d.message)).scalars())
    ids = list(dict.fromkeys(wanted.message_ids))
    sent = select(_d.message).where(_d.webhook == webhook.key)
    query = select(_m.id).where(_m.id.in_(ids), or_(is_wanted, _m.id.in_(sent)))
    known = set(session.connection().execute(query).scalars())
    wrong = [
        FieldError(f"/message_ids/{i}", f"{shown(id_)} is no message that this webhook wants or has been sent")
        for i, id_ in enumerate(wanted.message_ids)
        if id_ not in known
    ]
    if wrong:
        raise InvalidInput(wrong[:100])
    return ids


def _make_due(session: Session, key: str, *, ids: Sequence[str], now: datetime) -> None:
    connection = session.connection()
    fresh: dict[str, Any] = {"status": "pending", "n_attempts": 0, "next_attempt_at": now}
    rows = [{"webhook": key, "message": id_, **fresh} for id_ in ids]
    connection.execute(upsert(connection, _delivery).values(rows).on_conflict_do_nothing())
    again = fresh | {"attempted_at": None, "answered": None, "error": None, "delivered_at": None}
    connection.execute(update(_delivery).where(_d.webhook == key, _d.message.in_(ids)).values(**again))
