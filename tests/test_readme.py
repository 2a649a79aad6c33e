"""The README's commands run as they stand, and their answers are the ones it shows."""

import json
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"^```(\w+)( skip)?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
END = "=== end of a block ==="


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def _is_within(expected: Any, answer: Any) -> bool:
    """Whether an answer has all that the README shows of it; the README shortens objects, never lists."""
    if isinstance(expected, dict):
        return isinstance(answer, dict) and all(_is_within(value, answer.get(key)) for key, value in expected.items())
    if isinstance(expected, list):
        return len(expected) == len(answer) and all(map(_is_within, expected, answer))
    return bool(expected == answer)


@pytest.mark.xdist_group("server")
@pytest.mark.skipif(shutil.which("curl") is None, reason="The README's loop needs curl.")
def test_the_loop_in_the_readme_runs_and_gives_its_answers(tmp_path: Path) -> None:
    blocks = [(kind, text) for kind, skip, text in BLOCK.findall(README) if not skip and kind in {"sh", "json"}]
    script = "set -e\n" + "".join(f"{text}echo '{END}'\n" for kind, text in blocks if kind == "sh")
    script = script.replace(". .venv/bin/activate", f"PATH={Path(sys.executable).parent}:$PATH")
    script = script.replace("8000", str(_free_port()))
    ran = subprocess.run(["bash", "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=100, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    outputs = iter(ran.stdout.split(END + "\n"))
    last = ""
    for kind, text in blocks:
        if kind == "sh":
            last = next(outputs).strip().splitlines()[-1]
        else:
            assert _is_within(json.loads(text), json.loads(last)), f"README: {text}\nanswered: {last}"


def test_every_make_target_in_the_readme_exists() -> None:
    targets = set(re.findall(r"\bmake ([a-z]+)\b", README))
    defined = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    assert targets
    assert targets <= defined
