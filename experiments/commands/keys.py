"""``optimizer keys``."""

from datetime import UTC, datetime

import click
import orjson

from experiments import keys as api_keys
from experiments.commands.settings import settings
from experiments.config import Config
from experiments.database import open_engine, reading, transaction
from experiments.logs import configure_logs
