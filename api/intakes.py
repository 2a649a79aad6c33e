"""Webhooks of email senders: deliveries, opens and clicks as outcomes. Their signature is the authentication."""

from typing import Any, Final

from flask import Response

from api.answers import ListQuery, if_match, json_answer, page, with_etag
from api.auth import actor
from api.doors import Doors
from api.errors import problem_of
from api.metrics import count_outcomes
from api.reading import parse_json, read_data, read_json, read_query
from api.requests import current_request
from api.state import current_worker
from experiments.database import reading, transaction
from experiments.errors import InvalidInput
from experiments.mail_events import intakes
from experiments.mail_events.errors import StaleSignature, TokenReplayed
from experiments.mail_events.intakes import IntakeDefinition, intake_json
from experiments.mail_events.providers import PROVIDERS
from experiments.mail_events.signatures import Delivery
from experiments.mail_events.take import Taken

doors = Doors("intakes")

MAX_BYTES: Final = 2_000_000


@doors.open("POST", "/v1/intakes/<key>/events", scope=None, takes=dict[str, Any] | list[dict[str, Any]], gives=Taken)
def take(key: str) -> Response:
    """Take what an email sender reports; the intake says who that is. No key: the sender's signature is checked."""
    receiver = current_worker().receiver
    intake = receiver.intake(key)
    provider, body = PROVIDERS[intake.provider], read_data(max_bytes=MAX_BYTES)
    headers = {name.lower(): value for name, value in current_request().headers.items()}
    delivery = Delivery(body, headers, receiver.now())
    try:
        token = provider.check(intake.trust, delivery)
        taken = receiver.take(intake, parse_json(body), delivery=delivery, token=token)
    except (StaleSignature, TokenReplayed, InvalidInput) as error:  # which no later try can mend; a wrong secret can be
        if provider.final_status is None:
            raise
        return problem_of(error, status=provider.final_status)
    count_outcomes({"mail": taken.accepted, "duplicate": taken.duplicates, "rejected": len(taken.rejected)})
    return json_answer(taken)


@doors.open(
    "PUT",
    "/v1/intakes/<key>",
    scope="admin",
    takes=IntakeDefinition,
    gives=dict[str, Any],
    statuses=(200, 201),
    is_change=True,
)
def put_intake(key: str) -> Response:
    """Define where a sender's webhooks come in; two secrets may live at once for a change. Secrets never come back."""
    payload, version, worker = read_json(), if_match(), current_worker()
    with transaction(worker.engine) as session:
        row, is_new = intakes.put_intake(session, key, payload=payload, actor=actor(), if_match=version)
        said, etag = intake_json(row), row.version
    worker.snapshots.try_refresh()
    return with_etag(json_answer(said, status=201 if is_new else 200), etag)


@doors.open("GET", "/v1/intakes/<key>", scope="analyse", gives=dict[str, Any])
def get_intake(key: str) -> Response:
    """Read an intake, without its secrets."""
    with reading(current_worker().engine) as session:
        row = intakes.get_intake(session, key)
        return with_etag(json_answer(intake_json(row)), row.version)


@doors.open("GET", "/v1/intakes", scope="analyse", query=ListQuery, gives=dict[str, Any])
def list_intakes() -> Response:
    """List the intakes, by key."""
    query = read_query(ListQuery)
    with reading(current_worker().engine) as session:
        found = [intake_json(row) for row in intakes.list_intakes(session, cursor=query.cursor, limit=query.limit)]
    return page(found, limit=query.limit, cursor=lambda one: str(one["key"]))


@doors.open("DELETE", "/v1/intakes/<key>", scope="admin", statuses=(204,))
def delete_intake(key: str) -> Response:
    """Take nothing more of an intake; what it brought stays."""
    worker = current_worker()
    with transaction(worker.engine) as session:
        intakes.delete_intake(session, key, actor=actor())
    worker.snapshots.try_refresh()
    return Response(status=204)
