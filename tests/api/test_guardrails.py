"""Guardrails over HTTP: harm is found and paused where it is done, its units get control and stay counted."""

from typing import Any

import pytest

from experiments.background import Pass, work_once
from experiments.catalog import lifecycle
from experiments.database import reading, transaction
from experiments.tables import Decision, Series
from experiments.tallies.recount import recount
from experiments.worker import Worker
from tests.api.conftest import EXPERIMENT, PLACEMENT, Client, assert_problem, pointers

PATH = "/v1/experiments/subject"
UNPAUSE = f"{PATH}/variants/b/unpause"
SEGMENTATION = {"segments": [{"key": "vip", "rule": {"attribute": "tier", "eq": "vip"}}], "otherwise": "others"}
GUARDED = EXPERIMENT | {"burn_in": 0, "guardrails": [{"metric": "unsubscribe", "max_harm": 0.02}]}


@pytest.fixture
def guarded(client: Client, worker: Worker) -> Client:
    """A client of a service whose experiment has a guardrail, over vips and others."""
    client.put("/v1/attributes/tier", {"type": "string"})
    client.put("/v1/segmentations/value", SEGMENTATION)
    client.put("/v1/placements/welcome", PLACEMENT | {"segmentation": "value"})
    assert client.put(PATH, GUARDED).status_code == 201
    with transaction(worker.engine) as session:
        changed = lifecycle.start(session, "subject", actor="test")
        series = session.get_one(Series, changed.experiment.series)
        series.opens_at = series.created_at  # so that the test needn't wait until it is in effect everywhere
    worker.snapshots.refresh()
    return client


def _decide(client: Client, n: int, *, tier: str, named: str = "c") -> list[dict[str, Any]]:
    items = [{"customer_id": f"{named}-{tier}-{i}", "attributes": {"tier": tier}} for i in range(n)]
    answer = client.post("/v1/decisions/batch", {"placement": "welcome", "items": items})
    return list(answer.get_json()["decisions"])


def _respond(client: Client, decisions: list[dict[str, Any]], *, event: str, every: int) -> None:
    """Every so many of the decisions respond."""
    outcomes = [{"decision_id": one["decision_id"], "event": event} for one in decisions[::every]]
    taken = client.post("/v1/outcomes", {"outcomes": outcomes}).get_json()
    assert taken["statuses"] == {"attributed": len(outcomes)}


def _of(decisions: list[dict[str, Any]], variant: str) -> list[dict[str, Any]]:
    return [one for one in decisions if one["variant"] == variant]


def _pass(worker: Worker) -> Pass:
    done = work_once(worker.engine, holder="only")
    assert done is not None
    worker.snapshots.refresh()
    return done


@pytest.fixture
def harmful(guarded: Client, worker: Worker) -> tuple[Client, list[dict[str, Any]]]:
    """To vips, b is clicked by all and makes every second unsubscribe; to others it does no harm. After one pass."""
    vips, others = _decide(guarded, 300, tier="vip"), _decide(guarded, 300, tier="none")
    _respond(guarded, _of(vips, "b"), event="click", every=1)
    for some, every in ((_of(vips, "b"), 2), (_of(vips, "a"), 10), (_of(others, "a"), 5), (_of(others, "b"), 5)):
        _respond(guarded, some, event="unsubscribe", every=every)
    assert _pass(worker).guarded.n_pauses == 1
    return guarded, vips


def _rows(client: Client) -> dict[str | None, dict[str, Any]]:
    (guardrail,) = client.get(f"{PATH}/results").get_json()["guardrails"]
    assert (guardrail["metric"], guardrail["max_harm"], guardrail["probability"]) == ("unsubscribe", 0.02, 0.95)
    assert guardrail["level_used"] == pytest.approx({"whole": 0.975, "segment": 0.9875})
    return {row["segment"]: row for row in guardrail["segments"]}


def test_harm_is_paused_in_its_segment_only_and_shown(
    harmful: tuple[Client, list[dict[str, Any]]], worker: Worker
) -> None:
    client, _ = harmful
    rows = _rows(client)
    assert (rows["vip"]["status"], rows["vip"]["paused_at"] is None) == ("harm", False)
    assert rows["vip"]["bound"] > 0.02
    assert (rows["others"]["status"], rows["others"]["paused_at"], rows[None]["status"]) == ("ok", None, "ok")
    shown = client.get(PATH).get_json()
    assert [(one["segment"], one["variant"], one["metric"]) for one in shown["paused"]] == [("vip", "b", "unsubscribe")]
    newest = client.get(f"{PATH}/allocations?segment=vip").get_json()["items"]
    assert next(one["weights"] for one in newest if one["reason"] == "guardrail") == {"a": 1.0, "b": 0.0}
    assert newest[0]["weights"]["b"] == 0.0, "although all click on b"
    assert client.get(f"{PATH}/allocations?segment=others").get_json()["items"][0]["weights"]["b"] > 0
    assert {one["variant"] for one in _decide(client, 50, tier="vip", named="new")} == {"a"}
    assert _pass(worker).guarded.n_pauses == 0, "once"


