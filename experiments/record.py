"""record: what happened? Check reported outcomes one by one, write the good ones, say what became of each."""

import secrets
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from hashlib import blake2b
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from experiments.customers.aliases import Link
from experiments.errors import FieldError, InvalidInput, RowRefused
from experiments.input.checks import check_id, parse_datetime, shown
from experiments.input.parsing import parse, refuse
from experiments.journal import MAX_ROWS_BULK, Journal
from experiments.outcomes.attribution import OutcomeRow
from experiments.snapshot.holder import Snapshots

OUTCOMES = "outcomes"
MAX_OUTCOMES = MAX_ROWS_BULK
MAX_VALUE = 1e12
FUTURE = timedelta(minutes=5)  # clocks may differ by so much
_FIRST = datetime(1980, 1, 1, tzinfo=UTC)
_SINGLE_LANE = 100  # more rows than this wait behind single requests
_CUSTOMER = (
    "Whose outcome it is, where no decision is named. Beside a decision_id it is kept and not compared: the outcome"
    " counts for the decision that it names, and so for the customer of that decision."
)


_PLACEMENT = "Beside a customer: only decisions of this placement count (with occasion_id: of that occasion)."
_ANONYMOUS = (
    "An id that the customer was known by before. Beside customer_id it joins the two; alone it is whose outcome it is."
)


_MACHINE = "A machine's, as far as the reporter knows (a scanner's click, a prefetched open): kept, and counted apart."


class OutcomeReport(BaseModel):
    """One outcome as a client reports it; it names its decision, or its customer."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    outcome_id: str | None = None
    decision_id: Annotated[str, Field(pattern="^[0-9a-f]{32}$")] | None = None
    customer_id: Annotated[str | None, Field(description=_CUSTOMER)] = None
    anonymous_id: Annotated[str | None, Field(description=_ANONYMOUS)] = None
    occasion_id: str | None = None
    placement: Annotated[str | None, Field(max_length=128, description=_PLACEMENT)] = None
    event: Annotated[str, Field(min_length=1, max_length=128)]
    value: Annotated[float, Field(ge=-MAX_VALUE, le=MAX_VALUE)] | None = None
    occurred_at: str | None = None
    machine: Annotated[bool, Field(description=_MACHINE)] = False

    @model_validator(mode="after")
    def _names_somebody(self) -> Self:
        if self.decision_id is None and self.customer_id is None and self.anonymous_id is None:
            refuse([FieldError("", "decision_id or customer_id must be said")])
        return self


@dataclass(frozen=True, slots=True)
class Rejected:
    """An outcome that was not taken, by its place in the list."""

    index: int
    code: str
    detail: str


@dataclass(frozen=True, slots=True)
class Recorded:
    """What became of a list of outcomes. ``statuses`` counts the accepted: how many are attributed, waiting etc."""

    accepted: int
    duplicates: int
    rejected: list[Rejected]
    statuses: dict[str, int]


class Recorder:
    """The outcome door's inside: one per process."""

    def __init__(self, snapshots: Snapshots, journal: Journal, *, join: Callable[[Collection[Link]], None]) -> None:
        self._snapshots = snapshots
        self._journal = journal
        self._join = join

    def record(self, items: Sequence[object], *, source: str, events: Collection[str] | None = None) -> Recorded:
        """Take outcomes; those accepted are durable when this returns, a bad one never fails its neighbours.

        Args:
            items: JSON objects, at most ``MAX_OUTCOMES``.
            source: Who reports: outcome ids are unique within it.
            events: Only these, by decision and without a value (what a page may report); None: anything.
        Raises:
            JournalBusy: They couldn't be written now; send all of them again.
        """
        now = self._snapshots.now()
        rows: list[tuple[int, OutcomeRow]] = []
        links: set[Link] = set()
        rejected: list[Rejected] = []
        for index, item in enumerate(items):
            try:
                row = read_outcome(item, source=source, now=now)
                if events is not None:
                    _check_page(row, events)
                rows.append((index, row))
                links |= _links(item, may_join=events is None)
            except InvalidInput as error:
                rejected.append(Rejected(index, "invalid_outcome", str(error)))
        self._join(links)
        statuses, refused = self._write(rows)
        rejected += refused
        n_duplicates = statuses.pop("duplicate", 0)
        rejected.sort(key=lambda one: one.index)
        return Recorded(sum(statuses.values()), n_duplicates, rejected, dict(statuses))

    def _write(self, rows: Sequence[tuple[int, OutcomeRow]]) -> tuple[Counter[str], list[Rejected]]:
        if not rows:
            return Counter(), []
        write = self._journal.write if len(rows) <= _SINGLE_LANE else self._journal.write_bulk
        try:
            return Counter(write(OUTCOMES, [row for _, row in rows])), []
        except RowRefused as error:
            if len(rows) == 1:
                return Counter(), [Rejected(rows[0][0], error.code, str(error))]
        middle = len(rows) // 2
        first, second = self._write(rows[:middle]), self._write(rows[middle:])
        return first[0] + second[0], first[1] + second[1]


def read_outcome(item: object, *, source: str, now: datetime) -> OutcomeRow:
    """One outcome from JSON.

    Raises:
        InvalidInput: With all that is wrong.
    """
    report = parse(OutcomeReport, item)
    for name in ("outcome_id", "customer_id", "anonymous_id", "occasion_id", "placement", "event"):
        if (value := getattr(report, name)) is not None:
            check_id(value, f"/{name}")
    occurred_at = now if report.occurred_at is None else _moment(report.occurred_at)
    return OutcomeRow(
        id=outcome_key(source, report.outcome_id),
        source=source,
        outcome_id=report.outcome_id,
        decision_id=None if report.decision_id is None else bytes.fromhex(report.decision_id),
        customer_id=report.anonymous_id if report.customer_id is None else report.customer_id,
        occasion_id=report.occasion_id,
        placement=report.placement,
        event=report.event,
        value=None if report.value is None else Decimal(str(report.value)),
        occurred_at=occurred_at,
        received_at=now,
        is_future=occurred_at > now + FUTURE,
        machine="reported" if report.machine else None,
    )


def _links(item: Any, *, may_join: bool) -> set[Link]:
    """The two ids that an outcome says are one person."""
    one, other = item.get("anonymous_id"), item.get("customer_id")
    return {Link(one, other)} if may_join and None not in (one, other) and one != other else set()


def _check_page(row: OutcomeRow, events: Collection[str]) -> None:
    wrong = []
    if row.event not in events:
        wrong.append(FieldError("/event", f"{shown(row.event)} is none that this key may report"))
    if row.decision_id is None:
        wrong.append(FieldError("/decision_id", "must be said: this key reports by decision"))
    if row.value is not None:
        wrong.append(FieldError("/value", f"must not be said with this key, not {shown(float(row.value))}"))
    if wrong:
        raise InvalidInput(wrong)


def outcome_key(source: str, outcome_id: str | None) -> bytes:
    """16 bytes: the same for the same outcome id of a source, random without one."""
    if outcome_id is None:
        return secrets.token_bytes(16)
    parts: Any = (source.encode(), outcome_id.encode())
    message = b"".join(len(part).to_bytes(4, "big") + part for part in parts)
    return blake2b(message, digest_size=16).digest()


def _moment(text: str) -> datetime:
    moment = parse_datetime(text)
    if moment is None or moment < _FIRST:
        raise InvalidInput([FieldError("/occurred_at", f"must be a time in ISO 8601 since 1980, not {shown(text)}")])
    return moment
