"""The shape of segment rules, checked without knowing the attributes, and without recursion."""

from collections.abc import Iterator
from typing import Any, Final

from experiments.errors import FieldError
from experiments.input.checks import pointer_to, shown

COMPARISONS: Final = (
    "eq",
    "ne",
    "in",
    "not_in",
    "gt",
    "gte",
    "lt",
    "lte",
    "between",
    "contains",
    "starts_with",
    "exists",
)
CONNECTIVES: Final = ("all", "any", "not")
MAX_NODES: Final = 500
MAX_DEPTH: Final = 20
MAX_LISTED: Final = 1_000
_ORDERED: Final = frozenset({"gt", "gte", "lt", "lte"})
_LISTED: Final = frozenset({"in", "not_in", "between"})


def rule_errors(rule: object) -> list[FieldError]:
    """What is wrong with a rule's shape, each with its pointer below the rule; empty if nothing is.

    Every rule that passes can be walked by recursion: at most 500 nodes, 20 deep.
    """
    found: list[FieldError] = []
    pending: list[tuple[str, object, int]] = [("", rule, 1)]
    n_nodes = 0
    while pending:
        pointer, node, depth = pending.pop()
        n_nodes += 1
        if n_nodes + len(pending) > MAX_NODES:
            return [*found, FieldError("", f"has more than {MAX_NODES} nodes")]
        if depth > MAX_DEPTH:
            found.append(FieldError(pointer, f"is nested more than {MAX_DEPTH} deep"))
            continue
        children, errors = _children(node, pointer)
        found += errors
        pending += [(place, child, depth + 1) for place, child in reversed(children)]
    return found


def conditions(rule: Any, pointer: str = "") -> Iterator[tuple[str, Any]]:
    """Every comparison of a rule that passed ``rule_errors``, with its pointer."""
    children, _ = _children(rule, pointer)
    if not children:
        yield pointer, rule
    for place, child in children:
        yield from conditions(child, place)


def operator_of(condition: dict[str, Any]) -> str:
    """The one operator of a comparison that passed ``rule_errors``."""
    (operator,) = condition.keys() - {"attribute"}
    return str(operator)


def _children(node: object, pointer: str) -> tuple[list[tuple[str, object]], list[FieldError]]:
    if not isinstance(node, dict):
        return [], [FieldError(pointer, f"must be an object, not {shown(node)}")]
    if "attribute" in node:
        return [], _comparison_errors(node, pointer)
    if len(node) != 1 or (connective := next(iter(node))) not in CONNECTIVES:
        names = ", ".join(sorted(str(name)[:50] for name in node)[:5]) or "nothing"
        return [], [FieldError(pointer, f"must have an attribute, or one of {', '.join(CONNECTIVES)}; it has {names}")]
    place, inner = pointer_to(pointer, connective), node[connective]
    if connective == "not":
        return [(place, inner)], []
    if not isinstance(inner, list) or not inner:
        return [], [FieldError(place, f"must be an array of at least one rule, not {shown(inner)}")]
    return [(pointer_to(place, i), item) for i, item in enumerate(inner)], []


def _comparison_errors(node: dict[str, object], pointer: str) -> list[FieldError]:
    found = []
    if not isinstance(node["attribute"], str):
        found.append(FieldError(f"{pointer}/attribute", f"must be a string, not {shown(node['attribute'])}"))
    operators = [name for name in node if name != "attribute"]
    if len(operators) != 1:
        return [*found, FieldError(pointer, f"must have one operator, not {len(operators)}")]
    (operator,) = operators
    place = pointer_to(pointer, operator)
    if operator not in COMPARISONS:
        return [*found, FieldError(place, f"is no operator; there are {', '.join(COMPARISONS)}")]
    detail = _operand_error(operator, node[operator])
    return found if detail is None else [*found, FieldError(place, detail)]


def _operand_error(operator: str, operand: object) -> str | None:
    if operator in _LISTED:
        return _list_error(operator, operand)
    if operator == "exists":
        return None if isinstance(operand, bool) else f"must be true or false, not {shown(operand)}"
    if operator in _ORDERED and (isinstance(operand, bool) or not isinstance(operand, int | float | str)):
        return f"must be a number or a date, not {shown(operand)}"
    if operator in {"contains", "starts_with"} and not isinstance(operand, str):
        return f"must be a string, not {shown(operand)}"
    return None if isinstance(operand, bool | int | float | str) else f"must be a single value, not {shown(operand)}"


def _list_error(operator: str, operand: object) -> str | None:
    if not isinstance(operand, list) or not 1 <= len(operand) <= MAX_LISTED:
        return f"must be an array of 1 to {MAX_LISTED} values, not {shown(operand)}"
    if operator == "between" and len(operand) != 2:
        return f"must be [low, high], not {shown(operand)}"
    if all(isinstance(item, str) for item in operand):
        return None
    if all(isinstance(item, int | float) and not isinstance(item, bool) for item in operand):
        return None
    return "must hold values of one type, all strings (or dates) or all numbers"
