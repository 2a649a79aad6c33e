"""Defining webhooks: put, get, list and delete them, change their secret, let disabled ones go on."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Annotated, Any, Final, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema
from sqlalchemy import update
from sqlmodel import Session, col, delete, select

from experiments.access import audit
from experiments.catalog.definition_store import check_key, check_version, is_key
from experiments.catalog.definitions import parse_definition
from experiments.database import database_now
from experiments.errors import FieldError, InvalidDefinition
from experiments.input.checks import shown
from experiments.input.parsing import refuse
from experiments.tables import Webhook, WebhookDelivery
from experiments.webhooks.errors import WebhookNotFound
from experiments.webhooks.outbox import EventType, lock
from experiments.webhooks.sign import new_secret

ROTATION: Final = timedelta(hours=24)
DISABLED: Final = "webhook_disabled"


def _listed(events: object) -> object:
    """The word all as None, which no caller may say."""
    if events is None or (isinstance(events, str) and events != "all"):
        refuse([FieldError("", f"must be 'all' or an array of types, not {shown(events)}")])
    return None if events == "all" else events


_TYPES: Final[dict[str, Any]] = {
    "anyOf": [
        {"const": "all"},
        {"type": "array", "items": {"enum": list(get_args(EventType))}, "minItems": 1, "maxItems": 100},
    ]
}
Events = Annotated[
    Annotated[tuple[EventType, ...], Field(min_length=1, max_length=100, strict=False)] | None,
    BeforeValidator(_listed),
    WithJsonSchema(_TYPES),
]


class WebhookDefinition(BaseModel):
    """Where messages go, and of which types of events ("all", or absent: all); the signing secret is made here."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    url: Annotated[str, Field(min_length=1, max_length=2_000, pattern=r"^[\x21-\x7e]*$")]
    events: Events = None
    description: Annotated[str, Field(max_length=2_000, pattern=r"^[^\x00]*$")] | None = None


def put_webhook(
    session: Session, key: str, *, payload: object, actor: str, allows_private: bool, if_match: int | None = None
) -> tuple[Webhook, bool]:
    """Define a webhook, or its next version; its secret and its state stay. Says whether it is new.

    Raises:
        InvalidInput: The key can't be one.
        InvalidDefinition: With all that is wrong.
        PreconditionFailed: It is not at version ``if_match``.
    """
    from experiments.webhooks.addresses import origin_of, wrong_url  # an HTTP client, which web workers seldom need

    check_key(key)
    definition = parse_definition(WebhookDefinition, payload)
    if (wrong := wrong_url(definition.url, allows_private=allows_private)) is not None:
        raise InvalidDefinition([FieldError("/url", wrong)])
    lock(session)
    row = session.get(Webhook, key, with_for_update=True)
    check_version(f"webhook/{key}", if_match, current=None if row is None else row.version)
    events = None if definition.events is None else sorted(set(definition.events))
    said: dict[str, Any] = {"url": definition.url, "events": events, "description": definition.description}
    is_new = row is None
    if row is None:
        row = Webhook(
            key=key, version=0, secret=new_secret(), **said, created_at=database_now(session), created_by=actor
        )
        session.add(row)
    elif all(getattr(row, name) == value for name, value in said.items()):
        return row, False
    for name, value in said.items():
        setattr(row, name, value)
    row.version, row.failing_since, row.slow_until = row.version + 1, None, None
    session.flush()
    detail = {"version": row.version, "sends_to": origin_of(row.url), "events": events or "all"}
    audit.record(session, actor=actor, action="put", subject=f"webhook/{key}", detail=detail)
    return row, is_new


def get_webhook(session: Session, key: str, *, for_update: bool = False) -> Webhook:
    """A webhook; for a change, after keeping other changes out.

    Raises:
        WebhookNotFound: No such webhook.
    """
    if for_update:
        lock(session)
    row = session.get(Webhook, key, with_for_update=for_update, populate_existing=for_update) if is_key(key) else None
    if row is None:
        raise WebhookNotFound(key)
    return row


def list_webhooks(session: Session, *, cursor: str | None = None, limit: int = 100) -> Sequence[Webhook]:
    """Webhooks by key; ``cursor`` is the last key that the caller has seen."""
    query = select(Webhook).order_by(col(Webhook.key)).limit(limit)
    if cursor is not None:
        check_key(cursor)
        query = query.where(col(Webhook.key) > cursor)
    return session.exec(query).all()


def delete_webhook(session: Session, key: str, *, actor: str, if_match: int | None = None) -> None:
    """Remove a webhook with all that waits for it.

    Raises:
        WebhookNotFound: No such webhook.
        PreconditionFailed: It is not at version ``if_match``.
    """
    row = get_webhook(session, key, for_update=True)
    check_version(f"webhook/{key}", if_match, current=row.version)
    session.exec(delete(WebhookDelivery).where(col(WebhookDelivery.webhook) == key))
    session.delete(row)
    session.flush()
    audit.record(session, actor=actor, action="delete", subject=f"webhook/{key}", detail={"version": row.version})


def rotate_secret(session: Session, key: str, *, actor: str, reason: str | None = None) -> Webhook:
    """Give a webhook a new secret; the old one signs beside it for a day. One that was still older ends at once.

    Raises:
        WebhookNotFound: No such webhook.
    """
    row = get_webhook(session, key, for_update=True)
    row.previous_secret, row.previous_until = row.secret, database_now(session) + ROTATION
    row.secret = new_secret()
    session.flush()
    detail = {"previous_until": row.previous_until.isoformat()}
    audit.record(session, actor=actor, action="rotate", subject=f"webhook/{key}", reason=reason, detail=detail)
    return row


def enable_webhook(session: Session, key: str, *, actor: str, reason: str | None = None) -> Webhook:
    """Let a disabled webhook hear of what happens from now on; what it has missed can be replayed.

    Raises:
        WebhookNotFound: No such webhook.
    """
    row = get_webhook(session, key, for_update=True)
    if row.status == "active":
        return row
    was = {"disabled_reason": row.disabled_reason}
    row.status, row.disabled_at, row.disabled_reason = "active", None, None
    row.failing_since, row.slow_until = None, None
    session.flush()
    audit.record(session, actor=actor, action="enable", subject=f"webhook/{key}", reason=reason, detail=was)
    return row


def disable(session: Session, row: Webhook, *, actor: str, reason: str) -> None:
    """Send nothing more to a webhook, whose row is locked; what waits for it has failed, and can be replayed."""
    row.status, row.disabled_at, row.disabled_reason = "disabled", database_now(session), reason
    waiting = update(WebhookDelivery).where(
        col(WebhookDelivery.webhook) == row.key, col(WebhookDelivery.status) == "pending"
    )
    values: dict[str, Any] = {"status": "failed", "next_attempt_at": None, "error": DISABLED}
    session.connection().execute(waiting.values(**values))
    session.flush()
    session.expire_all()
    audit.record(session, actor=actor, action="disable", subject=f"webhook/{row.key}", reason=reason)
