"""``optimizer migrate``."""

import click

from experiments.commands.settings import settings
from experiments.config import Config
from experiments.database import migrate, open_engine
from experiments.logs import configure_logs


@click.command()
@settings()
def migrate_database(config: Config) -> None:
    """Bring the database to the newest schema, one process at a time; a database that has it is left alone."""
    configure_logs(config)
    engine = open_engine(config.database_url)
    try:
        migrate(engine)
    finally:
        engine.dispose()
