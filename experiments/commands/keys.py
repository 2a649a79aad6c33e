"""``optimizer keys``: create, list, revoke."""

from datetime import UTC, datetime, timedelta
from typing import Any

import click
import orjson

from experiments.access.keys import Pages, create_key, list_keys, revoke_key
from experiments.commands.settings import opened, settings
from experiments.config import Config
from experiments.database import reading, transaction
from experiments.tables import ApiKey

ACTOR = "optimizer keys"


@click.group()
def keys() -> None:
    """Create, list and revoke API keys."""


@keys.command()
@click.argument("name")
@click.option("--scopes", default="decide,record", show_default=True, help="Of decide, record, analyse, admin (all).")
@click.option("--origin", "origins", multiple=True, help="Makes it publishable: of pages that use it. Repeatable.")
@click.option("--event", "events", multiple=True, help="Which those pages may report, by decision. Repeatable.")
@click.option("--days", type=click.FloatRange(min=0, min_open=True), help="Until it expires; without, until revoked.")
@click.option("--rate-limit", help="Such as 100/second, or off; without, what serve --rate-limit says.")
@click.option("--json", "as_json", is_flag=True, help="Print id, name, scopes and key as JSON.")
@settings()
def create(  # one for each option
    config: Config,
    name: str,
    *,
    scopes: str,
    origins: tuple[str, ...],
    events: tuple[str, ...],
    days: float | None,
    rate_limit: str | None,
    as_json: bool,
) -> None:
    """Print a new key for NAME, and nothing else; it can't be shown again."""
    expires_at = None if days is None else datetime.now(UTC) + timedelta(days=days)
    wanted = [scope.strip() for scope in scopes.split(",")]
    pages = Pages(origins, events) if origins or events else None
    with opened(config) as engine, transaction(engine) as session:
        row, secret = create_key(
            session, name, scopes=wanted, actor=ACTOR, expires_at=expires_at, pages=pages, rate_limit=rate_limit
        )
        shown = _shown(row)
    click.echo(orjson.dumps(shown | {"key": secret}).decode() if as_json else secret)


@keys.command("list")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@settings()
def list_all(config: Config, *, as_json: bool) -> None:
    """List all keys, the newest first; their secrets are not known."""
    with opened(config) as engine, reading(engine) as session:
        rows = [_shown(row) for row in list_keys(session)]
    if as_json:
        click.echo(orjson.dumps(rows).decode())
        return
    for row in rows:
        ended = "revoked" if row["revoked_at"] else f"expires {row['expires_at']:%Y-%m-%d}" if row["expires_at"] else ""
        pages = "" if row["origins"] is None else f"  on {' '.join(row['origins'])}"
        click.echo(f"{row['id']}  {row['name']}  {','.join(row['scopes'])}{pages}  {ended}".rstrip())


@keys.command()
@click.argument("key_id")
@click.option("--reason", help="Why; the audit keeps it.")
@settings()
def revoke(config: Config, key_id: str, *, reason: str | None) -> None:
    """End the key with the id KEY_ID."""
    with opened(config) as engine, transaction(engine) as session:
        revoke_key(session, key_id, actor=ACTOR, reason=reason)


def _shown(row: ApiKey) -> dict[str, Any]:
    return {
        "id": row.id,
        "name": row.name,
        "scopes": row.scopes,
        "origins": row.origins,
        "events": row.events,
        "created_at": row.created_at,
        "expires_at": row.expires_at,
        "revoked_at": row.revoked_at,
        "rate_limit": row.rate_limit,
    }
