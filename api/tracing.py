"""OpenTelemetry spans of requests and decisions, only where an exporter is configured; nothing is imported before.

A span says the route's template and never an address, an id of a customer or a key.
"""

import os
import threading
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import structlog
from flask import Flask, Response, has_request_context

from api.metrics import VERSION, observers
from api.requests import current_request
from experiments.decide import Decided

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Tracer
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

log = structlog.get_logger(__name__)

SERVICE: Final = "optimizer"
_ENDPOINTS: Final = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
_PROTOCOLS: Final = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
_METHODS: Final = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}
_REASONS: Final = {
    "experiment": "split",
    "policy": "split",
    "holdout": "targeting_match",
    "override": "targeting_match",
    "preview": "targeting_match",
    "default": "default",
}
_MAX_EVENTS: Final = 20  # of one request: lists have none
_STOP_SECONDS: Final = 2.0


def start_tracing() -> "TracerProvider | None":
    """Begin to export spans as OpenTelemetry's variables say, in a thread; None where they name no endpoint.

    To be called in the process that makes the spans, after the fork.
    """
    if not _is_configured():
        return None
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    ours = Resource({"service.version": VERSION})
    said = Resource.create()
    if str(said.attributes["service.name"]).startswith("unknown_service"):
        ours = ours.merge(Resource({"service.name": SERVICE}))
    provider = TracerProvider(resource=said.merge(ours), shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return provider


def stop_tracing(provider: "TracerProvider") -> None:
    """Export what is left, if that takes no more than a moment: the process is about to end."""
    stopping = threading.Thread(target=provider.shutdown, name="stop-tracing", daemon=True)
    stopping.start()
    stopping.join(timeout=_STOP_SECONDS)


def trace_requests(app: Flask, provider: "TracerProvider") -> None:
    """Give each request of an app a span, and each of its decisions an event."""
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    tracer = provider.get_tracer(SERVICE, VERSION)
    app.before_request(partial(_begin, tracer, TraceContextTextMapPropagator()))
    app.after_request(_end)
    if _note not in observers:
        observers.append(_note)


def _is_configured() -> bool:
    environ = os.environ
    is_off = environ.get("OTEL_SDK_DISABLED", "").lower() == "true" or environ.get("OTEL_TRACES_EXPORTER") == "none"
    if is_off or not any(environ.get(name) for name in _ENDPOINTS):
        return False
    protocol = next((environ[name] for name in _PROTOCOLS if environ.get(name)), "http/protobuf")
    if protocol != "http/protobuf":
        log.warning("traces_not_exported", protocol=protocol, known="http/protobuf")
    return protocol == "http/protobuf"


def _begin(tracer: "Tracer", propagator: "TraceContextTextMapPropagator") -> None:
    from opentelemetry.trace import SpanKind

    request = current_request()
    carried = {name: value for name in ("traceparent", "tracestate") if (value := request.headers.get(name))}
    method = request.method if request.method in _METHODS else "_OTHER"
    attributes = {"http.request.method": method, "url.scheme": request.scheme}
    name = method.replace("_OTHER", "HTTP")
    if request.url_rule is not None:
        attributes["http.route"] = request.url_rule.rule
        name = f"{name} {request.url_rule.rule}"
    context = propagator.extract(carried)
    request.span = tracer.start_span(name, context=context, kind=SpanKind.SERVER, attributes=attributes)


def _end(answer: Response) -> Response:
    from opentelemetry.trace import StatusCode

    span = current_request().span
    if span is not None:
        span.set_attribute("http.response.status_code", answer.status_code)
        if answer.status_code >= 500:
            span.set_attribute("error.type", str(answer.status_code))
            span.set_status(StatusCode.ERROR)
        span.end()
    return answer


def _note(decisions: Sequence[Decided]) -> None:
    """An event of the feature-flag conventions for each decision, without whom it is about."""
    if not has_request_context() or len(decisions) > _MAX_EVENTS:
        return
    span = current_request().span
    if span is not None and span.is_recording():
        for decided in decisions:
            span.add_event("feature_flag.evaluation", _evaluation(decided))


def _evaluation(decided: Decided) -> dict[str, Any]:
    said = {
        "feature_flag.key": decided.placement,
        "feature_flag.provider.name": SERVICE,
        "feature_flag.result.variant": decided.variant,
        "feature_flag.result.reason": "stale" if decided.reason == "snapshot_stale" else _REASONS[decided.source],
        "feature_flag.set.id": decided.experiment,
        "feature_flag.version": None if decided.allocation_version is None else str(decided.allocation_version),
    }
    return {name: value for name, value in said.items() if value is not None}
