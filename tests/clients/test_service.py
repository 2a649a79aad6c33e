"""The service of the clients' tests itself."""

import pytest

from tests.clients.conftest import PLACEMENT, Service

pytestmark = pytest.mark.xdist_group("clients")


def test_the_service_decides(service: Service) -> None:
    with service.client() as client:
        answer = client.post("/v1/decisions", {"placement": PLACEMENT, "customer_id": "anna"})
    assert answer.body["recorded"] is True
    assert answer.body["experiment"] == "exp"
