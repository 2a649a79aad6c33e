"""A repeated request is answered as the first one was: claims and answers by the caller's Idempotency-Key.

A claim is made before the work, renewed while it lasts, and replaced by the answer after it. One whose process was
killed expires after a minute; if the work was committed just before, the repeat runs into that and says so.
"""

import secrets
import zlib
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from sqlalchemy import ColumnElement, delete, null, update
from sqlmodel import Session, col, select

from experiments.database import database_now, upsert
from experiments.tables import Idempotency

CLAIM_SECONDS: Final = 60.0
KEPT_SECONDS: Final = 86_400.0
MAX_BYTES: Final = 1_000_000  # of an answer, compressed
MAX_KEPT: Final = 10_000
_TOKEN_BYTES: Final = 16


@dataclass(frozen=True, slots=True)
class Kept:
    """An answer, and the fingerprint of what it answers."""

    fingerprint: bytes
    status: int
    headers: dict[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Claim:
    """The right to answer a caller's request under a key."""

    caller: str
    key: str
    token: bytes


def claim(session: Session, caller: str, *, key: str) -> Claim | Kept | None:
    """Claim a request, or find how it was answered; None while another claim on it holds."""
    now, token = database_now(session), secrets.token_bytes(_TOKEN_BYTES)
    fresh = {"claim": token, "expires_at": now + timedelta(seconds=CLAIM_SECONDS)}
    emptied = {"fingerprint": null(), "status": null(), "headers": null(), "body": null()}
    connection = session.connection()
    claiming = upsert(connection, Idempotency).values(caller=caller, key=key, **fresh, **emptied)
    claiming = claiming.on_conflict_do_update(
        index_elements=["caller", "key"], set_=fresh | emptied, where=col(Idempotency.expires_at) <= now
    )
    if connection.execute(claiming.returning(col(Idempotency.claim))).first() is not None:
        return Claim(caller, key, token)
    row = session.exec(select(Idempotency).where(Idempotency.caller == caller, Idempotency.key == key)).first()
    if row is None or row.status is None or row.body is None or row.fingerprint is None:
        return None
    return Kept(row.fingerprint, row.status, row.headers, zlib.decompress(row.body))


def renew(session: Session, claimed: Claim) -> None:
    """Let a claim hold for another minute: the work goes on."""
    until = database_now(session) + timedelta(seconds=CLAIM_SECONDS)
    session.connection().execute(update(Idempotency).where(*_is(claimed)).values(expires_at=until))


def keep(session: Session, claimed: Claim, *, answer: Kept) -> bool:
    """Put the answer in the claim's place, for a day; False if it is too large, or the claim has expired."""
    body = zlib.compress(answer.body)
    if len(body) > MAX_BYTES:
        return False
    kept_until = database_now(session) + timedelta(seconds=KEPT_SECONDS)
    said = {"fingerprint": answer.fingerprint, "status": answer.status, "headers": answer.headers, "body": body}
    changing = update(Idempotency).where(*_is(claimed)).values(expires_at=kept_until, **said)
    return session.connection().execute(changing).rowcount == 1


def release(session: Session, claimed: Claim) -> None:
    """Let the request be made again, as if it had not been."""
    session.connection().execute(delete(Idempotency).where(*_is(claimed)))


def prune(session: Session) -> None:
    """Forget what has expired, and of the answers all but the latest ``MAX_KEPT``; claims stay, for their minute."""
    connection, expires_at = session.connection(), col(Idempotency.expires_at)
    is_answer = col(Idempotency.status).is_not(None)
    connection.execute(delete(Idempotency).where(expires_at <= database_now(session)))
    latest = select(expires_at).where(is_answer).order_by(expires_at.desc())
    too_old = latest.offset(MAX_KEPT).limit(1).scalar_subquery()
    connection.execute(delete(Idempotency).where(is_answer, expires_at <= too_old))


def _is(claimed: Claim) -> tuple[ColumnElement[bool], ...]:
    return (
        col(Idempotency.caller) == claimed.caller,
        col(Idempotency.key) == claimed.key,
        col(Idempotency.claim) == claimed.token,
    )
