"""The best variant of every segment, overrides for QA, why a decision was made, who changed what."""

from typing import Annotated, Any

from flask import Response
from pydantic import BaseModel, ConfigDict, Field

from api.answers import ListQuery, Text, json_answer, page
from api.auth import actor
from api.doors import Doors
from api.reading import read_body, read_query
from api.state import current_worker
from experiments.access import audit
from experiments.catalog import overrides
from experiments.database import reading, transaction
from experiments.decisions.best import best_variants
from experiments.decisions.why import explain
from experiments.input.checks import check_id
from experiments.tables import Audit, Override

doors = Doors("placements")


class OverrideIn(BaseModel):
    """The variant that the customer always gets."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    variant: Text


class AuditQuery(ListQuery):
    """Which entries: of one subject (``experiment/<key>``), or of all."""

    cursor: Annotated[int, Field(ge=1, lt=2**63)] | None = None  # type: ignore[assignment]  # entries are numbered
    subject: Text | None = None


@doors.open("GET", "/v1/placements/<key>/best", scope="decide", gives=dict[str, Any])
def best(key: str) -> Response:
    """List the best variant of every segment now, with its probability and where it comes from; records nothing."""
    with reading(current_worker().engine) as session:
        return json_answer({"placement": key, "segments": best_variants(session, key)})


@doors.open(
    "PUT", "/v1/placements/<key>/overrides/<path:customer_id>", scope="admin", takes=OverrideIn, gives=dict[str, Any]
)
def put_override(key: str, customer_id: str) -> Response:
    """Let a customer always get one variant, for QA; such answers are never counted."""
    check_id(customer_id, "/customer_id")
    variant, worker = read_body(OverrideIn).variant, current_worker()
    with transaction(worker.engine) as session:
        override = overrides.put_override(session, key, customer_id=customer_id, variant=variant, actor=actor())
        answer = json_answer(_override_json(override))
    worker.snapshots.try_refresh()
    return answer


@doors.open("DELETE", "/v1/placements/<key>/overrides/<path:customer_id>", scope="admin", statuses=(204,))
def delete_override(key: str, customer_id: str) -> Response:
    """Let a customer get what everyone may get again."""
    check_id(customer_id, "/customer_id")
    worker = current_worker()
    with transaction(worker.engine) as session:
        overrides.delete_override(session, key, customer_id=customer_id, actor=actor())
    worker.snapshots.try_refresh()
    return Response(status=204)


@doors.open("GET", "/v1/placements/<key>/overrides", scope="analyse", query=ListQuery, gives=dict[str, Any])
def list_overrides(key: str) -> Response:
    """List the overrides of a placement, by customer."""
    query = read_query(ListQuery)
    with reading(current_worker().engine) as session:
        rows = overrides.list_overrides(session, key, cursor=query.cursor, limit=query.limit)
        found = [_override_json(row) for row in rows]
    return page(found, limit=query.limit, cursor=lambda one: str(one["customer_id"]))


@doors.open("GET", "/v1/decisions/<decision_id>", scope="analyse", gives=dict[str, Any])
def why(decision_id: str) -> Response:
    """Say why a customer got what they got: segment, weights and their basis then, and the responses since."""
    with reading(current_worker().engine) as session:
        return json_answer(explain(session, decision_id))


@doors.open("GET", "/v1/audit", scope="analyse", query=AuditQuery, gives=dict[str, Any])
def list_audit() -> Response:
    """List every change, the newest first: who, when, what, why."""
    query = read_query(AuditQuery)
    with reading(current_worker().engine) as session:
        rows = audit.list_entries(session, cursor=query.cursor, limit=query.limit, subject=query.subject)
        found = [_audit_json(row) for row in rows]
    return page(found, limit=query.limit, cursor=lambda one: str(one["id"]))


def _override_json(row: Override) -> dict[str, Any]:
    return {
        "placement": row.placement,
        "customer_id": row.customer_id,
        "variant": row.variant,
        "created_at": row.created_at,
        "created_by": row.created_by,
    }


def _audit_json(row: Audit) -> dict[str, Any]:
    return {
        "id": row.id,
        "at": row.at,
        "actor": row.actor,
        "action": row.action,
        "subject": row.subject,
        "reason": row.reason,
        "detail": row.detail,
        "hash": row.hash.hex(),
    }
