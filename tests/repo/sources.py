"""What the tests of the repository read: our source files, parsed."""

import ast
import os
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGES = ("api", "experiments", "optimizer")
NOT_OURS = {"__pycache__", "node_modules", "build", "dist"}
HIDDEN_BUT_OURS = {".ci", ".github", ".gitignore"}


def python_files(package: str) -> list[Path]:
    """The source files of one package, sorted."""
    return sorted((ROOT / package).rglob("*.py"))


def syntax_tree(path: Path) -> ast.Module:
    """A source file, parsed."""
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def text_files() -> Iterator[tuple[Path, str]]:
    """Every file of the repository that is text, with its text; no caches, no virtual environment, no databases."""
    for folder, folders, names in os.walk(ROOT):
        folders[:] = [name for name in folders if _is_ours(name)]
        for name in filter(_is_ours, names):
            path = Path(folder, name)
            try:
                yield path.relative_to(ROOT), path.read_text(encoding="utf-8")
            except UnicodeDecodeError:
                continue


def _is_ours(name: str) -> bool:
    return name in HIDDEN_BUT_OURS or not (name.startswith(".") or name in NOT_OURS or name.endswith(".egg-info"))
