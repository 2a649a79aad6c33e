"""Imports run downwards only: api -> experiments -> optimizer; each floor knows what it may know and no more."""

import ast
import subprocess
import sys

import pytest

from tests.repo.sources import PACKAGES, ROOT, python_files, syntax_tree

WEB = {"flask", "flask_openapi3", "werkzeug"}
SQL = {"sqlalchemy", "sqlmodel", "alembic", "psycopg", "sqlite3"}
CLOCK_AND_GLOBAL_CHANCE = {"time", "random"}
FORBIDDEN = {
    "api": {"optimizer"},
    "experiments": {"api"} | WEB,
    "optimizer": {"api", "experiments"} | WEB | SQL | CLOCK_AND_GLOBAL_CHANCE,
}
HEAVY = {"scipy", "polars", "sklearn", "pymc", "altair", "pandas", "experiments.review"}


def _imported(tree: ast.Module) -> set[tuple[str, int]]:
    """Top-level names of the modules that a file imports anywhere in it, with line numbers."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {(alias.name.split(".")[0], node.lineno) for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module is not None:
            found.add((node.module.split(".")[0], node.lineno))
    return found


@pytest.mark.parametrize("package", PACKAGES)
def test_no_import_points_upwards_or_at_what_its_floor_must_not_know(package: str) -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{line} imports {module}"
        for path in python_files(package)
        for module, line in sorted(_imported(syntax_tree(path)))
        if module in FORBIDDEN[package]
    ]
    assert wrong == []


def test_an_import_hidden_in_a_function_is_seen() -> None:
    assert _imported(ast.parse("def f():\n    from flask.views import View")) == {("flask", 2)}


def test_a_web_worker_does_not_load_what_only_analyses_need() -> None:
    program = f"import sys, api.app; print(*sorted({HEAVY!r} & set(sys.modules)))"
    answer = subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True, capture_output=True, text=True)
    assert answer.stdout.split() == []


def test_the_background_process_does_not_load_what_only_analyses_need() -> None:
    """It has them run in processes of their own, and its memory stays small; learning and guardrails read reviews."""
    heavy = HEAVY - {"scipy", "experiments.review"}
    program = f"import sys, experiments.background; print(*sorted({heavy!r} & set(sys.modules)))"
    answer = subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True, capture_output=True, text=True)
    assert answer.stdout.split() == []
