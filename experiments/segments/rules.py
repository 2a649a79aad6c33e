"""Segment rules, compiled once to closures: they run on every decision."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from experiments.catalog.definitions import AttributeDefinition, SegmentationDefinition
from experiments.errors import FieldError, InvalidDefinition
from experiments.input.checks import parse_datetime, pointer_to, shown
from experiments.segments.syntax import conditions, operator_of, rule_errors

Matches = Callable[[Mapping[str, Any]], bool]
_EQUALITY: Final = frozenset({"eq", "ne", "exists"})
_ORDER: Final = frozenset({"in", "not_in", "gt", "gte", "lt", "lte", "between"})
OPERATORS: Final[Mapping[str, frozenset[str]]] = {
    "string": _EQUALITY | {"in", "not_in", "contains", "starts_with"},
    "number": _EQUALITY | _ORDER,
    "datetime": _EQUALITY | _ORDER,
    "boolean": _EQUALITY,
    "strings": frozenset({"contains", "exists"}),
}


@dataclass(frozen=True, slots=True)
class Rule:
    """A compiled rule.

    ``matches`` takes typed attribute values (``attributes.coerce``). A missing attribute makes every comparison false,
    ``ne`` and ``not_in`` too; a ``not`` around one is therefore true.
    """

    matches: Matches
    attributes: frozenset[str]


@dataclass(frozen=True, slots=True)
class Segmentation:
    """A compiled segmentation: ``keys`` in order, the last one is everyone else; ``attributes`` is what it reads."""

    keys: tuple[str, ...]
    segment_of: Callable[[Mapping[str, Any]], str]
    attributes: frozenset[str]


def compile_rule(rule: Any, attributes: Mapping[str, AttributeDefinition], *, pointer: str = "") -> Rule:
    """Check a rule against the declared attributes and compile it.

    Args:
        rule: As JSON: ``{"attribute": key, operator: operand}``, ``{"all" | "any": [rules]}`` or ``{"not": rule}``.
        attributes: All declared attributes by key.
        pointer: Where the rule stands in its document.
    Raises:
        InvalidDefinition: With all that is wrong: shape, size, undeclared attributes, operands of another type.

    >>> adult = compile_rule({"attribute": "age", "gte": 18}, {"age": AttributeDefinition(type="number")})
    >>> adult.matches({"age": 20}), adult.matches({})
    (True, False)
    """
    errors = rule_errors(rule) or _type_errors(rule, attributes)
    if errors:
        raise InvalidDefinition(FieldError(pointer + place, detail) for place, detail in errors)
    read = frozenset(condition["attribute"] for _, condition in conditions(rule))
    return Rule(_compile(rule, attributes), read)


def compile_segmentation(
    definition: SegmentationDefinition, attributes: Mapping[str, AttributeDefinition]
) -> Segmentation:
    """Compile all rules of a segmentation; the first that matches wins.

    Raises:
        InvalidDefinition: With all that is wrong in any of its rules.
    """
    rules: list[tuple[str, Rule]] = []
    errors: list[FieldError] = []
    for i, segment in enumerate(definition.segments):
        try:
            rules.append((segment.key, compile_rule(segment.rule, attributes, pointer=f"/segments/{i}/rule")))
        except InvalidDefinition as error:
            errors += error.fields
    if errors:
        raise InvalidDefinition(errors)
    keys = (*(key for key, _ in rules), definition.otherwise)
    read = frozenset[str]().union(*(rule.attributes for _, rule in rules))
    return Segmentation(keys, _first_match(rules, definition.otherwise), read)


def _first_match(rules: list[tuple[str, Rule]], otherwise: str) -> Callable[[Mapping[str, Any]], str]:
    pairs = tuple((rule.matches, key) for key, rule in rules)

    def segment_of(values: Mapping[str, Any]) -> str:
        for matches, key in pairs:
            if matches(values):
                return key
        return otherwise

    return segment_of


def _type_errors(rule: object, attributes: Mapping[str, AttributeDefinition]) -> list[FieldError]:
    found: list[FieldError] = []
    for pointer, condition in conditions(rule):
        key, operator = condition["attribute"], operator_of(condition)
        declared = attributes.get(key)
        if declared is None:
            found.append(FieldError(f"{pointer}/attribute", f"{shown(key)} is not declared"))
        elif operator not in OPERATORS[declared.type]:
            can = ", ".join(sorted(OPERATORS[declared.type]))
            detail = f"cannot be asked of {shown(key)}, a {declared.type}, which knows {can}"
            found.append(FieldError(f"{pointer}/{operator}", detail))
        elif operator != "exists":
            found += _operand_errors(condition[operator], declared.type, pointer=f"{pointer}/{operator}")
    return found


def _operand_errors(operand: object, type_: str, *, pointer: str) -> list[FieldError]:
    if not isinstance(operand, list):
        typed = _typed(operand, type_)
        return [] if typed is not None else [FieldError(pointer, f"must be a {_said(type_)}, not {shown(operand)}")]
    typed = [_typed(item, type_) for item in operand]
    found = [
        FieldError(pointer_to(pointer, i), f"must be a {_said(type_)}, not {shown(operand[i])}")
        for i, item in enumerate(typed)
        if item is None
    ]
    if not found and pointer.endswith("/between") and typed[0] > typed[1]:
        found.append(FieldError(pointer, f"must be [low, high]: {shown(operand[0])} is above {shown(operand[1])}"))
    return found


def _said(type_: str) -> str:
    return {"strings": "string", "datetime": "date or time in ISO 8601"}.get(type_, type_)


def _typed(operand: object, type_: str) -> Any:
    """An operand in the type that the attribute's values have; None if it is of another."""
    if type_ == "datetime":
        return parse_datetime(operand) if isinstance(operand, str) else None
    if type_ == "number":
        return operand if isinstance(operand, int | float) and not isinstance(operand, bool) else None
    return operand if isinstance(operand, bool if type_ == "boolean" else str) else None


