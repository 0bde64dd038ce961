"""Traces of a server as a collector gets them, decoded with OpenTelemetry's own messages."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import grpc
import pytest
from opentelemetry import propagate, trace
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON, Decision, TraceIdRatioBased
from tests.protocol.conftest import NOW_US
from tests.protocol.watched import Collector, collector, watched
from tritonclient.grpc import service_pb2

from headrace.config import load_config
from headrace.errors import HeadraceError
from headrace.traces import traces_of

PREDICT = "/v1/deployments/late/predict"
PHASES = {"read", "decode", "lookup", "transform", "queue", "model", "encode"}


def spans_of(taken: Collector) -> tuple[list[Span], dict[str, str]]:
    """All spans, and the attributes of what they come from."""
    spans: list[Span] = []
    resource: dict[str, str] = {}
    for body in taken.bodies:
        request = ExportTraceServiceRequest()
        request.ParseFromString(body)
        assert request.SerializeToString() == body, "there is no field that OTLP does not know"
        for group in request.resource_spans:
            resource = {one.key: one.value.string_value for one in group.resource.attributes}
            for scope in group.scope_spans:
                assert scope.scope.name == "headrace"
                spans += scope.spans
    return spans, resource


def attributes_of(span: Span) -> dict[str, Any]:
    return {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in span.attributes}


def context_of(sampler: Any) -> tuple[dict[str, str], trace.SpanContext]:
    """The headers that a caller with the SDK sends along, and its span."""
    tracer = TracerProvider(sampler=sampler).get_tracer("caller")
    with tracer.start_as_current_span("call") as span:
        headers: dict[str, str] = {}
        propagate.inject(headers)
        return headers, span.get_span_context()


def test_a_callers_trace_goes_on_over_http_and_grpc(project: Path, rows: Any) -> None:
    sampled, caller = context_of(ALWAYS_ON)
    unsampled, _ = context_of(ALWAYS_OFF)
    with collector() as taken:
        environment = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{taken.address}",
            "OTEL_EXPORTER_OTLP_HEADERS": "x-key=hid%20den",
            "OTEL_SERVICE_NAME": "flights",
            "OTEL_RESOURCE_ATTRIBUTES": "deployment.environment.name=test,broken",
            "OTEL_TRACES_SAMPLER": "parentbased_always_off",
        }
        with watched(project, NOW_US, environment) as server:
            assert server.ask(PREDICT, rows, {**sampled, "x-request-id": "r-1"})[0] == 200
            assert server.ask(PREDICT, {"entities": {"nothing": [1]}}, sampled)[0] == 400
            assert server.ask(PREDICT, rows, unsampled)[0] == 200
            assert server.ask(PREDICT, rows)[0] == 200
            with grpc.insecure_channel(server.grpc) as channel:
                infer = channel.unary_unary(
                    "/inference.GRPCInferenceService/ModelReady",
                    request_serializer=service_pb2.ModelReadyRequest.SerializeToString,
                    response_deserializer=service_pb2.ModelReadyResponse.FromString,
                )
                assert infer(service_pb2.ModelReadyRequest(name="late"), metadata=list(sampled.items())).ready
    spans, resource = spans_of(taken)
    assert {one["path"] for one in taken.headers} == {"/v1/traces"}
    assert {one["x-key"] for one in taken.headers} == {"hid den"}
    assert (resource["service.name"], resource["deployment.environment.name"]) == ("flights", "test")
    requests = [span for span in spans if span.kind == Span.SPAN_KIND_SERVER]
    assert len(requests) == 3, "the two that are not sampled leave none"
    for span in spans:
        assert int.from_bytes(span.trace_id, "big") == caller.trace_id
        assert 0 < span.start_time_unix_nano <= span.end_time_unix_nano
    for span in requests:
        assert int.from_bytes(span.parent_span_id, "big") == caller.span_id
    assert len({span.span_id for span in spans}) == len(spans)
    predicted, refused, called = requests
    assert predicted.name == "POST /v1/deployments/{model}/predict"
    told = attributes_of(predicted)
    assert (told["http.response.status_code"], told["url.path"], told["headrace.request.rows"]) == (200, PREDICT, 3)
    assert (told["headrace.model.name"], told["headrace.model.version"]) == ("late", "2")
    assert told["headrace.request.id"] == "r-1"
    assert 0 < told["headrace.request.cost_seconds"] < 60
    phases = [span for span in spans if span.parent_span_id == predicted.span_id]
    assert {"decode", "lookup", "model", "encode"} <= {span.name for span in phases} <= PHASES
    assert all(span.kind == Span.SPAN_KIND_INTERNAL for span in phases)
    assert (attributes_of(refused)["http.response.status_code"], refused.status.code) == (400, 0)
    assert attributes_of(refused)["error.type"] == "unknown_entity"
    assert called.name == "inference.GRPCInferenceService/ModelReady"
    assert attributes_of(called)["rpc.grpc.status_code"] == 0


def test_a_ratio_decides_as_the_sdk_does(project: Path) -> None:
    with collector() as taken:
        environment = {
            "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": f"http://{taken.address}/v1/traces",
            "OTEL_TRACES_SAMPLER": "traceidratio",
            "OTEL_TRACES_SAMPLER_ARG": "0.5",
        }
        callers = [context_of(ALWAYS_OFF) for _ in range(60)]
        with watched(project, NOW_US, environment) as server:
            for headers, _ in callers:
                server.ask("/v2/health/live", headers=headers)
    spans, resource = spans_of(taken)
    sampler = TraceIdRatioBased(0.5)
    expected = {
        context.trace_id
        for _, context in callers
        if sampler.should_sample(None, context.trace_id, "").decision is Decision.RECORD_AND_SAMPLE
    }
    assert {int.from_bytes(span.trace_id, "big") for span in spans} == expected
    assert resource["service.name"] == "headrace-served"


def test_without_an_endpoint_or_when_disabled_nothing_is_traced(project: Path) -> None:
    with collector() as taken:
        environment = {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{taken.address}", "OTEL_SDK_DISABLED": "true"}
        with watched(project, NOW_US, environment) as server:
            server.ask("/v2/health/live")
            assert "headrace_traces" not in server.metrics_page()
    assert taken.bodies == []


def settings_of(project: Path, tmp_path: Path, text: str, **environment: str) -> dict[str, Any] | None:
    (tmp_path / "headrace.toml").write_text(text)
    return traces_of(load_config(tmp_path, {}), environment)


def test_settings_go_before_the_variables_of_opentelemetry(project: Path, tmp_path: Path) -> None:
    variables = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": "http://there:4318/base/",
        "OTEL_SERVICE_NAME": "outer",
        "OTEL_TRACES_SAMPLER": "always_off",
    }
    assert settings_of(project, tmp_path, "") is None
    found = settings_of(project, tmp_path, "", **variables)
    assert found is not None
    assert (found["endpoint"], found["ratio"], found["is_parent_based"]) == (
        "http://there:4318/base/v1/traces",
        0.0,
        False,
    )
    (tmp_path / "key").write_text(" of a file\n")
    text = """
        [traces]
        endpoint = "http://here:1"
        sampler = "parentbased_traceidratio"
        sample = 0.25
        service_name = "own"
        headers = {a = "env:KEY", b = "file:key", c = "plain"}
    """
    found = settings_of(project, tmp_path, text, KEY="of env", **variables)
    assert found is not None
    assert (found["endpoint"], found["ratio"], found["is_parent_based"]) == ("http://here:1", 0.25, True)
    assert dict(found["resource"])["service.name"] == "own"
    assert found["headers"] == [("a", "of env"), ("b", "of a file"), ("c", "plain")]
    assert settings_of(project, tmp_path, text, OTEL_TRACES_EXPORTER="none", KEY="") is None


@pytest.mark.parametrize(
    ("text", "environment", "part"),
    [
        ('[traces]\nendpoint = "http://h:1"\nsampler = "sometimes"', {}, "sometimes"),
        ('[traces]\nendpoint = "http://h:1"\nheaders = {a = "env:NOT_SET"}', {}, "NOT_SET"),
        ('[traces]\nendpoint = "http://h:1"\nheaders = {a = "file:none"}', {}, "traces.headers.a"),
        (
            '[traces]\nendpoint = "http://h:1"',
            {"OTEL_TRACES_SAMPLER": "traceidratio", "OTEL_TRACES_SAMPLER_ARG": "x"},
            "'x'",
        ),
    ],
)
def test_what_is_wrong_in_the_settings_is_named(
    project: Path, tmp_path: Path, text: str, environment: dict[str, str], part: str
) -> None:
    with pytest.raises(HeadraceError, match=part):
        settings_of(project, tmp_path, text, **environment)
