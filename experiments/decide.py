"""decide: which variant? Choose from the snapshot, write, and answer with what stands in the database."""

import contextlib
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from threading import Lock
from typing import Any

from cachetools import LRUCache, TTLCache

from experiments.customers.aliases import MAX_LINKS, Link
from experiments.customers.moved import Moved
from experiments.customers.people import REMEMBERED_SECONDS, People
from experiments.database import AWAY
from experiments.decisions.choosing import Asked, Choice, Moment, choose
from experiments.decisions.rows import DecisionRow, Stored
from experiments.errors import InvalidInput, JournalBusy, PlacementNotFound, SnapshotMissing, TemplateFailed
from experiments.input.attributes import coerce
from experiments.journal import Journal
from experiments.snapshot.holder import FRESH_SECONDS, USABLE_SECONDS, Snapshots
from experiments.snapshot.plans import PlacementPlan, Snapshot, VariantPlan

EMAIL_SECONDS = 0.27  # of waiting: an answer is out within 300 ms
DECISIONS = "decisions"
LINKS = "links"
_REMEMBERED = 20_000
_MOVES = 4  # the id that goes on may change while we choose, but hardly that often

Write = Callable[[str, Sequence[Any]], Sequence[Any] | None]  # kind and rows; a result a row, None if not in time


@dataclass(frozen=True, slots=True)
class Decided:
    """An answer. ``recorded``: the decision is durable; only then may a website count on it.

    ``decide_after``: of one that waits for the winner of a send plan, when to ask again.
    """

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
    decide_after: datetime | None = None


