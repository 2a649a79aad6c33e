"""Why did this customer get that? A decision as it was made, and what came of it."""

import re
from typing import Any

from sqlmodel import Session, col, select

from experiments.catalog.definitions import EVERYONE
from experiments.decisions.hashing import series_of
from experiments.errors import DecisionNotFound
from experiments.tables import Allocation, Decision, Response, Series

_ID = re.compile(r"[0-9a-f]{32}")


def explain(session: Session, decision_id: str) -> dict[str, Any]:
    """A stored decision, the weights it was drawn from with their basis, and the responses since.

    Raises:
        DecisionNotFound: It isn't stored (or is no decision's id).
    """
    row = session.get(Decision, bytes.fromhex(decision_id)) if _ID.fullmatch(decision_id) else None
    if row is None:
        raise DecisionNotFound(decision_id)
    series = session.get_one(Series, series_of(row.id))
    return {
        "decision_id": decision_id,
        "placement": series.placement,
        "kind": series.kind,
        "experiment": series.experiment,
        "unit": series.unit,
        "customer_id": row.customer_id,
        "occasion_id": row.occasion_id,
        "segmentation": {"key": series.segmentation, "version": series.segmentation_version},
        "segment": row.segment,
        "variant": row.variant,
        "propensity": row.propensity,
        "decided_at": row.decided_at,
        "attributes": row.attributes,
        "covariate": row.covariate,
        "lacks_attribute": row.lacks_attribute,
        "late": row.late,
        "contradicted": row.contradicted,
        "merged": row.merged,
        "exposed_at": row.exposed_at,
        "allocation": _allocation(session, row, series=series),
        "responses": _responses(session, row),
    }


def _allocation(session: Session, row: Decision, *, series: Series) -> dict[str, Any] | None:
    segment = EVERYONE if series.kind == "programme" else row.segment  # a programme draws the same way in all segments
    allocation = session.get(Allocation, (series.number, segment, row.allocation_version))
    if allocation is None:
        return None
    return {
        "version": allocation.version,
        "weights": allocation.weights,
        "basis": allocation.basis,
        "reason": allocation.reason,
        "created_at": allocation.created_at,
    }


def _responses(session: Session, row: Decision) -> list[dict[str, Any]]:
    query = select(Response).where(Response.decision_id == row.id).order_by(col(Response.metric))
    return [
        {
            "metric": response.metric,
            "n_outcomes": response.n_outcomes,
            "total": float(response.total),
            "denominator": None if response.denominator is None else float(response.denominator),
            "first_at": response.first_at,
        }
        for response in session.exec(query)
    ]
