"""Recording a list of outcomes of any length, such as an email tool's click report."""

import secrets
import time
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from hashlib import blake2b
from typing import Any, Final

import orjson

from experiments.input.attributes import number_of_text
from experiments.lists.columns import Sources
from experiments.lists.deciding import patiently
from experiments.lists.reading import Pace, Row, in_parts
from experiments.record import OutcomeReport, Recorder, Rejected

FIELDS: Final = tuple(OutcomeReport.model_fields)
_AT_ONCE: Final = 1_000
_MAX_TOLD: Final = 1_000  # rejected rows that are named; all are counted


@dataclass(slots=True)
class RecordedList:
    """What became of a list of outcomes; ``rejected`` names the first 1,000 by their row (from 0 on)."""

    accepted: int = 0
    duplicates: int = 0
    n_rejected: int = 0
    rejected: list[Rejected] = field(default_factory=list)
    statuses: Counter[str] = field(default_factory=Counter)


def record_rows(
    recorder: Recorder,
    rows: Iterator[Row],
    *,
    sources: Sources,
    source: str,
    events: Collection[str] | None = None,
    key: str | None = None,
) -> RecordedList:
    """Record slice by slice; a bad row harms no other.

    Sending all again is harmless if rows have an outcome_id, or say when it happened: rows that are alike are then one.

    Args:
        recorder: The process's.
        rows: As read.
        sources: Where a row's fields come from.
        source: Who reports.
        events: As of ``Recorder.record``.
        key: Names the request: then rows without an id and a time are the same when it is sent again, too.
    Raises:
        JournalBusy: A slice could not be written for two minutes; what came before is durable.
        ListUnreadable: The rest can't be read; what came before is durable.
    """
    done, request = RecordedList(), key or secrets.token_hex(16)
    pace = Pace(_AT_ONCE)
    for part in in_parts(rows, pace):
        good = [row for row in part if row.error is None]
        items = [_item(row, sources, request=request) for row in good]
        began = time.monotonic()
        recorded = patiently(partial(recorder.record, items, source=source, events=events))
        pace.took(time.monotonic() - began)
        done.accepted += recorded.accepted
        done.duplicates += recorded.duplicates
        done.statuses.update(recorded.statuses)
        refused = [Rejected(row.number - 1, "unreadable_row", row.error) for row in part if row.error is not None]
        refused += [Rejected(good[one.index].number - 1, one.code, one.detail) for one in recorded.rejected]
        done.n_rejected += len(refused)
        done.rejected += sorted(refused, key=lambda one: one.index)[: _MAX_TOLD - len(done.rejected)]
    return done


def _item(row: Row, sources: Sources, *, request: str) -> dict[str, Any]:
    said = {name: sources.field(row.values, name) for name in FIELDS}
    item = {name: _typed(name, value) for name, value in said.items() if value is not None}
    if "outcome_id" not in item:  # one even where each report counts: while it is tried again, it stays the same report
        item["outcome_id"] = _id_of(item if "occurred_at" in item else {**item, "of": (request, row.number)})
    return item


def _id_of(item: Mapping[str, Any]) -> str:
    """The same id for the same report, since click reports have none and may be sent twice."""
    return "row-" + blake2b(orjson.dumps(item, option=orjson.OPT_SORT_KEYS, default=str), digest_size=16).hexdigest()


def _typed(name: str, value: Any) -> Any:  # text of CSV, or JSON
    """Numbers where numbers belong, and ids where Parquet keeps them as numbers."""
    if name == "value" and isinstance(value, str):
        number = number_of_text(value.strip())
        return value if number is None else number  # what is none, the outcome's own check speaks of
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return str(value) if is_number and name != "value" else value
