"""Clients that run in Node, unmodified, against the real server. They are installed from npm into a scratch folder."""

import os
import shutil
import subprocess
import time
from decimal import Decimal
from pathlib import Path

import pytest
from sqlmodel import select

from experiments.access.keys import Pages, create_key
from experiments.catalog.definition_store import put_placement
from experiments.database import reading, transaction
from experiments.snapshot.holder import POLL_SECONDS
from experiments.tables import Outcome
from tests.clients.conftest import ACTOR, PLACEMENT, Service

SCRIPTS = Path(__file__).parent / "node"
ORIGIN = "https://shop.example"

pytestmark = [
    pytest.mark.xdist_group("clients"),
    pytest.mark.timeout(300),
    pytest.mark.skipif(shutil.which("npm") is None, reason="Node and npm are not here, so their clients can't run."),
]


@pytest.fixture(scope="session")
def node_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The scripts with the packages that they use."""
    folder = tmp_path_factory.mktemp("node") / "clients"
    shutil.copytree(SCRIPTS, folder)
    command = ["npm", "install", "--no-audit", "--no-fund", "--no-package-lock", "--loglevel=error"]
    installed = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if installed.returncode != 0:
        pytest.skip(f"npm could not install the clients: {installed.stderr[-500:]}")
    return folder


def _run(folder: Path, script: str, **variables: str) -> None:
    environment = os.environ | variables
    ran = subprocess.run(
        ["node", script], cwd=folder, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_openfeature_providers(service: Service, node_folder: Path) -> None:
    _run(node_folder, "openfeature.mjs", URL=service.url, KEY=service.key)


def test_the_script_in_a_page(service: Service, node_folder: Path) -> None:
    with transaction(service.engine) as session:
        default = {"key": "plain", "content": {"title": "<b>Sale</b>", "size": 2}}
        put_placement(session, "banner", payload={"holdout": {"share": 0.0}, "default": default}, actor=ACTOR)
        pages = Pages([ORIGIN], ["click", "shown"])
        _, key = create_key(session, "page", scopes=["decide", "record"], actor=ACTOR, pages=pages)
    _run(node_folder, "page.mjs", URL=service.url, PAGE_KEY=key, ORIGIN=ORIGIN)


def test_segments_clients(service: Service, node_folder: Path) -> None:
    with service.client() as plain:
        decided = plain.post("/v1/decisions", {"placement": PLACEMENT, "customer_id": "node-page"}).body
    with transaction(service.engine) as session:
        _, key = create_key(session, "segment", scopes=["record"], actor=ACTOR, pages=Pages([ORIGIN], ["click"]))
    time.sleep(POLL_SECONDS * 1.5)
    variables = {"KEY": service.key, "PAGE_KEY": key, "ORIGIN": ORIGIN, "DECISION": decided["decision_id"]}
    _run(node_folder, "segment.mjs", URL=service.url, **variables)
    with reading(service.engine) as session:
        found = session.exec(select(Outcome).where(Outcome.customer_id == "node-user")).all()
        clicked = session.exec(
            select(Outcome).where(Outcome.decision_id == bytes.fromhex(decided["decision_id"]))
        ).all()
    assert {(row.event, row.value) for row in found} == {("click", None), ("purchase", Decimal("7.25"))}
    assert [row.event for row in clicked] == ["click"]
