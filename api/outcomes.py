"""The outcome door: what happened?"""

from hashlib import blake2b
from typing import Any

from flask import Response
from pydantic import BaseModel

from api.answers import json_answer
from api.auth import actor, events_allowed
from api.doors import Doors
from api.errors import InvalidJson
from api.idempotency import key_of_request
from api.lists import LIST_TYPES, record_list, sent_form
from api.metrics import count_outcomes
from api.reading import parse_json, parse_leniently, read_data
from api.state import current_worker
from experiments.errors import FieldError, InvalidInput
from experiments.input.checks import pointer_to
from experiments.lists.recording import RecordedList
from experiments.record import MAX_OUTCOMES, OutcomeReport, Recorded

doors = Doors("outcomes")


class OutcomesIn(BaseModel):
    """Several outcomes at once."""

    outcomes: list[OutcomeReport]


@doors.open(
    "POST",
    "/v1/outcomes",
    scope="record",
    takes=OutcomeReport | OutcomesIn,
    takes_files=LIST_TYPES,
    gives=Recorded | RecordedList,
    for_browsers=True,
)
def record() -> Response:
    """Report one outcome, or up to 2,000 as ``outcomes``; durable when answered, a bad one harms no other.

    A list (CSV, NDJSON, Parquet) may be of any length; ``map.<field>=<column>`` says which column is what, and fields
    that are the same in all rows are said in the query.
    """
    worker = current_worker()
    form = sent_form()
    if form is not None and events_allowed() is None:
        listed = record_list(form, source=actor())
        count_outcomes(listed.statuses | {"duplicate": listed.duplicates, "rejected": listed.n_rejected})
        return json_answer(listed)
    items = _named(_items(_read(read_data(max_bytes=worker.config.max_batch_bytes))))
    recorded = worker.recorder.record(items, source=actor(), events=events_allowed())
    count_outcomes(recorded.statuses | {"duplicate": recorded.duplicates, "rejected": len(recorded.rejected)})
    return json_answer(recorded)


def _read(data: bytes) -> Any:  # JSON
    """A body; in a list, an outcome with a value or a text that JSON can't hold is left for its own check to reject."""
    try:
        return parse_json(data)
    except InvalidJson:
        body = parse_leniently(data)
        if not isinstance(body, dict) or not isinstance(body.get("outcomes"), list):
            raise
        return body


def _named(items: list[object]) -> list[object]:
    """Outcomes without an id, of a request with an Idempotency-Key, get one that a repeat gives them again.

    The first try may have been stored just after it was answered with 503.
    """
    key = key_of_request()
    if key is None:
        return items
    return [
        {**item, "outcome_id": blake2b(repr((key, index, item)).encode(errors="replace"), digest_size=16).hexdigest()}
        if isinstance(item, dict) and item.get("outcome_id") is None
        else item
        for index, item in enumerate(items)
    ]


def _items(body: Any) -> list[object]:  # JSON
    if not isinstance(body, dict):
        raise InvalidInput([FieldError("", "must be an outcome, or an object with outcomes")])
    if "outcomes" not in body:
        return [body]
    wrong = [FieldError(pointer_to("", name), "is not a field here") for name in body if name != "outcomes"]
    if not isinstance(body["outcomes"], list):
        wrong.append(FieldError("/outcomes", "must be an array"))
    elif len(body["outcomes"]) > MAX_OUTCOMES:
        wrong.append(FieldError("/outcomes", f"must be at most {MAX_OUTCOMES}, not {len(body['outcomes'])}"))
    if wrong:
        raise InvalidInput(wrong[:100])
    return list(body["outcomes"])
