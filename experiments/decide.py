"""decide: which variant? Choose from the snapshot, write, and answer with what stands in the database."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from threading import Lock
from typing import Any

from cachetools import LRUCache

from experiments.decisions.choosing import Asked, Choice, Moment, choose
from experiments.decisions.rows import DecisionRow, Stored
from experiments.errors import InvalidInput, PlacementNotFound, SnapshotMissing, TemplateFailed
from experiments.input.attributes import coerce
from experiments.journal import Journal
from experiments.snapshot.holder import FRESH_SECONDS, USABLE_SECONDS, Snapshots
from experiments.snapshot.plans import PlacementPlan, Snapshot, VariantPlan

EMAIL_SECONDS = 0.27  # of waiting: an answer is out within 300 ms
DECISIONS = "decisions"
_REMEMBERED = 20_000


@dataclass(frozen=True, slots=True)
class Decided:
    """An answer. ``recorded``: the decision is durable; only then may a website count on it."""

    decision_id: str | None
    placement: str
    customer_id: str
    segment: str
    experiment: str | None
    variant: str
    deliver: bool
    content: Any
    source: str
    reason: str
    propensity: float
    allocation_version: int | None
    recorded: bool


class Decider:
    """The decision door's inside: one per process. It remembers units known to be durable, which need no write."""

    def __init__(self, snapshots: Snapshots, journal: Journal) -> None:
        self._snapshots = snapshots
        self._journal = journal
        self._durable: LRUCache[bytes, Stored] = LRUCache(_REMEMBERED)
        self._lock = Lock()

    def ask(
        self,
        customer_id: str,
        *,
        occasion_id: str | None = None,
        attributes: Mapping[str, object] | None = None,
        preview: str | bool | None = None,
        text: bool = False,
    ) -> Asked:
        """Type a request's attributes by their declaration; what came as ``text`` and doesn't fit is left out.

        Raises:
            InvalidInput: Attributes (not text) of another type than declared.
        """
        if not attributes:
            return Asked(customer_id, occasion_id, preview=preview)
        coerced = coerce(attributes, self._snapshot().attributes, text=text)
        if coerced.invalid and not text:
            raise InvalidInput([field._replace(pointer=f"/attributes{field.pointer}") for field in coerced.invalid])
        return Asked(customer_id, occasion_id, coerced.typed, coerced.stored, preview)

    def decide(self, asked: Asked, placements: Sequence[str]) -> list[Decided]:
        """Decide for one customer on some placements; durable when this returns.

        Raises:
            PlacementNotFound: One of them doesn't exist; then nothing is decided.
            JournalBusy: It couldn't be written now.
        """
        choices = self._choose(asked, placements)
        rows, known = self._recall(choices)
        if rows:
            known |= self._remember(rows, self._journal.write(DECISIONS, rows))
        return [_answer(choice, known) for choice in choices]

    def decide_in_time(self, asked: Asked, placement: str, *, seconds: float = EMAIL_SECONDS) -> Decided:
        """The email door: waits at most ``seconds`` for the database; ``recorded`` says whether it is durable."""
        (choice,) = self._choose(asked, [placement])
        rows, known = self._recall([choice])
        if rows and (stored := self._journal.offer(DECISIONS, rows, seconds=seconds)) is not None:
            known |= self._remember(rows, stored)
        return _answer(choice, known)

    def default(self, asked: Asked, placement: str, *, reason: str) -> Decided:
        """A placement's default for who can't be decided for, with why; nothing is recorded."""
        plan = self.placement(placement)
        segment = plan.segmentation.segment_of(asked.typed)
        choice = Choice(plan, asked, source="default", reason=reason, segment=segment, variant=plan.default)
        return _answer(choice, {})

    def decide_list(self, asked: Sequence[Asked], placement: str) -> list[Decided]:
        """Decide for a slice of a list of customers on one placement, in the journal's low-priority lane."""
        choices = [choice for one in asked for choice in self._choose(one, [placement])]
        rows = [row for choice in choices for row in choice.rows]
        stored = self._journal.write_bulk(DECISIONS, rows) if rows else ()
        known = {row.id: one for row, one in zip(rows, stored, strict=True)}
        return [_answer(choice, known) for choice in choices]

    def placement(self, key: str, *, seconds: float | None = None) -> PlacementPlan:
        """A placement's plan; one that isn't known may have been made a moment ago by another process.

        Args:
            key: The placement's.
            seconds: How long to look for it in the database at most, if it isn't known.
        Raises:
            PlacementNotFound: It doesn't exist, as far as could be seen.
        """
        plan = self._snapshot().placements.get(key)
        plan = plan or self._snapshots.look_again(seconds=seconds).placements.get(key)
        if plan is None:
            raise PlacementNotFound(key)
        return plan

    def _snapshot(self) -> Snapshot:
        snapshot = self._snapshots.current
        if snapshot is None:
            raise SnapshotMissing
        return snapshot

    def _choose(self, asked: Asked, placements: Sequence[str]) -> list[Choice]:
        age = self._snapshots.age_seconds
        now = self._snapshots.now()
        moment = Moment(now, now.timestamp(), is_stale=age > FRESH_SECONDS, is_usable=age < USABLE_SECONDS)
        plans = [self.placement(key) for key in placements]
        return [choose(self._snapshot(), plan, asked=asked, moment=moment) for plan in plans]

    def _recall(self, choices: Sequence[Choice]) -> tuple[list[DecisionRow], dict[bytes, Stored]]:
        """Rows that must be written, and what is known to be stored for the others."""
        rows = [row for choice in choices for row in choice.rows]
        with self._lock:
            found = {row.id: self._durable.get(row.id) for row in rows}
        return [row for row in rows if found[row.id] is None], {
            id_: one for id_, one in found.items() if one is not None
        }

    def _remember(self, rows: Sequence[DecisionRow], stored: Sequence[Stored]) -> dict[bytes, Stored]:
        known = {row.id: one for row, one in zip(rows, stored, strict=True)}
        with self._lock:
            self._durable.update(known)
        return known


