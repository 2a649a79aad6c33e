"""The README's commands run as they stand, and their answers are the ones it shows."""

import re
import shutil
import sys
from pathlib import Path

import pytest

from tests import documents
from tests.server import free_port

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.xdist_group("server")
@pytest.mark.timeout(240)
@pytest.mark.skipif(shutil.which("curl") is None, reason="The README's loop needs curl.")
def test_the_loop_in_the_readme_runs_and_gives_its_answers(tmp_path: Path) -> None:
    path = f"PATH={Path(sys.executable).parent}:$PATH"
    documents.run(README, folder=tmp_path, replacing={". .venv/bin/activate": path, "8000": str(free_port())})


def test_every_make_target_in_the_readme_exists() -> None:
    targets = set(re.findall(r"\bmake ([a-z]+)\b", README))
    defined = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    assert targets
    assert targets <= defined
