"""A door: a plain Flask view with all that a client must know of it, so that routes and /openapi.json can't disagree."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import wraps
from typing import Any, Literal

from flask import Flask
from flask.typing import ResponseReturnValue
from pydantic import BaseModel

from api.auth import authorise

View = Callable[..., ResponseReturnValue]
Method = Literal["GET", "PUT", "POST", "PATCH", "DELETE"]
Scope = Literal["decide", "record", "analyse", "admin"]


@dataclass(frozen=True, slots=True)
class Door:
    """One method of one path. ``scope`` is what a key must have; None needs no key.

    ``takes`` and ``gives`` are types of the bodies, ``is_change``: If-Match is honoured.
    """

    method: Method
    path: str
    view: View
    scope: Scope | None
    takes: Any = None
    gives: Any = None
    query: type[BaseModel] | None = None
    statuses: tuple[int, ...] = (200,)
    gives_text: bool = False
    is_change: bool = False


class Doors:
    """The doors of one resource; ``tag`` heads them in the documentation."""

    def __init__(self, tag: str) -> None:
        self.tag = tag
        self.all: list[Door] = []

    def open(self, method: Method, path: str, *, scope: Scope | None, **more: Any) -> Callable[[View], View]:  # noqa: ANN401  # Door's fields
        """Decorate a view: its docstring documents the door, ``more`` are fields of ``Door``."""

        def decorate(view: View) -> View:
            self.all.append(Door(method, path, view if scope is None else _guarded(view, scope), scope, **more))
            return view

        return decorate


def register(app: Flask, resources: Sequence[Doors]) -> None:
    """Give an app its doors."""
    for resource in resources:
        for door in resource.all:
            app.add_url_rule(
                door.path, f"{resource.tag}.{door.view.__name__}", door.view, methods=[door.method], strict_slashes=False
            )


def _guarded(view: View, scope: Scope) -> View:
    @wraps(view)
    def guarded(**values: str) -> ResponseReturnValue:
        authorise(scope)
        return view(**values)

    return guarded
