"""Idempotency-Key, as draft-ietf-httpapi-idempotency-key-header-07 says it."""

import threading
import time
from datetime import timedelta
from typing import Any

import orjson
import pytest
from flask import Flask
from sqlmodel import select

import api.idempotency
from api.idempotency import _Body
from api.requests import current_request
from experiments.access import idempotency
from experiments.access.idempotency import Claim, Kept
from experiments.database import database_now, reading, transaction
from experiments.errors import JournalBusy
from experiments.record import Recorder
from experiments.tables import Idempotency, Outcome
from experiments.worker import Worker
from tests.api.conftest import EXPERIMENT, Client, assert_problem, make_key

CORRECTION = {
    "event": "click",
    "occurred_from": "2026-11-01T00:00:00Z",
    "occurred_to": "2026-11-02T00:00:00Z",
    "action": "exclude",
    "reason": "a robot",
}
KEYED = {"Idempotency-Key": '"8e03978e-40d5-43dd-bc93-6894a57f9324"'}
CLICK = {"customer_id": "c", "event": "click"}


def n_outcomes(worker: Worker) -> int:
    """How many are stored."""
    with reading(worker.engine) as session:
        return len(session.exec(select(Outcome.id)).all())


def _held_up(monkeypatch: pytest.MonkeyPatch) -> tuple[threading.Event, threading.Event]:
    """Recording begins, which the first event tells, and waits for the second."""
    began, go_on, record = threading.Event(), threading.Event(), Recorder.record

    def slowly(self: Recorder, *args: Any, **more: Any) -> Any:
        began.set()
        assert go_on.wait(30)
        return record(self, *args, **more)

    monkeypatch.setattr(Recorder, "record", slowly)
    return began, go_on


def rows(worker: Worker) -> list[Idempotency]:
    """All claims and answers."""
    with reading(worker.engine) as session:
        return list(session.exec(select(Idempotency)).all())


def test_a_repeat_gets_the_first_answer_and_does_nothing(welcome: Client) -> None:
    first = welcome.post("/v1/corrections", CORRECTION, headers=KEYED)
    again = welcome.post("/v1/corrections", CORRECTION, headers=KEYED)
    assert (first.status_code, again.status_code) == (202, 202)
    assert (again.get_json(), again.content_type) == (first.get_json(), first.content_type)
    assert again.headers["Idempotent-Replayed"] == "true"
    assert "Idempotent-Replayed" not in first.headers
    assert len(welcome.get("/v1/corrections").get_json()["items"]) == 1
    another = welcome.post("/v1/corrections", CORRECTION, headers={"Idempotency-Key": "another"})
    assert another.get_json()["id"] != first.get_json()["id"]


def test_headers_that_matter_are_repeated(welcome: Client) -> None:
    welcome.put("/v1/experiments/subject", EXPERIMENT)
    first = welcome.post("/v1/experiments/subject/start", {}, headers=KEYED)
    again = welcome.post("/v1/experiments/subject/start", {}, headers=KEYED)
    assert (first.status_code, again.status_code) == (200, 200)
    assert (again.data, again.headers["ETag"]) == (first.data, first.headers["ETag"])
    assert_problem(welcome.post("/v1/experiments/subject/start", {}), 409, "wrong_state")


def test_outcomes_without_ids_are_counted_once(welcome: Client, worker: Worker) -> None:
    for _ in range(3):
        assert welcome.post("/v1/outcomes", CLICK, headers=KEYED).get_json()["accepted"] == 1
    assert n_outcomes(worker) == 1
    welcome.post("/v1/outcomes", CLICK)
    assert n_outcomes(worker) == 2


@pytest.mark.parametrize(
    ("method_path", "body"),
    [("/v1/outcomes", CLICK | {"customer_id": "d"}), ("/v1/outcomes?x=1", CLICK), ("/v1/corrections", CORRECTION)],
)
def test_a_key_is_for_one_request(welcome: Client, worker: Worker, method_path: str, body: dict[str, Any]) -> None:
    welcome.post("/v1/outcomes", CLICK, headers=KEYED)
    assert_problem(welcome.post(method_path, body, headers=KEYED), 422, "idempotency_key_reused")
    assert n_outcomes(worker) == 1


