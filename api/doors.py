"""A door: a plain Flask view and all that a client must know of it, so that routes and /openapi.json agree."""

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial, wraps
from typing import Any, Literal

from flask import Flask
from flask.typing import ResponseReturnValue
from pydantic import BaseModel

from api.auth import authorise
from api.idempotency import HEADER, answer_once
from api.requests import current_request

View = Callable[..., ResponseReturnValue]
Method = Literal["GET", "PUT", "POST", "PATCH", "DELETE"]
Scope = Literal["decide", "record", "analyse", "admin"]


@dataclass(frozen=True, slots=True)
class Door:
    """One method of one path. ``scope`` is what a key must have; None needs no key.

    ``takes`` and ``gives`` are types of the bodies, ``takes_files`` and ``gives_files`` media types beside JSON;
    ``is_change``: If-Match is honoured; ``for_browsers``: publishable keys may use it, from other origins;
    ``is_for_email``: waits little, and takes a key from the address.
    """

    method: Method
    path: str
    view: View
    name: str
    says: str
    scope: Scope | None
    takes: Any = None
    gives: Any = None
    query: type[BaseModel] | None = None
    statuses: tuple[int, ...] = (200,)
    gives_text: bool = False
    gives_files: tuple[str, ...] = ()
    takes_files: tuple[str, ...] = ()
    is_change: bool = False
    for_browsers: bool = False
    is_for_email: bool = False
    shows_secret: bool = False

    @property
    def is_creating(self) -> bool:
        """Whether an Idempotency-Key is honoured: not by decisions, idempotent by themselves; no secret is kept."""
        return self.method == "POST" and self.scope not in {None, "decide"} and not self.shows_secret


class Doors:
    """The doors of one resource; ``tag`` heads them in the documentation."""

    def __init__(self, tag: str) -> None:
        self.tag = tag
        self.all: list[Door] = []

    def open(
        self,
        method: Method,
        path: str,
        *,
        scope: Scope | None,
        name: str = "",
        says: str = "",
        **more: Any,
    ) -> Callable[[View], View]:
        """Decorate a view; name and docstring are the door's unless said otherwise, ``more`` are fields of ``Door``."""

        def decorate(view: View) -> View:
            called, said = name or view.__name__, says or inspect.getdoc(view) or ""
            door = Door(method, path, view, f"{self.tag}.{called}", said, scope, **more)
            self.all.append(door if scope is None else replace(door, view=_guarded(door, scope)))
            return view

        return decorate


def register(app: Flask, resources: Sequence[Doors]) -> None:
    """Give an app its doors."""
    for resource in resources:
        for door in resource.all:
            app.add_url_rule(door.path, door.name, door.view, methods=[door.method])


def _guarded(door: Door, scope: Scope) -> View:
    view, for_browsers, is_for_email, is_creating = door.view, door.for_browsers, door.is_for_email, door.is_creating

    @wraps(view)
    def guarded(**values: str) -> ResponseReturnValue:
        authorise(scope, for_browsers=for_browsers, is_for_email=is_for_email)
        if is_creating and HEADER in current_request().environ:
            return answer_once(partial(view, **values))
        return view(**values)

    return guarded
