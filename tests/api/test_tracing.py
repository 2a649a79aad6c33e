"""W3C traceparent and OpenTelemetry's spans, as a collector receives them from the real server."""

import gzip
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from api.app import add_request_id
from experiments.database import open_engine
from tests.faults.shop import PLACEMENT, open_shop
from tests.server import Client, serving

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"  # W3C's own example
TRACEPARENT = f"00-{TRACE}-{PARENT}-01"


class Collector:
    """An OTLP/HTTP receiver: keeps what it is sent."""

    def __init__(self) -> None:
        self.received: list[ExportTraceServiceRequest] = []
        self.raw: list[bytes] = []
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                data = self.rfile.read(int(self.headers["Content-Length"]))
                if self.headers.get("Content-Encoding") == "gzip":
                    data = gzip.decompress(data)
                assert (self.path, self.headers["Content-Type"]) == ("/v1/traces", "application/x-protobuf")
                collector.raw.append(data)
                collector.received.append(ExportTraceServiceRequest.FromString(data))
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_args: object) -> None:
                """Say nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.server.server_port}"

    def spans(self) -> list[Span]:
        """All spans so far."""
        return [
            span
            for request in self.received
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]

    def resource(self) -> dict[str, Any]:
        """Who sends."""
        return _plain(list(self.received[0].resource_spans[0].resource.attributes))


def _plain(attributes: list[KeyValue]) -> dict[str, Any]:
    return {one.key: getattr(one.value, one.value.WhichOneof("value") or "string_value") for one in attributes}


@pytest.fixture
def collector() -> Iterator[Collector]:
    collector = Collector()
    yield collector
    collector.server.shutdown()
    collector.server.server_close()


def _configure(monkeypatch: pytest.MonkeyPatch, **variables: str) -> None:
    monkeypatch.setenv("OPTIMIZER_LEARN", "false")
    for name, value in variables.items():
        monkeypatch.setenv(name, value)


@pytest.mark.xdist_group("server")
def test_spans_reach_the_collector_continue_the_trace_and_tell_nothing_of_customers(
    sqlite_template: Path, tmp_path: Path, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "traced.db"
    path.write_bytes(sqlite_template.read_bytes())
    engine = open_engine(f"sqlite:///{path}")
    key = open_shop(engine)
    engine.dispose()
    _configure(monkeypatch, OTEL_EXPORTER_OTLP_ENDPOINT=collector.url, OTEL_BSP_SCHEDULE_DELAY="60000")
    with serving(f"sqlite:///{path}", tmp_path, n_workers=1) as server:
        client = Client(server.port, key)
        client._headers["traceparent"] = TRACEPARENT  # noqa: SLF001  # nothing else needs it
        assert client.post("/v1/decisions", {"placement": PLACEMENT, "customer_id": "secret-ann"}).status == 200
        assert client.get("/v1/placements/nowhere/decision?customer_id=secret-ann").status == 404
        client._headers["traceparent"] = "00-malformed"  # noqa: SLF001
        assert client.get(f"/v1/placements/{PLACEMENT}/decision?customer_id=secret-ann").status == 200
        client.close()
        assert server.terminate() < 10  # what is left is exported at the end
        log = server.log.read_text()
    spans = {span.name: span for span in collector.spans() if not span.name.endswith(("/readyz", "/healthz"))}
    decided = spans["POST /v1/decisions"]
    assert (decided.trace_id.hex(), decided.parent_span_id.hex()) == (TRACE, PARENT)
    assert decided.kind == Span.SPAN_KIND_SERVER
    assert _plain(list(decided.attributes)) == {
        "http.request.method": "POST",
        "http.route": "/v1/decisions",
        "http.response.status_code": 200,
        "url.scheme": "http",
    }
    (event,) = decided.events
    evaluated = _plain(list(event.attributes))
    assert event.name == "feature_flag.evaluation"
    assert evaluated["feature_flag.key"] == PLACEMENT
    assert evaluated["feature_flag.result.reason"] in {"split", "targeting_match"}
    fetched = [span for span in collector.spans() if span.name == "GET /v1/placements/<key>/decision"]
    assert sorted(_plain(list(span.attributes))["http.response.status_code"] for span in fetched) == [200, 404]
    assert {span.trace_id.hex() == TRACE for span in fetched} == {True, False}
    assert {span.status.code for span in fetched} == {Status.STATUS_CODE_UNSET}
    assert collector.resource()["service.name"] == "optimizer"
    sent = b"".join(collector.raw)
    assert b"secret-ann" not in sent
    assert key.encode() not in sent
    assert f'"trace_id":"{TRACE}"' in log  # of the line about the 404


@pytest.mark.xdist_group("server")
def test_a_collector_that_is_away_holds_up_nothing(
    sqlite_template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "traced.db"
    path.write_bytes(sqlite_template.read_bytes())
    engine = open_engine(f"sqlite:///{path}")
    key = open_shop(engine)
    engine.dispose()
    _configure(monkeypatch, OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:9", OTEL_BSP_SCHEDULE_DELAY="50")
    with serving(f"sqlite:///{path}", tmp_path, n_workers=1) as server:
        client = Client(server.port, key)
        for n in range(20):
            answer = client.post("/v1/decisions", {"placement": PLACEMENT, "customer_id": f"c{n}"})
            assert (answer.status, answer.seconds < 2) == (200, True)
            time.sleep(0.01)
        client.close()
        assert server.terminate() < 10


def test_nothing_of_it_is_imported_where_it_is_not_configured() -> None:
    script = "import sys, api.server, api.tracing; api.tracing.start_tracing(); print('opentelemetry' in sys.modules)"
    told = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert told.stdout == "False\n"


@pytest.mark.parametrize(
    ("traceparent", "trace"),
    [
        (TRACEPARENT, TRACE),
        (f"cc-{TRACE}-{PARENT}-01-what-the-future-brings", TRACE),
        (f"cc-{TRACE}-{PARENT}-01", TRACE),
        (f"00-{TRACE}-{PARENT}-01-x", None),
        (f"ff-{TRACE}-{PARENT}-01", None),
        (f"00-{'0' * 32}-{PARENT}-01", None),
        (f"00-{TRACE}-{'0' * 16}-01", None),
        (f"00-{TRACE.upper()}-{PARENT}-01", None),
        (f"00-{TRACE}-{PARENT}", None),
        ("", None),
    ],
)
def test_log_lines_name_the_trace_of_a_valid_traceparent(app: Flask, traceparent: str, trace: str | None) -> None:
    with app.test_request_context("/", headers={"traceparent": traceparent}):
        event = add_request_id(None, "info", {})
    assert event.get("trace_id") == trace
    assert event["request_id"]
