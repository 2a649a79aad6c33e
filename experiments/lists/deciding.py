"""Deciding a list of any length: in slices, in its order, with a bad row's error in its place."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any, Final

import orjson

from experiments.decide import Decided, Decider
from experiments.decisions.batch import SLICE, decide_slice
from experiments.decisions.choosing import Asked
from experiments.errors import FieldError, InvalidInput, JournalBusy
from experiments.input.checks import check_id, storable_ids
from experiments.lists.columns import Sources
from experiments.lists.reading import Pace, Row, in_parts
from experiments.snapshot.plans import PlacementPlan

FIELDS: Final = ("customer_id", "occasion_id")
PATIENCE_SECONDS: Final = 120.0  # of a slice that can't be written now
_PAUSES: Final = (0.05, 5.0)  # the first and the longest


@dataclass(slots=True)
class Summary:
    """What became of a list; ``n_waiting``: for the winner of a send plan; ``is_complete``: its end was reached."""

    n_rows: int = 0
    n_decided: int = 0
    n_waiting: int = 0
    n_failed: int = 0
    is_complete: bool = False
    error: dict[str, str] | None = None
    by_variant: dict[str, int] = field(default_factory=dict)

    def count(self, answers: Sequence["Answered"]) -> None:
        """Count some rows."""
        self.n_rows += len(answers)
        for one in answers:
            if one.decided is None:
                self.n_failed += 1
            elif one.decided.decide_after is not None:
                self.n_waiting += 1
            else:
                self.n_decided += 1
                self.by_variant[one.decided.variant] = self.by_variant.get(one.decided.variant, 0) + 1

    def to_json(self) -> dict[str, Any]:
        """As it is shown at a list's end."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Answered:
    """A row, and what was decided for it or why nothing was."""

    row: Row
    decided: Decided | None
    code: str | None = None
    detail: str | None = None


def decide_rows(
    decider: Decider, rows: Iterator[Row], *, placement: str, sources: Sources, is_text: bool
) -> Iterator[list[Answered]]:
    """Decide slice by slice; each is durable when it comes.

    Args:
        decider: The process's.
        rows: As read.
        placement: Where, for all of them.
        sources: Where a row's fields come from.
        is_text: Whether values are text (CSV).
    Raises:
        JournalBusy: A slice could not be written for two minutes; what came before is durable.
        ListUnreadable: The rest can't be read; what came before is durable.
    """
    pace = Pace(SLICE)
    for part in in_parts(rows, pace):
        good: list[tuple[int, Asked]] = []
        failed: dict[int, Answered] = {}
        ids = (_as_id(sources.field(row.values, "customer_id")) for row in part if row.error is None)
        decider.expect(storable_ids(ids))
        for index, row in enumerate(part):
            try:
                good.append((index, ask_row(decider, row, sources=sources, is_text=is_text)))
            except InvalidInput as error:
                failed[index] = Answered(row, None, error.code, str(error))
        began = time.monotonic()
        done = patiently(partial(decide_slice, decider, good, placement=placement)) if good else {}
        pace.took(time.monotonic() - began)
        yield [failed[i] if i in failed else _answered(row, done[i]) for i, row in enumerate(part)]


def ask_row(decider: Decider, row: Row, *, sources: Sources, is_text: bool) -> Asked:
    """Who a row asks for.

    Raises:
        InvalidInput: It can't be read, or what it says can't be.
    """
    if row.error is not None:
        raise InvalidInput([FieldError("", row.error)])
    customer_id, occasion_id = (sources.field(row.values, name) for name in FIELDS)
    if occasion_id is not None:
        occasion_id = check_id(_as_id(occasion_id), "/occasion_id")
    attributes = sources.attributes_of(row.values)
    return decider.ask(
        check_id(_as_id(customer_id), "/customer_id"),
        occasion_id=occasion_id,
        attributes=attributes,
        text=is_text,
        is_strict=True,
    )


def _as_id(value: Any) -> Any:  # JSON
    """A number is taken for the id that it looks like: Parquet keeps such ids as numbers."""
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def patiently(work: Callable[[], Any]) -> Any:
    """Do what may find the journal busy, again and again with pauses in between."""
    pause, longest = _PAUSES
    give_up_at = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            return work()
        except JournalBusy:
            if time.monotonic() + pause > give_up_at:
                raise
        time.sleep(pause)
        pause = min(2.0 * pause, longest)


def _answered(row: Row, done: Any) -> Answered:
    if isinstance(done, Decided):
        return Answered(row, done)
    return Answered(row, None, done.error.code, done.error.detail)


def content_members(placement: PlacementPlan) -> tuple[str, ...]:
    """The members that the contents of a placement's variants have, in order; none if one is no object."""
    plans = [placement.default]
    for series in (*placement.experiments, *_of_policies(placement)):
        plans += series.variants.values()
    trees = [plan.content.tree for plan in plans]
    if not all(isinstance(tree, dict) for tree in trees):
        return ()
    return tuple(dict.fromkeys(name for tree in trees for name in tree))


def _of_policies(placement: PlacementPlan) -> list[Any]:
    return [plan for policy in placement.policies[:1] for _, entries in policy.entries for plan in entries.values()]


def cell(value: Any) -> Any:  # JSON
    """A value for a table: text and numbers as they are, all else as JSON."""
    return value if value is None or isinstance(value, str | bool | int | float) else orjson.dumps(value).decode()
