"""Attributes as columns of numbers: learnt once from the decisions of an experiment, applied to any customer since.

A number, a flag (0 or 1) and a time (seconds since 1970) are themselves; a text is the place of its value among the
frequent ones; a list of texts is one flag for each frequent member. What is missing, or no frequent value, is nan.
"""

from collections.abc import Iterator, Mapping, Sequence
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
_NUMBERS: Final = {int, float, type(None)}


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
        values = [row.get(self.attribute) for row in rows]
        codes = {value: float(code) for code, value in enumerate(self.values)}
        if self.kind == "number" and set(map(type, values)) <= _NUMBERS:
            return np.array(values, dtype=np.float64)  # the usual case, many times faster
        return np.array([self._number(value, codes) for value in values], dtype=np.float64)

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
    """The columns of decisions, a part of the rows at a time: which values are frequent shows at the end."""

    def __init__(self, declared: Mapping[str, AttributeDefinition]) -> None:
        self._columns: dict[str, _Plain | _Texts | _Lists] = {
            key: _gathering(key, one.type) for key, one in declared.items()
        }
        self._seen: set[str] = set()

    def add(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Add some rows."""
        for row in rows:
            self._seen.update(row)
        for column in self._columns.values():
            column.add(rows)

    def joined(self) -> tuple[tuple[Feature, ...], Floats]:
        """Features of all attributes that any row had, and their matrix, shape (n_rows, n_features).

        A text or list without frequent values has none.
        """
        found = [pair for key in sorted(self._seen & self._columns.keys()) for pair in self._columns[key].joined()]
        columns = [column for _, column in found]
        return tuple(one for one, _ in found), np.column_stack(columns) if columns else np.zeros((0, 0))


def _gathering(attribute: str, kind: str) -> "_Plain | _Texts | _Lists":
    match kind:
        case "string":
            return _Texts(attribute)
        case "strings":
            return _Lists(attribute)
    return _Plain(Feature(attribute, kind))  # type: ignore[arg-type]  # the other types are kinds


class _Plain:
    """What is a number by itself."""

    def __init__(self, feature: Feature) -> None:
        self._feature = feature
        self._parts: list[Floats] = []

    def add(self, rows: Sequence[Mapping[str, Any]]) -> None:
        self._parts.append(self._feature.column(rows))

    def joined(self) -> Iterator[tuple[Feature, Floats]]:
        yield self._feature, np.concatenate(self._parts)


class _Texts:
    """Texts, each known by its place among all that were met."""

    def __init__(self, attribute: str) -> None:
        self._attribute = attribute
        self._codes: dict[str, int] = {}
        self._parts: list[NDArray[np.int64]] = []

    def add(self, rows: Sequence[Mapping[str, Any]]) -> None:
        values = (row.get(self._attribute) for row in rows)
        codes = self._codes
        known = (codes.setdefault(value, len(codes)) if isinstance(value, str) else -1 for value in values)
        self._parts.append(np.fromiter(known, dtype=np.int64, count=len(rows)))

    def joined(self) -> Iterator[tuple[Feature, Floats]]:
        met = np.concatenate(self._parts)
        frequent = _frequent(self._codes, met[met >= 0], most=MOST_VALUES)
        if frequent:
            ranks = np.full(len(self._codes) + 1, np.nan)  # the last stands for what is missing
            ranks[[self._codes[value] for value in frequent]] = np.arange(len(frequent))
            yield Feature(self._attribute, "string", frequent), ranks[met]


class _Lists:
    """Lists of texts, as pairs of a row and a member."""

    def __init__(self, attribute: str) -> None:
        self._attribute = attribute
        self._codes: dict[str, int] = {}
        self._is_list: list[NDArray[np.bool_]] = []
        self._row: list[int] = []
        self._member: list[int] = []
        self._n_rows = 0

    def add(self, rows: Sequence[Mapping[str, Any]]) -> None:
        values = [row.get(self._attribute) for row in rows]
        self._is_list.append(np.array([isinstance(value, list) for value in values], dtype=np.bool_))
        for at, value in enumerate(values, start=self._n_rows):
            if isinstance(value, list):
                members = [self._codes.setdefault(member, len(self._codes)) for member in set(value)]
                self._member += members
                self._row += [at] * len(members)
        self._n_rows += len(rows)

    def joined(self) -> Iterator[tuple[Feature, Floats]]:
        member, row = np.array(self._member, dtype=np.int64), np.array(self._row, dtype=np.int64)
        missing = np.where(np.concatenate(self._is_list), 0.0, np.nan)
        for value in _frequent(self._codes, member, most=MOST_MEMBERS):
            column = missing.copy()
            column[row[member == self._codes[value]]] = 1.0
            yield Feature(self._attribute, "member", (value,)), column


def _frequent(codes: Mapping[str, int], met: NDArray[np.int64], *, most: int) -> tuple[str, ...]:
    """The most frequent values, by how often they were met."""
    counts = np.bincount(met, minlength=len(codes))
    ranked = sorted(codes, key=lambda value: (-counts[codes[value]], value))
    return tuple(value for value in ranked[:most] if counts[codes[value]] >= FEWEST_UNITS)
