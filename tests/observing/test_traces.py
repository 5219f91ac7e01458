"""Spans as a collector gets them, over HTTP."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from stream_learner import config as configs
from stream_learner.errors import ConfigError
from stream_learner.observing.traces import NoTraces, open_traces


class Collector(ThreadingHTTPServer):
    """Keeps the bodies it was sent."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Taker)
        self.bodies: list[bytes] = []
        self.endpoint = f"http://127.0.0.1:{self.server_port}/v1/traces"


class Taker(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        assert isinstance(self.server, Collector)
        self.server.bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def collector() -> Iterator[Collector]:
    server = Collector()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def config_with(endpoint: str | None):
    return configs.parse("observing: {}" if endpoint is None else f"observing: {{traces: '{endpoint}'}}")


def test_a_slide_is_a_span_with_a_child_for_each_stage(collector):
    pytest.importorskip("opentelemetry.exporter.otlp", reason="OpenTelemetry is not here: the extra `otel`")
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    traces = open_traces(config_with(collector.endpoint))
    for number in range(2):
        for stage in ("score", "learn"):
            with traces.part(stage):
                pass
        traces.closed(slides=number, learned=40)
    with traces.whole("snapshot"):
        pass
    traces.close()
    requests = [ExportTraceServiceRequest.FromString(body) for body in collector.bodies]
    resources = [resource for request in requests for resource in request.resource_spans]
    spans = [span for resource in resources for scope in resource.scope_spans for span in scope.spans]
    assert sorted(span.name for span in spans) == ["learn", "learn", "score", "score", "slide", "slide", "snapshot"]
    slides = [span for span in spans if span.name == "slide"]
    for slide in slides:
        children = [span.name for span in spans if span.parent_span_id == slide.span_id]
        assert sorted(children) == ["learn", "score"]
        assert all(span.trace_id == slide.trace_id for span in spans if span.parent_span_id == slide.span_id)
    assert {a.key: a.value.int_value for a in slides[1].attributes} == {"slides": 1, "learned": 40}
    about = {a.key: a.value.string_value for a in resources[0].resource.attributes}
    assert about["service.name"] == "stream-learner"


def test_nobody_is_told_where_nobody_asked():
    assert isinstance(open_traces(config_with(None)), NoTraces)


def test_without_opentelemetry_the_remedy_is_told(monkeypatch):
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.resources", None)
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    with pytest.raises(ConfigError, match=r"stream-learner\[otel\]"):
        open_traces(config_with("http://127.0.0.1:1/v1/traces"))
