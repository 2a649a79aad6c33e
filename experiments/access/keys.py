"""Keys of the HTTP doors: ``opt_<id>_<secret>``, of which only the secret's SHA-256 is kept.

A publishable key (``opt_pub_<id>_<secret>``) may stand in a page: it works from the pages of its origins alone, decides
by attributes declared public, and reports its events by decision, without values.
"""

import hashlib
import hmac
import re
import secrets
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from urllib.parse import urlsplit

from sqlmodel import Session, col, select

from experiments.access import audit, rate_limits
from experiments.database import bump_snapshot, database_now
from experiments.errors import FieldError, InvalidInput, KeyNotFound, TooManyKeys
from experiments.input.checks import KEY_PATTERN, shown
from experiments.snapshot.plans import KeyPlan
from experiments.tables import ApiKey

SCOPES: Final = ("decide", "record", "analyse", "admin")
MAX_LIVE: Final = 2
_BROWSER_SCOPES: Final = {"decide", "record"}
_TEXT: Final = re.compile(r"opt_(?:pub_)?([0-9a-f]{12})_([0-9a-f]{64})")
_ID: Final = re.compile(r"[0-9a-f]{12}")
_HOST: Final = re.compile(r"[a-z0-9](?:[a-z0-9._-]*[a-z0-9])?|\[[0-9a-f:.]+\]")
_NO_HASH: Final = bytes(32)


@dataclass(frozen=True, slots=True)
class Pages:
    """Where a publishable key may be used, and the events that may be reported with it."""

    origins: Sequence[str]
    events: Sequence[str] = ()


def create_key(
    session: Session,
    name: str,
    *,
    scopes: Collection[str],
    actor: str,
    expires_at: datetime | None = None,
    pages: Pages | None = None,
    rate_limit: str | None = None,
) -> tuple[ApiKey, str]:
    """Make a key; a name may have two live ones, so that callers can change over from the old to the new.

    Args:
        session: Where it is stored.
        name: Who uses it; the audit and the outcomes' source name it.
        scopes: Some of decide, record, analyse and admin (which implies all).
        actor: Who makes it.
        expires_at: Until when it works; None: until it is revoked.
        pages: Makes it publishable.
        rate_limit: Its quota, such as 100/second or off; None: what the setting says.
    Returns:
        The row, and the key's text, which can't be had again.
    Raises:
        InvalidInput: A wrong name, scope, expiry, origin, event or quota.
        TooManyKeys: The name has two live keys.
    """
    bump_snapshot(session)
    now = database_now(session)
    _check(name, scopes=scopes, expires_at=expires_at, now=now, rate_limit=rate_limit)
    if pages is not None:
        _check_pages(pages, scopes)
    if sum(_is_live(row, now) for row in session.exec(select(ApiKey).where(ApiKey.name == name))) >= MAX_LIVE:
        raise TooManyKeys(name)
    id_, secret = secrets.token_hex(6), secrets.token_hex(32)
    row = ApiKey(
        id=id_,
        name=name,
        secret_hash=hashlib.sha256(secret.encode()).digest(),
        scopes=[scope for scope in SCOPES if scope in scopes],
        origins=None if pages is None else sorted(set(pages.origins)),
        events=None if pages is None else sorted(set(pages.events)),
        created_at=now,
        expires_at=expires_at,
        rate_limit=rate_limit,
    )
    session.add(row)
    session.flush()
    detail = {"name": name, "scopes": row.scopes, "expires_at": expires_at and expires_at.isoformat()}
    if pages is not None:
        detail |= {"origins": row.origins, "events": row.events}
    detail |= {} if rate_limit is None else {"rate_limit": rate_limit}
    audit.record(session, actor=actor, action="create", subject=f"key/{id_}", detail=detail)
    return row, f"opt_{'' if pages is None else 'pub_'}{id_}_{secret}"


