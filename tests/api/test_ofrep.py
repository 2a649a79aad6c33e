"""The OpenFeature doors as OFREP 0.3.0 describes them, with the members that its published clients look for."""

from typing import Any

import pytest
from sqlmodel import func, select
from werkzeug.test import TestResponse

from experiments.database import reading, transaction
from experiments.tables import Decision, Series
from experiments.worker import Worker
from tests.api.conftest import Client

ONE = "/ofrep/v1/evaluate/flags/welcome"
ALL = "/ofrep/v1/evaluate/flags"
ANNA = {"context": {"targetingKey": "anna", "first_name": "Anna"}}


def _n_decisions(worker: Worker) -> int:
    with reading(worker.engine) as session:
        return session.exec(select(func.count()).select_from(Decision)).one()


def _flag(answer: TestResponse, key: str) -> dict[str, Any]:
    (found,) = [flag for flag in answer.get_json()["flags"] if flag["key"] == key]
    return dict(found)


def test_one_flag_is_decided_and_recorded(running: Client, worker: Worker) -> None:
    flag = running.post(ONE, ANNA).get_json()
    assert flag["value"] in {"Hi Anna", "A gift inside"}
    assert (flag["key"], flag["reason"]) == ("welcome", "SPLIT")
    assert flag["metadata"]["recorded"] is True
    assert flag["variant"] == running.decide("anna")["variant"]
    assert all(isinstance(value, bool | str | int | float) for value in flag["metadata"].values())
    assert _n_decisions(worker) == 1


def test_all_flags_are_no_exposure_and_agree_with_the_one_that_follows(running: Client, worker: Worker) -> None:
    seen = [_flag(running.post(ALL, {"context": {"targetingKey": f"c{i}"}}), "welcome") for i in range(20)]
    assert _n_decisions(worker) == 0
    decided = [running.decide(f"c{i}")["variant"] for i in range(20)]
    assert [flag["variant"] for flag in seen] == decided
    assert len(set(decided)) == 2


def test_what_did_not_change_is_not_sent_again(running: Client) -> None:
    first = running.post(ALL, ANNA)
    etag = first.headers["ETag"]
    again = running.post(ALL, ANNA, headers={"If-None-Match": etag})
    assert (again.status_code, again.data, again.headers["ETag"]) == (304, b"", etag)
    running.decide("anna", attributes={"first_name": "Anna"})  # recording changes nothing that is shown
    assert running.post(ALL, ANNA, headers={"If-None-Match": etag}).status_code == 304
    assert running.post(ALL, {"context": {"targetingKey": "b"}}, headers={"If-None-Match": "x"}).status_code == 200


def test_an_etag_knows_the_whole_context(running: Client) -> None:
    etags = set()
    for name in ("Anna", "Berta", "Carla", "Dora"):
        context = {"targetingKey": "anna", "first_name": name}
        etags.add(running.post(ALL, {"context": context}).headers["ETag"])
    shows_the_name = running.decide("anna")["variant"] == "a"
    assert len(etags) == (4 if shows_the_name else 1)


def test_without_a_key_static_flags_have_values_and_the_others_say_why_not(running: Client) -> None:
    default = {"key": "still", "content": {"text": "Static", "size": 1.0}}
    running.put("/v1/placements/still", {"holdout": {"share": 0.0}, "default": default})
    answer = running.post(ALL, {"context": {}})
    assert answer.status_code == 200
    assert _flag(answer, "welcome")["errorCode"] == "TARGETING_KEY_MISSING"
    still = _flag(answer, "still")
    assert (still["value"], still["reason"]) == ({"text": "Static", "size": 1.0}, "STATIC")


@pytest.mark.parametrize(
    ("content", "value"),
    [({"on": True}, b"true"), ({"price": 1.0}, b"1.0"), ({"a": 1, "b": 2}, b'{"a":1,"b":2}'), ({}, b"{}")],
)
def test_a_single_scalar_is_the_value_itself_and_floats_stay_floats(
    running: Client, content: dict[str, Any], value: bytes
) -> None:
    running.put("/v1/placements/p", {"holdout": {"share": 0.0}, "default": {"key": "d", "content": content}})
    answer = running.post("/ofrep/v1/evaluate/flags/p", ANNA)
    assert b'"value":' + value in answer.data


