"""The command line's part of serving: settings, migrations, keys."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from sqlalchemy import make_url, text

from experiments.access.keys import check_key
from experiments.cli import COMMANDS, main, optimizer
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


COMMANDS_ON_A_DATABASE: list[tuple[str, ...]] = [
    ("recount",),
    ("keys", "create", "ann"),
    ("keys", "list"),
    ("keys", "revoke", "nobody"),
    ("learn", "--once"),
]
SESAME = "open-sesame"
MIGRATING: list[tuple[str, ...]] = [("migrate",), ("serve",), ("import",)]


def _with_file(command: tuple[str, ...], folder: Path) -> tuple[str, ...]:
    """``import`` with all that it must be told."""
    if command != ("import",):
        return command
    file = folder / "log.csv"
    file.write_text("variant,visit\n" + "a,0\nb,1\n" * 20)
    said = ("--variant-column", "variant", "--control", "a", "--outcome", "visit", "--experiment", "past")
    return (*command, str(file), *said)


@pytest.mark.parametrize("command", [*COMMANDS_ON_A_DATABASE, *MIGRATING], ids=" ".join)
def test_a_database_that_is_away_is_one_line(database_url: str, tmp_path: Path, command: tuple[str, ...]) -> None:
    url = make_url(database_url)
    is_file = url.get_backend_name() == "sqlite"
    away = url.set(database=str(tmp_path)) if is_file else url.set(database="nowhere", password=SESAME)
    given = away.render_as_string(hide_password=False)
    result = _run(*_with_file(command, tmp_path), "--database-url", given)
    assert (result.exit_code, result.stdout) == (1, ""), result.output
    (line,) = result.stderr.splitlines()
    assert SESAME not in line
    shown = f"sqlite:///{tmp_path}" if is_file else "postgresql://postgres:***@/nowhere"
    assert line.startswith(f"Error: The database does not answer: {shown} (")


@pytest.mark.parametrize("command", COMMANDS_ON_A_DATABASE, ids=" ".join)
def test_a_database_without_tables_is_one_line(database_url: str, command: tuple[str, ...]) -> None:
    _drop_tables(database_url)
    result = _run(*command, "--database-url", database_url)
    assert (result.exit_code, result.stdout) == (1, ""), result.output
    assert result.stderr == "Error: This database has no tables yet; run: optimizer migrate\n"


@pytest.mark.parametrize("command", [*COMMANDS_ON_A_DATABASE, *MIGRATING], ids=" ".join)
def test_a_folder_that_is_not_there_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: tuple[str, ...]
) -> None:
    given = ["optimizer", *_with_file(command, tmp_path), "--database-url", "sqlite:////nope/x.db"]
    monkeypatch.setattr("sys.argv", given)
    with pytest.raises(SystemExit) as ended:
        main()
    assert (ended.value.code, capsys.readouterr().err) == (1, "Error: There is no folder for the file '/nope/x.db'.\n")


def _drop_tables(url: str) -> None:
    engine = open_engine(url)
    with engine.begin() as connection:
        if connection.dialect.name == "postgresql":
            connection.execute(text("DROP SCHEMA public CASCADE"))
            connection.execute(text("CREATE SCHEMA public"))
    engine.dispose()
    if engine.dialect.name == "sqlite":
        Path(str(engine.url.database)).unlink()


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
