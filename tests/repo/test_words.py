"""One name for one thing: the words that STYLE.md rules out name no class, function, parameter, variable or field."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.repo.sources import PACKAGES, ROOT, python_files, syntax_tree

NEVER = {
    "arm": "variant",
    "bucket": "variant (or name what is in it)",
    "reward": "outcome",
    "lift": "uplift",
    "conversion": "outcome or response",
}
WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")


def _words(identifier: str) -> set[str]:
    """The words of a snake_case or CamelCase name, in lower case, without a plural s."""
    return {word.lower().removesuffix("s") for word in WORD.findall(identifier)}


def _names(tree: ast.Module) -> Iterator[tuple[str, int]]:
    """Every name that a file gives to something, with its line."""
    for node in ast.walk(tree):
        match node:
            case ast.ClassDef(name=name) | ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                yield name, node.lineno
            case ast.arg(arg=name) | ast.Name(id=name, ctx=ast.Store()) | ast.Attribute(attr=name, ctx=ast.Store()):
                yield name, node.lineno
            case ast.Import(names=names) | ast.ImportFrom(names=names):
                yield from ((alias.asname, node.lineno) for alias in names if alias.asname is not None)
            case _:
                pass


def _forbidden(path: Path) -> list[str]:
    where = path.relative_to(ROOT)
    wrong = [f"{where}: the file's name says {word}" for word in sorted(_words(path.stem) & set(NEVER))]
    for name, line in _names(syntax_tree(path)):
        wrong += [f"{where}:{line} {name}: say {NEVER[word]}" for word in sorted(_words(name) & set(NEVER))]
    return wrong


@pytest.mark.parametrize("package", PACKAGES)
def test_no_name_uses_a_word_that_is_ruled_out(package: str) -> None:
    assert [line for path in python_files(package) for line in _forbidden(path)] == []


@pytest.mark.parametrize(
    "code", ["class BestArm: ...", "def f(*, rewards): ...", "lift = 1", "self.bucket_id = 2", "import a as Conversion"]
)
def test_every_way_of_giving_a_name_is_seen(code: str) -> None:
    assert any(_words(name) & set(NEVER) for name, _ in _names(ast.parse(code)))


@pytest.mark.parametrize("name", ["uplift", "alarm", "shift_seconds", "charm", "NoAlarms"])
def test_longer_words_are_innocent(name: str) -> None:
    assert _words(name) & set(NEVER) == set()
