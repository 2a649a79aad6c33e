"""Documents whose commands run as they stand, and whose answers are the ones they show.

A block of ``sh`` is run by bash; the ``json`` or ``text`` block after it is what the last line (all of it, for text) of
its output has to be. ``skip`` after the language leaves a block out.
"""

import json
import re
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

_BLOCK = re.compile(r"^```(\w+)( skip)?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_END = "=== end of a block ==="
_KINDS = {"sh", "json", "text"}


def run(text: str, *, folder: Path, replacing: Mapping[str, str], seconds: float = 200) -> None:
    """Run all blocks of a document in one shell, and compare the answers.

    Args:
        text: The document.
        folder: Where it is run.
        replacing: What stands for what in its commands, such as ports.
        seconds: How long it may take.
    """
    blocks = [(kind, body) for kind, skip, body in _BLOCK.findall(text) if not skip and kind in _KINDS]
    script = "set -e\n" + "".join(f"{body}echo\necho '{_END}'\n" for kind, body in blocks if kind == "sh")
    for old, new in replacing.items():
        script = script.replace(old, new)
    ran = subprocess.run(
        ["bash", "-c", script], cwd=folder, capture_output=True, text=True, timeout=seconds, check=False
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    _compare(blocks, iter(ran.stdout.split(_END + "\n")))


def _compare(blocks: list[tuple[str, str]], outputs: Iterator[str]) -> None:
    said = ""
    for kind, body in blocks:
        if kind == "sh":
            said = next(outputs).strip()
        elif kind == "text":
            assert said == body.strip(), f"The document says {body}\nanswered: {said}"
        else:
            last = said.splitlines()[-1]
            assert _is_within(json.loads(body), json.loads(last)), f"The document says {body}\nanswered: {last}"


def _is_within(expected: Any, answer: Any) -> bool:  # JSON
    """Whether an answer has all that a document shows of it; documents shorten objects, never lists."""
    if isinstance(expected, dict):
        return isinstance(answer, dict) and all(_is_within(value, answer.get(key)) for key, value in expected.items())
    if isinstance(expected, list):
        return len(expected) == len(answer) and all(map(_is_within, expected, answer))
    return bool(expected == answer)