def test_keys_of_callers_are_apart(welcome: Client, app: Flask, worker: Worker) -> None:
    other = Client(app.test_client(), make_key(worker, "record", name="other"))
    for client in (welcome, other):
        assert client.post("/v1/outcomes", CLICK, headers=KEYED).status_code == 200
    assert n_outcomes(worker) == 2


@pytest.mark.parametrize(
    ("one", "same"), [('"abc"', "abc"), ("abc", ' "abc" '), (r'"a\"b\\"', r'a"b' + "\\"), ("'", '"\'"')]
)
def test_quotes_may_be_left_out(welcome: Client, worker: Worker, one: str, same: str) -> None:
    welcome.post("/v1/outcomes", CLICK, headers={"Idempotency-Key": one})
    again = welcome.post("/v1/outcomes", CLICK, headers={"Idempotency-Key": same})
    assert again.headers["Idempotent-Replayed"] == "true"
    assert n_outcomes(worker) == 1


@pytest.mark.parametrize("key", ["", " ", '""', '"abc', '"a"b"', "a b", "é", "x" * 256, '"' + "x" * 256 + '"'])
def test_what_is_no_key_is_refused(welcome: Client, worker: Worker, key: str) -> None:
    answer = welcome.post("/v1/outcomes", CLICK, headers={"Idempotency-Key": key})
    assert_problem(answer, 400, "invalid_header")
    assert n_outcomes(worker) == 0


def test_what_was_wrong_stays_wrong(welcome: Client) -> None:
    first = welcome.post("/v1/corrections", CORRECTION | {"action": "x"}, headers=KEYED)
    again = welcome.post("/v1/corrections", CORRECTION | {"action": "x"}, headers=KEYED)
    assert_problem(first, 422, "invalid_input")
    assert (again.status_code, again.data, again.headers["Idempotent-Replayed"]) == (422, first.data, "true")