@pytest.mark.parametrize(
    ("path", "body", "status", "code"),
    [
        (ONE, b"{", 400, "PARSE_ERROR"),
        (ONE, b"[]", 400, "INVALID_CONTEXT"),
        (ONE, b'{"context": 3}', 400, "INVALID_CONTEXT"),
        (ALL, b"{", 400, "PARSE_ERROR"),
        (ALL, b"{}", 400, "INVALID_CONTEXT"),
        (ONE, b'{"context": {}}', 400, "TARGETING_KEY_MISSING"),
        (ONE, b'{"context": {"targetingKey": 7}}', 400, "INVALID_CONTEXT"),
        (ONE, b'{"context": {"targetingKey": "a", "orders": "many"}}', 400, "INVALID_CONTEXT"),
        (ALL + "/nothing", b'{"context": {"targetingKey": "a"}}', 404, "FLAG_NOT_FOUND"),
        (ALL + "/no/thing%20here", b'{"context": {"targetingKey": "a"}}', 404, "FLAG_NOT_FOUND"),
    ],
)
def test_a_failure_has_what_every_client_looks_for(
    running: Client, path: str, body: bytes, status: int, code: str
) -> None:
    running.put("/v1/attributes/orders", {"type": "number"})
    answer = running.post(path, data=body, content_type="application/json")
    said = answer.get_json(force=True)
    assert (answer.status_code, said["errorCode"]) == (status, code)
    assert isinstance(said["errorDetails"], str)
    assert path.endswith(said["key"].replace(" ", "%20") if path != ALL else ALL)
    assert ("key" in said) == (path != ALL)
    assert said["status"] == status


def test_a_wrong_attribute_is_named(running: Client) -> None:
    running.put("/v1/attributes/orders", {"type": "number"})
    said = running.post(ONE, {"context": {"targetingKey": "a", "orders": "many"}}).get_json(force=True)
    assert "/context/orders" in said["errorDetails"]


def test_slashes_too_many_do_not_redirect(running: Client) -> None:
    assert running.post("/", ANNA, environ_overrides={"PATH_INFO": "/" + ONE}).status_code == 200
    assert running.post(ALL + "/", ANNA).status_code == 200
    assert running.post(ONE + "/", ANNA).get_json()["key"] == "welcome"


def test_an_override_is_a_match_and_a_bulk_look_knows_it(running: Client) -> None:
    running.put("/v1/placements/welcome/overrides/anna", {"variant": "b"})
    assert _flag(running.post(ALL, ANNA), "welcome")["reason"] == "TARGETING_MATCH"


@pytest.mark.parametrize(
    ("method", "path", "more", "status", "code"),
    [
        ("POST", ONE, {"headers": {"Authorization": "Bearer opt_wrong"}}, 401, "GENERAL"),
        ("POST", ONE, {"content_type": "text/plain", "data": b"{}"}, 415, "GENERAL"),
        ("POST", ONE, {"content_type": "application/json", "data": b"1" * 3_000_000}, 413, "GENERAL"),
        ("GET", ONE, {}, 405, "GENERAL"),
        ("POST", ALL + "//welcome", {"json": ANNA}, 404, "FLAG_NOT_FOUND"),
    ],
)
def test_errors_of_every_other_kind_say_it_too(
    running: Client, method: str, path: str, more: dict[str, Any], status: int, code: str
) -> None:
    """The JavaScript providers take any other body for one that isn't from a flag service."""
    headers = {"Authorization": f"Bearer {running.key}"} | more.get("headers", {})
    answer = running.flask.open(path, method=method, **(more | {"headers": headers}))
    said = answer.get_json(force=True)
    assert (answer.status_code, said["errorCode"], said["key"]) == (status, code, "welcome")
    assert isinstance(said["errorDetails"], str)


