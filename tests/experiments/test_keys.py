"""Expected values: reference rules for keys (id and 256-bit secret, SHA-256 stored, two live keys of a name)."""

import hashlib
from datetime import timedelta

import pytest
from sqlmodel import Session, select

from experiments.access import keys
from experiments.database import database_now
from experiments.errors import InvalidInput, KeyNotFound, TooManyKeys
from experiments.snapshot.plans import KeyPlan
from experiments.tables import ApiKey, Audit

ACTOR = "key/ann"
SECRET = "0123456789abcdef" * 4
PLAN = KeyPlan("a1b2c3d4e5f6", "shop", hashlib.sha256(SECRET.encode()).digest(), frozenset({"decide"}), 1_000.0)
KEYS = {PLAN.id: PLAN}


def create(session: Session, name: str = "shop", **changes: object) -> tuple[ApiKey, str]:
    arguments: dict[str, object] = {"scopes": ["record", "decide"], "actor": ACTOR, **changes}
    return keys.create_key(session, name, **arguments)  # type: ignore[arg-type]  # some are wrong on purpose


def test_only_the_hash_of_a_secret_is_stored(session: Session) -> None:
    row, text = create(session)
    prefix, id_, secret = text.split("_")
    assert (prefix, id_, len(id_), len(secret)) == ("opt", row.id, 12, 64)
    assert row.secret_hash == hashlib.sha256(secret.encode()).digest()
    assert row.scopes == ["decide", "record"]
    for entry in session.exec(select(Audit).where(Audit.subject == f"key/{id_}")):
        assert secret not in str(entry)


def test_a_key_that_was_made_is_recognised(session: Session) -> None:
    row, text = create(session)
    plan = KeyPlan(row.id, row.name, row.secret_hash, frozenset(row.scopes), float("inf"))
    assert keys.check_key({row.id: plan}, text, now=0.0) is plan


@pytest.mark.parametrize(
    "presented",
    [
        "",
        "opt_a1b2c3d4e5f6",
        f"opt_a1b2c3d4e5f6_{SECRET[:-1]}0",
        f"opt_000000000000_{SECRET}",
        f"opt_a1b2c3d4e5f6_{SECRET}\n",
        f"opt_a1b2c3d4e5f6_{SECRET.upper()}",
        "opt_a1b2c3d4e5f6_" + "é" * 64,
        "\x00" * 10_000,
    ],
)
def test_anything_else_is_no_key(presented: str) -> None:
    assert keys.check_key(KEYS, presented, now=0.0) is None


def test_a_key_works_until_it_expires() -> None:
    text = f"opt_{PLAN.id}_{SECRET}"
    assert keys.check_key(KEYS, text, now=999.9) is PLAN
    assert keys.check_key(KEYS, text, now=1_000.0) is None


def test_admin_may_do_all() -> None:
    admin = KeyPlan("b", "boss", b"", frozenset({"admin"}), 0.0)
    assert all(keys.allows(admin, scope) for scope in keys.SCOPES)
    assert [scope for scope in keys.SCOPES if keys.allows(PLAN, scope)] == ["decide"]


def test_a_name_has_two_live_keys_at_most(session: Session) -> None:
    first, _ = create(session)
    create(session)
    with pytest.raises(TooManyKeys):
        create(session)
    keys.revoke_key(session, first.id, actor=ACTOR, reason="rotated")
    create(session)
    assert len(keys.list_keys(session)) == 3


def test_an_expired_key_is_not_live(session: Session) -> None:
    for _ in range(2):
        row, _ = create(session, expires_at=database_now(session) + timedelta(hours=1))
        row.expires_at = database_now(session) - timedelta(seconds=1)
    create(session)
    create(session)


def test_revoking_twice_changes_nothing(session: Session) -> None:
    row, _ = create(session)
    first = keys.revoke_key(session, row.id, actor=ACTOR).revoked_at
    assert keys.revoke_key(session, row.id, actor=ACTOR).revoked_at == first
    assert len(session.exec(select(Audit).where(Audit.action == "revoke")).all()) == 1


@pytest.mark.parametrize("id_", ["a1b2c3d4e5f6", "\x00", ""])
def test_an_unknown_key_cannot_be_revoked(session: Session, id_: str) -> None:
    with pytest.raises(KeyNotFound):
        keys.revoke_key(session, id_, actor=ACTOR)


def test_names_scopes_and_expiry_are_checked(session: Session) -> None:
    past = database_now(session) - timedelta(seconds=1)
    for changes, pointer in (
        ({"name": "a b"}, "/name"),
        ({"scopes": []}, "/scopes"),
        ({"scopes": ["root"]}, "/scopes"),
        ({"expires_at": past}, "/expires_at"),
        ({"expires_at": past.replace(tzinfo=None, year=2100)}, "/expires_at"),
    ):
        with pytest.raises(InvalidInput) as caught:
            create(session, **changes)
        assert [field.pointer for field in caught.value.fields] == [pointer]
