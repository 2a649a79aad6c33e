"""Corrections: outcomes that count no more, hours of decisions left out, and taking either back."""

from typing import Annotated, Any

from flask import Response
from pydantic import Field
from sqlmodel import Session

from api.answers import ListQuery, json_answer, page
from api.auth import actor
from api.doors import Doors
from api.reading import read_json, read_query
from api.state import current_worker
from experiments.corrections import correct
from experiments.corrections.requests import CorrectionRequest, RevertRequest
from experiments.corrections.shown import correction_json, touched
from experiments.database import reading, transaction
from experiments.tables import Correction

doors = Doors("corrections")


class CorrectionsQuery(ListQuery):
    """Which page of the corrections."""

    cursor: Annotated[int, Field(ge=1, lt=2**63)] | None = None  # type: ignore[assignment]  # corrections are numbered


@doors.open(
    "POST", "/v1/corrections", scope="admin", takes=CorrectionRequest, gives=dict[str, Any], statuses=(201, 202)
)
def make() -> Response:
    """Correct what counts: outcomes of an event and a time (202, in the background) or whole hours of decisions."""
    request = read_json()
    with transaction(current_worker().engine) as session:
        made = correct.correct(session, request=request, actor=actor())
        return json_answer(_whole(session, made), status=201 if made.status == "applied" else 202)


@doors.open(
    "POST",
    "/v1/corrections/<correction_id>/revert",
    scope="admin",
    takes=RevertRequest,
    gives=dict[str, Any],
    statuses=(200, 202),
)
def revert(correction_id: str) -> Response:
    """Take a correction back: all that another one doesn't exclude counts again, to the last digit."""
    request = read_json()
    with transaction(current_worker().engine) as session:
        reverted = correct.revert(session, correction_id, request=request, actor=actor())
        return json_answer(_whole(session, reverted), status=200 if reverted.status == "reverted" else 202)


@doors.open("GET", "/v1/corrections", scope="analyse", query=CorrectionsQuery, gives=dict[str, Any])
def list_all() -> Response:
    """List all corrections, the newest first, those that were taken back too."""
    query = read_query(CorrectionsQuery)
    with reading(current_worker().engine) as session:
        rows = correct.list_corrections(session, cursor=query.cursor, limit=query.limit)
        found = [_json(row) for row in rows]
    return page(found, limit=query.limit, cursor=lambda one: str(one["id"]))


@doors.open("GET", "/v1/corrections/<correction_id>", scope="analyse", gives=dict[str, Any])
def get(correction_id: str) -> Response:
    """Read a correction: how far it is, how many outcomes (or units) it excludes, what it touches, and why."""
    with reading(current_worker().engine) as session:
        return json_answer(_whole(session, correct.get_correction(session, correction_id)))


def _whole(session: Session, correction: Correction) -> dict[str, Any]:
    """With what it touches: nothing, where the event's name was misspelt or no metric counts it."""
    return _json(correction) | {"touches": touched(session, correction)}


def _json(correction: Correction) -> dict[str, Any]:
    return correction_json(correction) | {
        "experiment": correction.experiment,
        "created_at": correction.created_at,
        "created_by": correction.created_by,
        "reverted_at": correction.reverted_at,
        "reverted_by": correction.reverted_by,
        "revert_reason": correction.revert_reason,
    }
