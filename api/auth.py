"""Who asks: a key by Bearer, X-API-Key or Basic, checked against the snapshot without a query."""

import base64
import binascii
from collections.abc import Iterator
from typing import Final

from api.errors import InvalidHeader, KeyInAddress, MissingScope, Unauthenticated
from api.rate_limits import count_request
from api.requests import current_request
from api.state import current_worker
from experiments.access.keys import allows, check_key
from experiments.snapshot.plans import KeyPlan

_LOOK_SECONDS: Final = 0.2  # of what the email door may wait
_DECIDES_ONLY: Final = frozenset({"decide"})


def authorise(scope: str, *, is_for_email: bool = False) -> KeyPlan:
    """The key of the current request, if it may do what needs ``scope``; ``admin`` may do all.

    Args:
        scope: What the door needs.
        is_for_email: Whether the door takes a key from the address where no header has one, and waits little.
    Raises:
        Unauthenticated: No key, or none that works (any more).
        KeyInAddress: One in the address that can do more than decide.
        MissingScope: A key without the scope.
        RateLimited: The key's quota is used up; email tools are answered all the same.
    """
    request = current_request()
    presented = list(_presented(request.environ))
    in_address = request.key_in_address if is_for_email and not presented else None
    key = _known([in_address] if in_address else presented, seconds=_LOOK_SECONDS if is_for_email else None)
    if in_address and key.scopes != _DECIDES_ONLY:
        raise KeyInAddress("A key in the address must be one whose only scope is 'decide'; send this one in a header.")
    if not allows(key, scope):
        raise MissingScope(scope)
    request.key = key
    count_request(request, key, refuses=not is_for_email)
    return key


def actor() -> str:
    """Who makes the change that the current request asks for, as the audit names them."""
    key = current_request().key
    if key is None:
        raise Unauthenticated("A change needs a key.")
    return f"key/{key.name}"


def _presented(environ: dict[str, str]) -> Iterator[str]:
    """Whatever may be a key."""
    if (key := environ.get("HTTP_X_API_KEY")) is not None:
        yield key
    kind, _, rest = environ.get("HTTP_AUTHORIZATION", "").partition(" ")
    if kind.lower() == "bearer":
        yield rest.strip()
    elif kind.lower() == "basic":
        yield from (part for part in _decoded(rest).split(":", 1) if part)


def _decoded(basic: str) -> str:
    try:
        return base64.b64decode(basic, validate=True).decode()
    except (binascii.Error, ValueError):
        raise InvalidHeader("The Authorization header is no Basic authentication.") from None


def _known(presented: list[str], *, seconds: float | None) -> KeyPlan:
    if not presented:
        raise Unauthenticated("Send a key: Authorization: Bearer …, X-API-Key: …, or Basic with the key as password.")
    snapshots = current_worker().snapshots
    now = snapshots.now().timestamp()
    snapshot = snapshots.current
    for text in presented:
        if snapshot is not None and (key := check_key(snapshot.keys, text, now=now)) is not None:
            return key
    newer = snapshots.look_again(seconds=seconds)  # the key may have been made a moment ago
    found = (check_key(newer.keys, text, now=now) for text in presented) if newer is not snapshot else iter(())
    key = next((key for key in found if key is not None), None)
    if key is None:
        raise Unauthenticated("This key is unknown, expired or revoked.")
    return key
