"""POST /v1/decisions and the batch door."""

from typing import Any

import pytest

from tests.api.conftest import EXPERIMENT, PLACEMENT, Client, assert_problem, pointers


def test_a_decision_says_what_to_show_and_why(running: Client) -> None:
    decided = running.decide("c1", attributes={"first_name": "Ada"})
    assert set(decided) == {
        *("decision_id", "placement", "customer_id", "segment", "experiment", "variant", "deliver", "content"),
        *("source", "reason", "propensity", "allocation_version", "recorded", "decide_after"),
    }
    assert decided["content"] == {"text": {"a": "Hi Ada", "b": "A gift inside"}[decided["variant"]]}
    assert (decided["source"], decided["experiment"], decided["segment"]) == ("experiment", "subject", "everyone")
    assert (decided["propensity"], decided["allocation_version"], decided["recorded"]) == (0.5, 1, True)


def test_a_customer_keeps_the_variant(running: Client) -> None:
    first = running.decide("c1")
    assert [running.decide("c1") for _ in range(3)] == [first] * 3


def test_several_placements_are_decided_in_one_call(running: Client) -> None:
    running.put("/v1/placements/hero", PLACEMENT)
    answer = running.post("/v1/decisions", {"placements": ["welcome", "hero"], "customer_id": "c1"})
    assert [one["placement"] for one in answer.get_json()["decisions"]] == ["welcome", "hero"]


def test_an_unknown_placement_among_several_decides_nothing(welcome: Client) -> None:
    answer = welcome.post("/v1/decisions", {"placements": ["welcome", "nowhere"], "customer_id": "c1"})
    assert_problem(answer, 404, "placement_not_found")


def test_a_preview_shows_a_variant_and_records_nothing(running: Client) -> None:
    decided = running.decide("c1", preview="b")
    assert (decided["variant"], decided["source"], decided["recorded"]) == ("b", "preview", False)
    assert decided["decision_id"] is None


def test_a_preview_of_no_variant_is_refused(welcome: Client) -> None:
    body = {"placement": "welcome", "customer_id": "c1", "preview": "nothing"}
    assert_problem(welcome.post("/v1/decisions", body), 404, "variant_not_found")


BAD: list[tuple[dict[str, Any], str]] = [
    ({"customer_id": "c"}, "/placement"),
    ({"placement": "welcome", "placements": ["welcome"], "customer_id": "c"}, "/placement"),
    ({"placement": "welcome"}, "/customer_id"),
    ({"placement": "welcome", "customer_id": 7}, "/customer_id"),
    ({"placement": "welcome", "customer_id": ""}, "/customer_id"),
    ({"placement": "welcome", "customer_id": "x" * 10_000}, "/customer_id"),
    ({"placement": "welcome", "customer_id": "a\x00b"}, "/customer_id"),
    ({"placement": "welcome", "customer_id": "c", "occasion_id": "x" * 10_000}, "/occasion_id"),
    ({"placement": "welcome", "customer_id": "c", "occasion_id": 1}, "/occasion_id"),
    ({"placement": "welcome", "customer_id": "c", "attribute": {}}, "/attribute"),
    ({"placement": "welcome", "customer_id": "c", "attributes": []}, "/attributes"),
    ({"placement": "welcome", "customer_id": "c", "attributes": {"age": "old"}}, "/attributes/age"),
    ({"placement": "welcome", "customer_id": "c", "attributes": {"x": "a\x00"}}, "/attributes/x"),
    ({"placement": "x" * 10_000, "customer_id": "c"}, "/placement"),
    ({"placement": "welcome", "customer_id": "c", "preview": {}}, "/preview"),
    ({"placement": "welcome", "customer_id": "c", "preview": ""}, "/preview"),
    ({"placement": "welcome", "customer_id": "c", "preview": 1}, "/preview"),
    ({"placement": "welcome", "customer_id": "c", "preview": "x" * 129}, "/preview"),
    ({"placements": [], "customer_id": "c"}, "/placements"),
    ({"placements": ["welcome"] * 21, "customer_id": "c"}, "/placements"),
]


def test_every_bad_field_is_named_by_its_pointer(welcome: Client) -> None:
    welcome.put("/v1/attributes/age", {"type": "number"})
    for body, pointer in BAD:
        problem = assert_problem(welcome.post("/v1/decisions", body), 422, "invalid_input")
        assert pointers(problem) == {pointer}, body
        assert len(problem["errors"]) == 1
        assert len(problem["detail"]) < 1_000


@pytest.mark.parametrize("body", ["null", "7", "[]", '"text"'])
def test_a_body_that_is_no_object_is_refused(welcome: Client, body: str) -> None:
    answer = welcome.post("/v1/decisions", data=body, content_type="application/json")
    assert pointers(assert_problem(answer, 422, "invalid_input")) == {""}


UNREADABLE = {
    "empty": b"",
    "broken": b'{"placement": "welcome",',
    "not a number": b'{"placement": "welcome", "customer_id": "c", "attributes": {"x": NaN}}',
    "infinite": b'{"placement": "welcome", "customer_id": "c", "attributes": {"x": Infinity}}',
    "too large a number": b'{"placement": "welcome", "customer_id": "c", "attributes": {"x": 1e999}}',
    "lone surrogate": b'{"placement": "welcome", "customer_id": "\\ud800"}',
    "not UTF-8": b'{"placement": "welcome", "customer_id": "\xff"}',
    "too deep": b"[" * 100_000,
}


