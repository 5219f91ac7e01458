"""OpenTelemetry traces of slides: a span per slide, a child per stage; and one per version and snapshot written.

Behind the extra `otel`; where `observing.traces` names nobody, nothing is imported and nothing is recorded.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from typing import Any, Protocol

from stream_learner.errors import ConfigError
from stream_learner.settings import Config


class Traces(Protocol):
    """Where spans go. `part` and `closed` are the slides' thread's, `whole` is the writer's."""

    def part(self, name: str) -> Any:
        """A context: a stage of the slide that is worked on; the first one begins the slide."""

    def closed(self, **attributes: int | float) -> None:
        """The slide is done."""

    def whole(self, name: str) -> Any:
        """A context: a span of its own."""

    def close(self) -> None:
        """Sends what has not been sent."""


class NoTraces:
    """Nobody asked for them."""

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        yield

    def closed(self, **attributes: int | float) -> None: ...

    @contextmanager
    def whole(self, name: str) -> Iterator[None]:
        yield

    def close(self) -> None: ...


class OtlpTraces:
    """To an OTLP/HTTP collector, in batches, by a thread of the SDK: a collector that is away costs only spans."""

    def __init__(self, endpoint: str, model: str) -> None:
        try:
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
            from opentelemetry.sdk.resources import Resource
            from opentelemetry.sdk.trace import TracerProvider
            from opentelemetry.sdk.trace.export import BatchSpanProcessor
            from opentelemetry.trace import set_span_in_context
        except ImportError as error:
            raise ConfigError("observing.traces needs OpenTelemetry: pip install 'stream-learner[otel]'") from error
        about = {"service.name": "stream-learner", "service.version": version("stream-learner"), "model": model}
        self._provider = TracerProvider(resource=Resource.create(about), shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=endpoint)))
        self._tracer = self._provider.get_tracer("stream_learner")
        self._within = set_span_in_context
        self._slide: Any = None

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        if self._slide is None:
            self._slide = self._tracer.start_span("slide")
        with self._tracer.start_as_current_span(name, context=self._within(self._slide)):
            yield

    def closed(self, **attributes: int | float) -> None:
        if self._slide is not None:
            self._slide.set_attributes(attributes)
            self._slide.end()
            self._slide = None

    @contextmanager
    def whole(self, name: str) -> Iterator[None]:
        with self._tracer.start_as_current_span(name):
            yield

    def close(self) -> None:
        self._provider.shutdown()


def open_traces(config: Config) -> Traces:
    """What the config names. ConfigError where the extra is missing."""
    endpoint = config.observing.traces
    return NoTraces() if endpoint is None else OtlpTraces(endpoint, config.name)
