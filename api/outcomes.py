"""The outcome door: what happened?"""

from typing import Any

from flask import Response
from pydantic import BaseModel

from api.answers import json_answer
from api.auth import actor
from api.doors import Doors
from api.metrics import count_outcomes
from api.reading import read_json
from api.state import current_worker
from experiments.errors import FieldError, InvalidInput
from experiments.record import MAX_OUTCOMES, OutcomeReport, Recorded

doors = Doors("outcomes")


class OutcomesIn(BaseModel):
    """Several outcomes at once."""

    outcomes: list[OutcomeReport]


@doors.open("POST", "/v1/outcomes", scope="record", takes=OutcomeReport | OutcomesIn, gives=Recorded)
def record() -> Response:
    """Report one outcome, or up to 2,000 as ``outcomes``; durable when answered, a bad one harms no other."""
    worker = current_worker()
    items = _items(read_json(max_bytes=worker.config.max_batch_bytes))
    recorded = worker.recorder.record(items, source=actor())
    count_outcomes(recorded.statuses | {"duplicate": recorded.duplicates, "rejected": len(recorded.rejected)})
    return json_answer(recorded)


def _items(body: Any) -> list[object]:  # JSON
    if not isinstance(body, dict):
        raise InvalidInput([FieldError("", "must be an outcome, or an object with outcomes")])
    if "outcomes" not in body:
        return [body]
    wrong = [FieldError(f"/{name[:100]}", "is not a field here") for name in body if name != "outcomes"]
    if not isinstance(body["outcomes"], list):
        wrong.append(FieldError("/outcomes", "must be an array"))
    elif len(body["outcomes"]) > MAX_OUTCOMES:
        wrong.append(FieldError("/outcomes", f"must be at most {MAX_OUTCOMES}, not {len(body['outcomes'])}"))
    if wrong:
        raise InvalidInput(wrong[:100])
    return list(body["outcomes"])
