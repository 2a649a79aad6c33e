"""schemathesis on the whole OpenAPI description: each door answers as it says, to good requests and to bad ones."""

from typing import Any, Final

import pytest
import schemathesis
from flask import Flask
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.checks import ignored_auth, positive_data_acceptance

from tests.api.conftest import Client

NOT_CHECKED: Final = [
    positive_data_acceptance,  # rules between fields (a known segment, either this or that) are not in a JSON schema
    ignored_auth,  # it leaves the good key beside the bad one; test_auth.py has what happens without one
]
SETTINGS: Final = settings(
    max_examples=8,
    deadline=None,
    database=None,
    derandomize=True,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
KNOWN: Final = {"key": "welcome", "variant": "a", "placement": "welcome", "customer_id": "anna"}
KNOWN_EXPERIMENT: Final = KNOWN | {"key": "subject"}


@pytest.mark.parametrize("known", [False, True], ids=["any", "known"])
@pytest.mark.filterwarnings("ignore")
@pytest.mark.timeout(600)
def test_every_door_answers_as_the_description_says(app: Flask, running: Client, *, known: bool) -> None:
    """With paths to ``known`` things, and with any."""
    _define(running)
    running.decide("anna")
    schema = schemathesis.openapi.from_wsgi("/openapi.json", app)
    for found in schema.get_all_operations():
        assert isinstance(found, Ok)
        operation = found.ok()
        path = KNOWN_EXPERIMENT if operation.path.startswith("/v1/experiments") else KNOWN
        _try(operation, key=running.key or "", path=path if known else {})


def _try(operation: Any, *, key: str, path: dict[str, str]) -> None:
    @SETTINGS
    @given(operation.as_strategy())
    def answers(case: Any) -> None:
        for name in case.path_parameters.keys() & path.keys():
            case.path_parameters[name] = path[name]
        case.call_and_validate(headers={"X-API-Key": key}, excluded_checks=NOT_CHECKED)

    answers()


def _define(client: Client) -> None:
    """Something of each kind, all by one name."""
    client.put("/v1/attributes/welcome", {"type": "number"})
    client.put("/v1/segmentations/welcome", {"segments": [], "otherwise": "rest"})
    client.put("/v1/metrics/welcome", {"event": "welcome", "kind": "count"})
