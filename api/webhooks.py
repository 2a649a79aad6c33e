"""Webhooks out: define them, see how deliveries went, send again; the signing secret is shown when it is made, once."""

from typing import Annotated, Any

from flask import Response
from pydantic import Field

from api.answers import ListQuery, if_match, json_answer, page, with_etag
from api.auth import actor
from api.doors import Doors
from api.experiments import ChangeIn
from api.reading import read_body, read_json, read_query
from api.state import current_worker
from experiments.database import reading, transaction
from experiments.tables import Webhook
from experiments.webhooks import define
from experiments.webhooks.define import WebhookDefinition
from experiments.webhooks.replay import MessageId, ReplayRequest, list_deliveries, replay, send_test

doors = Doors("webhooks")


class DeliveriesQuery(ListQuery):
    """Which page of the deliveries."""

    cursor: MessageId | None = None


class WebhooksQuery(ListQuery):
    """Which page of the webhooks."""

    cursor: Annotated[str, Field(max_length=128)] | None = None


@doors.open(
    "PUT",
    "/v1/webhooks/<key>",
    scope="admin",
    takes=WebhookDefinition,
    gives=dict[str, Any],
    statuses=(200, 201),
    is_change=True,
)
def put_webhook(key: str) -> Response:
    """Define a webhook, or its next version; the answer to the first has its signing secret, which is not shown again.

    A message goes by POST to the URL, signed as Standard Webhooks are. The secret and the state stay when it changes.
    """
    payload, version, worker = read_json(), if_match(), current_worker()
    with transaction(worker.engine) as session:
        row, is_new = define.put_webhook(
            session,
            key,
            payload=payload,
            actor=actor(),
            allows_private=worker.config.webhooks_private,
            if_match=version,
        )
        shown = _json(row) | ({"secret": row.secret} if is_new else {})
        answer = _private(json_answer(shown, status=201 if is_new else 200))
        return with_etag(answer, row.version)


@doors.open("GET", "/v1/webhooks/<key>", scope="admin", gives=dict[str, Any])
def get_webhook(key: str) -> Response:
    """Read a webhook, and whether it works."""
    with reading(current_worker().engine) as session:
        row = define.get_webhook(session, key)
        return with_etag(json_answer(_json(row)), row.version)


@doors.open("GET", "/v1/webhooks", scope="admin", query=WebhooksQuery, gives=dict[str, Any])
def list_webhooks() -> Response:
    """List the webhooks, by key."""
    query = read_query(WebhooksQuery)
    with reading(current_worker().engine) as session:
        rows = define.list_webhooks(session, cursor=query.cursor, limit=query.limit)
        found = [_json(row) for row in rows]
    return page(found, limit=query.limit, cursor=lambda one: str(one["key"]))


@doors.open("DELETE", "/v1/webhooks/<key>", scope="admin", statuses=(204,), is_change=True)
def delete_webhook(key: str) -> Response:
    """Remove a webhook with all that waits for it."""
    version = if_match()
    with transaction(current_worker().engine) as session:
        define.delete_webhook(session, key, actor=actor(), if_match=version)
    return Response(status=204)


@doors.open("POST", "/v1/webhooks/<key>/rotate", scope="admin", takes=ChangeIn, gives=dict[str, Any], shows_secret=True)
def rotate(key: str) -> Response:
    """Make a new signing secret, shown once; for 24 hours the one before it signs, too."""
    reason = read_body(ChangeIn, or_nothing=True).reason
    with transaction(current_worker().engine) as session:
        row = define.rotate_secret(session, key, actor=actor(), reason=reason)
        return _private(json_answer({"key": key, "secret": row.secret, "previous_until": row.previous_until}))


@doors.open("POST", "/v1/webhooks/<key>/enable", scope="admin", takes=ChangeIn, gives=dict[str, Any])
def enable(key: str) -> Response:
    """Let a disabled webhook hear of what happens from now on; replay what it has missed."""
    reason = read_body(ChangeIn, or_nothing=True).reason
    with transaction(current_worker().engine) as session:
        row = define.enable_webhook(session, key, actor=actor(), reason=reason)
        return with_etag(json_answer(_json(row)), row.version)


@doors.open("POST", "/v1/webhooks/<key>/test", scope="admin", takes=ChangeIn, gives=dict[str, Any], statuses=(202,))
def test(key: str) -> Response:
    """Send a message of type ``webhook.test``, as all are sent: in the background."""
    reason = read_body(ChangeIn, or_nothing=True).reason
    with transaction(current_worker().engine) as session:
        message = send_test(session, key, actor=actor(), reason=reason)
    return json_answer({"webhook": key, "message_id": message, "status": "pending"}, status=202)


@doors.open(
    "POST", "/v1/webhooks/<key>/replay", scope="admin", takes=ReplayRequest, gives=dict[str, Any], statuses=(202,)
)
def replay_messages(key: str) -> Response:
    """Send again, under their first ids: all since a moment, some messages, or (without either) all that failed."""
    request = read_json(or_nothing=True)
    with transaction(current_worker().engine) as session:
        n_messages = replay(session, key, request=request, actor=actor())
    return json_answer({"webhook": key, "n_messages": n_messages}, status=202)


@doors.open("GET", "/v1/webhooks/<key>/deliveries", scope="admin", query=DeliveriesQuery, gives=dict[str, Any])
def deliveries(key: str) -> Response:
    """List the deliveries to a webhook, the newest message first: attempts, the last answer, when the next one is."""
    query = read_query(DeliveriesQuery)
    with reading(current_worker().engine) as session:
        found = list_deliveries(session, key, cursor=query.cursor, limit=query.limit)
    return page(found, limit=query.limit, cursor=lambda one: str(one.message_id))


def _json(row: Webhook) -> dict[str, Any]:
    """A webhook without its secrets."""
    return {
        "key": row.key,
        "version": row.version,
        "url": row.url,
        "events": "all" if row.events is None else row.events,
        "description": row.description,
        "status": row.status,
        "disabled_at": row.disabled_at,
        "disabled_reason": row.disabled_reason,
        "failing_since": row.failing_since,
        "previous_secret_until": row.previous_until,
        "created_at": row.created_at,
        "created_by": row.created_by,
    }


def _private(answer: Response) -> Response:
    """Not to be kept by anything between us and the caller."""
    answer.headers["Cache-Control"] = "no-store"
    return answer