def revoke_key(session: Session, id_: str, *, actor: str, reason: str | None = None) -> ApiKey:
    """End a key, within a second or two everywhere; one that is revoked already stays as it is.

    Raises:
        KeyNotFound: No such key.
    """
    bump_snapshot(session)
    row = session.get(ApiKey, id_) if _ID.fullmatch(id_) else None
    if row is None:
        raise KeyNotFound(id_)
    if row.revoked_at is None:
        row.revoked_at = database_now(session)
        session.flush()
        audit.record(
            session, actor=actor, action="revoke", subject=f"key/{id_}", reason=reason, detail={"name": row.name}
        )
    return row


def list_keys(session: Session) -> Sequence[ApiKey]:
    """All keys, revoked and expired ones too, the newest first."""
    return session.exec(select(ApiKey).order_by(col(ApiKey.created_at).desc(), col(ApiKey.id))).all()


def check_key(keys: Mapping[str, KeyPlan], presented: str, *, now: float) -> KeyPlan | None:
    """The key that a caller presents, if it is one and works; no such id takes as long as a wrong secret.

    Args:
        keys: Of the snapshot, by id: those that are not revoked.
        presented: What the caller sent.
        now: Seconds since 1970.
    """
    match = _TEXT.fullmatch(presented)
    if match is None:
        return None
    plan = keys.get(match[1])
    stored = _NO_HASH if plan is None else plan.secret_hash
    is_right = hmac.compare_digest(hashlib.sha256(match[2].encode()).digest(), stored)
    return plan if plan is not None and is_right and now < plan.expires_at else None


def allows(key: KeyPlan, scope: str) -> bool:
    """Whether a key may do what asks for a scope; admin may do all."""
    return scope in key.scopes or "admin" in key.scopes


def _check(
    name: str, *, scopes: Collection[str], expires_at: datetime | None, now: datetime, rate_limit: str | None
) -> None:
    wrong = []
    if re.fullmatch(KEY_PATTERN, name) is None:
        wrong.append(FieldError("/name", f"is up to 128 letters, digits, '.', '_' and '-', not {shown(name)}"))
    if not scopes:
        wrong.append(FieldError("/scopes", f"must be some of {', '.join(SCOPES)}"))
    wrong += [
        FieldError("/scopes", f"{shown(scope)} is none of {', '.join(SCOPES)}")
        for scope in scopes
        if scope not in SCOPES
    ]
    if expires_at is not None and (expires_at.tzinfo is None or expires_at <= now):
        wrong.append(
            FieldError("/expires_at", f"must be in the future, with its time zone, not {expires_at.isoformat()}")
        )
    if rate_limit is not None and re.fullmatch(rate_limits.PATTERN, rate_limit) is None:
        wrong.append(FieldError("/rate_limit", f"must be {rate_limits.SAID}, not {shown(rate_limit)}"))
    if wrong:
        raise InvalidInput(wrong)


def _check_pages(pages: Pages, scopes: Collection[str]) -> None:
    wrong = [
        FieldError("/scopes", f"{shown(scope)} is not for publishable keys: they may only decide and record")
        for scope in scopes
        if scope not in _BROWSER_SCOPES
    ]
    if not pages.origins:
        wrong.append(FieldError("/origins", "must be those of the pages that use the key, one at least"))
    wrong += [
        FieldError("/origins", f"must be such as https://shop.example, not {shown(origin)}")
        for origin in pages.origins
        if not _is_origin(origin)
    ]
    wrong += [
        FieldError("/events", f"must have 1 to 128 characters, not {shown(event)}")
        for event in pages.events
        if not 1 <= len(event) <= 128 or "\x00" in event
    ]
    if wrong:
        raise InvalidInput(wrong)


def _is_origin(text: str) -> bool:
    """Whether it is an origin as browsers send it: lower case, ASCII, without a path or the scheme's own port."""
    try:
        parts = urlsplit(text)
        port = "" if parts.port is None else f":{parts.port}"
    except ValueError:
        return False
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    is_own = (parts.scheme, parts.port) in {("http", 80), ("https", 443)}
    is_host = _HOST.fullmatch(host or "") is not None
    return parts.scheme in {"http", "https"} and is_host and not is_own and text == f"{parts.scheme}://{host}{port}"


def _is_live(row: ApiKey, now: datetime) -> bool:
    return row.revoked_at is None and (row.expires_at is None or row.expires_at > now)