def test_units_that_have_it_get_control_and_stay_counted(
    harmful: tuple[Client, list[dict[str, Any]]], worker: Worker
) -> None:
    client, before = harmful
    after = _decide(client, 300, tier="vip")
    for was, now in zip(before, after, strict=True):
        assert now["decision_id"] == was["decision_id"]
        assert now["variant"] == "a"
        assert now["reason"] == ("variant_paused" if was["variant"] == "b" else was["reason"])
    held = _of(before, "b")[0]
    single = client.decide(held["customer_id"], attributes={"tier": "vip"})
    assert (single["variant"], single["reason"]) == ("a", "variant_paused")
    assert client.get(f"/v1/decisions/{held['decision_id']}").get_json()["variant"] == "b"
    _respond(client, [held], event="click", every=1)
    with reading(worker.engine) as session:
        decision = session.get_one(Decision, bytes.fromhex(held["decision_id"]))
        assert (decision.variant, decision.contradicted) == ("b", False)
        assert recount(session, int(held["decision_id"][:8], 16)).differences == []
    results = client.get(f"{PATH}/results?segment=vip").get_json()
    counted = {one["variant"]: one["n_units"] for one in results["segments"][0]["variants"]}
    assert counted["b"] == len(_of(before, "b"))
    elsewhere = _decide(client, 300, tier="none")
    assert {one["variant"] for one in elsewhere} == {"a", "b"}


def test_a_pause_is_audited_and_changes_the_version(harmful: tuple[Client, list[dict[str, Any]]]) -> None:
    client, _ = harmful
    entry = client.get("/v1/audit?subject=experiment/subject").get_json()["items"][0]
    assert (entry["actor"], entry["action"]) == ("guardrail", "pause_variant")
    assert (entry["detail"]["variant"], entry["detail"]["metric"]) == ("b", "unsubscribe")
    evidence = entry["detail"]["segments"]["vip"]
    assert evidence["bound"] > evidence["max_harm"] == 0.02
    assert entry["detail"]["version"] == client.get(PATH).get_json()["version"]


def test_a_paused_variant_comes_back_with_a_reason_and_is_judged_by_new_units(
    harmful: tuple[Client, list[dict[str, Any]]], worker: Worker
) -> None:
    client, before = harmful
    assert pointers(assert_problem(client.post(UNPAUSE, {}), 422, "invalid_input")) == {"/reason"}
    body = {"reason": "the footer was broken", "segments": ["vip"]}
    wrong = client.post(UNPAUSE, body | {"segments": ["vip", "others"]})
    assert pointers(assert_problem(wrong, 422, "invalid_input")) == {"/segments/1"}
    lifted = client.post(UNPAUSE, body)
    assert lifted.status_code == 200, lifted.text
    assert lifted.get_json()["paused"] == []
    (line,) = [line for line in lifted.get_json()["now_serving"] if line["segment"] == "vip"]
    assert line["weights"] == pytest.approx({"a": 0.5, "b": 0.5})
    again = client.decide(_of(before, "b")[0]["customer_id"], attributes={"tier": "vip"})
    assert (again["variant"], again["reason"]) == ("b", "allocated")
    assert _pass(worker).guarded.n_pauses == 0, "what paused it does not pause it again"
    row = _rows(client)["vip"]
    assert (row["status"], row["n_events"], row["paused_at"]) == ("not_yet", 0, None)
    newcomers = _decide(client, 600, tier="vip", named="new")
    _respond(client, _of(newcomers, "b"), event="unsubscribe", every=2)
    _respond(client, _of(newcomers, "a"), event="unsubscribe", every=20)
    weights = client.get(f"{PATH}/allocations?segment=vip").get_json()["items"][0]["weights"]
    assert (weights["b"] > 0.9, _pass(worker).guarded.n_pauses) == (True, 0), "control has had too few units"
    entry = client.get("/v1/audit?subject=experiment/subject").get_json()["items"][0]
    assert (entry["action"], entry["reason"]) == ("unpause_variant", "the footer was broken")


def test_only_what_is_paused_can_come_back(guarded: Client) -> None:
    body = {"reason": "it is fine"}
    assert_problem(guarded.post(UNPAUSE, body), 409, "variant_not_paused")
    assert_problem(guarded.post(f"{PATH}/variants/z/unpause", body), 404, "experiment_variant_not_found")
    assert_problem(guarded.post("/v1/experiments/none/variants/b/unpause", body), 404, "experiment_not_found")
    late = guarded.post(UNPAUSE, body, headers={"If-Match": '"99"'})
    assert_problem(late, 412, "precondition_failed")


def test_a_paused_variant_is_not_promoted_unless_forced(harmful: tuple[Client, list[dict[str, Any]]]) -> None:
    client, _ = harmful
    body = {"segments": {"vip": "b"}, "reason": "all click on it"}
    problem = assert_problem(client.post(f"{PATH}/promote", body), 409, "promotion_refused")
    assert "paused" in problem["errors"][0]["detail"]
    assert client.post(f"{PATH}/promote", body | {"force": True}).status_code == 200


def test_a_guardrail_watches_segments_of_its_experiment(guarded: Client) -> None:
    guardrails = [{"metric": "unsubscribe", "max_harm": 0.02, "segments": ["vip", "nobody"]}]
    refused = guarded.put("/v1/experiments/other", GUARDED | {"guardrails": guardrails})
    problem = assert_problem(refused, 422, "invalid_definition")
    assert pointers(problem) == {"/guardrails/0/segments/1"}
    narrower = GUARDED | {"segments": ["others"], "guardrails": [guardrails[0] | {"segments": ["vip"]}]}
    problem = assert_problem(guarded.put("/v1/experiments/other", narrower), 422, "invalid_definition")
    assert pointers(problem) == {"/guardrails/0/segments/0"}


def test_a_guardrail_that_can_never_fire_is_refused(guarded: Client) -> None:
    toothless = GUARDED | {"guardrails": [{"metric": "unsubscribe", "max_harm": 1.0}]}
    problem = assert_problem(guarded.put("/v1/experiments/other", toothless), 422, "invalid_definition")
    assert pointers(problem) == {"/guardrails/0/max_harm"}
