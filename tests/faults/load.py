"""Load for a server that is about to fail: threads that decide and record, and remember what was acknowledged."""

import http.client
import itertools
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Engine
from sqlmodel import col, select

from experiments.database import reading
from experiments.tables import Attribution, Decision, Outcome
from tests.faults.shop import PLACEMENT, SOURCE, differences
from tests.server import Answer, Client

N_SHARED = 40  # customers whom every thread asks for, so that web processes meet at one row
_PAUSE_SECONDS = 0.05  # after a failure


@dataclass
class Load:
    """What was acknowledged: for each decision its variants (there must be one), and the outcomes by their ids."""

    port: int
    key: str
    decisions: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    outcomes: dict[str, dict[str, Any]] = field(default_factory=dict)
    sources: Counter[str] = field(default_factory=Counter)
    statuses: Counter[int] = field(default_factory=Counter)
    n_lost: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _stop: threading.Event = field(default_factory=threading.Event)

    @contextmanager
    def run(self, *, name: str, n_threads: int = 6) -> Iterator[None]:
        """Ask from some threads until the block ends; ``name`` tells their customers from those of other runs."""
        self._stop.clear()
        threads = [threading.Thread(target=self._ask_on, args=(f"{name}-{i}",)) for i in range(n_threads)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._stop.set()
            for thread in threads:
                thread.join()

    def wait_for(self, n_more: int, *, seconds: float = 20.0) -> None:
        """Let as many more outcomes be acknowledged.

        Raises:
            TimeoutError: They aren't, in time.
        """
        enough, give_up_at = len(self.outcomes) + n_more, time.monotonic() + seconds
        while len(self.outcomes) < enough:
            if time.monotonic() > give_up_at:
                raise TimeoutError(f"{len(self.outcomes)} outcomes of {enough}; statuses {self.statuses}")
            time.sleep(0.01)

    def _ask_on(self, name: str) -> None:
        with closing(Client(self.port, self.key)) as client:
            for n in itertools.count():
                if self._stop.is_set():
                    return
                customer = f"shared-{n % N_SHARED}" if n % 5 == 0 else f"{name}-{n}"
                try:
                    self._visit(client, customer, visit=f"{name}-{n}", by_email=n % 3 == 0)
                except (OSError, http.client.HTTPException):
                    with self._lock:
                        self.n_lost += 1
                    time.sleep(_PAUSE_SECONDS)

    def _visit(self, client: Client, customer: str, *, visit: str, by_email: bool) -> None:
        decided = self._decide(client, customer, by_email=by_email)
        if decided is None:
            time.sleep(_PAUSE_SECONDS)
            return
        of = {"decision_id": decided["decision_id"]}
        click = {"outcome_id": f"click-{visit}", "event": "click", **of}
        purchase = {"outcome_id": f"purchase-{visit}", "event": "purchase", "value": 12.35, **of}
        answer = client.post("/v1/outcomes", {"outcomes": [click, purchase]})
        with self._lock:
            self.statuses[answer.status] += 1
            if answer.status == 200:
                assert (answer.body["accepted"], answer.body["rejected"]) == (2, [])
                self.outcomes |= {one["outcome_id"]: one for one in (click, purchase)}

    def _decide(self, client: Client, customer: str, *, by_email: bool) -> dict[str, Any] | None:
        """The answer if it was acknowledged as durable."""
        answer = decide_by_email(client, customer) if by_email else decide(client, customer)
        with self._lock:
            self.statuses[answer.status] += 1
            if answer.status != 200 or not answer.body["recorded"]:
                return None
            self.decisions[answer.body["decision_id"]].add(answer.body["variant"])
            self.sources[answer.body["source"]] += 1
        return answer.body


def decide(client: Client, customer: str, **more: object) -> Answer:
    """The door for websites."""
    return client.post("/v1/decisions", {"placement": PLACEMENT, "customer_id": customer, **more})


def decide_by_email(client: Client, customer: str) -> Answer:
    """The door for email tools."""
    return client.get(f"/v1/placements/{PLACEMENT}/decision?customer_id={customer}")


def assert_nothing_was_lost(engine: Engine, load: Load) -> None:
    """Every acknowledged decision and outcome is stored exactly once, as answered, and counted: a recount agrees.

    Outcomes of decisions that are marked late are kept, but count for nothing.
    """
    with reading(engine) as session:
        variants = {id_.hex(): variant for id_, variant in session.exec(select(Decision.id, Decision.variant))}
        late = {id_.hex() for id_ in session.exec(select(Decision.id).where(col(Decision.late)))}
        ids = Counter(session.exec(select(Outcome.outcome_id).where(Outcome.source == SOURCE)).all())
        joined = select(Attribution.decision_id, Outcome.outcome_id)
        pairs = session.exec(joined.join(Outcome, col(Outcome.id) == Attribution.outcome_id)).all()
    assert set(load.decisions) <= set(variants)
    answered = {id_: {_as_stored(one) for one in shown} for id_, shown in load.decisions.items()}
    assert {id_: shown for id_, shown in answered.items() if shown != {_as_stored(variants[id_])}} == {}
    assert {id_ for id_ in load.outcomes if ids[id_] != 1} == set()
    counted = {(decision_id.hex(), outcome_id) for decision_id, outcome_id in pairs}
    reported = {(one["decision_id"], id_) for id_, one in load.outcomes.items()}
    assert {pair for pair in reported if pair[0] not in late} <= counted
    assert {pair for pair in counted if pair[0] in late} == set()
    in_series = Counter((decision_id[:4], outcome_id) for decision_id, outcome_id in pairs)
    assert {pair for pair, n in in_series.items() if n > 1} == set()
    assert differences(engine) == []


def _as_stored(variant: str) -> str:
    """Who gets the default is stored by the side of the holdout."""
    return "plain" if variant in {"held_out", "treated"} else variant


def assert_sending_again_changes_nothing(engine: Engine, load: Load) -> None:
    """All acknowledged outcomes sent once more are duplicates, and nothing is counted twice."""
    before = list(load.outcomes.values())
    with closing(Client(load.port, load.key)) as client:
        for start in range(0, len(before), 500):
            again = before[start : start + 500]
            answer = client.post("/v1/outcomes", {"outcomes": again})
            assert (answer.status, answer.body["accepted"], answer.body["duplicates"]) == (200, 0, len(again))
    assert_nothing_was_lost(engine, load)
