"""The series of a policy: its variants, and the weights that keep a share exploring."""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime

from sqlmodel import Session

from experiments.guardrails.pauses import Place
from experiments.learning.allocations import add_allocations
from experiments.tables import Series, SeriesVariant


def open_policy_series(
    session: Session,
    parent: Series,
    *,
    variants: Sequence[SeriesVariant],
    winners: Mapping[str, str],
    explore: float,
    opens_at: datetime,
    now: datetime,
    paused: Collection[Place] = (),
    split: tuple[str, int] | None = None,
) -> Series:
    """Open the series of a promotion: variants, metrics and exposure of the experiment, so that it stays measured.

    Args:
        session: The caller's transaction; ``bump_snapshot`` has been called.
        parent: The experiment's series.
        variants: Those not retired, in order.
        winners: Segment to variant.
        explore: Share that keeps exploring.
        opens_at: When the policy takes effect.
        now: The database's time.
        paused: Segments and variants that guardrails have paused: nobody explores these.
        split: Segmentation and version of the winners' segments; None: the experiment's.
    """
    segmentation, version = split or (parent.segmentation, parent.segmentation_version)
    series = Series(
        kind="policy",
        placement=parent.placement,
        experiment=parent.experiment,
        unit="period",
        segmentation=segmentation,
        segmentation_version=version,
        segments=list(winners),
        metrics=parent.metrics,
        exposure=parent.exposure,
        opens_at=opens_at,
        created_at=now,
    )
    session.add(series)
    session.flush()
    number = series.number or 0
    session.add_all(_copy(variant, number, position=i, now=now) for i, variant in enumerate(variants))
    session.flush()
    keys, control = [variant.key for variant in variants], next(row.key for row in variants if row.is_control)
    weights = {}
    for segment, winner in winners.items():
        served = [key for key in keys if key == winner or (segment, key) not in paused]
        shares = explore_weights(served, winner=winner, control=control, explore=explore)
        weights[segment] = {key: shares.get(key, 0.0) for key in keys}
    add_allocations(session, number, weights=weights, reason="promote", now=now)
    return series


def explore_weights(variants: Sequence[str], *, winner: str, control: str, explore: float) -> dict[str, float]:
    """The weights of a policy: the winner's, and the share that keeps exploring, half of it on control.

    Args:
        variants: In order, the winner and the control among them.
        winner: Gets what is not explored.
        control: Gets half of what is explored, all of it beside a winner alone; if it won, the others share.
        explore: In [0, 1].

    >>> explore_weights(["a", "b", "c", "d"], winner="b", control="a", explore=0.05)
    {'a': 0.025, 'b': 0.95, 'c': 0.0125, 'd': 0.0125}
    """
    others = [key for key in variants if key not in {winner, control}]
    of_control = 0.0 if control == winner else explore / 2 if others else explore
    each = (explore - of_control) / len(others) if others else 0.0
    shares = {winner: 1.0 - explore, control: of_control} if winner != control else {winner: 1.0 - explore}
    return {key: shares.get(key, each) for key in variants}


def _copy(variant: SeriesVariant, number: int, *, position: int, now: datetime) -> SeriesVariant:
    return SeriesVariant(
        series=number,
        key=variant.key,
        position=position,
        content=variant.content,
        cost=variant.cost,
        is_control=variant.is_control,
        deliver=variant.deliver,
        added_at=now,
    )
