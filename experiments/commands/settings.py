"""Flags that mirror settings."""

from collections.abc import Callable
from functools import wraps
from typing import Any, Concatenate, Literal, ParamSpec, TypeVar, get_args, get_origin

import click

from experiments.config import PREFIX, Config, read_config

Given = ParamSpec("Given")
Result = TypeVar("Result")


def settings(*names: str) -> Callable[[Callable[Concatenate[Config, Given], Result]], Callable[Given, Result]]:
    """Give a command flags for some settings; it gets the whole ``Config`` as its first argument.

    Args:
        names: Fields of ``Config``; ``database_url`` and the log settings are always among them.
    """
    chosen = ("database_url", *names, "log_level", "log_format")

    def decorate(command: Callable[Concatenate[Config, Given], Result]) -> Callable[Given, Result]:
        @wraps(command)
        def configured(*args: Given.args, **flags: Given.kwargs) -> Result:
            config = read_config(**{name: flags.pop(name) for name in chosen})
            return command(config, *args, **flags)

        for name in reversed(chosen):
            configured = _flag(name)(configured)
        return configured

    return decorate


def _flag(name: str) -> Callable[[Any], Any]:
    field = Config.model_fields[name]
    kind: Any = field.annotation
    if get_origin(kind) is Literal:
        kind = click.Choice(get_args(kind))
    told = f"{field.description} [{PREFIX}{name.upper()}; default: {field.default}]"
    flag = f"--{name.replace('_', '-')}"
    if kind is bool:
        return click.option(f"{flag}/--no-{flag[2:]}", name, default=None, help=told)
    return click.option(flag, name, type=kind, default=None, help=told)
