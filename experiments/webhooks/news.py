"""What messages say: their ``data``, whose members stay as docs/integrations/webhooks.md has them.

Long lists are cut, with their whole length beside them, so that a message stays under 20 KB; ``links`` lead to all.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from sqlmodel import Session, col, select

from experiments.tables import Experiment, PolicyVersion, Series, SeriesVariant
from experiments.webhooks.outbox import EventType, fitted, shortened, tell

_CHANGES: Final[Mapping[str, EventType]] = {
    "start": "experiment.started",
    "pause": "experiment.paused",
    "resume": "experiment.resumed",
    "conclude": "experiment.concluded",
}
_LIST_BYTES: Final = 5_000


def tell_of_change(
    session: Session, row: Experiment, *, action: str, actor: str, reason: str | None, effective_at: datetime
) -> None:
    """Tell that an experiment was started, paused, resumed or concluded."""
    series = session.exec(select(Series).where(Series.number == row.series)).one()
    variants = select(SeriesVariant.key).where(
        SeriesVariant.series == row.series, col(SeriesVariant.retired_at).is_(None)
    )
    data = {
        **_experiment(row),
        "status": row.status,
        **_segments([segment for segment in series.segments if segment not in series.closed_segments]),
        "variants": fitted(session.exec(variants.order_by(col(SeriesVariant.position))), max_bytes=_LIST_BYTES),
        **_by(actor, reason=reason, effective_at=effective_at),
        "links": _links(row.key),
    }
    tell(session, _CHANGES[action], data=data)


def tell_of_pause(
    session: Session, row: Experiment, *, variant: str, metric: str, segments: Sequence[str], effective_at: datetime
) -> None:
    """Tell that a guardrail has paused a variant where it does harm."""
    data = {
        **_experiment(row),
        "variant": variant,
        "metric": metric,
        **_segments(segments),
        **_by("guardrail", reason=None, effective_at=effective_at),
        "links": _links(row.key),
    }
    tell(session, "variant.paused", data=data)


def tell_of_promotion(session: Session, policy: PolicyVersion, *, experiment: str, answer: Mapping[str, Any]) -> None:
    """Tell that winners are the policy of their segments now."""
    data = {
        **_policy(policy, winners=answer["segments"]),
        "experiment": experiment,
        "explore": answer["explore"],
        "forced": answer["forced"],
        "concluded": answer["concluded"],
        **_by(policy.created_by, reason=policy.reason, effective_at=policy.effective_at),
        "links": {"policy": f"/v1/policies/{policy.placement}", **_links(experiment)},
    }
    tell(session, "policy.promoted", data=data)


def tell_of_rollback(session: Session, policy: PolicyVersion, *, answer: Mapping[str, Any]) -> None:
    """Tell that an earlier policy is back; a segment whose variant is null has none any more."""
    moved = dict.fromkeys([*answer["returned"].values(), *answer["left"].values()])
    data = {
        **_policy(policy, winners=answer["segments"]),
        "to_version": answer["to_version"],
        "experiments": fitted(moved, max_bytes=_LIST_BYTES),
        **_by(policy.created_by, reason=policy.reason, effective_at=policy.effective_at),
        "links": {"policy": f"/v1/policies/{policy.placement}"},
    }
    tell(session, "policy.rolled_back", data=data)


def tell_of_verdicts(
    session: Session, row: Experiment, *, metric: str, as_of: str, verdicts: Sequence[Mapping[str, Any]]
) -> None:
    """Tell of verdicts that were reached; many segments at once take more than one message."""
    left = list(verdicts)
    while left:
        part = fitted(left, max_bytes=2 * _LIST_BYTES) or left[:1]
        del left[: len(part)]
        data = {**_experiment(row), "metric": metric, "as_of": as_of, "verdicts": part, "links": _links(row.key)}
        tell(session, "experiment.verdict", data=data)


def _experiment(row: Experiment) -> dict[str, Any]:
    return {"experiment": row.key, "placement": row.placement, "version": row.version}


def _policy(policy: PolicyVersion, *, winners: Mapping[str, str | None]) -> dict[str, Any]:
    pairs = ({"segment": segment, "variant": variant} for segment, variant in winners.items())
    return {
        "placement": policy.placement,
        "version": policy.version,
        "segments": fitted(pairs, max_bytes=_LIST_BYTES),
        "n_segments": len(winners),
    }


def _segments(segments: Sequence[str]) -> dict[str, Any]:
    return {"segments": fitted(segments, max_bytes=_LIST_BYTES), "n_segments": len(segments)}


def _by(actor: str, *, reason: str | None, effective_at: datetime) -> dict[str, Any]:
    return {"actor": actor, "reason": shortened(reason), "effective_at": effective_at}


def _links(experiment: str) -> dict[str, str]:
    return {"experiment": f"/v1/experiments/{experiment}", "results": f"/v1/experiments/{experiment}/results"}
