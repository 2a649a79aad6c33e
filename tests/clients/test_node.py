"""Clients that run in Node, unmodified, against the real server. They are installed from npm into a scratch folder."""

import hashlib
import os
import shutil
import subprocess
import tempfile
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

LEAST_NODE = 20  # of jsdom
INSTALL_SECONDS = 200
CACHE = Path(tempfile.gettempdir()) / f"optimizer-node-clients-{os.getuid()}"


def _why_not() -> str | None:
    """Why Node's clients can't run here; None if they can."""
    if shutil.which("npm") is None or shutil.which("node") is None:
        return "Node and npm are not here, so their clients can't run."
    version = subprocess.run(["node", "--version"], capture_output=True, text=True, check=True).stdout.strip()
    is_old = int(version.removeprefix("v").split(".")[0]) < LEAST_NODE
    return f"Node {version} is too old for the clients: {LEAST_NODE} is needed." if is_old else None


_WHY_NOT = _why_not()
pytestmark = [
    pytest.mark.xdist_group("clients"),
    pytest.mark.timeout(300),
    pytest.mark.skipif(_WHY_NOT is not None, reason=str(_WHY_NOT)),
]


@pytest.fixture(scope="session")
def node_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The scripts, beside the packages that they use."""
    folder = tmp_path_factory.mktemp("node")
    for script in SCRIPTS.glob("*.mjs"):
        shutil.copy(script, folder)
    (folder / "node_modules").symlink_to(_installed() / "node_modules")
    return folder


def _installed() -> Path:
    """A folder with the packages, which are installed once for each ``package.json``, whole or not at all."""
    folder = CACHE / hashlib.sha256((SCRIPTS / "package.json").read_bytes()).hexdigest()[:16]
    if folder.is_dir():
        return folder
    CACHE.mkdir(mode=0o700, exist_ok=True)
    started = Path(tempfile.mkdtemp(dir=CACHE))
    shutil.copy(SCRIPTS / "package.json", started)
    command = ["npm", "install", "--no-audit", "--no-fund", "--no-package-lock", "--loglevel=error"]
    command += ["--ignore-scripts", "--fetch-retries=1", "--fetch-timeout=30000"]
    try:
        subprocess.run(command, cwd=started, capture_output=True, text=True, timeout=INSTALL_SECONDS, check=True)
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        shutil.rmtree(started)
        pytest.skip(f"npm could not install the clients, so they can't run: {str(error.stderr)[-500:]}")
    try:
        started.rename(folder)
    except OSError:  # another run was faster
        shutil.rmtree(started)
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
        content = {"title": "<b>Sale</b>", "size": 2, "link": "https://[", "script": "javascript:alert(1)"}
        default = {"key": "plain", "content": content}
        put_placement(session, "banner", payload={"holdout": {"share": 0.0}, "default": default}, actor=ACTOR)
        silent = {"key": "nothing", "content": {}, "deliver": False}
        put_placement(session, "silent", payload={"holdout": {"share": 0.0}, "default": silent}, actor=ACTOR)
        pages = Pages([ORIGIN], ["click", "shown"])
        _, key = create_key(session, "page", scopes=["decide", "record"], actor=ACTOR, pages=pages)
    _run(node_folder, "page.mjs", URL=service.url, PAGE_KEY=key, ORIGIN=ORIGIN)


def test_the_clients_of_segment_and_rudderstack(service: Service, node_folder: Path) -> None:
    with service.client() as plain:
        decided = plain.post("/v1/decisions", {"placement": PLACEMENT, "customer_id": "node-page"}).body
    with transaction(service.engine) as session:
        _, key = create_key(session, "segment", scopes=["record"], actor=ACTOR, pages=Pages([ORIGIN], ["click"]))
    time.sleep(POLL_SECONDS * 1.5)
    variables = {"KEY": service.key, "PAGE_KEY": key, "ORIGIN": ORIGIN, "DECISION": decided["decision_id"]}
    _run(node_folder, "segment.mjs", URL=service.url, **variables)
    with reading(service.engine) as session:
        found, rudder = (
            session.exec(select(Outcome).where(Outcome.customer_id == customer)).all()
            for customer in ("node-user", "rudder-user")
        )
        clicked = session.exec(
            select(Outcome).where(Outcome.decision_id == bytes.fromhex(decided["decision_id"]))
        ).all()
    assert {(row.event, row.value) for row in found} == {("click", None), ("purchase", Decimal("7.25"))}
    assert {(row.event, row.value) for row in rudder} == {("click", None), ("purchase", Decimal("3.50"))}
    assert [row.event for row in clicked] == ["click"]
