"""The loop on the simulated shop: decide, record, learn, wave by wave; then review, promote, and decide again."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Engine

from experiments.background import let_go, work_once
from experiments.demo.client import Client
from experiments.demo.shop import DEFINITIONS, EXPERIMENT, METRIC, PLACEMENT, WINDOW_SECONDS, Customer, Floats, count
from experiments.errors import DemoFailed

BATCH: Final = 500
_HOLDER: Final = "demo"


@dataclass(frozen=True, slots=True)
class Finished:
    """What the loop led to. ``n_decided``: customers by segment and variant; ``promoted``: segment to variant."""

    n_decided: Floats
    results: Mapping[str, Any]
    promoted: Mapping[str, str]
    after: Sequence[Mapping[str, Any]]


def define_and_start(client: Client) -> None:
    """Put every definition, and start the experiment."""
    for path, body in DEFINITIONS.items():
        client.put(path, body)
    client.post(f"/v1/experiments/{EXPERIMENT}/start", {})


def run_waves(
    client: Client,
    engine: Engine,
    *,
    waves: Sequence[Sequence[Customer]],
    refresh: Callable[[], object],
    progress: Callable[[int], None],
) -> Floats:
    """Decide for and record each wave over HTTP, and learn after each.

    Args:
        client: Of the server.
        engine: Of its database, for learning.
        waves: Customers, each once.
        refresh: Makes the server read the new weights now, not within a second: the next wave must find them.
        progress: Told how many customers were served.
    Returns:
        Customers by segment and variant, shape (n_segments, n_variants).
    """
    segments: list[int] = []
    variants: list[str] = []
    for wave in waves:
        for start in range(0, len(wave), BATCH):
            customers = wave[start : start + BATCH]
            decisions = _decide(client, customers)
            _record(client, customers, decisions=decisions)
            segments += [customer.segment for customer in customers]
            variants += [decision["variant"] for decision in decisions]
            progress(len(customers))
        if work_once(engine, holder=_HOLDER) is None:
            raise DemoFailed("another process learns on this database")
        refresh()
    let_go(engine, holder=_HOLDER)
    return count(segments, variants)


def review_and_promote(client: Client, *, n_decided: Floats, newcomers: Sequence[Customer]) -> Finished:
    """Pause until every customer's window is over, promote what the verdicts allow, and decide for newcomers."""
    path = f"/v1/experiments/{EXPERIMENT}"
    client.post(f"{path}/pause", {"reason": "The sends are over."})
    time.sleep(WINDOW_SECONDS + 1)
    results = client.get(f"{path}/results")
    promoted: Mapping[str, str] = {}
    if any(row["verdict"] == "ship" for row in results["segments"]):
        request = {"reason": "The demo promotes every segment whose verdict is ship."}
        promoted = client.post(f"{path}/promote", request)["segments"]
    if len(promoted) < len(results["segments"]):
        client.post(f"{path}/resume", {"reason": "Not every segment is proven."})
    return Finished(n_decided, results, promoted, _decide(client, newcomers))


def _decide(client: Client, customers: Sequence[Customer]) -> list[dict[str, Any]]:
    items = [{"customer_id": customer.id, "attributes": customer.attributes} for customer in customers]
    answer = client.post("/v1/decisions/batch", {"placement": PLACEMENT, "items": items})
    decisions: list[dict[str, Any]] = answer["decisions"]
    if not all(decision.get("recorded") for decision in decisions):
        raise DemoFailed("a decision was not recorded")
    return decisions


def _record(client: Client, customers: Sequence[Customer], *, decisions: Sequence[Mapping[str, Any]]) -> None:
    outcomes = [
        {"outcome_id": f"open-{customer.id}", "decision_id": decision["decision_id"], "event": METRIC}
        for customer, decision in zip(customers, decisions, strict=True)
        if customer.opens(decision["variant"])
    ]
    if outcomes:
        recorded = client.post("/v1/outcomes", {"outcomes": outcomes})
        n_counted = recorded["statuses"].get("attributed", 0) + recorded["duplicates"]
        if n_counted != len(outcomes):
            raise DemoFailed(f"only {n_counted} of {len(outcomes)} outcomes were counted: {recorded['statuses']}")