@pytest.mark.parametrize(
    "context",
    [{"targetingKey": "anna", "orders": "many"}, {"targetingKey": 7}, {"targetingKey": "a", "occasion_id": 1}],
)
def test_a_context_that_is_wrong_fails_flag_by_flag(running: Client, context: dict[str, Any]) -> None:
    """A provider in a page that gets an error goes on with what it knows of the customer before."""
    running.put("/v1/attributes/orders", {"type": "number"})
    still = {"holdout": {"share": 0.0}, "default": {"key": "still", "content": {"text": "Static"}}}
    running.put("/v1/placements/still", still)
    answer = running.post(ALL, {"context": context})
    assert answer.status_code == 200
    failed = _flag(answer, "welcome")
    assert failed["errorCode"] == "INVALID_CONTEXT"
    (wrong,) = [name for name in context if name != "targetingKey"] or ["targetingKey"]
    assert f"/context/{wrong}" in failed["errorDetails"]
    assert _flag(answer, "still")["value"] == "Static"


def test_who_is_held_out_was_targeted(running: Client) -> None:
    held_out = {"holdout": {"share": 0.5}, "default": {"key": "still", "content": {"text": "Static"}}}
    running.put("/v1/placements/still", held_out)
    flags = [running.post(ALL + "/still", {"context": {"targetingKey": f"c{i}"}}).get_json() for i in range(20)]
    said = {(flag["reason"], flag["metadata"]["source"]) for flag in flags}
    assert said == {("TARGETING_MATCH", "holdout"), ("STATIC", "default")}  # both but once in 500,000 runs


def test_what_was_stopped_is_disabled_and_still_has_the_control_as_its_value(running: Client, worker: Worker) -> None:
    customer = next(f"c{i}" for i in range(100) if running.decide(f"c{i}")["variant"] == "b")
    running.post("/v1/experiments/subject/variants", {"key": "c", "content": {"text": "Third"}})
    assert running.post("/v1/experiments/subject/variants/b/retire", {"reason": "it offends"}).status_code == 200
    worker.snapshots.refresh()
    for path in (ONE, ALL):
        flag = running.post(path, {"context": {"targetingKey": customer}}).get_json()
        flag = flag if path == ONE else flag["flags"][0]
        assert (flag["reason"], flag["variant"], flag["value"]) == ("DISABLED", "a", "Hi there")


def test_an_occasion_that_is_needed_and_not_said_leaves_the_default(running: Client, worker: Worker) -> None:
    running.put(
        "/v1/placements/mail", {"holdout": {"share": 0.0}, "default": {"key": "d", "content": {"text": "Plain"}}}
    )
    variants = [{"key": "a", "content": {"text": "A"}, "is_control": True}, {"key": "b", "content": {"text": "B"}}]
    running.put(
        "/v1/experiments/mails", {"placement": "mail", "unit": "occasion", "goal": "click", "variants": variants}
    )
    running.post("/v1/experiments/mails/start")
    with transaction(worker.engine) as session:
        for series in session.exec(select(Series).where(Series.experiment == "mails")):
            series.opens_at = series.created_at
    worker.snapshots.refresh()
    flag = running.post(ALL + "/mail", {"context": {"targetingKey": "anna"}}).get_json()
    assert (flag["reason"], flag["value"]) == ("UNKNOWN", "Plain")
    assert flag["metadata"]["explanation"] == "occasion_id_missing"
    sends = [{"context": {"targetingKey": "anna", "occasion_id": f"send-{i}"}} for i in range(20)]
    assert {running.post(ALL + "/mail", send).get_json()["value"] for send in sends} == {"A", "B"}


def test_what_cannot_be_recorded_is_asked_for_again_and_a_look_still_answers(running: Client, worker: Worker) -> None:
    worker.journal.close()
    answer = running.post(ONE, ANNA)
    assert (answer.status_code, answer.get_json(force=True)["errorCode"]) == (503, "GENERAL")
    assert int(answer.headers["Retry-After"]) >= 1  # whole seconds: two of three clients read nothing else
    assert _flag(running.post(ALL, ANNA), "welcome")["reason"] == "SPLIT"
