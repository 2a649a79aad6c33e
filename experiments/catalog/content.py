"""What a variant shows: JSON whose strings may be templates, checked when defined, rendered when decided."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Any, Final, Literal

import orjson
from jinja2 import StrictUndefined, Template, TemplateError
from jinja2.sandbox import SandboxedEnvironment

from experiments.catalog.template_syntax import FILTERS, TESTS, check_template, is_template
from experiments.errors import FieldError, InvalidTemplate, TemplateFailed
from experiments.input.checks import pointer_to

Format = Literal["json", "text", "html"]
MAX_BYTES: Final = 65_536
MAX_NODES: Final = 500
# What a template that passed the check can still raise on a customer's values.
_FAILURES: Final = (TemplateError, ArithmeticError, AssertionError, AttributeError, LookupError, TypeError, ValueError)


@dataclass(frozen=True, slots=True)
class Content:
    """A variant's content, ready to serve.

    ``tree`` is the JSON as served if no string in it is a template (``is_static``); nobody may change it.
    """

    tree: Any
    is_static: bool
    n_bytes_left: int

    def render(self, values: Mapping[str, Any]) -> Any:
        """The content for one customer, as JSON.

        Args:
            values: The customer's attributes, typed, and what else the caller lets templates see.
        Raises:
            TemplateFailed: An undefined name without ``default``, an operation the value cannot do, or over 64 kB.
        """
        return self.tree if self.is_static else _render(self.tree, values, budget=_Budget(self.n_bytes_left))


def compile_content(content: object, *, format: Format) -> Content:  # noqa: A002 - the contract's word
    """Make content ready to serve.

    Args:
        content: JSON; its strings (not its names) may be templates.
        format: Of the placement: ``html`` escapes values, ``text`` turns line breaks into spaces.
    Raises:
        InvalidTemplate: With the pointer of each template that may not be.

    >>> compile_content({"text": "Hi {{ name | default('there') }}"}, format="text").render({})
    {'text': 'Hi there'}
    """
    errors = template_errors(content)
    if errors:
        raise InvalidTemplate(errors)

    def compiled(text: str, pointer: str) -> object:
        if is_template(text):
            return _Leaf(_template(text, format), pointer, one_line=format == "text")
        return _one_line(text) if format == "text" else text

    is_static = not any(is_template(text) for _, text in _strings(content))
    n_static = len(orjson.dumps(_map_strings(content, lambda text, _: "" if is_template(text) else text)))
    return Content(_map_strings(content, compiled), is_static=is_static, n_bytes_left=MAX_BYTES - n_static)


def template_errors(content: object) -> list[FieldError]:
    """What is wrong with the templates in some content, each with its pointer; empty if nothing is.

    All templates of one content share a budget of 500 syntax nodes, which bounds the time and memory of rendering.
    """
    found: list[FieldError] = []
    n_nodes = 0
    for pointer, text in _strings(content):
        if is_template(text):
            details, size = check_template(text)
            found += [FieldError(pointer, detail) for detail in details]
            n_nodes += size
        if n_nodes > MAX_NODES:
            return [*found, FieldError("", f"has templates of more than {MAX_NODES} parts in all")]
    return found


class _Budget:
    """Bytes that one rendering may still put out."""

    __slots__ = ("n_bytes",)

    def __init__(self, n_bytes: int) -> None:
        self.n_bytes = n_bytes

    def take(self, text: str) -> str:
        self.n_bytes -= len(text.encode())
        if self.n_bytes < 0:
            raise OverflowError
        return text


@dataclass(frozen=True, slots=True)
class _Leaf:
    template: Template
    pointer: str
    one_line: bool

    def render(self, values: Mapping[str, Any], budget: _Budget) -> str:
        try:
            text = "".join([budget.take(part) for part in self.template.generate(values)])
        except _FAILURES as error:
            raise TemplateFailed(self.pointer, reason=type(error).__name__) from None
        return _one_line(text) if self.one_line else text


class _Sandbox(SandboxedEnvironment):
    """Jinja2's sandbox in which a dot looks into mappings and nowhere else."""

    def getattr(self, obj: Any, attribute: str) -> Any:
        if isinstance(obj, Mapping) and attribute in obj:
            return obj[attribute]
        return self.undefined(obj=obj, name=attribute)


def _render(node: Any, values: Mapping[str, Any], *, budget: _Budget) -> Any:
    if isinstance(node, _Leaf):
        return node.render(values, budget)
    if isinstance(node, dict):
        return {key: _render(item, values, budget=budget) for key, item in node.items()}
    return [_render(item, values, budget=budget) for item in node] if isinstance(node, list) else node


def _plain(value: Any) -> Any:
    """Values as people and JSON write them, not as Python does."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if value is None:
        return ""
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, list):
        return ", ".join(str(_plain(item)) for item in value)
    return orjson.dumps(value).decode() if isinstance(value, dict) else value


def _plain_line(value: Any) -> Any:
    plain = _plain(value)
    return _one_line(plain) if isinstance(plain, str) else plain


def _one_line(text: str) -> str:
    return " ".join(text.splitlines())


def _environment(format: Format) -> _Sandbox:  # noqa: A002 - the contract's word
    environment = _Sandbox(
        undefined=StrictUndefined,
        autoescape=format == "html",
        finalize=_plain_line if format == "text" else _plain,
        keep_trailing_newline=True,
    )
    environment.globals.clear()
    environment.filters = {name: environment.filters[name] for name in FILTERS}
    environment.tests = {name: environment.tests[name] for name in TESTS}
    return environment


_ENVIRONMENTS: Final = {"json": _environment("json"), "text": _environment("text"), "html": _environment("html")}


@lru_cache(maxsize=4096)
def _template(source: str, format: Format) -> Template:  # noqa: A002 - the contract's word
    return _ENVIRONMENTS[format].from_string(source)


def _strings(content: object) -> Iterator[tuple[str, str]]:
    pending: list[tuple[str, object]] = [("", content)]
    while pending:
        pointer, value = pending.pop()
        if isinstance(value, str):
            yield pointer, value
        elif isinstance(value, dict):
            pending += [(pointer_to(pointer, key), item) for key, item in reversed(value.items())]
        elif isinstance(value, list):
            pending += [(pointer_to(pointer, i), value[i]) for i in reversed(range(len(value)))]


def _map_strings(value: Any, change: Callable[[str, str], object], *, pointer: str = "") -> Any:
    if isinstance(value, str):
        return change(value, pointer)
    if isinstance(value, dict):
        return {key: _map_strings(item, change, pointer=pointer_to(pointer, key)) for key, item in value.items()}
    if isinstance(value, list):
        return [_map_strings(item, change, pointer=pointer_to(pointer, i)) for i, item in enumerate(value)]
    return value