class Decider:
    """The decision door's inside: one per process. It remembers units known to be durable, which need no write."""

    def __init__(
        self,
        snapshots: Snapshots,
        journal: Journal,
        *,
        read_stored: Callable[[Collection[bytes]], Mapping[bytes, Stored]],
        people: People,
    ) -> None:
        self._snapshots = snapshots
        self._journal = journal
        self._read_stored = read_stored
        self._people = people
        self._joined: LRUCache[Link, bool] = LRUCache(_REMEMBERED)
        self._durable: LRUCache[bytes, Stored] = LRUCache(_REMEMBERED)
        self._of_people: TTLCache[bytes, Stored] = TTLCache(_REMEMBERED, REMEMBERED_SECONDS)  # who have several ids
        self._lock = Lock()

    def ask(
        self,
        customer_id: str,
        *,
        occasion_id: str | None = None,
        attributes: Mapping[str, object] | None = None,
        preview: str | bool | None = None,
        text: bool = False,
        is_strict: bool | None = None,
        public_only: bool = False,
    ) -> Asked:
        """Type a request's attributes by their declaration.

        What doesn't fit is refused, unless it came as ``text`` (from an address): then it is left out, if the caller
        is not ``is_strict``.

        Of what is known of the customer already, ``public_only`` uses and says no more than a page may know.

        Raises:
            InvalidInput: Attributes of another type than declared.
        """
        snapshot = self._snapshots.current
        if snapshot is not None and snapshot.has_people:
            asked = self._known(customer_id, snapshot=snapshot, public_only=public_only)
            asked = replace(asked, occasion_id=occasion_id, preview=preview)
        else:
            asked = Asked(customer_id, occasion_id, preview=preview, public_only=public_only)
        if not attributes:
            return asked
        coerced = coerce(attributes, self._snapshot().attributes, text=text)
        if coerced.invalid and (is_strict or (is_strict is None and not text)):
            raise InvalidInput([field._replace(pointer=f"/attributes{field.pointer}") for field in coerced.invalid])
        if asked.typed:
            return replace(asked, typed={**asked.typed, **coerced.typed}, stored={**asked.stored, **coerced.stored})
        return replace(asked, typed=coerced.typed, stored=coerced.stored)

    def expect(self, customer_ids: Iterable[str]) -> None:
        """Look up at once who the customers of a list are, before each is asked for."""
        if self._snapshot().has_people:
            self._people.expect(customer_ids)

    def _known(self, customer_id: str, *, snapshot: Snapshot, public_only: bool) -> Asked:
        """A customer under the id that goes on, with the attributes that were reported of them."""
        person, declared = self._people.of(customer_id), snapshot.attributes
        attributes = person.attributes
        if public_only:
            attributes = {name: one for name, one in attributes.items() if name in declared and declared[name].public}
        coerced = coerce(attributes, declared, text=False)
        return Asked(
            person.customer_id,
            typed=coerced.typed,
            stored=coerced.stored,
            called=None if person.customer_id == customer_id else customer_id,
            has_aliases=person.has_aliases,
            public_only=public_only,
        )

    def join(self, anonymous_id: str, customer_id: str) -> None:
        """Let two ids be one person, durably.

        Raises:
            JournalBusy: It couldn't be written now.
        """
        self._join(Link(anonymous_id, customer_id), self._journal.write)

    def join_all(self, links: Collection[Link]) -> None:
        """As ``join``, for the links of a list: many in one transaction, in the journal's low-priority lane."""
        new = [link for link in dict.fromkeys(links) if not self._is_joined(link)]
        if len(new) == 1:
            self.join(new[0].anonymous_id, new[0].customer_id)
            return
        for start in range(0, len(new), MAX_LINKS):
            part = new[start : start + MAX_LINKS]
            self._journal.write_bulk(LINKS, part)
            self._have_joined(part)

    def join_in_time(self, anonymous_id: str, customer_id: str, *, seconds: float) -> None:
        """As ``join``, but waits at most so long; if that is not enough the ids are joined when it can be done."""
        give_up_at = time.monotonic() + seconds
        self._join(Link(anonymous_id, customer_id), self._until(give_up_at))

    def _join(self, link: Link, write: Write) -> None:
        if self._is_joined(link):
            return
        done = write(LINKS, [link])
        if done is not None:
            self._have_joined([link])

    def _is_joined(self, link: Link) -> bool:
        if link.anonymous_id == link.customer_id:
            return True
        with self._lock:
            return link in self._joined

    def _have_joined(self, links: Sequence[Link]) -> None:
        self._people.forget(*(id_ for link in links for id_ in (link.anonymous_id, link.customer_id)))
        if not self._snapshot().has_people:
            self._snapshots.look_again()  # these were the first: to know that there are such people
        with self._lock:
            self._of_people.clear()  # another decision may stand for theirs now
            self._joined.update(dict.fromkeys(links, True))

    def _until(self, give_up_at: float) -> Write:
        def offer(kind: str, rows: Sequence[Any]) -> Sequence[Any] | None:
            return self._journal.offer(kind, rows, seconds=max(0.0, give_up_at - time.monotonic()))

        return offer

    def decide(self, asked: Asked, placements: Sequence[str]) -> list[Decided]:
        """Decide for one customer on some placements; durable when this returns.

        Raises:
            PlacementNotFound: One of them doesn't exist; then nothing is decided.
            JournalBusy: It couldn't be written now.
        """
        choices, known = self._settled(self._choose(asked, placements), self._journal.write)
        return [_answer(choice, known) for choice in choices]

    def decide_in_time(self, asked: Asked, placement: str, *, seconds: float = EMAIL_SECONDS) -> Decided:
        """The email door: waits at most ``seconds`` for the database; ``recorded`` says whether it is durable."""
        write = self._until(time.monotonic() + seconds)
        choices, known = self._choose(asked, [placement]), dict[bytes, Stored]()
        with contextlib.suppress(JournalBusy):  # ids are being joined: an answer all the same
            choices, known = self._settled(choices, write)
        return _answer(choices[0], known)

    def default(self, asked: Asked, placement: str, *, reason: str) -> Decided:
        """A placement's default for who can't be decided for, with why; nothing is recorded."""
        plan = self.placement(placement)
        segment = plan.segmentation.segment_of(asked.typed)
        choice = Choice(plan, asked, source="default", reason=reason, segment=segment, variant=plan.default)
        return _answer(choice, {})

    def decide_list(self, asked: Sequence[Asked], placement: str) -> list[Decided]:
        """Decide for a slice of a list of customers on one placement, in the journal's low-priority lane."""
        choices = [choice for one in asked for choice in self._choose(one, [placement])]
        choices, known = self._settled(choices, self._journal.write_bulk, remember=False)
        return [_answer(choice, known) for choice in choices]

    def look(self, asked: Asked, placements: Sequence[str]) -> list[Decided]:
        """What a customer would get on some placements now, as decided before or else as chosen; nothing is recorded.

        While the database is away, only decisions that this process remembers are known.

        Raises:
            PlacementNotFound: One of them doesn't exist.
        """
        choices = self._choose(asked, placements)
        rows, known = self._recall(choices)
        if rows:
            with contextlib.suppress(*AWAY):
                known |= self._read_stored([row.id for row in rows])
        return [replace(_answer(choice, known), recorded=False) for choice in choices]

    def placements(self) -> Collection[str]:
        """The keys of all placements."""
        return self._snapshot().placements

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

    def _settled(
        self, choices: list[Choice], write: Write, *, remember: bool = True
    ) -> tuple[list[Choice], dict[bytes, Stored]]:
        """Choices, and what is stored for their rows; who is decided for under another id is chosen for anew.

        Raises:
            JournalBusy: The id that goes on changed again and again meanwhile, or as ``write`` says.
        """
        known: dict[bytes, Stored] = {}
        for _ in range(_MOVES):
            if remember:
                known |= self._recall(choices)[1]
            rows = [row for choice in choices for row in choice.rows if row.id not in known]
            stored = write(DECISIONS, rows) if rows else ()
            if stored is None:
                return choices, known
            new = {row.id: one for row, one in zip(rows, stored, strict=True) if isinstance(one, Stored)}
            known |= new
            if remember:
                self._remember([row for row in rows if row.id in new], new)
            moved = {row.customer_id: one for row, one in zip(rows, stored, strict=True) if isinstance(one, Moved)}
            if not moved:
                return choices, known
            choices = [self._moved(choice, moved.get(choice.asked.customer_id)) for choice in choices]
        raise JournalBusy("ids are being joined")

    def _moved(self, choice: Choice, moved: Moved | None) -> Choice:
        """The choice for the same person under the id that goes on."""
        asked = choice.asked
        if moved is None:
            return choice
        called = asked.called or asked.customer_id
        self._people.forget(called, asked.customer_id)
        asked = replace(asked, customer_id=moved.customer_id, called=called, has_aliases=True)
        return self._choose(asked, [choice.placement.key])[0]

    def _recall(self, choices: Sequence[Choice]) -> tuple[list[DecisionRow], dict[bytes, Stored]]:
        """Rows that must be written, and what is known to be stored for the others."""
        rows = [row for choice in choices for row in choice.rows]
        with self._lock:
            found = {row.id: (self._of_people if row.has_aliases else self._durable).get(row.id) for row in rows}
        return [row for row in rows if found[row.id] is None], {
            id_: one for id_, one in found.items() if one is not None
        }

    def _remember(self, rows: Sequence[DecisionRow], known: Mapping[bytes, Stored]) -> None:
        with self._lock:
            for row in rows:
                cache = self._of_people if row.has_aliases else self._durable
                cache[row.id] = known[row.id]


