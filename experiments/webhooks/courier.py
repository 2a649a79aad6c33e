"""The courier: a thread of the background process that sends what is due, a few messages at once.

It shares nothing with learning but the process: its transactions are short, and it waits for receivers in a loop of its
own. Any number of processes may have one, since a delivery is claimed before it is sent.
"""

import asyncio
import contextlib
import threading
import time
from collections import Counter
from random import SystemRandom
from typing import Final

import httpx
import structlog
from sqlalchemy import Engine

from experiments.database import AWAY, database_now, reading, transaction
from experiments.webhooks.deliver import MAX_PRUNED, Answer, Parcel, claim, find_due, prune, settle
from experiments.webhooks.post import MAX_SECONDS, http_client, post

log = structlog.get_logger(__name__)

POLL_SECONDS: Final = 1.0
MAX_AT_ONCE: Final = 8
PRUNE_SECONDS: Final = 3_600.0
_AWAY_SECONDS: Final = 10.0
_STOP_SECONDS: Final = 1.0  # what is being sent may end; else its claim does, and it is sent again
_CHANCE: Final = SystemRandom()


class Courier:
    """Sends what is due until it is closed.

    Args:
        engine: Of a migrated database.
        allows_private: Whether messages may go to private addresses.
        max_seconds: Of one attempt.
    """

    def __init__(self, engine: Engine, *, allows_private: bool, max_seconds: float = MAX_SECONDS) -> None:
        self._engine = engine
        self._allows_private = allows_private
        self._max_seconds = max_seconds
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._work_task: asyncio.Task[None] | None = None
        self._woken = asyncio.Event()
        self._prune_at = time.monotonic()
        self._busy: Counter[str] = Counter()

    def look(self) -> None:
        """Start the thread if it does not run; one that ended by itself is started again, and the log says so."""
        if self._thread is not None and self._thread.is_alive():
            return
        if self._thread is not None:
            log.error("courier_ended")
        self._busy.clear()
        self._thread = threading.Thread(target=self._run, name="courier", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Claim nothing more, and end; what is being sent has a moment to be done."""
        self._stop.set()
        if self._thread is None:
            return
        self._thread.join(timeout=_STOP_SECONDS)
        if self._thread.is_alive() and self._loop is not None and self._work_task is not None:
            with contextlib.suppress(RuntimeError):  # it has ended meanwhile
                self._loop.call_soon_threadsafe(self._work_task.cancel)
            self._thread.join(timeout=_STOP_SECONDS)

    def _run(self) -> None:
        with contextlib.suppress(asyncio.CancelledError):
            asyncio.run(self._work())

    async def _work(self) -> None:
        self._loop, self._work_task = asyncio.get_running_loop(), asyncio.current_task()
        self._woken = asyncio.Event()
        async with http_client() as client, asyncio.TaskGroup() as sending:
            while not self._stop.is_set():
                self._woken.clear()
                parcels = await asyncio.to_thread(self._claimed)
                for parcel in parcels or ():
                    self._busy[parcel.webhook] += 1
                    sending.create_task(self._send(client, parcel))
                await self._pause(_AWAY_SECONDS if parcels is None else POLL_SECONDS)

    async def _pause(self, seconds: float) -> None:
        """Until a message has been sent, time is up, or the courier is closed."""
        give_up_at = time.monotonic() + seconds
        while not self._stop.is_set() and not self._woken.is_set() and time.monotonic() < give_up_at:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._woken.wait(), 0.2)

    async def _send(self, client: httpx.AsyncClient, parcel: Parcel) -> None:
        try:
            answer = await post(client, parcel, allows_private=self._allows_private, max_seconds=self._max_seconds)
            await asyncio.to_thread(self._settle, parcel, answer)
        finally:
            self._busy[parcel.webhook] -= 1
            self._woken.set()

    def _claimed(self) -> list[Parcel] | None:
        """What is to be sent now; None while the database is away."""
        n_free = MAX_AT_ONCE - self._busy.total()
        try:
            self._prune()
            with reading(self._engine) as session:
                due = find_due(session, now=database_now(session), limit=n_free, busy=self._busy)
            if not due:
                return []
            with transaction(self._engine) as session:
                now = database_now(session)
                claimed = [claim(session, one, now=now) for one in due]
        except AWAY as error:
            log.warning("database_away", error=type(error).__name__)
            return None
        return [parcel for parcel in claimed if parcel is not None]

    def _settle(self, parcel: Parcel, answer: Answer) -> None:
        try:
            with transaction(self._engine) as session:
                settle(session, parcel, answer=answer, now=database_now(session), chance=_CHANCE.random())
        except AWAY as error:  # the claim ends by itself, and the message is sent again
            log.warning("database_away", error=type(error).__name__)

    def _prune(self) -> None:
        if time.monotonic() < self._prune_at:
            return
        with transaction(self._engine) as session:
            n_pruned = prune(session, now=database_now(session))
        self._prune_at = time.monotonic() + (0.0 if n_pruned == MAX_PRUNED else PRUNE_SECONDS)
