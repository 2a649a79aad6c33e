"""What templates may do, checked on their syntax tree when they are defined.

Of Jinja2's language only what cannot run long or grow large: names, dotted look-ups in mappings, constants, a few
filters, ``if``, comparisons, ``and or not`` and ``~``. Jinja2's own sandbox would still render ``'a' * 200000000``.
"""

from collections.abc import Iterable, Iterator
from typing import Final

from jinja2 import TemplateSyntaxError, nodes
from jinja2.sandbox import SandboxedEnvironment

from experiments.input.checks import shown

FILTERS: Final = (
    *("capitalize", "default", "escape", "float", "int", "length"),
    *("lower", "round", "title", "trim", "truncate", "upper"),
)
TESTS: Final = ("defined", "undefined", "none")
MAX_DEPTH: Final = 20
_ALLOWED: Final = (
    *(
        nodes.Template,
        nodes.Output,
        nodes.TemplateData,
        nodes.Name,
        nodes.Const,
        nodes.Getattr,
        nodes.Filter,
        nodes.Test,
    ),
    *(
        nodes.If,
        nodes.CondExpr,
        nodes.Compare,
        nodes.Operand,
        nodes.And,
        nodes.Or,
        nodes.Not,
        nodes.Concat,
        nodes.Keyword,
    ),
)
_COMMON_MISTAKES: Final = {
    nodes.For: "a loop",
    nodes.Call: "a call",
    nodes.Getitem: "a look-up in brackets",
    nodes.Assign: "an assignment",
    nodes.Mul: "a multiplication",
}
_PARSER: Final = SandboxedEnvironment()


def is_template(text: str) -> bool:
    """Whether Jinja2 would do anything with a text but copy it."""
    return "{{" in text or "{%" in text or "{#" in text


def check_template(source: str) -> tuple[list[str], int]:
    """What a template does that none may, and how many syntax nodes it has.

    >>> check_template("{{ 'a' * 200000000 }}")[0]
    ['may not use a multiplication']
    >>> check_template("Hi {{ first_name | default('there') }}")
    ([], 6)
    """
    try:
        tree = _PARSER.parse(source)
    except TemplateSyntaxError as error:
        return [f"is no template: {(error.message or '')[:100]}, line {error.lineno}"], 1
    except (RecursionError, ValueError):  # 30,000 brackets; a number of 5,000 digits
        return ["is no template: too long or too deep an expression"], 1
    placed = list(_with_depth(tree))
    if max(depth for _, depth in placed) > MAX_DEPTH:
        return [f"is nested more than {MAX_DEPTH} deep"], len(placed)
    details = [detail for node, _ in placed if (detail := _objection(node)) is not None]
    return list(dict.fromkeys(details)), len(placed)


def _with_depth(tree: nodes.Node) -> Iterator[tuple[nodes.Node, int]]:
    pending = [(tree, 1)]
    while pending:
        node, depth = pending.pop()
        yield node, depth
        pending += [(child, depth + 1) for child in node.iter_child_nodes()]


def _objection(node: nodes.Node) -> str | None:
    if not isinstance(node, _ALLOWED):
        return f"may not use {_COMMON_MISTAKES.get(type(node), type(node).__name__)}"
    if isinstance(node, nodes.Name) and node.name == "self":
        return "may not use the name self"
    if isinstance(node, nodes.Getattr) and not isinstance(node.node, nodes.Name | nodes.Getattr):
        return "may use a dot only after a name"
    if isinstance(node, nodes.Test) and node.name not in TESTS:
        return f"may not use the test {shown(node.name)}; there are {', '.join(TESTS)}"
    return _filter_objection(node) if isinstance(node, nodes.Filter) else None


def _filter_objection(node: nodes.Filter) -> str | None:
    if node.name not in FILTERS:
        return f"may not use the filter {shown(node.name)}; there are {', '.join(FILTERS)}"
    if node.node is None or node.dyn_args is not None or node.dyn_kwargs is not None:
        return f"may not use the filter {node.name} in this way"
    if node.name == "escape" and _escapes(node.node):
        return "may escape a value once"
    if node.name == "round" and not _are_small_numbers(node):
        return "may round to a number of digits from 0 to 15, and in no other way"
    return None


def _escapes(node: nodes.Node) -> bool:
    return any(isinstance(inner, nodes.Filter) and inner.name == "escape" for inner, _ in _with_depth(node))


def _are_small_numbers(node: nodes.Filter) -> bool:
    """Rounding 5 to -1,000,000,000 digits computes ten to the power of that."""
    given: Iterable[nodes.Expr] = [*node.args, *(keyword.value for keyword in node.kwargs)]
    return all(isinstance(item, nodes.Const) and item.value in range(16) for item in given)
