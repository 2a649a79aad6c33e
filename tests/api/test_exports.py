"""Exports over HTTP and on the command line; results as tables."""

import io
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
from click.testing import CliRunner

from experiments.cli import optimizer
from experiments.database import transaction
from experiments.decisions.rows import write_decisions
from experiments.tables import Experiment
from experiments.worker import Worker
from tests.api.conftest import Client, assert_problem, make_key, pointers
from tests.experiments.rows import decision

RESULTS = "/v1/experiments/subject/results"
HOURS_AGO = datetime.now(UTC) - timedelta(hours=3)


@pytest.fixture
def decided(running: Client, worker: Worker) -> Client:
    """A client of a service whose experiment decided for ten customers, three hours ago."""
    with transaction(worker.engine) as session:
        number = session.get_one(Experiment, "subject").series or 0
        made = [decision(number, f"c{i}", decided_at=HOURS_AGO, variant="ab"[i % 2]) for i in range(10)]
        write_decisions(session.connection(), made, shard=1)
    return running


def test_an_export_is_parquet_and_says_where_the_next_one_begins(decided: Client) -> None:
    answer = decided.get("/v1/export/decisions", buffered=True)
    assert (answer.status_code, answer.mimetype) == (200, "application/vnd.apache.parquet")
    frame = pl.read_parquet(io.BytesIO(answer.data))
    assert set(frame["customer_id"]) == {f"c{i}" for i in range(10)}
    until = answer.headers["X-Export-Until"]
    assert datetime.fromisoformat(until) <= datetime.now(UTC) - timedelta(minutes=1)
    following = decided.get(f"/v1/export/decisions?since={until}", buffered=True)
    assert pl.read_parquet(io.BytesIO(following.data)).height == 0


@pytest.mark.parametrize("kind", ["outcomes", "tallies"])
def test_every_kind_can_be_fetched_as_csv(decided: Client, kind: str) -> None:
    answer = decided.get(f"/v1/export/{kind}?format=csv", buffered=True)
    assert (answer.status_code, answer.content_type) == (200, "text/csv; charset=utf-8")
    assert int(answer.headers["Content-Length"]) == len(answer.data)
    by_accept = decided.get(f"/v1/export/{kind}", headers={"Accept": "text/csv"}, buffered=True)
    assert by_accept.data == answer.data


def test_an_export_refuses_what_it_cannot_give(decided: Client, worker: Worker) -> None:
    assert_problem(decided.get("/v1/export/secrets"), 404, "not_found")
    problem = assert_problem(decided.get("/v1/export/decisions?since=yesterday"), 422, "invalid_input")
    assert pointers(problem) == {"/since"}
    problem = assert_problem(decided.get("/v1/export/decisions?since=2999-01-01T00:00:00Z"), 422, "invalid_input")
    assert pointers(problem) == {"/since"}
    decided.key = make_key(worker, "decide", name="web")
    assert_problem(decided.get("/v1/export/decisions"), 403, "missing_scope")


@pytest.mark.parametrize(("path", "n_rows"), [(RESULTS, 4), (f"{RESULTS}/series", 4)])
def test_results_and_their_series_come_as_tables_too(decided: Client, path: str, n_rows: int) -> None:
    """Two variants, in one segment and over all, on one day."""
    as_json = decided.get(path)
    assert as_json.content_type == "application/json"
    parquet = pl.read_parquet(io.BytesIO(decided.get(f"{path}?format=parquet").data))
    answer = decided.get(path, headers={"Accept": "text/csv, application/json;q=0.5"})
    assert answer.content_type == "text/csv; charset=utf-8"
    assert pl.read_csv(io.BytesIO(answer.data)).height == parquet.height == n_rows
    overall = parquet.filter(pl.col("segment").is_null())
    said = as_json.get_json()["overall"]
    variants = said["variants"] if "variants" in said else said["days"][-1]["variants"]
    for row, variant in zip(overall.to_dicts(), variants, strict=True):
        assert (row["variant"], row["n_units"], row["mean"]) == (variant["variant"], 5, variant["mean"])
        assert [row["low"], row["high"]] == variant["interval"]
    assert_problem(decided.get(f"{path}?format=xml"), 422, "invalid_input")


def test_the_series_of_what_is_not_there_is_not_found(decided: Client) -> None:
    assert_problem(decided.get("/v1/experiments/none/results/series"), 404, "experiment_not_found")
    assert_problem(decided.get(f"{RESULTS}/series?metric=none"), 404, "metric_not_measured")
    assert_problem(decided.get(f"{RESULTS}/series?segment=none"), 404, "segment_not_found")


def test_the_command_writes_a_file_and_says_until_when(decided: Client, database_url: str, tmp_path: Path) -> None:
    del decided
    output = tmp_path / "d.parquet"
    flags = ["--database-url", database_url, "--output", str(output)]
    ran = CliRunner().invoke(optimizer, ["export", "decisions", *flags, "--since", HOURS_AGO.isoformat(), "--json"])
    assert ran.exit_code == 0, ran.output
    assert '"n_rows":10' in ran.output
    assert pl.read_parquet(output).height == 10
    assert [path.name for path in tmp_path.iterdir() if path.suffix == ".parquet" or path.is_dir()] == ["d.parquet"]
    for wrong in (["--output", str(tmp_path / "d.xls")], ["--since", "2026-01-01"]):
        refused = CliRunner().invoke(optimizer, ["export", "decisions", *flags, *wrong])
        assert refused.exit_code == 1
