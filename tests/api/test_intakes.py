"""Webhooks of email senders, signed as each documents it: trusted or refused, once each, people told from machines."""

import base64
import json
import time
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from sqlmodel import col, select
from werkzeug.test import TestResponse

from experiments.database import reading, transaction
from experiments.tables import Audit, Outcome, Response
from experiments.tallies.recount import all_series, recount
from experiments.worker import Worker
from tests.api.conftest import Client, assert_problem, pointers
from tests.senders import (
    CUSTOMERIO_KEY,
    MAILGUN_KEY,
    POSTMARK_USER,
    SENDERS,
    SENDGRID_KEY,
    Happened,
    Signed,
    as_mailgun,
    as_sendgrid,
    mailgun,
    public_key,
    sendgrid,
)

KINDS = ("delivered", "open", "click", "unsubscribe", "complaint", "bounce")


@pytest.fixture(autouse=True)
def intakes(client: Client) -> None:
    for name, (_, _, secret) in SENDERS.items():
        answer = client.put(f"/v1/intakes/{name}", {"provider": name, "secrets": [secret]})
        assert answer.status_code == 201, answer.text


def _deliver(client: Client, key: str, signed: Signed, **more: Any) -> TestResponse:
    body, headers = signed
    return client.flask.post(
        f"/v1/intakes/{key}/events", data=body, headers=headers, **({"content_type": "application/json"} | more)
    )


def _send(client: Client, sender: str, *what: Happened) -> list[dict[str, Any]]:
    form, sign, _ = SENDERS[sender]
    answers = [_deliver(client, sender, sign(form(one), at=time.time())) for one in what]
    assert [answer.status_code for answer in answers] == [200] * len(what), answers[0].text
    return [answer.get_json() for answer in answers]


def _outcomes(worker: Worker) -> list[Outcome]:
    with reading(worker.engine) as session:
        return list(session.exec(select(Outcome).order_by(col(Outcome.occurred_at))))


def _assert_recount_agrees(worker: Worker) -> None:
    with transaction(worker.engine) as session:
        for number in all_series(session):
            assert recount(session, number).differences == []


def _responses(worker: Worker) -> dict[str, int]:
    with reading(worker.engine) as session:
        return {row.metric: row.n_outcomes for row in session.exec(select(Response))}


@pytest.mark.parametrize("sender", SENDERS)
def test_every_kind_of_event_is_an_outcome_of_the_decision_that_it_names(
    sender: str, running: Client, worker: Worker
) -> None:
    decided = running.decide("anna")["decision_id"]
    now = time.time()
    what = [Happened(kind, now + i, decision_id=decided, message=f"m{i}") for i, kind in enumerate(KINDS)]
    assert [taken["accepted"] for taken in _send(running, sender, *what)] == [1] * len(KINDS)
    assert [row.event for row in _outcomes(worker)] == list(KINDS)
    assert {row.decision_id for row in _outcomes(worker)} == {bytes.fromhex(decided)}
    assert {row.machine for row in _outcomes(worker)} == {None}
    assert _responses(worker)["click"] == 1
    _assert_recount_agrees(worker)


@pytest.mark.parametrize("sender", SENDERS)
def test_a_repeat_is_a_duplicate_and_counts_nothing(sender: str, running: Client, worker: Worker) -> None:
    decided = running.decide("anna")["decision_id"]
    click = Happened("click", time.time(), decision_id=decided)
    first, second = _send(running, sender, click, click)
    assert (first["accepted"], second["accepted"], second["duplicates"]) == (1, 0, 1)
    assert _responses(worker)["click"] == 1


@pytest.mark.parametrize("sender", SENDERS)
def test_an_event_without_a_decision_goes_to_the_customer_and_without_both_is_left_aside(
    sender: str, running: Client, worker: Worker
) -> None:
    running.decide("anna")
    mine, others = _send(
        running, sender, Happened("click", time.time() + 1, customer_id="anna"), Happened("click", time.time())
    )
    assert (mine["accepted"], mine["ignored"]) == (1, 0)
    assert (others["accepted"], others["ignored"]) == (0, 1)
    (row,) = _outcomes(worker)
    assert (row.customer_id, row.status, row.source) == ("anna", "attributed", f"intake/{sender}")


@pytest.mark.parametrize("sender", SENDERS)
def test_nothing_of_the_address_is_stored(sender: str, running: Client, worker: Worker) -> None:
    _send(running, sender, Happened("click", time.time(), customer_id="anna"))
    assert "shop.example" not in repr([row.model_dump() for row in _outcomes(worker)])


