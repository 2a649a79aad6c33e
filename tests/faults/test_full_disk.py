"""A disk without room for SQLite: nothing is acknowledged that isn't stored, and all goes on once there is room."""

import resource
from contextlib import closing
from pathlib import Path

import pytest

from experiments.database import open_engine
from tests.faults.load import (
    Load,
    assert_nothing_was_lost,
    assert_sending_again_changes_nothing,
    decide,
    decide_by_email,
)
from tests.faults.shop import open_shop
from tests.server import Client, Server, serving

pytestmark = pytest.mark.xdist_group("faults")

_prlimit = getattr(resource, "prlimit", None)  # Linux


def _limit_files(server: Server, n_bytes: int) -> None:
    """No file of the server's may grow beyond this: writes fail as they do on a full disk."""
    assert _prlimit is not None
    for pid in [*server.workers(), *server.learners()]:
        _prlimit(pid, resource.RLIMIT_FSIZE, (n_bytes, resource.RLIM_INFINITY))


@pytest.mark.skipif(_prlimit is None, reason="Only Linux can limit the files of another process.")
def test_a_full_disk_refuses_websites_answers_email_tools_and_goes_on_once_there_is_room(
    sqlite_file: Path, tmp_path: Path
) -> None:
    engine = open_engine(f"sqlite:///{sqlite_file}")
    key = open_shop(engine)
    url = f"sqlite:///{sqlite_file}"
    with serving(url, tmp_path) as server, closing(Client(server.port, key)) as client:
        load = Load(server.port, key)
        with load.run(name="load", n_threads=3):
            load.wait_for(100)
            log = sqlite_file.with_name(f"{sqlite_file.name}-wal")
            _limit_files(server, max(log.stat().st_size, sqlite_file.stat().st_size))
            server.wait_until(lambda: load.statuses[503] > 10, what="the disk is full")
            refused = decide(client, "new")
            assert (refused.status, int(refused.headers["retry-after"]) >= 1) == (503, True)
            answer = decide_by_email(client, "by-email")
            assert (answer.status, answer.body["recorded"]) == (200, False)
            assert client.get("/healthz").status == 200
            assert client.get("/readyz").status == 503
            _limit_files(server, resource.RLIM_INFINITY)
            server.wait_until(lambda: decide(client, "new").status == 200, what="decisions are recorded", seconds=10)
            load.wait_for(100)
        server.wait_until(server.is_ready, what="ready again", seconds=10)
        assert decide(client, "by-email").body["decision_id"] == answer.body["decision_id"]
        assert_sending_again_changes_nothing(engine, load)
    assert_nothing_was_lost(engine, load)
    engine.dispose()
