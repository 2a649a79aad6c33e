"""What commands share: flags that mirror settings, and the database that they name."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any, Concatenate, Literal, ParamSpec, TypeVar, get_args, get_origin

import click
from sqlalchemy import Engine
from sqlalchemy.exc import InterfaceError, OperationalError

from experiments.config import PREFIX, Config, read_config
from experiments.database import open_engine
from experiments.logs import configure_logs

Given = ParamSpec("Given")
Result = TypeVar("Result")


@contextmanager
def opened(config: Config) -> Iterator[Engine]:
    """A configured process's database, for one command; what it refuses is told without a traceback."""
    configure_logs(config)
    engine = open_engine(config.database_url)
    try:
        yield engine
    except (OperationalError, InterfaceError) as error:
        raise click.ClickException(f"The database does not do its part: {error.orig}") from None
    finally:
        engine.dispose()


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