def test_a_server_error_is_not_kept(welcome: Client, worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    def busy(*_args: object, **_more: object) -> None:
        raise JournalBusy("the database is away")

    with monkeypatch.context() as broken:
        broken.setattr(Recorder, "record", busy)
        assert_problem(welcome.post("/v1/outcomes", CLICK, headers=KEYED), 503, "busy")
        assert rows(worker) == []
        broken.setattr(Recorder, "record", lambda *_args, **_more: 1 / 0)
        assert_problem(welcome.post("/v1/outcomes", CLICK, headers=KEYED), 500, "internal_error")
        assert rows(worker) == []
    assert welcome.post("/v1/outcomes", CLICK, headers=KEYED).status_code == 200


def test_outcomes_that_are_stored_after_a_503_count_once(
    welcome: Client, worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = Recorder.record

    def too_late(self: Recorder, *args: Any, **more: Any) -> Any:
        record(self, *args, **more)
        raise JournalBusy("the database is away")

    body = {"outcomes": [CLICK, CLICK, CLICK | {"outcome_id": "own"}]}
    monkeypatch.setattr(Recorder, "record", too_late)
    assert welcome.post("/v1/outcomes", body, headers=KEYED).status_code == 503
    monkeypatch.setattr(Recorder, "record", record)
    again = welcome.post("/v1/outcomes", body, headers=KEYED).get_json()
    assert (again["accepted"], again["duplicates"]) == (0, 3)
    assert n_outcomes(worker) == 3


def test_a_list_whose_answer_was_lost_counts_once(welcome: Client, worker: Worker) -> None:
    headers = KEYED | {"Content-Type": "text/csv"}
    clicks = b"customer_id\nanna\nanna\n"
    assert welcome.post("/v1/outcomes?event=click", data=clicks, headers=headers).get_json()["accepted"] == 2
    with transaction(worker.engine) as session:  # as if its process had been killed just before it answered
        session.delete(session.exec(select(Idempotency)).one())
    again = welcome.post("/v1/outcomes?event=click", data=clicks, headers=headers).get_json()
    assert (again["accepted"], again["duplicates"]) == (0, 2)
    unnamed = {"Content-Type": "text/csv"}
    assert welcome.post("/v1/outcomes?event=click", data=clicks, headers=unnamed).get_json()["accepted"] == 2
    assert n_outcomes(worker) == 4


def test_a_missing_scope_is_not_kept(welcome: Client, app: Flask, worker: Worker) -> None:
    decides = Client(app.test_client(), make_key(worker, "decide", name="decides"))
    assert decides.post("/v1/outcomes", CLICK, headers=KEYED).status_code == 403
    too_long = {"data": b"x" * 11_000_000, "content_type": "application/json", "headers": KEYED}
    assert welcome.ask("POST", "/v1/outcomes", **too_long).status_code == 413
    assert rows(worker) == []


def test_what_another_header_mends_is_not_kept(welcome: Client, worker: Worker) -> None:
    body = b'{"customer_id": "c", "event": "click"}'
    for kind, status in (("text/plain", 415), ("application/json", 200)):
        answer = welcome.ask("POST", "/v1/outcomes", data=body, content_type=kind, headers=KEYED)
        assert answer.status_code == status
    assert n_outcomes(worker) == 1


@pytest.mark.parametrize("length", [{}, {"HTTP_TRANSFER_ENCODING": "chunked", "wsgi.input_terminated": True}])
def test_a_body_in_chunks_is_compared_too(welcome: Client, worker: Worker, length: dict[str, Any]) -> None:
    for customer, status in (("c", 200), ("d", 422)):
        body = orjson.dumps(CLICK | {"customer_id": customer})
        for _ in range(2):
            sent = {"data": body, "content_type": "application/json", "headers": KEYED, "environ_overrides": length}
            assert welcome.ask("POST", "/v1/outcomes", **sent).status_code == status
    assert n_outcomes(worker) == 1


@pytest.mark.parametrize("length", [{}, {"HTTP_TRANSFER_ENCODING": "chunked", "wsgi.input_terminated": True}])
@pytest.mark.parametrize(
    ("n_bytes", "n_read", "is_short"), [(10, 0, True), (10, 10, True), (200_000, 7, True), (2_000_000, 7, False)]
)
def test_what_a_view_leaves_unread_is_read_if_it_is_short(
    app: Flask, length: dict[str, Any], n_bytes: int, n_read: int, *, is_short: bool
) -> None:
    with app.test_request_context("/", method="POST", data=b"x" * n_bytes, environ_overrides=length):
        body = _Body(current_request())
        assert body.read(n_read) == b"x" * n_read
        assert body.ends_within(1_000_000) == is_short


def test_of_requests_at_the_same_time_one_is_answered(
    welcome: Client, app: Flask, worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    began, go_on = _held_up(monkeypatch)
    statuses: list[int] = []
    other = Client(app.test_client(), welcome.key)
    first = threading.Thread(
        target=lambda: statuses.append(other.post("/v1/outcomes", CLICK, headers=KEYED).status_code)
    )
    first.start()
    assert began.wait(30)
    running = welcome.post("/v1/outcomes", CLICK, headers=KEYED)
    assert_problem(running, 409, "request_running")
    assert int(running.headers["Retry-After"]) == 1
    go_on.set()
    first.join()
    assert statuses == [200]
    assert welcome.post("/v1/outcomes", CLICK, headers=KEYED).headers["Idempotent-Replayed"] == "true"
    assert n_outcomes(worker) == 1


def test_a_claim_is_held_while_its_work_lasts(
    welcome: Client, worker: Worker, app: Flask, monkeypatch: pytest.MonkeyPatch
) -> None:
    began, go_on = _held_up(monkeypatch)
    monkeypatch.setattr(api.idempotency, "RENEW_SECONDS", 0.05)
    other = Client(app.test_client(), welcome.key)
    first = threading.Thread(target=lambda: other.post("/v1/outcomes", CLICK, headers=KEYED))
    first.start()
    assert began.wait(30)
    with transaction(worker.engine) as session:
        almost_over = database_now(session) + timedelta(seconds=5)
        session.exec(select(Idempotency)).one().expires_at = almost_over
    give_up_at = time.monotonic() + 10.0
    while rows(worker)[0].expires_at <= almost_over:
        assert time.monotonic() < give_up_at, "the claim was not renewed"
        time.sleep(0.05)
    go_on.set()
    first.join()
    assert welcome.post("/v1/outcomes", CLICK, headers=KEYED).headers["Idempotent-Replayed"] == "true"


def test_a_claim_of_a_killed_process_expires_after_a_minute(welcome: Client, worker: Worker) -> None:
    with transaction(worker.engine) as session:
        claimed = idempotency.claim(session, "key/test", key="left")
        assert isinstance(claimed, Claim)
        now = database_now(session)
    keyed = {"Idempotency-Key": "left"}
    assert_problem(welcome.post("/v1/outcomes", CLICK, headers=keyed), 409, "request_running")
    (row,) = rows(worker)
    assert timedelta(seconds=55) < row.expires_at - now < timedelta(seconds=65)
    with transaction(worker.engine) as session:
        session.get_one(Idempotency, ("key/test", "left")).expires_at = now
    assert welcome.post("/v1/outcomes", CLICK, headers=keyed).status_code == 200
    with transaction(worker.engine) as session:  # the dead one comes back to life
        assert idempotency.keep(session, claimed, answer=Kept(b"", 500, {}, b"")) is False
        idempotency.release(session, claimed)
    assert welcome.post("/v1/outcomes", CLICK, headers=keyed).headers["Idempotent-Replayed"] == "true"


def test_answers_are_forgotten_after_a_day(welcome: Client, worker: Worker) -> None:
    welcome.post("/v1/outcomes", CLICK, headers=KEYED)
    (row,) = rows(worker)
    with transaction(worker.engine) as session:
        left = row.expires_at - database_now(session)
        idempotency.prune(session)
        assert session.get(Idempotency, (row.caller, row.key)) is not None
        session.get_one(Idempotency, (row.caller, row.key)).expires_at -= left
    assert timedelta(hours=23, minutes=59) < left <= timedelta(hours=24)
    with transaction(worker.engine) as session:
        idempotency.prune(session)
    assert rows(worker) == []


def test_only_so_many_are_kept_the_latest_ones(
    welcome: Client, worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(idempotency, "MAX_KEPT", 3)
    for n in range(5):
        welcome.post("/v1/outcomes", CLICK, headers={"Idempotency-Key": f"k{n}"})
    with transaction(worker.engine) as session:
        idempotency.prune(session)
    assert {row.key for row in rows(worker)} == {"k2", "k3", "k4"}


def test_a_request_under_way_is_not_forgotten_for_answers(
    welcome: Client, worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(idempotency, "MAX_KEPT", 1)
    for n in range(2):
        welcome.post("/v1/outcomes", CLICK, headers={"Idempotency-Key": f"k{n}"})
    with transaction(worker.engine) as session:
        idempotency.claim(session, "key/test", key="running")
        idempotency.prune(session)
    assert {row.key for row in rows(worker)} == {"k1", "running"}
    assert_problem(welcome.post("/v1/outcomes", CLICK, headers={"Idempotency-Key": "running"}), 409, "request_running")


def test_without_the_header_nothing_is_kept(welcome: Client, worker: Worker) -> None:
    welcome.post("/v1/outcomes", CLICK)
    welcome.post("/v1/decisions", {"placement": "welcome", "customer_id": "c"}, headers=KEYED)
    assert rows(worker) == []


def test_the_documentation_says_where_it_is_honoured(welcome: Client) -> None:
    paths = welcome.get("/openapi.json").get_json()["paths"]
    named = {
        path
        for path, methods in paths.items()
        for one in methods.values()
        if any(parameter["name"] == "Idempotency-Key" for parameter in one["parameters"])
    }
    assert {"/v1/outcomes", "/v1/corrections", "/v1/experiments/{key}/start"} <= named
    assert not {"/v1/decisions", "/v1/decisions/batch", "/healthz"} & named
