"""Every setting, read once: from ``OPTIMIZER_…`` in the environment, and the flags that mirror them."""

import os
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from experiments.access.rate_limits import OFF, PATTERN
from experiments.errors import UnusableConfig

PREFIX = "OPTIMIZER_"


class Config(BaseSettings):
    """The settings of a process; each description is also the help of its flag and its line in the README."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="ignore")

    database_url: Annotated[
        str, Field(description="sqlite:///path/to/file.db, or postgresql://user:password@host/name.")
    ] = "sqlite:///optimizer.db"
    host: Annotated[str, Field(description="Address to listen on; 0.0.0.0 is every one.")] = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65_535, description="Port to listen on.")] = 8000
    workers: Annotated[int, Field(ge=1, le=1_000, description="Web processes.")] = 2
    threads: Annotated[int, Field(ge=8, le=1_000, description="Threads of each web process.")] = 40
    learn: Annotated[bool, Field(description="Whether serve starts the background process too.")] = True
    learn_seconds: Annotated[float, Field(gt=0, le=3_600, description="How often the learner looks, in seconds.")] = 5.0
    webhooks_private: Annotated[
        bool, Field(description="Whether webhooks may lead to private addresses (10.0.0.1, localhost, …).")
    ] = True
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"],
        Field(description="debug also logs each request of the decision and outcome doors."),
    ] = "info"
    log_format: Annotated[Literal["json", "console"], Field(description="json for machines, console for people.")] = (
        "json"
    )
    max_body_bytes: Annotated[int, Field(ge=1_000, description="Largest body of a request.")] = 1_000_000
    rate_limit: Annotated[
        str,
        Field(pattern=PATTERN, description="Requests of each key, such as 100/second; keys may have their own."),
    ] = OFF
    max_batch_bytes: Annotated[int, Field(ge=1_000, description="Largest body of a list of decisions or outcomes.")] = (
        10_000_000
    )
    max_list_bytes: Annotated[
        int, Field(ge=1_000, description="Largest list (CSV, NDJSON, Parquet), as sent and when inflated.")
    ] = 1_000_000_000


def read_config(**flags: Any) -> Config:  # whatever the flags hold; checked here
    """The settings of this process: a flag that was given (is not None), else the environment, else the default.

    Raises:
        UnusableConfig: A setting that can't be, by its name.
    """
    try:
        return Config(**{name: value for name, value in flags.items() if value is not None})
    except ValidationError as error:
        wrong = ((".".join(map(str, detail["loc"])), detail["msg"]) for detail in error.errors())
        raise UnusableConfig("; ".join(f"{PREFIX}{name.upper()}: {said}" for name, said in wrong)) from None


def environment(config: Config) -> dict[str, str]:
    """This process's environment, with every setting said: for a process that is to have the same ones."""
    return dict(os.environ) | {PREFIX + name.upper(): str(value) for name, value in config.model_dump().items()}
