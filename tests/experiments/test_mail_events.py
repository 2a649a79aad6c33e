"""Readers of senders' events, and checks of their signatures: whatever comes, an answer and never a crash."""

import base64
import json
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from experiments.errors import ExperimentsError, InvalidInput
from experiments.mail_events.agents import machine_of
from experiments.mail_events.events import KINDS, MailEvent
from experiments.mail_events.providers import PROVIDERS
from experiments.mail_events.signatures import Delivery, Trust
from tests.senders import SENDERS, Happened

_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(st.characters(codec="utf-8")),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=12,
)
_HEADERS = (
    "x-twilio-email-event-webhook-signature",
    "x-twilio-email-event-webhook-timestamp",
    "authorization",
    "x-cio-signature",
    "x-cio-timestamp",
)
NOW = datetime(2026, 6, 1, tzinfo=UTC)


def _read(sender: str, item: object) -> MailEvent | None:
    try:
        return PROVIDERS[sender].read(item)
    except InvalidInput:
        return None


@pytest.mark.parametrize("sender", SENDERS)
@settings(deadline=1_000)
@given(item=_JSON)
def test_whatever_comes_is_read_or_refused(sender: str, item: Any) -> None:
    assert _read(sender, item) is None or isinstance(item, Mapping)


@pytest.mark.parametrize("sender", SENDERS)
@pytest.mark.parametrize("kind", KINDS)
@settings(deadline=1_000, max_examples=60)
@given(data=st.data())
def test_an_event_with_anything_in_any_of_its_members_is_read_or_refused(
    sender: str, kind: str, data: st.DataObject
) -> None:
    form, sign, _ = SENDERS[sender]
    body, _ = sign(form(Happened(kind, NOW.timestamp(), customer_id="anna")), at=NOW.timestamp())
    (item,) = PROVIDERS[sender].items(json.loads(body))
    place = _anywhere(item, data)
    place[data.draw(st.sampled_from(sorted(place)))] = data.draw(_JSON)
    event = _read(sender, item)
    if event is not None:
        assert event.kind in KINDS
        assert event.occurred_at.tzinfo is not None
        assert 1 <= len(event.id.encode()) <= 256


def _anywhere(item: dict[str, Any], data: st.DataObject) -> dict[str, Any]:
    """One of the objects in an event, itself among them."""
    found, pending = [], [item]
    while pending:
        found.append(pending.pop())
        pending += [value for value in found[-1].values() if isinstance(value, dict) and value]
    return data.draw(st.sampled_from(found))


@pytest.mark.parametrize("sender", SENDERS)
@settings(deadline=1_000)
@given(
    body=st.binary(max_size=300) | _JSON.map(lambda one: json.dumps(one).encode()),
    headers=st.dictionaries(st.sampled_from(_HEADERS), st.text(st.characters(codec="latin-1"), max_size=90)),
)
def test_no_delivery_is_trusted_by_chance(sender: str, body: bytes, headers: dict[str, str]) -> None:
    secret = PROVIDERS[sender].check_secret(SENDERS[sender][2], pointer="")
    with pytest.raises(ExperimentsError) as refused:
        PROVIDERS[sender].check(Trust((secret,), 300), Delivery(body, headers, NOW))
    assert refused.value.code == "bad_signature"


@pytest.mark.parametrize("sender", SENDERS)
@settings(deadline=1_000, max_examples=50)
@given(text=st.text(max_size=200) | st.binary(max_size=120).map(lambda raw: base64.b64encode(raw).decode()))
def test_any_text_is_a_secret_or_refused(sender: str, text: str) -> None:
    try:
        PROVIDERS[sender].check_secret(text, pointer="/secrets/0")
        places = []
    except InvalidInput as error:
        places = [one.pointer for one in error.fields]
    assert places in ([], ["/secrets/0"])


@settings(deadline=1_000)
@given(agent=st.text(max_size=3_000), kind=st.sampled_from(KINDS))
def test_any_agent_is_a_known_machine_or_none(agent: str, kind: str) -> None:
    assert machine_of(kind, agent) in {None, "scanner", "link_preview", "program", "apple_privacy_proxy"}


def test_a_long_agent_takes_no_time() -> None:
    started = time.perf_counter()
    for _ in range(1_000):
        machine_of("click", "barracud" * 100_000)
    assert time.perf_counter() - started < 2.0


@pytest.mark.parametrize(
    "agent",
    [
        "Mozilla/5.0 (iPhone; CPU iPhone OS 17_0 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Mobile/15E148",
        "Mozilla/5.0 (Windows NT 10.0) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0.0.0 Safari/537.36",
        "Mozilla/5.0 (X11; Linux x86_64; rv:127.0) Gecko/20100101 Firefox/127.0",
        "Outlook-iOS/709.2226530.prod.iphone (3.24.1)",
        "YahooMailProxy; https://help.yahoo.com/kb/yahoo-mail-proxy-SLN28749.html",
    ],
)
def test_people_are_not_taken_for_machines(agent: str) -> None:
    assert machine_of("click", agent) is None
    assert machine_of("open", agent) is None
