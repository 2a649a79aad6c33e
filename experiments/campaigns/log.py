"""The log of a past randomised campaign, read from a file into checked columns, one row a unit."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from experiments.campaigns.shares import Shares, observed_shares
from experiments.campaigns.table import bad_value, read_columns, refuse_first
from experiments.catalog.definitions import EVERYONE, AttributeDefinition
from experiments.errors import UnreadableCampaign
from experiments.input.attributes import coerce
from experiments.input.checks import KEY_PATTERN, MAX_ID_BYTES, parse_datetime, shown

if TYPE_CHECKING:
    import polars as pl

Floats = NDArray[np.float64]
Indices = NDArray[np.intp]

KINDS: Final = ("binary", "count", "mean")
EVERYONE_ELSE: Final = "everyone-else"
MAX_COUNT: Final = 1_000  # each one becomes an outcome of its own
MAX_LEVELS: Final = 10_000
MAX_VALUE: Final = 1e12
_FIRST: Final = datetime(1980, 1, 1, tzinfo=UTC)
_FLAGS: Final = {"0": 0.0, "1": 1.0, "0.0": 0.0, "1.0": 1.0, "false": 0.0, "true": 1.0}


@dataclass(frozen=True, slots=True)
class OutcomeColumn:
    """A column of outcomes; ``kind`` is that of its metric: binary, count or mean."""

    name: str
    kind: str = "binary"


@dataclass(frozen=True, slots=True)
class CampaignColumns:
    """Which columns hold what; ``control`` is the control's value in the column ``variant``.

    ``covariate``: of numbers, or of true and false, known before the decision; ``covariate_missing`` stands for none.
    """

    variant: str
    control: str
    outcomes: tuple[OutcomeColumn, ...]
    segment: str | None = None
    attributes: tuple[str, ...] = ()
    propensity: str | None = None
    customer: str | None = None
    decided: str | None = None
    covariate: str | None = None
    covariate_missing: float = 0.0

    def names(self) -> list[str]:
        """Every column that is read."""
        single = (self.variant, self.segment, self.propensity, self.customer, self.decided, self.covariate)
        named = [name for name in single if name is not None]
        return list(dict.fromkeys([*named, *(outcome.name for outcome in self.outcomes), *self.attributes]))


@dataclass(frozen=True, slots=True)
class Levels:
    """The values of a column as in the file (None: no value), their keys here, and which one each row has."""

    values: tuple[str | None, ...]
    keys: tuple[str, ...]
    index: Indices


@dataclass(frozen=True, slots=True)
class OutcomeValues:
    """One metric's outcomes: its key and kind, the event, and each row's value (exact as text, and as a number)."""

    key: str
    kind: str
    event: str
    text: Sequence[str]
    value: Floats

    @property
    def n_events(self) -> Indices:
        """How many outcomes each row is told as: a count so many, any other value one, zero none."""
        return (self.value if self.kind == "count" else self.value != 0.0).astype(np.intp)


@dataclass(frozen=True, slots=True)
class Campaign:
    """A checked log.

    Attributes:
        variants: The control first.
        segments: Without a segment column ``everyone``; rows without a value are ``everyone-else``, which comes last.
        segment_attribute: Key of the attribute whose values the segments are.
        outcomes: One for each metric, the first is the goal.
        attributes: Text (or None) of each row by attribute key.
        shares: As observed; None if propensities were given.
        propensity: Of the logged variant, shape (n_rows,): as given, or the observed share.
        customers: Ids, or None.
        decided_at: Times, or None.
        covariate: Key of the attribute whose values are the covariate, or None; ``covariate_missing`` stands for none.
    """

    variants: Levels
    segments: Levels
    segment_attribute: str | None
    outcomes: tuple[OutcomeValues, ...]
    attributes: Mapping[str, Sequence[str | None]]
    shares: Shares | None
    propensity: Floats
    customers: Sequence[str] | None
    decided_at: Sequence[datetime] | None
    covariate: str | None = None
    covariate_missing: float = 0.0

    @property
    def n_rows(self) -> int:
        """How many units there are."""
        return self.propensity.size

    @property
    def n_outcomes(self) -> int:
        """How many outcomes there are, over all metrics."""
        return sum(int(outcome.n_events.sum()) for outcome in self.outcomes)


def read_campaign(path: Path, columns: CampaignColumns, *, now: datetime) -> Campaign:
    """Read and check a log.

    Args:
        path: CSV (plain, .gz, .zst) or Parquet.
        columns: Which columns hold what.
        now: No decision may be later.
    Raises:
        UnreadableCampaign: With the number of the first row that is wrong, or what the file as a whole lacks.
    """
    if columns.covariate in {outcome.name for outcome in columns.outcomes}:
        raise UnreadableCampaign(f"the covariate {columns.covariate!r} is an outcome: it must be known before")
    frame = read_columns(path, columns.names())
    variants = _variants(frame[columns.variant], control=columns.control)
    segments = _segments(None if columns.segment is None else frame[columns.segment], n_rows=frame.height)
    also = (columns.segment, columns.covariate)
    attributes = dict.fromkeys([*columns.attributes, *(name for name in also if name is not None)])
    keys = _keys_of(list(attributes), what="the columns")
    if columns.propensity is not None:
        shares, propensity = None, _propensities(frame[columns.propensity])
    else:
        shares = observed_shares(_counts(variants, segments))
        propensity = shares.observed[segments.index, variants.index]
    return Campaign(
        variants=variants,
        segments=segments,
        segment_attribute=None if columns.segment is None else key_of(columns.segment),
        outcomes=_outcomes(frame, columns.outcomes),
        attributes={key: frame[name].to_list() for key, name in zip(keys, attributes, strict=True)},
        shares=shares,
        propensity=propensity,
        customers=None if columns.customer is None else _customers(frame[columns.customer]),
        decided_at=None if columns.decided is None else _times(frame[columns.decided], now=now),
        covariate=None if columns.covariate is None else key_of(columns.covariate),
        covariate_missing=columns.covariate_missing,
    )


def key_of(value: str) -> str:
    """A key for any text: itself if it can be one, else its letters and digits joined by hyphens.

    >>> key_of("2) $100 - $200"), key_of("Mens E-Mail"), key_of("gate_30")
    ('2-100-200', 'Mens-E-Mail', 'gate_30')
    """
    if re.fullmatch(KEY_PATTERN, value):
        return value
    key = re.sub(r"[^A-Za-z0-9._]+", "-", value).strip("-._")[:128]
    if not key:
        raise UnreadableCampaign(f"no key can be made of {shown(value)}: it has no letter or digit of a to z, 0 to 9")
    return key


def attribute_type(values: Sequence[str | None]) -> str:
    """The narrowest type that every value of a column fits: number, boolean, datetime, else string."""
    known = {value for value in values if value is not None}
    for type_ in ("number", "boolean", "datetime") if known else ():
        definition = AttributeDefinition.model_validate({"type": type_})
        if not any(coerce({"": value}, {"": definition}, text=True).invalid for value in known):
            return type_
    return "string"


def typed_values(key: str, values: Sequence[str | None], *, definition: AttributeDefinition) -> list[Any]:
    """A column's values as JSON in an attribute's declared type; None where there is none.

    Raises:
        UnreadableCampaign: With the first row whose value does not fit.
    """
    known: dict[str | None, Any] = {None: None}
    declared = {key: definition}
    for row, value in enumerate(values):
        if value not in known:
            found = coerce({key: value}, declared, text=True)
            if found.invalid:
                raise bad_value(key, row=row, value=value, must_be=f"a {definition.type}")
            known[value] = found.stored.get(key)
    return [known[value] for value in values]


def _keys_of(values: Sequence[str], *, what: str) -> tuple[str, ...]:
    taken: dict[str, str] = {}
    for value in values:
        key = key_of(value)
        if key in taken:
            raise UnreadableCampaign(f"{what} {taken[key]!r} and {value!r} would both get the key {key!r}")
        taken[key] = value
    return tuple(taken)


def _variants(column: "pl.Series", *, control: str) -> Levels:
    refuse_first(column, column.is_null(), must_be="a variant")
    values = sorted(column.unique().to_list())
    if control not in values:
        raise UnreadableCampaign(f"{column.name!r} has no value {control!r} for the control; it has {_some(values)}")
    if len(values) < 2:
        raise UnreadableCampaign(f"{column.name!r} has only {control!r}; an experiment has at least 2 variants")
    values = [control, *(value for value in values if value != control)]
    return Levels(tuple(values), _keys_of(values, what="the variants"), _index(column, values))


def _segments(column: "pl.Series | None", *, n_rows: int) -> Levels:
    if column is None:
        return Levels((None,), (EVERYONE,), np.zeros(n_rows, dtype=np.intp))
    values = sorted(column.drop_nulls().unique().to_list())
    if len(values) > MAX_LEVELS:
        raise UnreadableCampaign(f"{column.name!r} has {len(values):,} values; at most {MAX_LEVELS:,} can be segments")
    keys = _keys_of([*values, EVERYONE_ELSE], what="the segments")
    if column.null_count() == 0:
        return Levels(tuple(values), keys[:-1], _index(column, values))
    return Levels((*values, None), keys, _index(column, [*values, None]))


def _index(column: "pl.Series", values: Sequence[str | None]) -> Indices:
    place = {value: i for i, value in enumerate(values)}
    return np.fromiter((place[value] for value in column), dtype=np.intp, count=len(column))


def _some(values: Sequence[str]) -> str:
    return ", ".join(map(shown, values[:10])) + (f" and {len(values) - 10:,} more" if len(values) > 10 else "")


def _counts(variants: Levels, segments: Levels) -> NDArray[np.int64]:
    shape = len(segments.keys), len(variants.keys)
    cell = segments.index * shape[1] + variants.index
    return np.bincount(cell, minlength=shape[0] * shape[1]).reshape(shape)


def _outcomes(frame: "pl.DataFrame", columns: Sequence[OutcomeColumn]) -> tuple[OutcomeValues, ...]:
    if not columns:
        raise UnreadableCampaign("at least one column of outcomes must be said")
    keys = _keys_of([column.name for column in columns], what="the outcomes")
    named = zip(keys, columns, strict=True)
    return tuple(_outcome(frame[column.name], key=key, kind=column.kind) for key, column in named)


def _outcome(column: "pl.Series", *, key: str, kind: str) -> OutcomeValues:
    import polars as pl

    if kind == "binary":
        value = column.str.to_lowercase().replace_strict(_FLAGS, default=None, return_dtype=pl.Float64)
        refuse_first(column, value.is_null(), must_be="0 or 1")
    else:
        value = _numbers(column)
        refuse_first(column, value.abs() > MAX_VALUE, must_be=f"at most {MAX_VALUE:g} in size")
    if kind == "count":
        whole = (value >= 0) & (value.floor() == value) & (value <= MAX_COUNT)
        refuse_first(column, ~whole, must_be=f"a whole number of 0 to {MAX_COUNT:,} (larger ones: {column.name}:mean)")
    return OutcomeValues(key, kind, column.name, column.to_list(), value.to_numpy())


def _numbers(column: "pl.Series") -> "pl.Series":
    import polars as pl

    value = column.cast(pl.Float64, strict=False)
    refuse_first(column, ~value.is_finite(), must_be="a number")
    return value


def _propensities(column: "pl.Series") -> Floats:
    value = _numbers(column)
    refuse_first(column, ~((value > 0) & (value <= 1)), must_be="a propensity: above 0, at most 1")
    return value.to_numpy()


def _customers(column: "pl.Series") -> list[str]:
    wrong = (column.str.len_bytes() > MAX_ID_BYTES) | column.str.contains("\x00", literal=True)
    refuse_first(column, wrong, must_be=f"a customer's id of at most {MAX_ID_BYTES} bytes without NUL")
    seen: dict[str, int] = {}
    for row, customer in enumerate(column):
        if seen.setdefault(customer, row) != row:
            raise UnreadableCampaign(
                f"row {row + 1:,}: customer {shown(customer)} is in row {seen[customer] + 1:,} already; a unit has one"
                " row (leave the customer column out if each row is a unit of its own)"
            )
    return list(seen)


def _times(column: "pl.Series", *, now: datetime) -> list[datetime]:
    parsed: dict[str | None, datetime | None] = {}
    for row, value in enumerate(column):
        if value not in parsed:
            moment = None if value is None else parse_datetime(value)
            if moment is None or not _FIRST <= moment <= now:
                raise bad_value(column.name, row=row, value=value, must_be="a time in ISO 8601, since 1980 and past")
            parsed[value] = moment
    known: Callable[[str | None], Any] = parsed.__getitem__
    return [known(value) for value in column]
