"""What Segment's clients really send when things go wrong: NaN, broken text, absurd clocks, hundreds of sign-ins."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import event
from sqlmodel import func, select

from experiments.access.keys import Pages, create_key
from experiments.database import reading, transaction
from experiments.tables import Alias, Outcome
from experiments.worker import Worker
from tests.api.conftest import Client

CLICK = {"type": "track", "userId": "anna", "event": "click"}


def _sent(client: Client, *messages: object, **envelope: Any) -> dict[str, Any]:
    """What the standard library's JSON, which Python's clients use, brings: it writes NaN and lone surrogates."""
    data = json.dumps({"batch": list(messages)} | envelope)
    answer = client.post("/v1/batch", data=data, content_type="application/json")
    assert answer.status_code == 200, answer.text
    return dict(answer.get_json())


@pytest.mark.parametrize(
    "properties",
    [{"revenue": float("nan")}, {"revenue": float("inf")}, {"x": "\ud800"}, {"x": 10**400}, {"revenue": 10**400}],
)
def test_what_json_cannot_hold_is_one_message_refused(running: Client, properties: dict[str, Any]) -> None:
    done = _sent(running, CLICK | {"properties": properties}, CLICK)
    assert done["accepted"] + len(done["rejected"]) == 2
    assert [one["index"] for one in done["rejected"]] in ([0], [])
    assert done["accepted"] >= 1


def test_a_nan_that_no_metric_reads_does_no_harm(running: Client) -> None:
    assert _sent(running, CLICK | {"properties": {"score": float("nan")}})["accepted"] == 1


def test_a_message_nested_too_deeply_is_refused_alone(running: Client) -> None:
    deep: Any = 1
    for _ in range(400):
        deep = [deep]
    done = _sent(running, CLICK | {"properties": {"x": deep}}, CLICK)
    assert (done["accepted"], [one["index"] for one in done["rejected"]]) == (1, [0])


@pytest.mark.parametrize(
    ("timestamp", "sent_at", "ago"),
    [
        ("2020-01-01T00:00:00Z", "2020-01-01T02:00:00Z", timedelta(hours=2)),  # six years late
        ("2040-01-01T00:00:00Z", "2040-01-01T00:00:00Z", timedelta(0)),  # years early
        ("2026-01-01T00:00:00Z", "1970-01-01T00:00:00Z", timedelta(0)),  # sent before it happened
    ],
)
def test_clocks_are_corrected_and_nothing_comes_from_the_future(
    running: Client, worker: Worker, timestamp: str, sent_at: str, ago: timedelta
) -> None:
    _sent(running, CLICK | {"timestamp": timestamp}, sentAt=sent_at)
    with reading(worker.engine) as session:
        occurred_at = session.exec(select(Outcome.occurred_at)).one()
    assert abs(datetime.now(UTC) - ago - occurred_at) < timedelta(minutes=1)


def test_clocks_that_are_none_break_nothing(running: Client) -> None:
    absurd = CLICK | {"timestamp": "0001-01-01T00:00:00Z"}
    done = _sent(running, absurd, CLICK, sentAt="9999-12-31T23:59:59Z")
    assert (done["accepted"], [one["index"] for one in done["rejected"]]) == (1, [0])


def test_what_is_too_large_is_said_in_segments_words(running: Client) -> None:
    answer = running.post("/v1/batch", data=b" " * 600_000)
    assert answer.status_code == 413
    assert {"success", "code", "message"} <= answer.get_json().keys()


def test_a_page_joins_nobody_and_is_told_so(running: Client, worker: Worker) -> None:
    with transaction(worker.engine) as session:
        pages = Pages(["https://shop.example"], ["click"])
        _, key = create_key(session, "page", scopes=["record"], actor="test", pages=pages)
    worker.snapshots.refresh()
    page = Client(running.flask, key)
    message = {"userId": "anna", "anonymousId": "visitor"}
    answer = page.post("/v1/i", message, headers={"Origin": "https://shop.example"}).get_json()
    assert (answer["accepted"], answer["ignored"]) == (0, 1)
    with reading(worker.engine) as session:
        assert session.exec(select(Alias)).all() == []


def test_hundreds_of_sign_ins_are_few_transactions(running: Client, worker: Worker) -> None:
    _sent(running, {"type": "alias", "userId": "c", "previousId": "v"})
    commits: list[int] = []
    event.listen(worker.engine, "commit", lambda _connection: commits.append(1))
    people = [{"type": "identify", "userId": f"c{n}", "anonymousId": f"v{n}"} for n in range(250)]
    assert _sent(running, *people)["accepted"] == 250
    with reading(worker.engine) as session:
        assert session.exec(select(func.count()).select_from(Alias)).one() == 251
    assert len(commits) <= 20  # 3 of links, and whatever else goes on


def test_many_outcomes_that_join_ids_are_few_transactions(running: Client, worker: Worker) -> None:
    _sent(running, {"type": "alias", "userId": "c", "previousId": "v"})
    commits: list[int] = []
    event.listen(worker.engine, "commit", lambda _connection: commits.append(1))
    outcomes = [{"customer_id": f"c{n}", "anonymous_id": f"v{n}", "event": "click"} for n in range(250)]
    assert running.post("/v1/outcomes", {"outcomes": outcomes}).get_json()["accepted"] == 250
    assert len(commits) <= 20