def _answer(choice: Choice, known: Mapping[bytes, Stored]) -> Decided:
    """Answer with what is stored for the unit; where nothing durable is known, with what was chosen."""
    row = choice.rows[0] if choice.rows else None
    stored = None
    if row is not None:
        stored = known.get(row.id, Stored(row.segment, row.variant, row.allocation_version, row.propensity))
    variant, reason = _shown(choice, stored)
    content, deliver, reason = _rendered(choice, variant, reason=reason)
    return Decided(
        decision_id=row.id.hex() if row else None,
        placement=choice.placement.key,
        customer_id=choice.asked.customer_id,
        segment=stored.segment if stored else choice.segment,
        experiment=choice.series.experiment if choice.series else None,
        variant=variant.key,
        deliver=deliver,
        content=content,
        source=choice.source,
        reason=reason,
        propensity=stored.propensity if stored else 1.0,
        allocation_version=stored.allocation_version if stored else None,
        recorded=bool(choice.rows) and all(one.id in known for one in choice.rows),
    )


def _shown(choice: Choice, stored: Stored | None) -> tuple[VariantPlan, str]:
    """The variant stored for the unit; the control where that one was retired or paused (the unit still counts for it).

    A pause holds as soon as a worker knows of it: harm is not to wait for the others.
    """
    series = choice.series
    if stored is None or series is None or series.kind == "programme":
        return choice.variant, choice.reason
    variant = series.variants.get(stored.variant)
    if variant is None:  # added a moment ago, and stored by a worker that knows it already
        return series.variants[series.control], "snapshot_behind"
    if variant.is_retired:
        return series.variants[series.control], "variant_retired"
    if series.paused and (stored.segment, stored.variant) in series.paused:
        return series.variants[series.control], "variant_paused"
    return variant, choice.reason


def _rendered(choice: Choice, variant: VariantPlan, *, reason: str) -> tuple[Any, bool, str]:
    """The variant's content; the placement's default where its template fails."""
    default = choice.placement.default
    try:
        return variant.content.render(choice.asked.typed), variant.deliver, reason
    except TemplateFailed:
        return _default_content(default, choice.asked), default.deliver, "template_failed"


def _default_content(default: VariantPlan, asked: Asked) -> Any:
    try:
        return default.content.render(asked.typed)
    except TemplateFailed:
        return default.content.render({})  # checked when the placement was defined
