"""Segment's and RudderStack's own Python clients, unmodified, against the real server."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
import rudderstack.analytics.client
import segment.analytics.client
from sqlmodel import select

from experiments.database import reading
from experiments.tables import Alias, Outcome
from tests.clients.conftest import PLACEMENT, Service

pytestmark = [
    pytest.mark.xdist_group("clients"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]

Clients = Callable[..., Any]


def _segment(service: Service, **options: Any) -> Any:
    return segment.analytics.client.Client(service.key, host=service.url, on_error=_fail, max_retries=1, **options)


def _rudder(service: Service, **options: Any) -> Any:
    return rudderstack.analytics.client.Client(service.key, host=service.url, on_error=_fail, max_retries=1, **options)


def _fail(error: Exception, _items: object) -> None:
    raise error


def _outcomes(service: Service, customer_id: str) -> list[Outcome]:
    with reading(service.engine) as session:
        return list(session.exec(select(Outcome).where(Outcome.customer_id == customer_id)))


@pytest.mark.parametrize("make", [_segment, _rudder])
@pytest.mark.parametrize("gzip", [False, True])
def test_what_is_tracked_is_an_outcome_of_the_decision(service: Service, make: Clients, *, gzip: bool) -> None:
    customer = f"seg-{uuid4().hex}"
    with service.client() as plain:
        decided = plain.post("/v1/decisions", {"placement": PLACEMENT, "customer_id": customer}).body
    client = make(service, gzip=gzip)
    client.track(customer, "click", {"page": "home"})
    client.track(customer, "Order Completed", {"revenue": 12.5, "order_id": "1"})
    client.page(customer, "Docs", "Home")
    client.shutdown()
    found = {row.event: row for row in _outcomes(service, customer)}
    assert found.keys() == {"click", "purchase"}
    assert found["purchase"].value == 12.5
    assert found["click"].status == "attributed"
    with service.client() as plain:
        why = plain.get(f"/v1/decisions/{decided['decision_id']}").body
    assert {one["metric"] for one in why["responses"]} == {"click", "revenue"}


@pytest.mark.parametrize("make", [_segment, _rudder])
def test_a_repeated_message_counts_once(service: Service, make: Clients) -> None:
    customer, message_id = f"seg-{uuid4().hex}", uuid4().hex
    client = make(service)
    for _ in range(3):
        options = {"message_id": message_id} if make is _segment else {}
        client.track(customer, "click", **options)
    client.shutdown()
    assert len(_outcomes(service, customer)) == (1 if make is _segment else 3)


def test_identify_joins_the_visitor_and_tells_declared_attributes(service: Service) -> None:
    visitor, customer = f"v-{uuid4().hex}", f"c-{uuid4().hex}"
    with service.client() as plain:
        before = plain.post("/v1/decisions", {"placement": PLACEMENT, "customer_id": visitor}).body
        client = _segment(service)
        client.identify(customer, {"plan": "gold", "undeclared": 1}, anonymous_id=visitor)
        client.shutdown()
        after = plain.post("/v1/decisions", {"placement": PLACEMENT, "customer_id": customer}).body
    assert after["decision_id"] == before["decision_id"]
    with reading(service.engine) as session:
        assert session.get(Alias, customer) is not None


def test_alias_joins_too(service: Service) -> None:
    visitor, customer = f"v-{uuid4().hex}", f"c-{uuid4().hex}"
    client = _segment(service)
    client.alias(visitor, customer)
    client.shutdown()
    with reading(service.engine) as session:
        row = session.get(Alias, visitor)
    assert row is not None
    assert row.customer_id == customer


def test_a_clock_that_is_wrong_is_corrected(service: Service) -> None:
    """An event an hour before it was sent, on a clock that is a day late, happened an hour ago."""
    customer = f"seg-{uuid4().hex}"
    late = datetime.now(UTC) - timedelta(days=1)
    message = {
        "type": "track",
        "userId": customer,
        "event": "click",
        "timestamp": (late - timedelta(hours=1)).isoformat(),
    }
    with service.client() as plain:
        answer = plain.post("/v1/batch", {"batch": [message], "sentAt": late.isoformat(), "writeKey": service.key})
    assert answer.body["accepted"] == 1
    (row,) = _outcomes(service, customer)
    assert abs(datetime.now(UTC) - timedelta(hours=1) - row.occurred_at) < timedelta(minutes=1)


def test_a_wrong_write_key_is_refused_for_good(service: Service) -> None:
    refused: list[Exception] = []
    client = segment.analytics.client.Client(
        "wrong", host=service.url, on_error=lambda error, _items: refused.append(error), max_retries=1
    )
    client.track("anna", "click")
    client.shutdown()
    assert "unauthenticated" in str(refused[0])
