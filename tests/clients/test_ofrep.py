"""OpenFeature's own provider for OFREP, unmodified, against the real server."""

from collections.abc import Iterator

import pytest
from openfeature import api
from openfeature.client import OpenFeatureClient
from openfeature.contrib.provider.ofrep import OFREPProvider
from openfeature.evaluation_context import EvaluationContext
from openfeature.exception import ErrorCode
from openfeature.flag_evaluation import Reason

from experiments.catalog.definition_store import put_placement
from experiments.database import transaction
from tests.clients.conftest import ACTOR, PLACEMENT, Service

pytestmark = pytest.mark.xdist_group("clients")


def _client(service: Service, key: str) -> OpenFeatureClient:
    api.set_provider(OFREPProvider(service.url, headers_factory=lambda: {"Authorization": f"Bearer {key}"}), key[:20])
    return api.get_client(key[:20])


@pytest.fixture
def client(service: Service) -> Iterator[OpenFeatureClient]:
    yield _client(service, service.key)
    api.clear_providers()


def test_a_flag_is_the_content_of_its_placement_and_is_recorded(service: Service, client: OpenFeatureClient) -> None:
    found = client.get_string_details(PLACEMENT, "?", EvaluationContext("ofrep-1", {"orders": 3}))
    assert found.error_code is None, found.error_message
    assert found.value in {"Hi", "A gift"}
    assert found.reason == Reason.SPLIT
    assert found.flag_metadata["experiment"] == "exp"
    assert found.flag_metadata["propensity"] == 0.5
    with service.client() as plain:
        decided = plain.post("/v1/decisions", {"placement": PLACEMENT, "customer_id": "ofrep-1"}).body
    assert decided["decision_id"] == found.flag_metadata["decision_id"]
    assert decided["variant"] == found.variant


def test_the_same_customer_gets_the_same_variant(client: OpenFeatureClient) -> None:
    variants = {client.get_string_details(PLACEMENT, "?", EvaluationContext("ofrep-2")).variant for _ in range(5)}
    assert len(variants) == 1


@pytest.mark.parametrize("context", [EvaluationContext(), EvaluationContext("")])
def test_without_a_targeting_key_the_client_says_so(client: OpenFeatureClient, context: EvaluationContext) -> None:
    found = client.get_string_details(PLACEMENT, "fallback", context)
    assert (found.value, found.error_code) == ("fallback", ErrorCode.TARGETING_KEY_MISSING)


def test_a_placement_that_is_not_there_is_no_flag(client: OpenFeatureClient) -> None:
    found = client.get_string_details("no/such-place", "fallback", EvaluationContext("ofrep-3"))
    assert (found.value, found.error_code) == ("fallback", ErrorCode.FLAG_NOT_FOUND)


def test_another_type_than_the_content_has_is_a_mismatch(client: OpenFeatureClient) -> None:
    found = client.get_boolean_details(PLACEMENT, default_value=True, evaluation_context=EvaluationContext("ofrep-4"))
    assert (found.value, found.error_code) == (True, ErrorCode.TYPE_MISMATCH)


def test_each_type_of_value_arrives_as_that_type(service: Service, client: OpenFeatureClient) -> None:
    """The provider compares types exactly: 1 is no float for it."""
    contents = {"price": {"amount": 1.0}, "count": {"n": 3}, "on": {"on": True}, "hero-card": {"a": 1, "b": [1.0]}}
    with transaction(service.engine) as session:
        for key, content in contents.items():
            payload = {"holdout": {"share": 0.0}, "default": {"key": "d", "content": content}}
            put_placement(session, key, payload=payload, actor=ACTOR)
    anna = EvaluationContext("anna")
    found = [
        client.get_float_details("price", 9.5, anna),
        client.get_integer_details("count", 9, anna),
        client.get_boolean_details("on", default_value=False, evaluation_context=anna),
        client.get_object_details("hero-card", {}, anna),
    ]
    assert [one.error_code for one in found] == [None] * 4
    assert [one.value for one in found] == [1.0, 3, True, {"a": 1, "b": [1.0]}]
    assert {one.reason for one in found} == {Reason.STATIC}


def test_a_wrong_key_leaves_the_application_its_default(service: Service) -> None:
    found = _client(service, "opt_wrong").get_string_details(PLACEMENT, "fallback", EvaluationContext("ofrep-5"))
    assert (found.value, found.error_code) == ("fallback", ErrorCode.GENERAL)
