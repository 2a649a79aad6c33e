"""Nothing grows too large to be read: 400 lines a file, 40 lines of code a function."""

import ast

import pytest

from tests.repo.sources import PACKAGES, ROOT, python_files, syntax_tree

MAX_LINES_A_FILE = 400
MAX_LINES_A_FUNCTION = 40

Function = ast.FunctionDef | ast.AsyncFunctionDef


def _lines_of_code(function: Function, source: list[str]) -> int:
    """Lines from `def` to the end that are neither docstring nor blank nor comment."""
    skipped: set[int] = set()
    first = function.body[0]
    if ast.get_docstring(function, clean=False) is not None and first.end_lineno is not None:
        skipped = set(range(first.lineno, first.end_lineno + 1))
    numbers = range(function.lineno, (function.end_lineno or function.lineno) + 1)
    return sum(
        number not in skipped and not source[number - 1].lstrip().startswith("#") and bool(source[number - 1].strip())
        for number in numbers
    )


@pytest.mark.parametrize("package", PACKAGES)
def test_no_file_is_too_long(package: str) -> None:
    sizes = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in python_files(package)}
    assert {path: size for path, size in sizes.items() if size > MAX_LINES_A_FILE} == {}


@pytest.mark.parametrize("package", PACKAGES)
def test_no_function_is_too_long(package: str) -> None:
    too_long = {}
    for path in python_files(package):
        source = path.read_text().splitlines()
        for node in ast.walk(syntax_tree(path)):
            if isinstance(node, Function) and _lines_of_code(node, source) > MAX_LINES_A_FUNCTION:
                too_long[f"{path.relative_to(ROOT)}:{node.lineno} {node.name}"] = _lines_of_code(node, source)
    assert too_long == {}


def test_docstrings_blank_lines_and_comments_are_not_counted() -> None:
    code = 'def f():\n    """One\n    two."""\n\n    # three\n    x = 1\n    return x\n'
    function = ast.parse(code).body[0]
    assert isinstance(function, ast.FunctionDef)
    assert _lines_of_code(function, code.splitlines()) == 3
