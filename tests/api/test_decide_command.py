"""``optimizer decide``: from a file into a file, the same as the doors decide."""

import csv
import json
from pathlib import Path

import polars as pl
import pytest
from click.testing import CliRunner

from experiments.cli import optimizer
from experiments.worker import Worker
from tests.api.conftest import Client


def _run(*arguments: str | Path, status: int = 0) -> str:
    ran = CliRunner().invoke(optimizer, ["decide", *map(str, arguments)], catch_exceptions=False)
    assert ran.exit_code == status, ran.output
    return ran.output


def test_a_file_is_decided_as_the_doors_decide(running: Client, worker: Worker, tmp_path: Path) -> None:
    file = tmp_path / "list.csv"
    file.write_text("Email,first_name\na@x.example,Anna\n,Nobody\nb@x.example,\n")
    url = worker.config.database_url
    options = ("--database-url", url, "--placement", "welcome", "--map", "customer_id=Email", "--json")
    said = json.loads(_run(file, *options).splitlines()[-1])
    assert (said["n_decided"], said["n_failed"], said["is_complete"]) == (2, 1, True)
    with (tmp_path / "list.decided.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["Email"] for row in rows[:-1]] == ["a@x.example", "", "b@x.example"]
    assert rows[0]["decision_id"] == running.decide("a@x.example")["decision_id"]
    again = json.loads(_run(file, *options, "--output", tmp_path / "again.parquet").splitlines()[-1])
    assert again["by_variant"] == said["by_variant"]
    assert pl.read_parquet(tmp_path / "again.parquet")["decision_id"].to_list()[0] == rows[0]["decision_id"]


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("list.txt", ["--placement", "welcome"], "must end in .csv"),
        ("list.csv", ["--placement", "nowhere"], "nowhere"),
        ("list.csv", ["--placement", "welcome", "--map", "customer_id"], "NAME=VALUE"),
        ("list.csv", ["--placement", "welcome", "--map", "customer_id=Nope"], "'Nope'"),
        ("list.csv", ["--placement", "welcome", "--output", "{folder}/list.csv"], "/output: is the list itself"),
        ("list.csv", ["--placement", "welcome", "--output", "{folder}/out.csv.gz"], "/output: must end in .csv"),
        ("list.csv", ["--placement", "welcome", "--output", "{folder}/no/out.csv"], "a folder that isn't there"),
    ],
)
def test_what_cannot_be_done_is_said(
    running: Client, worker: Worker, tmp_path: Path, name: str, options: list[str], said: str
) -> None:
    del running
    file = tmp_path / name
    file.write_text("customer_id\n1\n")
    options = [one.format(folder=tmp_path) for one in options]
    ran = CliRunner().invoke(optimizer, ["decide", str(file), "--database-url", worker.config.database_url, *options])
    assert ran.exit_code != 0
    assert said in ran.output + str(ran.exception)
    assert not list(tmp_path.glob("*decided*"))