def _compile(rule: Any, attributes: Mapping[str, AttributeDefinition]) -> Matches:
    if "attribute" in rule:
        return _comparison(rule, attributes[rule["attribute"]].type)
    if "not" in rule:
        inner = _compile(rule["not"], attributes)
        return lambda values: not inner(values)
    every = "all" in rule
    parts = tuple(_compile(part, attributes) for part in rule["all" if every else "any"])

    def matches(values: Mapping[str, Any]) -> bool:
        for part in parts:
            if part(values) is not every:
                return not every
        return every

    return matches


def _comparison(condition: dict[str, Any], type_: str) -> Matches:
    key, operator = condition["attribute"], operator_of(condition)
    operand = condition[operator]
    if operator == "exists":
        return lambda values: (values.get(key) is not None) is operand
    typed = [_typed(item, type_) for item in operand] if isinstance(operand, list) else _typed(operand, type_)
    test = _TESTS[operator](typed)
    return lambda values: (value := values.get(key)) is not None and test(value)


def _between(operand: list[Any]) -> Callable[[Any], bool]:
    low, high = operand
    return lambda value: bool(low <= value <= high)


def _in(operand: list[Any]) -> Callable[[Any], bool]:
    listed = frozenset(operand)
    return lambda value: value in listed


def _not_in(operand: list[Any]) -> Callable[[Any], bool]:
    listed = frozenset(operand)
    return lambda value: value not in listed


_TESTS: Final[Mapping[str, Callable[[Any], Callable[[Any], bool]]]] = {
    "eq": lambda operand: lambda value: bool(value == operand),
    "ne": lambda operand: lambda value: bool(value != operand),
    "gt": lambda operand: lambda value: bool(value > operand),
    "gte": lambda operand: lambda value: bool(value >= operand),
    "lt": lambda operand: lambda value: bool(value < operand),
    "lte": lambda operand: lambda value: bool(value <= operand),
    "in": _in,
    "not_in": _not_in,
    "between": _between,
    "contains": lambda operand: lambda value: operand in value,
    "starts_with": lambda operand: lambda value: bool(value.startswith(operand)),
}
