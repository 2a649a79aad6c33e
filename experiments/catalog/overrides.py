"""Overrides: customers who always get one variant of a placement, for QA; such answers are never counted."""

from collections.abc import Sequence

from sqlmodel import Session, col, select

from experiments.access import audit
from experiments.catalog.definition_store import LIVE, get_definition
from experiments.catalog.serving import current_policy
from experiments.database import bump_snapshot, database_now
from experiments.errors import OverrideNotFound, VariantNotFound
from experiments.input.checks import check_id
from experiments.tables import Experiment, Override, SeriesVariant


def put_override(session: Session, placement: str, *, customer_id: str, variant: str, actor: str) -> Override:
    """Let a customer always get a variant.

    Raises:
        PlacementNotFound: No such placement.
        VariantNotFound: Neither an experiment that has started and not ended, nor the policy, nor the default has it.
        InvalidInput: The customer's id can't be.
    """
    check_id(customer_id, "/customer_id")
    bump_snapshot(session)
    if variant not in _variants(session, placement):
        raise VariantNotFound(variant, placement=placement)
    row = session.get(Override, (placement, customer_id))
    before = None if row is None else row.variant
    now = database_now(session)
    if row is None:
        row = Override(placement=placement, customer_id=customer_id, variant=variant, created_at=now, created_by=actor)
        session.add(row)
    row.variant, row.created_at, row.created_by = variant, now, actor
    session.flush()
    detail = {"customer_id": customer_id, "before": before, "after": variant}
    audit.record(session, actor=actor, action="override", subject=f"placement/{placement}", detail=detail)
    return row


def delete_override(session: Session, placement: str, *, customer_id: str, actor: str) -> None:
    """Let a customer get what everyone may get again.

    Raises:
        OverrideNotFound: There is none.
        PlacementNotFound: No such placement.
        InvalidInput: The customer's id can't be.
    """
    check_id(customer_id, "/customer_id")
    get_definition(session, "placement", key=placement)
    bump_snapshot(session)
    row = session.get(Override, (placement, customer_id))
    if row is None:
        raise OverrideNotFound(placement)
    session.delete(row)
    detail = {"customer_id": customer_id, "before": row.variant, "after": None}
    audit.record(session, actor=actor, action="override", subject=f"placement/{placement}", detail=detail)


def list_overrides(
    session: Session, placement: str, *, cursor: str | None = None, limit: int = 100
) -> Sequence[Override]:
    """Overrides of a placement by customer; ``cursor`` is the last customer that the caller has seen.

    Raises:
        PlacementNotFound: No such placement.
        InvalidInput: The cursor can't be.
    """
    get_definition(session, "placement", key=placement)
    query = select(Override).where(Override.placement == placement).order_by(col(Override.customer_id)).limit(limit)
    if cursor is not None:
        check_id(cursor, "/cursor")
        query = query.where(col(Override.customer_id) > cursor)
    return session.exec(query).all()


def _variants(session: Session, placement: str) -> set[str]:
    """The keys that the snapshot's ``find_variant`` finds: of experiments, the newest policy, the default."""
    default: str = get_definition(session, "placement", key=placement).body["default"]["key"]
    live = select(Experiment.series).where(Experiment.placement == placement, col(Experiment.status).in_(LIVE))
    series = set(session.exec(live).all())
    policy = current_policy(session, placement)
    series |= {entry["series"] for entry in policy.entries.values()} if policy is not None else set()
    keys = session.exec(select(SeriesVariant.key).where(col(SeriesVariant.series).in_(series)))
    return {default, *keys}
