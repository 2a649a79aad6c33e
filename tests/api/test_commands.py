"""The command line's part of serving: settings, migrations, keys."""

import json

import pytest
from click.testing import CliRunner, Result

from experiments.access.keys import check_key
from experiments.cli import COMMANDS, optimizer
from experiments.config import Config, environment, read_config
from experiments.database import open_engine, reading
from experiments.errors import ExperimentsError, UnusableConfig
from experiments.snapshot.load import load_snapshot


def _run(*arguments: str) -> Result:
    return CliRunner().invoke(optimizer, arguments, catch_exceptions=True)


@pytest.mark.parametrize("command", [[], *([name] for name in COMMANDS), ["keys", "create"], ["keys", "revoke"]])
def test_every_command_has_help(command: list[str]) -> None:
    result = _run(*command, "--help")
    assert (result.exit_code, result.stdout.startswith("Usage:")) == (0, True), result.output


def test_a_new_key_is_all_that_is_printed_and_works(database_url: str) -> None:
    result = _run("keys", "create", "ann", "--scopes", "decide,record", "--database-url", database_url)
    assert result.exit_code == 0, result.output
    key = result.stdout.removesuffix("\n")
    engine = open_engine(database_url)
    with reading(engine) as session:
        plan = check_key(load_snapshot(session).keys, key, now=0.0)
    engine.dispose()
    assert plan is not None
    assert (plan.name, sorted(plan.scopes)) == ("ann", ["decide", "record"])


def test_keys_are_listed_without_secrets_and_revoked(database_url: str) -> None:
    at = ("--database-url", database_url)
    made = json.loads(_run("keys", "create", "ann", "--days", "30", "--json", *at).stdout)
    (listed,) = json.loads(_run("keys", "list", "--json", *at).stdout)
    assert (listed["id"], listed["revoked_at"], "key" in listed) == (made["id"], None, False)
    assert _run("keys", "revoke", made["id"], "--reason", "lost", *at).exit_code == 0
    assert _run("keys", "list", *at).stdout.rstrip().endswith("revoked")


def test_what_the_domain_refuses_is_an_error(database_url: str) -> None:
    result = _run("keys", "create", "ann", "--scopes", "everything", "--database-url", database_url)
    assert result.exit_code != 0
    assert isinstance(result.exception, ExperimentsError)


def test_migrating_twice_changes_nothing(database_url: str) -> None:
    assert [_run("migrate", "--database-url", database_url).exit_code for _ in range(2)] == [0, 0]


def test_a_flag_wins_over_the_environment_and_that_over_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPTIMIZER_WORKERS", "3")
    monkeypatch.setenv("OPTIMIZER_PORT", "9000")
    config = read_config(port=9001, host=None)
    assert (config.workers, config.port, config.host) == (3, 9001, "127.0.0.1")


def test_the_environment_of_a_child_says_every_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    config = Config(port=9001, log_level="warning")
    for name, value in environment(config).items():
        monkeypatch.setenv(name, value)
    assert read_config() == config


def test_a_setting_that_cannot_be_is_named() -> None:
    with pytest.raises(UnusableConfig, match="OPTIMIZER_WORKERS"):
        read_config(workers=0)
