"""Which outcomes count no more: one plain function of outcomes and the corrections in force, whatever came first."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class Rule:
    """A correction of outcomes that is in force, from ``starts_at`` until just before ``ends_at``."""

    id: int
    event: str
    starts_at: datetime
    ends_at: datetime
    keeps_first: bool

    def covers(self, event: str, occurred_at: datetime) -> bool:
        """Whether an outcome of an event and a time falls under it."""
        return event == self.event and self.starts_at <= occurred_at < self.ends_at


@dataclass(frozen=True, slots=True)
class Reported:
    """A stored outcome, as far as corrections need it.

    ``customer_id`` and ``decisions``: whom and which it is attributed to, None and empty if nowhere. ``excluded_by``:
    the correction that keeps it from counting now.
    """

    id: bytes
    event: str
    occurred_at: datetime
    received_at: datetime
    excluded_by: int | None
    customer_id: str | None = None
    decisions: frozenset[bytes] = frozenset()
    is_machine: bool = False


def exclusions(outcomes: Iterable[Reported], *, rules: Sequence[Rule]) -> dict[bytes, int | None]:
    """The correction that keeps each outcome from counting; None where it counts.

    An ``exclude`` goes before a ``keep_first``, the correction with the lowest id before the others. A ``keep_first``
    keeps, of those of a customer that nothing else excludes, the first by time of occurrence, of receipt, and id. Two
    of them that overlap are read in order of time: an outcome is excluded if one of them has kept an earlier one. An
    outcome that is attributed nowhere counts nowhere: it neither is excluded by a ``keep_first`` nor is the first.

    Args:
        outcomes: All attributed outcomes of their customers that a ``keep_first`` among the rules covers, and any more.
        rules: Corrections in force.
    """
    in_order = sorted(rules, key=lambda rule: rule.id)
    kept: set[tuple[tuple[str, bool], int]] = set()
    found: dict[bytes, int | None] = {}
    for one in sorted(outcomes, key=lambda one: (one.occurred_at, one.received_at, one.id)):
        mine = [rule for rule in in_order if rule.covers(one.event, one.occurred_at)]
        by = next((rule.id for rule in mine if not rule.keeps_first), None)
        if by is None and one.customer_id is not None:
            who = (one.customer_id, one.is_machine)  # a scanner's click is not the customer's first
            firsts = [(who, rule.id) for rule in mine if rule.keeps_first]
            by = next((first[1] for first in firsts if first in kept), None)
            kept.update(firsts if by is None else ())
        found[one.id] = by
    return found