def _answer(choice: Choice, known: Mapping[bytes, Stored]) -> Decided:
    """Answer with what is stored for the unit; where nothing durable is known, with what was chosen."""
    row = choice.rows[0] if choice.rows and choice.decide_after is None else None
    stored = None
    if row is not None:
        stored = known.get(row.id, Stored(row.segment, row.variant, row.allocation_version, row.propensity))
    variant, reason = _shown(choice, stored)
    content, deliver, reason = _rendered(choice, variant, reason=reason)
    return Decided(
        decision_id=((stored and stored.decision_id) or row.id).hex() if row else None,
        placement=choice.placement.key,
        customer_id=choice.asked.called or choice.asked.customer_id,
        segment=stored.segment if stored and not choice.asked.public_only else choice.segment,
        experiment=choice.series.experiment if choice.series else None,
        variant=variant.key,
        deliver=deliver,
        content=content,
        source=choice.source,
        reason=reason,
        propensity=stored.propensity if stored else 1.0,
        allocation_version=stored.allocation_version if stored else None,
        recorded=row is not None and all(one.id in known for one in choice.rows),
        decide_after=None if choice.decide_after is None else datetime.fromtimestamp(choice.decide_after, UTC),
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
        deliver = default.deliver and choice.decide_after is None
        return _default_content(default, choice.asked), deliver, "template_failed"


def _default_content(default: VariantPlan, asked: Asked) -> Any:
    try:
        return default.content.render(asked.typed)
    except TemplateFailed:
        return default.content.render({})  # checked when the placement was defined
