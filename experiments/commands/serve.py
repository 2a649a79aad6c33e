"""``optimizer serve``: migrate, make a first key if there is none, then become gunicorn."""

import os
import sys
import tempfile

import click
from sqlalchemy import Engine
from sqlmodel import select

from experiments.access.keys import create_key
from experiments.commands.settings import opened, settings
from experiments.config import Config, environment
from experiments.database import migrate, transaction
from experiments.tables import ApiKey

METRICS_FOLDER = "PROMETHEUS_MULTIPROC_DIR"


@click.command()
@settings(
    "host",
    "port",
    "workers",
    "threads",
    "learn",
    "learn_seconds",
    "webhooks_private",
    "max_body_bytes",
    "max_batch_bytes",
    "rate_limit",
)
def serve(config: Config) -> None:
    """Start the web processes and the background process.

    Migrates the database first. On the first start, when there is no key yet, prints one that may do all, once.
    """
    with opened(config) as engine:
        migrate(engine)
        secret = _first_key(engine)
    if secret is not None:
        _greet(config, secret)
    folder = tempfile.mkdtemp(prefix="optimizer-metrics-")
    sys.stdout.flush()
    command = [sys.executable, "-m", "gunicorn", "--config", "python:api.server", "api.server:application"]
    os.execve(sys.executable, command, environment(config) | {METRICS_FOLDER: folder})  # noqa: S606  # no shell is meant


def _first_key(engine: Engine) -> str | None:
    with transaction(engine) as session:
        if session.exec(select(ApiKey)).first() is not None:
            return None
        _, secret = create_key(session, "first", scopes=["admin"], actor="optimizer serve")
        return secret


def _greet(config: Config, secret: str) -> None:
    host = "127.0.0.1" if config.host == "0.0.0.0" else config.host  # noqa: S104  # it is read, not bound
    click.echo(
        f"This database had no key, so here is one that may do all. It is not shown again:\n\n  {secret}\n\nTry it:\n\n"
        f"  curl -H 'Authorization: Bearer {secret}' http://{host}:{config.port}/v1/experiments\n",
        err=True,
    )
