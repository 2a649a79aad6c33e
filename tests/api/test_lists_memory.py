"""A real server's memory does not grow with the list that it decides."""

import http.client
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.processes import peak_megabytes
from experiments.access.keys import create_key
from experiments.catalog.definition_store import put_placement
from experiments.database import open_engine, transaction
from tests.server import Server, serving

N_FEW, N_MANY = 5_000, 100_000
CUSTOMERS = 1_000  # the same again and again, so that the time goes into reading and writing, not into the database
PADDING = "x" * 500
PLACEMENT = {"holdout": {"share": 0.5}, "default": {"key": "plain", "content": {"text": "Welcome"}}}

pytestmark = pytest.mark.xdist_group("server")


def test_memory_is_flat_while_50_megabytes_of_csv_are_decided(tmp_path: Path, sqlite_template: Path) -> None:
    database = tmp_path / "lists.db"
    shutil.copyfile(sqlite_template, database)
    engine = open_engine(f"sqlite:///{database}")
    with transaction(engine) as session:
        put_placement(session, "welcome", payload=PLACEMENT, actor="test")
        _, key = create_key(session, "lists", scopes=["decide"], actor="test")
    engine.dispose()
    with serving(f"sqlite:///{database}", tmp_path, n_workers=1) as server:
        (pid,) = server.workers()
        assert _decide(server, key, n_rows=N_FEW) == N_FEW
        before = peak_megabytes(pid)
        assert _decide(server, key, n_rows=N_MANY) == N_MANY
        assert peak_megabytes(pid) - before < 25  # the list alone has over 50


def _decide(server: Server, key: str, *, n_rows: int) -> int:
    """Send a list in chunks, read the answer to its end; how many rows it says were decided."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    headers = {"X-API-Key": key, "Content-Type": "text/csv"}
    connection.request("POST", "/v1/decisions/batch?placement=welcome&format=ndjson", _list(n_rows), headers)
    answer, end = connection.getresponse(), b""
    assert answer.status == 200
    while part := answer.read(1 << 16):
        end = (end + part)[-2_000:]
    connection.close()
    decided: int = json.loads(end.splitlines()[-1])["summary"]["n_decided"]
    return decided


def _list(n_rows: int) -> Iterator[bytes]:
    yield b"customer_id,note\n"
    for start in range(0, n_rows, 1_000):
        yield "".join(f"c{n % CUSTOMERS},{PADDING}\n" for n in range(start, start + 1_000)).encode()
