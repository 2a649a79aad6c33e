"""Plans over HTTP and from the command line. 3,841 and 251,166 are statsmodels' and tea-tasting's."""

import json

from click.testing import CliRunner, Result

from api.app import App
from experiments.cli import optimizer
from experiments.errors import InvalidInput
from experiments.worker import Worker
from tests.api.conftest import EXPERIMENT, Client, assert_problem, make_key, pointers

NUMBERS = {"baseline": {"mean": 0.1}, "smallest_effect": 0.2, "looks": "once", "units_per_week": 1_000}


def _run(*arguments: str) -> Result:
    return CliRunner().invoke(optimizer, ["plan", *arguments])


def test_numbers_are_planned(client: Client) -> None:
    answer = client.post("/v1/plans", NUMBERS)
    assert answer.status_code == 200, answer.text
    said = answer.get_json()
    assert (said["segments"][0]["n_per_variant"], said["says"]) == (3_841, "8 weeks.")


def test_start_says_how_long_it_will_take(welcome: Client) -> None:
    welcome.put("/v1/experiments/subject", EXPERIMENT)
    body = {"experiment": "subject", "baseline": {"mean": 0.1}, "units_per_week": 1_000, "smallest_effect": 0.2}
    before = welcome.post("/v1/plans", body).get_json()
    started = welcome.post("/v1/experiments/subject/start", {}).get_json()
    assert started["plan"]["experiment"] == "subject"
    (row,) = started["plan"]["segments"]
    assert row["says"].startswith("everyone: not estimable: no unit of the last 90 days has a matured outcome here")
    assert before["weeks"] > 8, "it may be looked at at any time"
    assert "plan" not in welcome.post("/v1/experiments/subject/pause", {}).get_json()


def test_a_plan_that_cannot_be_is_a_problem(client: Client) -> None:
    problem = assert_problem(client.post("/v1/plans", NUMBERS | {"power": 2}), 422, "invalid_input")
    assert pointers(problem) == {"/power"}
    assert_problem(client.post("/v1/plans", {"experiment": "none"}), 404, "experiment_not_found")
    assert_problem(client.post("/v1/plans", {"placement": "none", "metric": "click"}), 404, "placement_not_found")


def test_planning_needs_a_key_that_may_analyse(app: App, worker: Worker) -> None:
    keys = {status: make_key(worker, scope, name=scope) for scope, status in (("decide", 403), ("analyse", 200))}
    for status, key in keys.items():
        assert Client(app.test_client(), key).post("/v1/plans", NUMBERS).status_code == status


def test_the_command_says_it_in_words_and_in_json() -> None:
    flags = ("--baseline", "0.1", "--smallest-effect", "0.2", "--looks", "once", "--units-per-week", "1000")
    said = _run(*flags)
    assert said.exit_code == 0, said.output
    assert said.stdout.startswith("everyone: 8 weeks. 3,841 units of each variant, 7,682 in all. 4 weeks can show")
    plan = json.loads(_run(*flags, "--json").stdout)
    assert plan["segments"][0]["weeks"] == 7.682
    mean = _run("--baseline", "5", "--sd", "22.360679775", "--smallest-effect", "0.05", "--looks", "once")
    assert mean.stdout.startswith("everyone: 251,166 units; how many weeks is not known")


def test_the_command_plans_what_the_database_knows(welcome: Client, database_url: str) -> None:
    welcome.put("/v1/experiments/subject", EXPERIMENT)
    flags = ("--baseline", "0.1", "--units-per-week", "1000", "--database-url", database_url)
    assert json.loads(_run("--experiment", "subject", "--json", *flags).stdout)["metric"] == "click"
    of_metric = _run("--placement", "welcome", "--metric", "click", "--segment", "everyone", *flags)
    assert of_metric.stdout.startswith("everyone: "), of_metric.output
    assert isinstance(_run("--experiment", "subject", "--variants", "3", *flags).exception, InvalidInput)
