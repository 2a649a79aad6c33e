"""Results, promotion, policies, roll-back and the programme over HTTP."""

import pytest

from tests.api.conftest import Client, assert_problem, pointers

RESULTS = "/v1/experiments/subject/results"


@pytest.fixture
def clicked(running: Client) -> Client:
    """A client of a service whose experiment has 40 decisions, every other one clicked."""
    for i in range(40):
        decided = running.decide(f"c{i}")
        if i % 2:
            running.post("/v1/outcomes", {"decision_id": decided["decision_id"], "event": "click"})
    return running


def test_results_count_what_happened(clicked: Client) -> None:
    results = clicked.get(RESULTS).get_json()
    assert {"experiment", "metric", "as_of", "matured_share", "segments", "overall", "checks"} <= results.keys()
    variants = results["overall"]["variants"]
    assert {one["variant"] for one in variants} == {"a", "b"}
    assert sum(one["n_units"] for one in variants) == 40
    assert sum(one["n_responders"] for one in variants) == 20


def test_results_of_what_is_not_there_are_not_found(clicked: Client) -> None:
    assert_problem(clicked.get("/v1/experiments/none/results"), 404, "experiment_not_found")
    assert_problem(clicked.get(f"{RESULTS}?metric=none"), 404, "metric_not_measured")
    assert_problem(clicked.get(f"{RESULTS}?segment=none"), 404, "segment_not_found")


def test_of_two_values_none_is_picked(running: Client) -> None:
    answer = running.get(f"{RESULTS}?format=json&format=csv")
    assert pointers(assert_problem(answer, 422, "invalid_input")) == {"/format"}
    assert running.get(f"{RESULTS}?format=json&format=json").status_code == 200


@pytest.mark.parametrize(
    "as_of",
    [
        "yesterday",
        "0001-01-01T00:00:00%2B23:59",
        "0001-01-01T00:00:00Z",
        "1979-12-31T23:59:59Z",
        "9999-12-31T23:59:59-23:59",
        "1e300",
    ],
)
def test_a_moment_that_cannot_be_is_refused(running: Client, as_of: str) -> None:
    for path in (RESULTS, "/v1/programme/results"):
        problem = assert_problem(running.get(f"{path}?as_of={as_of}"), 422, "invalid_input")
        assert pointers(problem) == {"/as_of"}
    body = {"reason": "then", "as_of": as_of.replace("%2B", "+")}
    problem = assert_problem(running.post("/v1/experiments/subject/promote", body), 422, "invalid_input")
    assert pointers(problem) == {"/as_of"}


def test_a_promotion_without_proof_is_refused_unless_forced_and_can_be_rolled_back(clicked: Client) -> None:
    promote = "/v1/experiments/subject/promote"
    assert_problem(clicked.post(promote, {"reason": "I like it"}), 409, "promotion_refused")
    assert pointers(assert_problem(clicked.post(promote, {}), 422, "invalid_input")) == {"/reason"}
    body = {"segments": {"everyone": "b"}, "explore": 0.0, "reason": "I like it", "force": True}
    over = clicked.post(promote, body | {"expires_at": "2020-01-01T00:00:00Z"})
    assert pointers(assert_problem(over, 422, "invalid_input")) == {"/expires_at"}
    promoted = clicked.post(promote, body)
    assert promoted.status_code == 200, promoted.text
    (line,) = promoted.get_json()["now_serving"]
    assert (line["source"], line["weights"]) == ("policy", {"b": 1.0})
    decided = clicked.decide("somebody-new")
    assert (decided["source"], decided["variant"]) == ("policy", "b")
    (best,) = clicked.get("/v1/placements/welcome/best").get_json()["segments"]
    assert (best["source"], best["variant"], 0 <= best["probability"] <= 1) == ("policy", "b", True)
    policy = clicked.get("/v1/policies/welcome").get_json()
    assert (policy["version"], policy["entries"]["everyone"]["variant"]) == (1, "b")
    assert clicked.get("/v1/policies/welcome/results").status_code == 200
    back = clicked.post("/v1/policies/welcome/rollback", {"reason": "it was wrong"})
    assert back.get_json()["now_serving"][0]["source"] == "default"
    assert clicked.decide("somebody-else")["source"] == "default"
    assert_problem(clicked.get("/v1/policies/welcome/results"), 404, "policy_not_found")
    assert clicked.get("/v1/policies/welcome/results?version=1").get_json()["policy_version"] == 1
    assert_problem(clicked.get("/v1/policies/welcome/results?version=9"), 404, "policy_version_not_found")
    assert_problem(clicked.get("/v1/policies/welcome/results?version=0"), 422, "invalid_input")
    again = clicked.post("/v1/policies/welcome/rollback", {"reason": "and before?"})
    assert_problem(again, 409, "nothing_before")
    changes = clicked.get("/v1/audit?subject=policy/welcome").get_json()["items"]
    assert [one["action"] for one in changes] == ["rollback", "promote"]


def test_a_placement_without_a_policy_says_so(welcome: Client) -> None:
    assert welcome.get("/v1/policies/welcome").get_json()["version"] == 0
    assert_problem(welcome.get("/v1/policies/welcome/results"), 404, "policy_not_found")
    assert_problem(welcome.get("/v1/policies/none"), 404, "placement_not_found")
    problem = assert_problem(welcome.post("/v1/policies/welcome/rollback", {}), 422, "invalid_input")
    assert pointers(problem) == {"/reason"}
    answer = welcome.post("/v1/policies/welcome/rollback", {"reason": "why not"})
    assert_problem(answer, 404, "policy_not_found")


def test_the_programme_has_results(welcome: Client) -> None:
    welcome.decide("c1")
    results = welcome.get("/v1/programme/results").get_json()
    assert [one["placement"] for one in results["placements"]] == ["welcome"]
