"""Analyses over HTTP and from the command line: asked for, waited for, read again, called off."""

import json
from collections.abc import Iterator
from dataclasses import replace

import pytest
from click.testing import CliRunner, Result
from flask import Flask

from api.app import create_app
from experiments.analyses import ask
from experiments.analyses.kinds import KINDS
from experiments.analyses.queue import claim
from experiments.analyses.runner import run_one
from experiments.cli import optimizer
from experiments.config import Config
from experiments.database import transaction
from experiments.learning.lease import LEARNING, release, take
from experiments.worker import Worker
from tests.api.conftest import EXPERIMENT, Client, assert_problem, make_key, pointers
from tests.experiments.tiny_analysis import TINY

ANALYSES = "/v1/experiments/subject/analyses"
ASKED = {"kind": "tiny", "seed": 1}


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(KINDS, "tiny", TINY)


@pytest.fixture
def restarted(config: Config, client: Client, running: Client) -> Iterator[Client]:
    """The same client of another process, started later on the same database."""
    del running
    later = Worker(config, shard=2)
    later.start()
    yield Client(create_app(config, later).test_client(), client.key)
    later.close()


def _ask(client: Client, **more: object) -> str:
    answer = client.post(ANALYSES, ASKED | more)
    assert answer.status_code == 202, answer.text
    return str(answer.get_json()["id"])


def _run(worker: Worker, holder: str = "test") -> None:
    assert run_one(worker.engine, holder=holder, on_lost=lambda: None) is not None


def test_an_analysis_is_asked_for_run_and_read_by_every_process(
    running: Client, worker: Worker, restarted: Client
) -> None:
    answer = running.post(ANALYSES, ASKED)
    asked = answer.get_json()
    assert (answer.status_code, answer.headers["Location"]) == (202, f"/v1/analyses/{asked['id']}")
    assert (asked["kind"], asked["status"], asked["progress"], asked["n_attempts"]) == ("tiny", "queued", 0.0, 0)
    assert asked["created_by"] == "key/test"
    expected = {"metric": "click", "as_of": None, "seed": 1, "does": "answer"}
    assert asked["parameters"] == expected
    waiting = restarted.get(answer.headers["Location"]).get_json()
    assert (waiting["status"], waiting["result"], waiting["started_at"]) == ("queued", None, None)
    _run(worker)
    done = restarted.get(answer.headers["Location"]).get_json()
    assert (done["status"], done["progress"], done["n_attempts"], done["error"]) == ("done", 1.0, 1, None)
    assert done["result"] == {"mean": pytest.approx(0.5118216247002567)}  # default_rng(1).random()
    assert done["created_at"] <= done["started_at"] <= done["finished_at"]


def test_the_same_request_is_the_same_analysis_until_it_is_done(running: Client, worker: Worker) -> None:
    first = _ask(running)
    assert _ask(running) == _ask(running, metric="click") == first
    assert running.post(ANALYSES, {"kind": "tiny"}).get_json()["id"] == first, "any seed will do"
    others = {_ask(running, seed=2), _ask(running, as_of="2020-01-01T00:00:00Z"), _ask(running, does="refuse")}
    assert len(others | {first}) == 4
    with transaction(worker.engine) as session:
        claim(session, holder="test", kinds=KINDS)
    assert _ask(running) == first, "it is running"
    assert running.post(f"/v1/analyses/{first}/cancel").status_code == 200
    assert _ask(running) not in others | {first}


def test_a_queued_analysis_says_what_it_waits_for(running: Client, worker: Worker) -> None:
    first, second = _ask(running), _ask(running, seed=2)

    def waits(id_: str) -> str | None:
        says: str | None = running.get(f"/v1/analyses/{id_}").get_json()["waits"]
        return says

    assert "no process that runs analyses can be seen" in (waits(first) or "")
    with transaction(worker.engine) as session:
        take(session, LEARNING, holder="the background process", seconds=60)
    assert (waits(first), waits(second)) == ("It is next.", "1 of all experiments come before it.")
    with transaction(worker.engine) as session:
        release(session, LEARNING, holder="the background process")
        claim(session, holder="optimizer analyse", kinds=KINDS)
    assert (waits(first), waits(second)) == (None, "1 of all experiments come before it.")


def test_a_failed_analysis_says_why(running: Client, worker: Worker) -> None:
    id_ = _ask(running, does="refuse")
    _run(worker)
    failed = running.get(f"/v1/analyses/{id_}").get_json()
    assert (failed["status"], failed["n_attempts"]) == ("failed", 1)
    assert failed["error"] == {"code": "analysis_refused", "detail": "There is one segment; it takes two."}


def test_analyses_are_listed_without_results_the_newest_first(running: Client, worker: Worker) -> None:
    ids = [_ask(running, seed=seed) for seed in range(3)]
    _run(worker)
    first = running.get(f"{ANALYSES}?limit=2").get_json()
    assert [one["id"] for one in first["items"]] == [ids[2], ids[1]]
    assert "result" not in first["items"][0]
    rest = running.get(f"{ANALYSES}?limit=2&cursor={first['next_cursor']}").get_json()
    assert [(one["id"], one["status"]) for one in rest["items"]] == [(ids[0], "done")]
    assert rest["next_cursor"] is None
    problem = assert_problem(running.get(f"{ANALYSES}?cursor=none"), 422, "invalid_input")
    assert pointers(problem) == {"/cursor"}
    assert_problem(running.get("/v1/experiments/none/analyses"), 404, "experiment_not_found")


