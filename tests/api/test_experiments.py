"""The life of an experiment over HTTP."""

from tests.api.conftest import EXPERIMENT, Client, assert_problem, pointers

PATH = "/v1/experiments/subject"


def test_each_change_of_its_life_says_what_is_served_now(welcome: Client) -> None:
    assert welcome.put(PATH, EXPERIMENT).get_json()["version"] == 1
    served = {}
    for change in ("start", "pause", "resume", "conclude"):
        answer = welcome.post(f"{PATH}/{change}", {"reason": "because"})
        assert answer.status_code == 200, answer.text
        (served[change],) = answer.get_json()["now_serving"]
        decided = welcome.decide(f"c-{change}")
        assert decided["source"] == served[change]["source"], "in effect when it is answered"
    assert [line["source"] for line in served.values()] == ["experiment", "default", "experiment", "default"]
    assert served["start"]["weights"] == {"a": 0.5, "b": 0.5}
    assert welcome.get(PATH).get_json()["status"] == "concluded"
    audited = welcome.get("/v1/audit?subject=experiment/subject").get_json()["items"]
    assert [one["action"] for one in audited] == ["conclude", "resume", "pause", "start", "put"]
    assert audited[0]["reason"] == "because"


def test_a_change_that_its_state_does_not_allow_is_refused(welcome: Client) -> None:
    welcome.put(PATH, EXPERIMENT)
    for change in ("pause", "resume", "conclude"):
        assert_problem(welcome.post(f"{PATH}/{change}"), 409, "wrong_state")
    assert_problem(welcome.post("/v1/experiments/none/start"), 404, "experiment_not_found")


def test_a_running_definition_is_frozen(running: Client) -> None:
    assert_problem(running.put(PATH, EXPERIMENT | {"goal": "purchase"}), 409, "experiment_not_draft")


def test_two_experiments_cannot_have_the_same_segment(running: Client) -> None:
    running.put("/v1/experiments/second", EXPERIMENT)
    problem = assert_problem(running.post("/v1/experiments/second/start"), 409, "segment_taken")
    assert "'subject'" in problem["detail"]


def test_an_experiment_names_what_exists(welcome: Client) -> None:
    body = EXPERIMENT | {"goal": "no-metric", "segments": ["no-segment"]}
    problem = assert_problem(welcome.put(PATH, body), 422, "invalid_definition")
    assert pointers(problem) == {"/goal", "/segments/0"}


def test_content_can_be_corrected_with_a_reason(running: Client) -> None:
    etag = running.get(PATH).headers["ETag"]
    body = {"content": {"text": "A gift inside!"}, "reason": "a missing mark"}
    corrected = running.ask("PATCH", f"{PATH}/variants/b", json=body, headers={"If-Match": etag})
    assert corrected.status_code == 200, corrected.text
    shown = {running.decide(f"c{i}")["content"]["text"] for i in range(30)}
    assert shown == {"Hi there", "A gift inside!"}
    late = running.ask("PATCH", f"{PATH}/variants/b", json=body, headers={"If-Match": etag})
    assert_problem(late, 412, "precondition_failed")
    unreasoned = running.ask("PATCH", f"{PATH}/variants/b", json={"content": {"text": "x"}})
    assert pointers(assert_problem(unreasoned, 422, "invalid_input")) == {"/reason"}
    nul = running.ask("PATCH", f"{PATH}/variants/b", json=body | {"reason": "a\x00b"})
    assert pointers(assert_problem(nul, 422, "invalid_input")) == {"/reason"}


def test_variants_are_appended_and_retired_while_it_runs(running: Client) -> None:
    appended = running.post(f"{PATH}/variants", {"key": "c", "content": {"text": "Third"}})
    assert appended.status_code == 200, appended.text
    (line,) = appended.get_json()["now_serving"]
    assert set(line["weights"]) == {"a", "b", "c"}
    retired = running.post(f"{PATH}/variants/b/retire", {"reason": "it offends"})
    (line,) = retired.get_json()["now_serving"]
    assert set(line["weights"]) == {"a", "c"}
    assert_problem(running.post(f"{PATH}/variants/a/retire"), 409, "variant_stays")
    assert_problem(running.post(f"{PATH}/variants/z/retire"), 404, "experiment_variant_not_found")


def test_every_allocation_is_kept(running: Client) -> None:
    running.post(f"{PATH}/variants", {"key": "c", "content": {"text": "Third"}})
    first = running.get(f"{PATH}/allocations?limit=1").get_json()
    assert (first["items"][0]["version"], set(first["items"][0]["weights"])) == (2, {"a", "b", "c"})
    second = running.get(f"{PATH}/allocations?limit=1&cursor={first['next_cursor']}").get_json()
    assert second["items"][0]["weights"] == {"a": 0.5, "b": 0.5}
    assert second["items"][0]["reason"] == "start"
    assert running.get(f"{PATH}/allocations?segment=none").get_json()["items"] == []
    assert_problem(running.get(f"{PATH}/allocations?cursor=x"), 422, "invalid_input")


def test_experiments_are_listed(running: Client) -> None:
    running.put("/v1/experiments/another", EXPERIMENT)
    items = running.get("/v1/experiments").get_json()["items"]
    assert [(one["key"], one["status"]) for one in items] == [("another", "draft"), ("subject", "running")]
