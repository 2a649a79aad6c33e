"""Every command on the pages of docs/integrations runs as it stands, and brings the answer that the page shows."""

import shutil
import sys
from pathlib import Path

import pytest

from tests import documents
from tests.server import free_port

PAGES = Path(__file__).resolve().parents[1] / "docs" / "integrations"
SET_UP = PAGES / "README.md"


@pytest.mark.xdist_group("server")
@pytest.mark.timeout(240)  # on a busy machine a page that waits for the background process takes a minute
@pytest.mark.skipif(shutil.which("curl") is None, reason="The pages' commands need curl.")
@pytest.mark.parametrize("page", sorted(path.name for path in PAGES.glob("*.md")))
def test_the_commands_of_a_page_run_and_give_its_answers(
    page: str, tmp_path: Path, sqlite_template: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copyfile(sqlite_template, tmp_path / "optimizer.db")
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent), prepend=":")
    text = SET_UP.read_text(encoding="utf-8")
    if page != SET_UP.name:
        text += (PAGES / page).read_text(encoding="utf-8")
    documents.run(text, folder=tmp_path, replacing={"8000": str(free_port())})
