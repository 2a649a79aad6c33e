"""Who a customer is, as a process knows it: one short read a customer, and only where anybody is known at all."""

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as TookTooLong
from dataclasses import dataclass, field
from threading import Lock
from typing import Any, Final

from cachetools import TTLCache
from sqlmodel import Session

from experiments.customers.aliases import persons_of
from experiments.database import AWAY
from experiments.tables import Customer

_REMEMBERED: Final = 20_000
_REMEMBERED_SECONDS: Final = 5.0
READ_SECONDS: Final = 0.1  # longer, and a customer is decided for as nobody known


@dataclass(frozen=True, slots=True)
class Person:
    """``customer_id``: the id that goes on; ``has_aliases``: there are others; attributes as they were reported."""

    customer_id: str
    has_aliases: bool = False
    attributes: Mapping[str, Any] = field(default_factory=dict)


def read_person(session: Session, customer_id: str) -> Person:
    """Who has an id."""
    connection = session.connection()
    canonical = persons_of(connection, {customer_id}).get(customer_id)
    id_ = canonical or customer_id
    found = session.get(Customer, id_)
    return Person(id_, canonical is not None, {} if found is None else found.attributes)


class People:
    """Remembers for a few seconds who customers are; what takes too long to read is not waited for."""

    def __init__(self, read: Callable[[str], Person]) -> None:
        self._read = read
        self._known: TTLCache[str, Person] = TTLCache(_REMEMBERED, _REMEMBERED_SECONDS)
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
            reading = self._threads.submit(self._read, customer_id)
        try:
            person = reading.result(timeout=READ_SECONDS)
        except (TookTooLong, *AWAY):
            reading.cancel()
            return Person(customer_id)
        with self._lock:
            self._known[customer_id] = person
        return person

    def forget(self, *ids: str) -> None:
        """Read these again the next time."""
        with self._lock:
            for id_ in ids:
                self._known.pop(id_, None)

    def close(self) -> None:
        """Let go of the threads."""
        if self._threads is not None:
            self._threads.shutdown(wait=False, cancel_futures=True)
