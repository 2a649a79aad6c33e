"""Structured logs on standard error, one line each: of our own code and of libraries alike."""

import logging
import logging.config
import re
from collections.abc import Sequence
from typing import Any

import orjson
import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from experiments.config import Config

_SECRET = re.compile(r"(opt_[0-9a-f]{12}_)[0-9a-f]{64}")
_LEVELS = logging.getLevelNamesMapping()


def configure_logs(config: Config, *, processors: Sequence[Processor] = ()) -> None:
    """Send every log line of this process to standard error, as JSON or for people.

    Args:
        config: ``log_level`` and ``log_format`` are read.
        processors: What adds to each line, such as a request's id.
    """
    structlog.configure(
        processors=[*processors, *_SHARED, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[config.log_level.upper()]),
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )
    logging.config.dictConfig(library_logs(config))


def library_logs(config: Config) -> dict[str, Any]:
    """The standard library's logging, as its ``dictConfig`` takes it."""
    renderer: Processor = _as_json if config.log_format == "json" else structlog.dev.ConsoleRenderer()
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {
            "line": {
                "()": structlog.stdlib.ProcessorFormatter,
                "processors": [structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer, _hide_keys],
                "foreign_pre_chain": _SHARED,
            }
        },
        "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "line", "stream": "ext://sys.stderr"}},
        "root": {"level": config.log_level.upper(), "handlers": ["stderr"]},
        "loggers": {
            "alembic": {"level": "WARNING"},
            "httpcore": {"level": "WARNING"},  # they would log the addresses of webhooks, which may be secrets
            "httpx": {"level": "WARNING"},
            "gunicorn.error": {"level": config.log_level.upper(), "handlers": [], "propagate": True},
            "gunicorn.access": {"level": "CRITICAL", "handlers": [], "propagate": False},
        },
    }


def _as_json(_logger: WrappedLogger, _method: str, event: EventDict) -> str:
    return orjson.dumps(event, default=repr).decode()


def _hide_keys(_logger: WrappedLogger, _method: str, line: Any) -> str:  # a rendered line, though structlog can't tell
    """Leave no key's secret in a line, whoever wrote it: a library may have put an address into it."""
    return _SECRET.sub(r"\1…", str(line))


_SHARED: list[Processor] = [
    structlog.processors.add_log_level,
    structlog.processors.TimeStamper(fmt="iso", utc=True, key="at"),
    structlog.processors.format_exc_info,
]
