"""A key in the address, through the real server: it works, and no log of it ever tells the key."""

import http.client
import socket
from pathlib import Path

import pytest

from experiments.access.keys import create_key
from experiments.database import open_engine, transaction
from tests.faults.shop import PLACEMENT, open_shop
from tests.server import serving

pytestmark = pytest.mark.xdist_group("server")

_ALL = "%(r)s %(q)s %({RAW_URI}e)s %({QUERY_STRING}e)s"


@pytest.mark.parametrize("access_log", [None, f"--access-logfile - --access-logformat '{_ALL}'"])
def test_a_key_in_the_address_is_in_no_log(
    sqlite_template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, access_log: str | None
) -> None:
    path = tmp_path / "shop.db"
    path.write_bytes(sqlite_template.read_bytes())
    engine = open_engine(f"sqlite:///{path}")
    admin = open_shop(engine)
    with transaction(engine) as session:
        _, key = create_key(session, "ampscript", scopes=["decide"], actor="test")
    engine.dispose()
    monkeypatch.setenv("OPTIMIZER_LOG_LEVEL", "debug")
    if access_log is not None:
        monkeypatch.setenv("GUNICORN_CMD_ARGS", access_log)
    door = f"/v1/placements/{PLACEMENT}/decision"
    with serving(f"sqlite:///{path}", tmp_path, n_workers=1) as server:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=15)
        for address, status in [
            (f"{door}?customer_id=c&key={key}", 200),
            (f"{door}?key={key}&customer_id=c&format=text", 200),
            (f"{door}?customer_id=c&key={admin}", 403),
            (f"{door}?key={key}", 400),
            (f"{door}?customer_id=c&k%65y={key}", 401),
            (f"/v1/experiments?key={key}", 401),
            (f"/nothing?key={key}", 404),
            (f"/nothing/{key}", 404),
        ]:
            connection.request("GET", address)
            answer = connection.getresponse()
            body = answer.read().decode()
            assert answer.status == status, (address, body)
            assert key[-64:] not in body
        connection.request("GET", f"{door}?customer_id=c&key={key}", headers={"Bad Header": "x"})
        connection.getresponse().read()
        connection.close()
        escaped = key.replace("_", "%5F")
        with socket.create_connection(("127.0.0.1", server.port), timeout=15) as broken:
            broken.sendall(f"GET {door}?key={escaped}&customer_id=\xc3\xa9 HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            assert broken.recv(100).startswith(b"HTTP/1.1 400 ")
        server.terminate()
        log = server.log.read_text()
    assert "/decision" in log
    assert key[-64:] not in log
    assert admin[-64:] not in log
