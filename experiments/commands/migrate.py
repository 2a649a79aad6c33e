"""``optimizer migrate``."""

import click

from experiments.commands.settings import opened, settings
from experiments.config import Config
from experiments.database import migrate


@click.command()
@settings()
def migrate_database(config: Config) -> None:
    """Bring the database to the newest schema, one process at a time; a database that has it is left alone."""
    with opened(config) as engine:
        migrate(engine)