def test_what_is_no_json_is_refused(welcome: Client) -> None:
    for name, data in UNREADABLE.items():
        answer = welcome.post("/v1/decisions", data=data, content_type="application/json")
        assert answer.status_code in ({400, 422} if "number" in name else {400}), name
        assert answer.content_type == "application/problem+json"


def test_deep_attributes_are_refused(welcome: Client) -> None:
    deep: dict[str, Any] = {}
    for _ in range(200):
        deep = {"a": deep}
    answer = welcome.post("/v1/decisions", {"placement": "welcome", "customer_id": "c", "attributes": deep})
    assert_problem(answer, 422, "invalid_input")


def test_a_body_over_a_megabyte_is_refused(welcome: Client) -> None:
    body = {"placement": "welcome", "customer_id": "c", "attributes": {"x": "y" * 1_000_001}}
    assert_problem(welcome.post("/v1/decisions", body), 413, "body_too_large")


def test_a_body_of_another_kind_is_refused(welcome: Client) -> None:
    answer = welcome.post("/v1/decisions", data="placement=welcome", content_type="application/x-www-form-urlencoded")
    assert_problem(answer, 415, "unsupported_media_type")
    gzipped = welcome.post(
        "/v1/decisions", data=b"\x1f\x8b", content_type="application/json", headers={"Content-Encoding": "gzip"}
    )
    assert_problem(gzipped, 415, "unsupported_media_type")


def test_a_batch_answers_each_item_in_its_place(running: Client) -> None:
    items = [{"customer_id": f"c{i}"} for i in range(600)]
    items[5] = {"customer_id": 7}  # type: ignore[dict-item]
    items[550] = {"customer_id": "c", "shoe_size": "44"}
    answer = running.post("/v1/decisions/batch", {"placement": "welcome", "items": items})
    decisions = answer.get_json()["decisions"]
    assert len(decisions) == 600
    assert {i: one["error"]["code"] for i, one in enumerate(decisions) if "error" in one} == {
        5: "invalid_input",
        550: "invalid_input",
    }
    assert decisions[550]["error"]["errors"][0]["pointer"] == "/shoe_size"
    assert decisions[0] == running.decide("c0")
    assert all(one["recorded"] for one in decisions if "error" not in one)


def test_a_batch_on_an_unknown_placement_is_refused(welcome: Client) -> None:
    answer = welcome.post("/v1/decisions/batch", {"placement": "nowhere", "items": [{"customer_id": "c"}]})
    assert_problem(answer, 404, "placement_not_found")


def test_a_batch_of_more_than_ten_thousand_is_refused(welcome: Client) -> None:
    answer = welcome.post("/v1/decisions/batch", {"placement": "welcome", "items": [1] * 10_001})
    assert pointers(assert_problem(answer, 422, "invalid_input")) == {"/items"}


def test_a_decision_can_be_explained(running: Client) -> None:
    running.put("/v1/attributes/age", {"type": "number"})
    decided = running.decide("c1", attributes={"age": 40})
    running.post("/v1/outcomes", {"decision_id": decided["decision_id"], "event": "click"})
    why = running.get(f"/v1/decisions/{decided['decision_id']}").get_json()
    assert why["variant"] == decided["variant"]
    assert why["attributes"] == {"age": 40}
    assert why["allocation"]["weights"] == {"a": 0.5, "b": 0.5}
    assert [(one["metric"], one["n_outcomes"]) for one in why["responses"]] == [("click", 1)]


@pytest.mark.parametrize("decision_id", ["0" * 32, "x", "0" * 10_000, "%00", "é"])
def test_a_decision_that_is_not_stored_is_not_found(client: Client, decision_id: str) -> None:
    assert client.get(f"/v1/decisions/{decision_id}").status_code == 404


def test_the_best_of_every_segment_is_told_without_recording(running: Client) -> None:
    (segment,) = running.get("/v1/placements/welcome/best").get_json()["segments"]
    assert (segment["segment"], segment["source"], segment["variant"]) == ("everyone", "experiment", "a")
    assert segment["content"] == EXPERIMENT["variants"][0]["content"]  # type: ignore[index]
    assert segment["probability"] is None


def test_an_override_is_served_until_it_is_deleted(running: Client) -> None:
    path = "/v1/placements/welcome/overrides/qa/one"
    variant = {"a": "b", "b": "a"}[running.decide("qa/one")["variant"]]
    assert running.put(path, {"variant": variant}).status_code == 200
    decided = running.decide("qa/one")
    assert (decided["variant"], decided["source"], decided["recorded"]) == (variant, "override", False)
    listed = running.get("/v1/placements/welcome/overrides").get_json()["items"]
    assert [one["customer_id"] for one in listed] == ["qa/one"]
    assert running.ask("DELETE", path).status_code == 204
    assert running.decide("qa/one")["source"] == "experiment"
    assert_problem(running.ask("DELETE", path), 404, "override_not_found")
