"""Attributes as columns of numbers: learnt once from the decisions of an experiment, applied to any customer since.

A number, a flag (0 or 1) and a time (seconds since 1970) are themselves; a text is the place of its value among the
frequent ones; a list of texts is one flag for each frequent member. What is missing, or no frequent value, is nan.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Final, Literal, Self

import numpy as np
from numpy.typing import NDArray

from experiments.catalog.definitions import AttributeDefinition
from experiments.input.checks import parse_datetime

Floats = NDArray[np.float64]
Kind = Literal["number", "boolean", "datetime", "string", "member"]

MOST_VALUES: Final = 60  # of a text attribute; the models take 255
MOST_MEMBERS: Final = 20
FEWEST_UNITS: Final = 30  # of a value, to count as frequent


@dataclass(frozen=True, slots=True)
class Feature:
    """One column.

    Attributes:
        attribute: Where its values come from.
        kind: How they become numbers.
        values: Of a text: the frequent ones, in the order of their codes. Of a list: the member.
    """

    attribute: str
    kind: Kind
    values: tuple[str, ...] = ()

    @classmethod
    def from_json(cls, said: Mapping[str, Any]) -> Self:
        """Read what ``to_json`` gave."""
        return cls(said["attribute"], said["kind"], tuple(said["values"]))

    def to_json(self) -> dict[str, Any]:
        """As it is kept with a model."""
        return asdict(self)

    def column(self, rows: Sequence[Mapping[str, Any]]) -> Floats:
        """The column of customers' typed or stored attributes, shape (n_rows,)."""
        codes = {value: float(code) for code, value in enumerate(self.values)}
        return np.array([self._number(row.get(self.attribute), codes) for row in rows], dtype=np.float64)

    def _number(self, value: Any, codes: Mapping[str, float]) -> float:
        """nan, too, for a value of another type than the attribute has now: it may have been declared anew."""
        match self.kind:
            case "string":
                return codes.get(value, np.nan) if isinstance(value, str) else np.nan
            case "member":
                return float(self.values[0] in value) if isinstance(value, list) else np.nan
            case "datetime":
                moment = parse_datetime(value) if isinstance(value, str) else value
                return float(moment.timestamp()) if isinstance(moment, datetime) else np.nan
            case "boolean":
                return float(value) if isinstance(value, bool) else np.nan
        return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else np.nan


def matrix(features: Sequence[Feature], rows: Sequence[Mapping[str, Any]]) -> Floats:
    """Customers' attributes, shape (n_rows, n_features)."""
    columns = [one.column(rows) for one in features]
    return np.column_stack(columns) if columns else np.zeros((len(rows), 0))


def categorical(features: Sequence[Feature]) -> tuple[int, ...]:
    """Columns that hold codes."""
    return tuple(at for at, one in enumerate(features) if one.kind == "string")


class Census:
    """Counts the values that texts and lists have, a part of the rows at a time."""

    def __init__(self, declared: Mapping[str, AttributeDefinition]) -> None:
        self._declared = declared
        self._counts: dict[str, Counter[str]] = {
            key: Counter() for key, one in declared.items() if one.type in {"string", "strings"}
        }
        self._seen: set[str] = set()

    def add(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Count some rows."""
        for row in rows:
            self._seen.update(row)
        for key, counts in self._counts.items():
            if self._declared[key].type == "string":
                counts.update(value for row in rows if isinstance(value := row.get(key), str))
            else:
                lists = (value for row in rows if isinstance(value := row.get(key), list))
                counts.update(member for value in lists for member in set(value))

    def features(self) -> list[Feature]:
        """Columns for all attributes that any row had; a text or list without frequent values has none."""
        found: list[Feature] = []
        for key in sorted(self._seen & self._declared.keys()):
            one = self._declared[key]
            if one.type == "string":
                frequent = self._frequent(key, MOST_VALUES)
                found += [Feature(key, "string", frequent)] if frequent else []
            elif one.type == "strings":
                found += [Feature(key, "member", (member,)) for member in self._frequent(key, MOST_MEMBERS)]
            else:
                found.append(Feature(key, one.type))
        return found

    def _frequent(self, key: str, most: int) -> tuple[str, ...]:
        ranked = sorted(self._counts[key].items(), key=lambda item: (-item[1], item[0]))
        return tuple(value for value, n in ranked[:most] if n >= FEWEST_UNITS)
