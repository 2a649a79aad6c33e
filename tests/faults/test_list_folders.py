"""Lists of customers on disk, through the real server: they go with their request, or at the next start."""

import http.client
import tempfile
from contextlib import closing
from pathlib import Path

import pytest

from api.folders import new_folder, remove_abandoned
from experiments.database import open_engine
from tests.faults.shop import PLACEMENT, open_shop
from tests.server import Server, serving

pytestmark = pytest.mark.xdist_group("faults")

DOOR = f"/v1/decisions/batch?placement={PLACEMENT}"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the server keeps temporary files."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    return folder


def _lists(folder: Path) -> list[Path]:
    return list(folder.glob("optimizer-list-*"))


def test_lists_go_with_their_request_or_at_the_next_start(sqlite_file: Path, tmp_path: Path, folder: Path) -> None:
    url = f"sqlite:///{sqlite_file}"
    engine = open_engine(url)
    headers = {"X-API-Key": open_shop(engine), "Content-Type": "text/csv"}
    engine.dispose()
    with serving(url, tmp_path, n_workers=1) as server:
        for form in ("parquet", "csv", "ndjson", "json"):
            with closing(_connected(server)) as connection:
                connection.request("POST", f"{DOOR}&format={form}", b"customer_id\nanna\n", headers)
                answer = connection.getresponse()
                assert answer.status == 200
                assert answer.read()
        server.wait_until(lambda: not _lists(folder), what="no list on disk")
        with closing(_connected(server)) as connection:
            connection.putrequest("POST", DOOR)
            for name, value in (headers | {"Content-Length": "1000000"}).items():
                connection.putheader(name, value)
            connection.endheaders(b"customer_id\nanna\n")
            server.wait_until(lambda: bool(_lists(folder)), what="a list on disk")
            server.kill_all()
    assert len(_lists(folder)) == 1
    with serving(url, tmp_path, n_workers=1):
        assert _lists(folder) == []


def test_a_list_that_somebody_works_on_stays(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    kept = new_folder()
    remove_abandoned()
    assert kept.path.is_dir()
    kept.drop()
    assert _lists(folder) == []


def _connected(server: Server) -> http.client.HTTPConnection:
    return http.client.HTTPConnection("127.0.0.1", server.port, timeout=15)
