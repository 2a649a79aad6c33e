"""Reading and writing allocations: the weights of a series' variants in each segment, versioned, never overwritten."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import numpy as np
from sqlmodel import Session, col, func, select

from experiments.catalog.definitions import ExperimentDefinition
from experiments.errors import FieldError, InvalidDefinition
from experiments.tables import Allocation
from optimizer.allocation import allocation_weights

Weights = Mapping[str, float]


def start_weights(definition: ExperimentDefinition) -> dict[str, float]:
    """The weights that an experiment starts with in every segment: equal or as fixed, the control's share respected.

    Raises:
        InvalidDefinition: The floor is more than an equal share.
    """
    keys = [variant.key for variant in definition.variants]
    if definition.weights is not None:
        return {key: definition.weights[key] for key in keys}
    control = next(i for i, variant in enumerate(definition.variants) if variant.is_control)
    if definition.floor * len(keys) >= 1:
        raise InvalidDefinition([FieldError("/floor", f"must be below 1/{len(keys)}, one part for each variant")])
    weights = allocation_weights(
        np.full(len(keys), 1 / len(keys)),
        method="thompson",
        floor=definition.floor,
        control_index=control,
        control_share=definition.control_share,
    )
    return dict(zip(keys, map(float, weights), strict=True))


def newest_allocations(session: Session, series: int) -> dict[str, Allocation]:
    """The current allocation of each segment of a series."""
    newest = (
        select(Allocation.segment, func.max(Allocation.version).label("version"))
        .where(Allocation.series == series)
        .group_by(col(Allocation.segment))
        .subquery()
    )
    same = (col(Allocation.segment) == newest.c.segment) & (col(Allocation.version) == newest.c.version)
    rows = session.exec(select(Allocation).join(newest, same).where(Allocation.series == series))
    return {row.segment: row for row in rows}


def add_allocations(
    session: Session,
    series: int,
    *,
    weights: Mapping[str, Weights],
    reason: str,
    now: datetime,
    bases: Mapping[str, dict[str, Any]] | None = None,
) -> None:
    """Write the next version of each segment's weights; ``bump_snapshot`` must have been called before."""
    newest = newest_allocations(session, series)
    session.add_all(
        Allocation(
            series=series,
            segment=segment,
            version=newest[segment].version + 1 if segment in newest else 1,
            weights=dict(shares),
            basis=(bases or {}).get(segment, {}),
            reason=reason,
            created_at=now,
        )
        for segment, shares in weights.items()
    )
    session.flush()
