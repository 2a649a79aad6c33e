"""Who asks: a key by Bearer, X-API-Key or Basic, checked against the snapshot without a query."""

import base64
import binascii
from collections.abc import Iterator, Mapping
from typing import Final

from api.errors import InvalidHeader, KeyInAddress, MissingScope, Unauthenticated, WrongOrigin
from api.rate_limits import count_request
from api.requests import current_request
from api.state import current_worker
from experiments.access.keys import allows, check_key
from experiments.errors import FieldError, InvalidInput
from experiments.input.checks import MAX_ERRORS, pointer_to
from experiments.snapshot.plans import KeyPlan

_LOOK_SECONDS: Final = 0.2  # of what the email door may wait
_DECIDES_ONLY: Final = frozenset({"decide"})


def authorise(
    scope: str, *, for_browsers: bool = False, is_for_email: bool = False, also: str | None = None
) -> KeyPlan:
    """The key of the current request, if it may do what needs ``scope``; ``admin`` may do all.

    Args:
        scope: What the key must have.
        for_browsers: Whether publishable keys may do it.
        is_for_email: Whether the door takes a key from the address where no header has one, and waits little.
        also: What may be a key as well, beside those in headers.
    Raises:
        Unauthenticated: No key, or none that works (any more).
        KeyInAddress: One in the address that can do more than decide.
        MissingScope: A key without the scope, or a publishable one at a door that is not ``for_browsers``.
        WrongOrigin: A publishable key from elsewhere than a page of its origins.
        RateLimited: The key's quota is used up; email tools are answered all the same.
    """
    request = current_request()
    presented = [*_presented(request.environ), *([] if also is None else [also])]
    in_address = request.key_in_address if is_for_email and not presented else None
    key = _known([in_address] if in_address else presented, seconds=_LOOK_SECONDS if is_for_email else None)
    if in_address and key.scopes != _DECIDES_ONLY:
        raise KeyInAddress("A key in the address must be one whose only scope is 'decide'; send this one in a header.")
    if not allows(key, scope):
        raise MissingScope(scope)
    if key.origins is not None:
        if not for_browsers:
            raise MissingScope(scope, is_publishable=True)
        if (origin := request.environ.get("HTTP_ORIGIN")) not in key.origins:
            raise WrongOrigin(origin)
    request.key = key
    count_request(request, key, refuses=not is_for_email)
    return key


def check_public(attributes: Mapping[str, object] | None, *, preview: str | bool | None = None) -> None:
    """Let a publishable key use only attributes that are declared public, and no preview.

    Raises:
        InvalidInput: Others, by their names.
    """
    if preview and is_from_page():
        raise InvalidInput([FieldError("/preview", "is not for publishable keys")])
    if attributes and (wrong := [name for name in attributes if not is_usable(name)]):
        detail = "is not declared public, so a publishable key can't use it"
        raise InvalidInput([FieldError(pointer_to("/attributes", name), detail) for name in wrong[:MAX_ERRORS]])


def is_usable(attribute: str) -> bool:
    """Whether the current request's key may use an attribute: a publishable one, only those declared public."""
    key, snapshot = current_request().key, current_worker().snapshots.current
    if key is None or key.origins is None:
        return True
    definition = None if snapshot is None else snapshot.attributes.get(attribute)
    return definition is not None and definition.public


def is_from_page() -> bool:
    """Whether the current request's key is publishable: everybody can read it."""
    return events_allowed() is not None


def events_allowed() -> frozenset[str] | None:
    """The events that the current request may report, by decision and without values; None: any, in any way."""
    key = current_request().key
    return None if key is None or key.origins is None else key.events


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
