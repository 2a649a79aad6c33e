"""Who a customer is, as a process knows it: one short read a customer, and only where anybody is known at all."""

from collections.abc import Callable, Collection, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as TookTooLong
from contextlib import suppress
from dataclasses import dataclass, field
from threading import Lock
from typing import Any, Final

from cachetools import TTLCache
from sqlmodel import Session, col, select

from experiments.customers.aliases import persons_of
from experiments.database import AWAY
from experiments.tables import Customer

_REMEMBERED: Final = 20_000
_AT_ONCE: Final = 2_000
REMEMBERED_SECONDS: Final = 5.0
READ_SECONDS: Final = 0.1  # longer, and a customer is decided for as nobody known


@dataclass(frozen=True, slots=True)
class Person:
    """``customer_id``: the id that goes on; ``has_aliases``: there are others; attributes as they were reported."""

    customer_id: str
    has_aliases: bool = False
    attributes: Mapping[str, Any] = field(default_factory=dict)


def read_people(session: Session, ids: Collection[str]) -> dict[str, Person]:
    """Who has each of some ids."""
    canonical = persons_of(session.connection(), ids)
    wanted = {canonical.get(id_, id_) for id_ in ids}
    query = select(Customer.id, Customer.attributes).where(col(Customer.id).in_(wanted))
    attributes = dict(session.exec(query).all())
    return {
        id_: Person(canonical.get(id_, id_), id_ in canonical, attributes.get(canonical.get(id_, id_), {}))
        for id_ in ids
    }


class People:
    """Remembers for a few seconds who customers are; what takes too long to read is not waited for."""

    def __init__(self, read: Callable[[Collection[str]], Mapping[str, Person]]) -> None:
        self._read = read
        self._known: TTLCache[str, Person] = TTLCache(_REMEMBERED, REMEMBERED_SECONDS)
        self._lock = Lock()
        self._threads: ThreadPoolExecutor | None = None

    def of(self, customer_id: str) -> Person:
        """Who a customer is; while the database is away or slow, somebody of whom nothing is known."""
        with self._lock:
            known = self._known.get(customer_id)
            if known is not None:
                return known
            if self._threads is None:  # not before the process has forked
                self._threads = ThreadPoolExecutor(4, thread_name_prefix="people")
            reading = self._threads.submit(self._read, [customer_id])
        try:
            person = reading.result(timeout=READ_SECONDS)[customer_id]
        except (TookTooLong, *AWAY):
            reading.cancel()
            return Person(customer_id)
        with self._lock:
            self._known[customer_id] = person
        return person

    def expect(self, ids: Iterable[str]) -> None:
        """Read who these are at once, for a list of them; while the database is away, nothing."""
        with self._lock:
            unknown = [id_ for id_ in dict.fromkeys(ids) if id_ not in self._known]
        for start in range(0, len(unknown), _AT_ONCE):
            with suppress(*AWAY):
                read = self._read(unknown[start : start + _AT_ONCE])
                with self._lock:
                    self._known.update(read)

    def forget(self, *ids: str) -> None:
        """Read these again the next time."""
        with self._lock:
            for id_ in ids:
                self._known.pop(id_, None)

    def close(self) -> None:
        """Let go of the threads."""
        if self._threads is not None:
            self._threads.shutdown(wait=False, cancel_futures=True)