def test_an_analysis_that_waits_is_called_off(running: Client, worker: Worker) -> None:
    id_ = _ask(running)
    for _ in range(2):
        cancelled = running.post(f"/v1/analyses/{id_}/cancel", {"reason": "not needed"}).get_json()
        assert cancelled["status"] == "failed"
        assert cancelled["error"] == {"code": "cancelled", "detail": "Cancelled by key/test: not needed"}
    assert run_one(worker.engine, holder="test", on_lost=lambda: None) is None
    done = _ask(running, seed=2)
    _run(worker)
    assert_problem(running.post(f"/v1/analyses/{done}/cancel"), 409, "analysis_ended")
    assert_problem(running.post("/v1/analyses/none/cancel"), 404, "analysis_not_found")


WRONG: list[tuple[dict[str, object], set[str]]] = [
    ({"kind": "horoscope"}, {"/kind"}),
    ({"kind": ["tiny"]}, {"/kind"}),
    ({"kind": None}, {"/kind"}),
    ({"seed": -1, "draws": 9}, {"/seed", "/draws"}),
    ({"as_of": "2199-01-01T00:00:00Z"}, {"/as_of"}),
    ({"kind": "hierarchy", "draws": 1}, {"/draws"}),
    ({"metric": "revenue"}, {"/metric"}),
]


def test_what_cannot_be_asked_for_is_a_problem(welcome: Client) -> None:
    welcome.put("/v1/experiments/subject", EXPERIMENT | {"metrics": ["revenue"]})
    assert_problem(welcome.post(ANALYSES, ASKED), 409, "wrong_state")
    welcome.post("/v1/experiments/subject/start", {})
    for wrong, places in WRONG:
        assert pointers(assert_problem(welcome.post(ANALYSES, ASKED | wrong), 422, "invalid_input")) == places
    problem = welcome.post(ANALYSES, {"kind": "horoscope"}).get_json()
    assert problem["errors"][0]["detail"] == "must be hierarchy or uplift or tiny, not 'horoscope'"
    assert_problem(welcome.post(ANALYSES, ASKED | {"metric": "none"}), 404, "metric_not_measured")
    assert_problem(welcome.post("/v1/experiments/none/analyses", ASKED), 404, "experiment_not_found")
    assert_problem(welcome.get("/v1/analyses/none"), 404, "analysis_not_found")
    assert welcome.get(ANALYSES).get_json()["items"] == []


def test_only_so_many_may_wait(running: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ask, "MAX_ACTIVE", 2)
    first, _ = _ask(running, seed=1), _ask(running, seed=2)
    problem = assert_problem(running.post(ANALYSES, ASKED | {"seed": 3}), 429, "too_many_analyses")
    assert problem["detail"].startswith("2 analyses of experiment 'subject' wait or run")
    assert _ask(running) == first, "the same may always be asked for"
    monkeypatch.setattr(ask, "MAX_ACTIVE", 20)
    monkeypatch.setattr(ask, "MAX_ACTIVE_IN_ALL", 2)
    problem = assert_problem(running.post(ANALYSES, ASKED | {"seed": 3}), 429, "too_many_analyses")
    assert problem["detail"].startswith("2 analyses of all experiments wait or run")


def test_analyses_need_a_key_that_may_analyse(running: Client, app: Flask, worker: Worker) -> None:
    id_ = _ask(running)
    other = Client(app.test_client(), make_key(worker, "decide", "record", name="shop"))
    for answer in (
        other.post(ANALYSES, ASKED),
        other.get(ANALYSES),
        other.get(f"/v1/analyses/{id_}"),
        other.post(f"/v1/analyses/{id_}/cancel"),
    ):
        assert_problem(answer, 403, "missing_scope")


def _analyse(config: Config, *flags: str) -> Result:
    return CliRunner().invoke(optimizer, ["analyse", "--once", "--database-url", config.database_url, *flags])


def test_an_experiment_of_one_segment_has_nothing_to_pool(running: Client) -> None:
    assert_problem(running.post(ANALYSES, {"kind": "hierarchy"}), 422, "too_few_segments")


def test_the_command_runs_what_is_queued_and_says_what_became_of_it(
    running: Client, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(KINDS, "hierarchy", replace(KINDS["hierarchy"], least_segments=1))
    said = _analyse(config)
    assert (said.exit_code, said.stdout) == (0, "Nothing was queued.\n"), said.output
    id_ = _ask(running, kind="hierarchy", as_of="2020-01-01T00:00:00Z")  # nothing had matured then
    said = _analyse(config, "--json")
    assert said.exit_code == 1, said.output
    (ended,) = json.loads(said.stdout)
    assert (ended["id"], ended["status"], ended["error"]["code"]) == (id_, "failed", "nothing_matured")
    assert running.get(f"/v1/analyses/{id_}").get_json()["error"] == ended["error"]