@pytest.mark.parametrize("sender", SENDERS)
def test_a_wrong_key_a_changed_byte_and_no_signature_are_refused(sender: str, running: Client, worker: Worker) -> None:
    form, sign, _ = SENDERS[sender]
    event = form(Happened("click", time.time(), customer_id="anna"))
    other: Any = ec.generate_private_key(ec.SECP256R1()) if sender == "sendgrid" else "x" * 40 + ":" + "y" * 40
    assert_problem(_deliver(running, sender, sign(event, at=time.time(), key=other)), 401, "bad_signature")
    body, headers = sign(event, at=time.time())
    assert_problem(_deliver(running, sender, (json.dumps(event).encode(), {})), 401, "bad_signature")
    if sender in {"sendgrid", "customerio"}:
        for at in (0, len(body) // 2, len(body) - 1):
            changed = body[:at] + bytes([body[at] ^ 1]) + body[at + 1 :]
            assert_problem(_deliver(running, sender, (changed, headers)), 401, "bad_signature")
    if sender == "mailgun":
        said = json.loads(body)
        for name in ("timestamp", "token", "signature"):
            text = said["signature"][name]
            changed = said | {"signature": said["signature"] | {name: text[:-1] + ("0" if text[-1] != "0" else "1")}}
            answer = _deliver(running, sender, (json.dumps(changed).encode(), headers))
            assert_problem(answer, 401, "bad_signature")
    assert _outcomes(worker) == []


@pytest.mark.parametrize(("sender", "status"), [("sendgrid", 401), ("customerio", 401), ("mailgun", 406)])
def test_an_old_signature_and_one_of_the_future_are_refused(sender: str, status: int, running: Client) -> None:
    """Mailgun alone has a status that keeps it from trying again, and a later try would be older still."""
    form, sign, secret = SENDERS[sender]
    event = form(Happened("click", time.time(), customer_id="anna"))
    for seconds in (-310, 310):
        answer = _deliver(running, sender, sign(event, at=time.time() + seconds))
        assert_problem(answer, status, "stale_signature")
    assert _deliver(running, sender, sign(event, at=time.time() - 280)).status_code == 200
    changed = {"provider": sender, "secrets": [secret], "tolerance_seconds": 86_400}
    assert running.put(f"/v1/intakes/{sender}", changed).status_code == 200
    assert _deliver(running, sender, sign(event, at=time.time() - 80_000)).status_code == 200


def test_a_token_of_mailgun_works_for_one_body(running: Client, worker: Worker) -> None:
    event = as_mailgun(Happened("click", time.time(), customer_id="anna"))
    other = as_mailgun(Happened("click", time.time(), customer_id="bob"))
    at, token = time.time(), "t" * 50
    assert _deliver(running, "mailgun", mailgun(event, at=at, token=token)).get_json()["accepted"] == 1
    assert_problem(_deliver(running, "mailgun", mailgun(other, at=at, token=token)), 406, "replayed")
    assert _deliver(running, "mailgun", mailgun(event, at=at, token=token)).get_json()["duplicates"] == 1
    assert [row.customer_id for row in _outcomes(worker)] == ["anna"]


def test_a_batch_of_sendgrid_keeps_its_good_events(running: Client, worker: Worker) -> None:
    now = time.time()
    good = as_sendgrid(Happened("click", now, customer_id="anna"))
    bad: list[Any] = [
        7,
        None,
        {"event": "click"} | {"customer_id": "anna"},
        good | {"timestamp": "yesterday"},
        good | {"timestamp": 1e300},
        good | {"timestamp": True},
        good | {"sg_event_id": ""},
        good | {"sg_event_id": "x" * 300},
        good | {"decision_id": "no"},
        good | {"customer_id": "a\x00b"},
        good | {"customer_id": {"a": 1}},
    ]
    aside = [good | {"event": "processed"}, good | {"event": 7}, {"event": "deferred"}]
    answer = _deliver(running, "sendgrid", sendgrid([*bad, good, *aside], at=now))
    taken = answer.get_json()
    assert [one["index"] for one in taken["rejected"]] == list(range(len(bad)))
    assert (taken["accepted"], taken["ignored"]) == (1, len(aside))
    assert len(_outcomes(worker)) == 1


def test_a_large_batch_is_taken_whole(running: Client) -> None:
    now = time.time()
    events = [as_sendgrid(Happened("open", now, customer_id=f"c{i}", message=f"m{i}")) for i in range(1_500)]
    assert _deliver(running, "sendgrid", sendgrid(events, at=now)).get_json()["accepted"] == 1_500


def test_what_is_no_report_is_refused(running: Client) -> None:
    assert_problem(_deliver(running, "nobody", (b"{}", {})), 404, "intake_not_found")
    signed = sendgrid([], at=time.time())
    assert_problem(_deliver(running, "sendgrid", signed, content_type="text/plain"), 415, "unsupported_media_type")
    too_long = b" " * 2_000_001
    assert_problem(_deliver(running, "sendgrid", (too_long, {})), 413, "body_too_large")
    assert_problem(_deliver(running, "sendgrid", sendgrid({"event": "click"}, at=time.time())), 422, "invalid_input")
    assert _deliver(running, "sendgrid", signed).get_json()["accepted"] == 0


# Machines.


@pytest.mark.parametrize(
    ("sender", "kind", "more", "reason"),
    [
        ("sendgrid", "open", {"sg_machine_open": True}, "sender_says_machine"),
        ("sendgrid", "open", {"sg_machine_open": False}, None),
        ("sendgrid", "open", {"useragent": "Mozilla/5.0"}, "apple_privacy_proxy"),
        ("sendgrid", "open", {"useragent": "Mozilla/5.0 (Windows NT 5.1) (via ggpht.com GoogleImageProxy)"}, None),
        ("sendgrid", "click", {"useragent": "Barracuda Sentinel (EE)"}, "scanner"),
        ("sendgrid", "click", {"useragent": "Mozilla/5.0 (compatible) BingPreview/1.0b"}, "link_preview"),
        ("mailgun", "click", {"client-info": {"client-type": "robot"}}, "sender_says_machine"),
        ("mailgun", "open", {"client-info": {"client-type": "browser", "bot": "apple"}}, "sender_says_machine"),
        ("mailgun", "open", {"client-info": {"client-type": "browser", "bot": "gmail"}}, None),
        ("mailgun", "click", {"client-info": {"client-type": "browser", "bot": ""}}, None),
        ("postmark", "click", {"UserAgent": "python-requests/2.31"}, "program"),
        ("customerio", "open", {"prefetched": True, "proxied": True}, "sender_says_machine"),
        ("customerio", "open", {"prefetched": False, "proxied": True}, None),
    ],
)
def test_machines_are_kept_and_marked(
    sender: str, kind: str, more: dict[str, Any], reason: str | None, running: Client, worker: Worker
) -> None:
    (taken,) = _send(running, sender, Happened(kind, time.time(), customer_id="anna", more=more))
    assert (taken["accepted"], taken["machines"]) == (1, int(reason is not None))
    assert [row.machine for row in _outcomes(worker)] == [reason]


@pytest.mark.parametrize("click_comes_first", [False, True])
@pytest.mark.parametrize(("seconds", "is_machine"), [(2, True), (3, False)])
@pytest.mark.parametrize("sender", SENDERS)
def test_a_click_within_two_seconds_of_its_delivery_is_a_machines_whichever_comes_first(
    sender: str, seconds: int, *, is_machine: bool, click_comes_first: bool, running: Client, worker: Worker
) -> None:
    decided = running.decide("anna")["decision_id"]
    at = int(time.time())
    delivery = Happened("delivered", at, decision_id=decided)
    click = Happened("click", at + seconds, decision_id=decided)
    _send(running, sender, *([click, delivery] if click_comes_first else [delivery, click]))
    (found,) = (row for row in _outcomes(worker) if row.event == "click")
    assert found.machine == ("soon_after_delivery" if is_machine else None)
    assert _responses(worker) == {("click+machine" if is_machine else "click"): 1}
    _assert_recount_agrees(worker)


def test_the_delivery_of_another_message_marks_no_click(running: Client, worker: Worker) -> None:
    at = int(time.time())
    _send(
        running,
        "sendgrid",
        Happened("delivered", at, customer_id="anna", message="m-1"),
        Happened("click", at + 1, customer_id="anna", message="m-2"),
        Happened("click", at + 1, customer_id="anna", message="m-1", more={"email": "bob@shop.example"}),
    )
    assert {row.machine for row in _outcomes(worker)} == {None}


def test_a_persons_click_counts_beside_a_machines(running: Client, worker: Worker) -> None:
    decided = running.decide("anna")["decision_id"]
    at = time.time()
    scanner = Happened("click", at, decision_id=decided, agent="Mimecast")
    person = Happened("click", at + 60, decision_id=decided)
    _send(running, "sendgrid", scanner, person)
    assert _responses(worker) == {"click": 1, "click+machine": 1}
    _assert_recount_agrees(worker)


def test_whoever_knows_reports_a_machine(running: Client, worker: Worker) -> None:
    decided = running.decide("anna")["decision_id"]
    outcome = {"decision_id": decided, "event": "click", "machine": True}
    assert running.post("/v1/outcomes", outcome).get_json()["statuses"] == {"attributed": 1}
    assert [row.machine for row in _outcomes(worker)] == ["reported"]
    assert _responses(worker) == {"click+machine": 1}


# Intakes.


def test_secrets_never_come_back(running: Client, worker: Worker) -> None:
    answers = [running.get("/v1/intakes").text, *(running.get(f"/v1/intakes/{name}").text for name in SENDERS)]
    with reading(worker.engine) as session:
        audit = repr([row.model_dump() for row in session.exec(select(Audit))])
    for secret in (MAILGUN_KEY, CUSTOMERIO_KEY, POSTMARK_USER, public_key(SENDGRID_KEY)):
        assert secret not in audit
        assert all(secret not in text for text in answers)
    assert "intake/mailgun" in audit
    assert len(running.get("/v1/intakes").get_json()["items"]) == len(SENDERS)


@pytest.mark.parametrize("sender", SENDERS)
def test_two_secrets_live_at_once(sender: str, running: Client) -> None:
    form, sign, secret = SENDERS[sender]
    event = form(Happened("click", time.time(), customer_id="anna"))
    new: Any = ec.generate_private_key(ec.SECP256R1()) if sender == "sendgrid" else "new:" + "n" * 30
    text = public_key(new) if sender == "sendgrid" else new
    both = running.put(f"/v1/intakes/{sender}", {"provider": sender, "secrets": [text, secret]})
    assert (both.status_code, both.get_json()["n_secrets"], both.headers["ETag"]) == (200, 2, '"2"')
    assert _deliver(running, sender, sign(event, at=time.time())).status_code == 200
    assert _deliver(running, sender, sign(event, at=time.time(), key=new)).status_code == 200
    running.put(f"/v1/intakes/{sender}", {"provider": sender, "secrets": [text]})
    assert_problem(_deliver(running, sender, sign(event, at=time.time())), 401, "bad_signature")
    assert _deliver(running, sender, sign(event, at=time.time(), key=new)).status_code == 200


def test_kinds_have_the_names_that_an_intake_gives_them_or_are_not_recorded(running: Client, worker: Worker) -> None:
    events = {"click": "email_click", "open": None}
    changed = running.put("/v1/intakes/sendgrid", {"provider": "sendgrid", "events": events})
    assert changed.get_json()["events"]["click"] == "email_click"
    now = time.time()
    taken = _send(running, "sendgrid", *(Happened(kind, now, customer_id="anna") for kind in ("click", "open")))
    assert [one["ignored"] for one in taken] == [0, 1]
    assert [row.event for row in _outcomes(worker)] == ["email_click"]


def test_an_intake_that_cannot_be_is_refused(running: Client) -> None:
    p384 = public_key(ec.generate_private_key(ec.SECP384R1()))
    wrong: list[tuple[str, dict[str, Any], str]] = [
        ("sendgrid", {"secrets": ["no key"]}, "/secrets/0"),
        ("sendgrid", {"secrets": [p384]}, "/secrets/0"),
        ("sendgrid", {"secrets": [base64.b64encode(b"0").decode()]}, "/secrets/0"),
        ("mailgun", {"secrets": [MAILGUN_KEY, "short"]}, "/secrets/1"),
        ("postmark", {"secrets": ["no-colon-but-long-enough"]}, "/secrets/0"),
        ("mailgun", {"secrets": []}, "/secrets"),
        ("mailgun", {"secrets": [MAILGUN_KEY] * 3}, "/secrets"),
        ("mailgun", {}, "/secrets"),
        ("mailgun", {"secrets": [MAILGUN_KEY], "events": {"tap": "x"}}, "/events/tap"),
        ("mailgun", {"secrets": [MAILGUN_KEY], "tolerance_seconds": 0}, "/tolerance_seconds"),
        ("mailchimp", {"secrets": [MAILGUN_KEY]}, "/provider"),
    ]
    for provider, more, pointer in wrong:
        answer = running.put("/v1/intakes/new", {"provider": provider} | more)
        assert pointer in pointers(assert_problem(answer, 422, "invalid_definition")), more
    assert_problem(running.get("/v1/intakes/new"), 404, "intake_not_found")


def test_a_deleted_intake_takes_nothing(running: Client) -> None:
    assert running.ask("DELETE", "/v1/intakes/sendgrid").status_code == 204
    assert_problem(_deliver(running, "sendgrid", sendgrid([], at=time.time())), 404, "intake_not_found")
    assert_problem(running.ask("DELETE", "/v1/intakes/sendgrid"), 404, "intake_not_found")
