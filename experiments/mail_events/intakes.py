"""Intakes: where a sender's webhooks come in. Secrets never come back, in no answer and no entry of the audit."""

from collections.abc import Sequence
from typing import Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, Field
from sqlmodel import Session, col, select

from experiments.access import audit
from experiments.catalog.definition_store import check_key, check_version
from experiments.catalog.definitions import Event, parse_definition
from experiments.database import bump_snapshot, database_now
from experiments.errors import FieldError, InvalidDefinition
from experiments.mail_events.errors import IntakeNotFound
from experiments.mail_events.events import KINDS
from experiments.mail_events.providers import PROVIDERS, Name
from experiments.tables import Intake

MAX_SECRETS: Final = 2


class IntakeDefinition(BaseModel):
    """Who sends, and the one or two ``secrets`` that prove it; without any, a stored intake keeps those that it has.

    SendGrid: the verification key; Mailgun: the HTTP webhook signing key; Postmark: ``user:password``; Customer.io: the
    signing key. ``events``: other names for kinds of events; null for what is not to be recorded.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    provider: Name
    secrets: Annotated[
        list[Annotated[str, Field(min_length=1, max_length=1_000)]] | None,
        Field(min_length=1, max_length=MAX_SECRETS),
    ] = None
    events: dict[str, Event | None] = {}
    tolerance_seconds: Annotated[int, Field(ge=1, le=86_400)] = 300


def put_intake(
    session: Session, key: str, *, payload: object, actor: str, if_match: int | None = None
) -> tuple[Intake, bool]:
    """Define an intake, or change it; returns it, and whether it is new.

    Raises:
        InvalidDefinition: A secret that can't be one, none where one is needed, or it is wrong in itself.
        PreconditionFailed: It is not at version ``if_match``.
    """
    check_key(key)
    bump_snapshot(session)
    row = session.get(Intake, key, populate_existing=True)
    check_version(f"intake/{key}", if_match, current=None if row is None else row.version)
    definition = parse_definition(IntakeDefinition, payload)
    _check_kinds(definition)
    secrets, is_new = _secrets(definition, row), row is None
    if row is None:
        now = database_now(session)
        row = Intake(key=key, version=0, provider="", secrets=[], events={}, tolerance_seconds=0, created_at=now)
    said = (definition.provider, secrets, definition.events, definition.tolerance_seconds)
    if said != (row.provider, row.secrets, row.events, row.tolerance_seconds):
        row.provider, row.secrets, row.events, row.tolerance_seconds = said
        row.version += 1
        session.add(row)
        session.flush()
        detail = {"version": row.version, "provider": row.provider, "n_secrets": len(secrets)}
        audit.record(session, actor=actor, action="put", subject=f"intake/{key}", detail=detail)
    return row, is_new


def get_intake(session: Session, key: str) -> Intake:
    """An intake.

    Raises:
        IntakeNotFound: No such intake.
    """
    row = session.get(Intake, key)
    if row is None:
        raise IntakeNotFound(key)
    return row


def delete_intake(session: Session, key: str, *, actor: str) -> None:
    """Take nothing more of an intake; what it brought stays.

    Raises:
        IntakeNotFound: No such intake.
    """
    bump_snapshot(session)
    session.delete(get_intake(session, key))
    session.flush()
    audit.record(session, actor=actor, action="delete", subject=f"intake/{key}")


def list_intakes(session: Session, *, cursor: str | None = None, limit: int = 100) -> Sequence[Intake]:
    """Intakes by key; ``cursor`` is the last key that the caller has seen."""
    query = select(Intake).order_by(col(Intake.key)).limit(limit)
    return session.exec(query if cursor is None else query.where(Intake.key > cursor)).all()


def intake_json(row: Intake) -> dict[str, Any]:
    """An intake as answers show it: without its secrets."""
    return {
        "key": row.key,
        "version": row.version,
        "provider": row.provider,
        "n_secrets": len(row.secrets),
        "events": events_of(row),
        "tolerance_seconds": row.tolerance_seconds,
        "url": f"/v1/intakes/{row.key}/events",
    }


def events_of(row: Intake) -> dict[str, str | None]:
    """What each kind of event is called here; None: it is not recorded."""
    names: dict[str, str | None] = {kind: kind for kind in KINDS}
    return {**names, **row.events}


def _check_kinds(definition: IntakeDefinition) -> None:
    wrong = [
        FieldError(f"/events/{kind[:100]}", f"must be one of {', '.join(KINDS)}")
        for kind in definition.events
        if kind not in KINDS
    ]
    wrong += [
        FieldError(f"/events/{kind}", "must have no NUL and at most 128 bytes")
        for kind, event in definition.events.items()
        if event is not None and ("\x00" in event or len(event.encode(errors="replace")) > 128)
    ]
    if wrong:
        raise InvalidDefinition(wrong[:100])


def _secrets(definition: IntakeDefinition, row: Intake | None) -> list[str]:
    if definition.secrets is not None:
        check = PROVIDERS[definition.provider].check_secret
        return [check(text, pointer=f"/secrets/{i}") for i, text in enumerate(definition.secrets)]
    if row is None or row.provider != definition.provider:
        raise InvalidDefinition([FieldError("/secrets", "must be said: one, or two while you change over")])
    return list(row.secrets)
