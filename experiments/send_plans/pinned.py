"""A send plan as its series carries it: pinned at the start, then when it began, and what it came to."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Self

from experiments.catalog.definitions import SendPlan


@dataclass(frozen=True, slots=True)
class Winner:
    """What the units of a segment get once the test is over; ``variant`` None: they go on being split.

    ``why``: clear, clear_over_all, best, best_over_all, control, keep_splitting, broken or nothing_known.
    """

    variant: str | None
    why: str


@dataclass(frozen=True, slots=True)
class PinnedSendPlan:
    """A send plan and how far it has come.

    Attributes:
        test_share: Share of the units that are tested, in (0, 1).
        winner_after: From the first decision of the test to the winner.
        if_unclear: best, control or keep_splitting.
        begun_at: The first decision of the test; None before the background process has seen it.
        decided_at: When the winners were written; None before.
        winners: Of each segment that was with the experiment then.
    """

    test_share: float
    winner_after: timedelta
    if_unclear: str
    begun_at: datetime | None = None
    decided_at: datetime | None = None
    winners: Mapping[str, Winner] = field(default_factory=dict)

    @classmethod
    def of(cls, definition: SendPlan | None) -> Self | None:
        """As an experiment defines it; None where it has none."""
        if definition is None:
            return None
        return cls(definition.test_share, timedelta(hours=definition.winner_after_hours), definition.if_unclear)

    @classmethod
    def from_json(cls, pinned: dict[str, Any] | None) -> Self | None:
        """Read what ``series.send_plan`` holds; None where a series has none."""
        if pinned is None:
            return None
        moments = {name: pinned[name] and datetime.fromisoformat(pinned[name]) for name in ("begun_at", "decided_at")}
        winners = {segment: Winner(one["variant"], one["why"]) for segment, one in pinned["winners"].items()}
        after = timedelta(hours=pinned["winner_after_hours"])
        return cls(pinned["test_share"], after, pinned["if_unclear"], **moments, winners=winners)

    @property
    def decide_after(self) -> datetime | None:
        """When the winner is due; None before the test has begun."""
        return None if self.begun_at is None else self.begun_at + self.winner_after

    def splits(self, segment: str) -> bool:
        """Whether the units of a segment are to be split, by weights as learnt, since nothing was clear."""
        return segment in self.winners and self.winners[segment].variant is None

    def to_json(self) -> dict[str, Any]:
        """As kept in ``series.send_plan``."""
        return {
            "test_share": self.test_share,
            "winner_after_hours": self.winner_after / timedelta(hours=1),
            "if_unclear": self.if_unclear,
            "begun_at": _text(self.begun_at),
            "decided_at": _text(self.decided_at),
            "winners": {segment: {"variant": one.variant, "why": one.why} for segment, one in self.winners.items()},
        }

    def shown(self) -> dict[str, Any]:
        """As doors show it."""
        return {**self.to_json(), "decide_after": _text(self.decide_after)}


def _text(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat()
