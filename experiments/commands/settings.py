"""What commands share: flags that mirror settings, and the database that they name."""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any, Concatenate, Literal, ParamSpec, TypeVar, get_args, get_origin

import click
from sqlalchemy import URL, Engine
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, ProgrammingError

from experiments.config import PREFIX, Config, read_config
from experiments.database import open_engine
from experiments.logs import configure_logs

_UNDEFINED_TABLE = "42P01"  # PostgreSQL's code

Given = ParamSpec("Given")
Result = TypeVar("Result")


@contextmanager
def opened(config: Config) -> Iterator[Engine]:
    """A configured process's database, for one command; what it refuses is told without a traceback."""
    configure_logs(config)
    engine = open_engine(config.database_url)
    try:
        yield engine
    except (DBAPIError, PermissionError, FileNotFoundError) as error:
        told = _told(error, engine.url)
        if told is None:
            raise
        raise click.ClickException(told) from None
    finally:
        engine.dispose()


def _told(error: DBAPIError | OSError, url: URL) -> str | None:
    """What the database refuses, in a sentence without the driver's text; None if the fault is ours."""
    cause = error.orig if isinstance(error, DBAPIError) else error
    if _lacks_tables(cause):
        return "This database has no tables yet; run: optimizer migrate"
    if isinstance(error, ProgrammingError | IntegrityError | DataError):
        return None
    code = getattr(cause, "sqlite_errorname", None) or getattr(cause, "sqlstate", None) or type(cause).__name__
    named = url.set(drivername=url.get_backend_name(), query={}).render_as_string(hide_password=True)
    return f"The database does not answer: {named} ({code})"


def _lacks_tables(cause: BaseException | None) -> bool:
    return getattr(cause, "sqlstate", None) == _UNDEFINED_TABLE or (
        isinstance(cause, sqlite3.OperationalError) and str(cause).startswith("no such table")
    )


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
