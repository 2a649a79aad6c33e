"""Deciding for a list of customers, slice by slice; a bad item is an error in its place, never its neighbours'."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from pydantic import BaseModel, ConfigDict

from experiments.decide import Decided, Decider
from experiments.decisions.choosing import Asked
from experiments.errors import ExperimentsError, InvalidInput, RowRefused
from experiments.input.checks import check_id, storable_ids
from experiments.input.parsing import parse

MAX_ITEMS: Final = 10_000
SLICE: Final = 2_000


class BatchItem(BaseModel):
    """One customer of a list."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    customer_id: str
    occasion_id: str | None = None
    attributes: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class ItemError:
    """Why an item was not decided."""

    code: str
    detail: str
    errors: list[dict[str, str]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Failed:
    """Stands in the place of an item that was not decided."""

    index: int
    error: ItemError


def decide_items(decider: Decider, items: Sequence[object], *, placement: str) -> list[Decided | Failed]:
    """Decide for each item; what is decided is durable when this returns.

    Args:
        decider: The process's decider.
        items: JSON objects as ``BatchItem`` describes, at most ``MAX_ITEMS``.
        placement: Where, for all of them.
    Raises:
        PlacementNotFound: Nothing is decided.
        JournalBusy: Some may be written; send all of them again, the answers will be the same.
    """
    answers: dict[int, Decided | Failed] = {}
    good: list[tuple[int, Asked]] = []
    decider.expect(storable_ids(item.get("customer_id") for item in items if isinstance(item, dict)))
    for index, item in enumerate(items):
        try:
            good.append((index, _ask(decider, item)))
        except InvalidInput as error:
            answers[index] = _failed(index, error)
    for start in range(0, len(good), SLICE):
        answers |= decide_slice(decider, good[start : start + SLICE], placement=placement)
    return [answers[index] for index in range(len(items))]


def _ask(decider: Decider, item: object) -> Asked:
    asked = parse(BatchItem, item)
    check_id(asked.customer_id, "/customer_id")
    if asked.occasion_id is not None:
        check_id(asked.occasion_id, "/occasion_id")
    return decider.ask(asked.customer_id, occasion_id=asked.occasion_id, attributes=asked.attributes)


def decide_slice(
    decider: Decider, items: Sequence[tuple[int, Asked]], *, placement: str
) -> dict[int, Decided | Failed]:
    """Decide for a slice, by index; where the database refuses a row, halve until that one stands alone."""
    try:
        decided = decider.decide_list([asked for _, asked in items], placement)
    except RowRefused as error:
        if len(items) == 1:
            return {items[0][0]: _failed(items[0][0], error)}
        middle = len(items) // 2
        first = decide_slice(decider, items[:middle], placement=placement)
        return first | decide_slice(decider, items[middle:], placement=placement)
    return {index: one for (index, _), one in zip(items, decided, strict=True)}


def _failed(index: int, error: ExperimentsError) -> Failed:
    errors = [{"pointer": fault.pointer, "detail": fault.detail} for fault in error.fields]
    return Failed(index, ItemError(error.code, str(error), errors))
