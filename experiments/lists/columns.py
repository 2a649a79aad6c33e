"""Which column says what: names as in JSON, ``attr.<name>``, declared attributes, or as the caller maps them."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from experiments.errors import FieldError, InvalidInput
from experiments.input.checks import shown
from experiments.lists.reading import Table

ATTRIBUTE: Final = "attr."
_ATTRIBUTES: Final = "attributes"


@dataclass(frozen=True, slots=True)
class Layout:
    """What is said of a list beside it.

    Attributes:
        columns: Column by field (``customer_id``, ``attr.orders``), where it has another name than the field.
        constants: The same value of a field for all rows, as text.
    """

    columns: Mapping[str, str] = field(default_factory=dict)
    constants: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Sources:
    """Where the fields of a row come from: column by field, and column by attribute."""

    fields: Mapping[str, str]
    attributes: Mapping[str, str]
    constants: Mapping[str, str]

    def field(self, values: Mapping[str, Any], name: str) -> Any:
        """What a row says of a field; None where it says nothing. An empty text is nothing."""
        column = self.fields.get(name)
        value = None if column is None else values.get(column)
        return self.constants.get(name) if _is_nothing(value) else value

    def attributes_of(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """A row's attributes, with those of an object named ``attributes``."""
        given = values.get(_ATTRIBUTES)
        said = dict(given) if isinstance(given, dict) else {}
        for name, value in self.constants.items():
            if name.startswith(ATTRIBUTE):
                said.setdefault(name[len(ATTRIBUTE) :], value)
        for attribute, column in self.attributes.items():
            if column in values and (attribute not in said or not _is_nothing(values[column])):
                said[attribute] = values[column]
        return said


def _is_nothing(value: Any) -> bool:
    return value is None or value == ""


def sources_of(
    table: Table, layout: Layout, *, fields: Collection[str], declared: Collection[str], needed: Collection[str]
) -> Sources:
    """Where a list's fields come from.

    Args:
        table: The list.
        layout: What is said beside it.
        fields: Those that there are, beside attributes.
        declared: Attributes that are declared: a column of such a name is that attribute.
        needed: Fields of which at least one has to come from somewhere.
    Raises:
        InvalidInput: A field that there isn't, a column that there isn't, or none of the fields that are needed.
    """
    wrong = [
        FieldError(f"/{name}", f"is none of {', '.join(fields)} and {ATTRIBUTE}<name>")
        for name in (*layout.columns, *layout.constants)
        if name not in fields and not name.startswith(ATTRIBUTE)
    ]
    known = set(table.columns)
    wrong += [
        FieldError(f"/map.{name}", f"names the column {shown(column)}; there are {_named(table)}")
        for name, column in layout.columns.items()
        if table.is_fixed and column not in known
    ]
    by_field = {name: layout.columns.get(name, name) for name in fields}
    if table.is_fixed:
        by_field = {name: column for name, column in by_field.items() if column in known}
        if needed and not any(name in by_field or name in layout.constants for name in needed):
            wrong.append(FieldError(f"/{next(iter(needed))}", f"has no column; there are {_named(table)}"))
    if wrong:
        raise InvalidInput(wrong)
    return Sources(by_field, _attributes(table, layout, fields=by_field, declared=declared), layout.constants)


def _attributes(
    table: Table, layout: Layout, *, fields: Mapping[str, str], declared: Collection[str]
) -> dict[str, str]:
    taken = set(fields.values()) & set(table.columns)
    found = {name: name for name in table.columns if name in declared and name not in taken}
    found |= {name[len(ATTRIBUTE) :]: name for name in table.columns if name.startswith(ATTRIBUTE)}
    mapped = {name[len(ATTRIBUTE) :]: column for name, column in layout.columns.items() if name.startswith(ATTRIBUTE)}
    return found | mapped


def _named(table: Table) -> str:
    return ", ".join(shown(name) for name in table.columns[:30])
