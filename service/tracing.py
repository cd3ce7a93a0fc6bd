"""Traces of requests for an OpenTelemetry collector: a span a request, and in it one a stage.

Spans follow the semantic conventions for HTTP servers; W3C ``traceparent`` is honoured. Bodies, queries, labels and
keys are never in a span. The SDK is imported only where a collector is configured; it reads the ``OTEL_*`` variables
(``OTEL_SERVICE_NAME``, ``OTEL_TRACES_SAMPLER``, ``OTEL_EXPORTER_OTLP_HEADERS`` and so on) by itself.
"""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import Scope

from .errors import StartupError
from .request_context import SHOWN_CHARACTERS

if TYPE_CHECKING:
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Span, Tracer

_LOG = logging.getLogger("shitu.tracing")
_SERVICE = "shitu-hash"
_TRACES_PATH = "/v1/traces"
_METHODS = frozenset({"GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH", "CONNECT", "TRACE"})


class Tracing:
    """Makes spans and sends them, in the background, to one collector.

    A collector that does not answer costs nothing but its spans.
    """

    def __init__(self, endpoint: str, version: str) -> None:
        """Prepare; nothing is collected before :meth:`start`.

        Args:
            endpoint: base URL of a collector that takes OTLP over HTTP, such as ``http://collector:4318``.
            version: of this service.
        """
        address = endpoint.rstrip("/")
        self._address = address if address.endswith(_TRACES_PATH) else address + _TRACES_PATH
        self._version = version
        self._provider: TracerProvider | None = None
        self._tracer: Tracer | None = None

    def start(self) -> None:
        """Begin to collect and send.

        Raises:
            StartupError: the SDK is not installed.
        """
        try:
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
            from opentelemetry.sdk.trace import TracerProvider
            from opentelemetry.sdk.trace.export import BatchSpanProcessor
        except ImportError as error:
            raise StartupError(
                "SHITU_OTLP_ENDPOINT asks for traces, but what sends them is not installed: "
                "pip install 'shitu-hash[otel]', or unset it"
            ) from error
        self._provider = TracerProvider(resource=_resource(self._version), shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=self._address)))
        self._tracer = self._provider.get_tracer("shitu")
        _LOG.info("traces go to %s", urlsplit(self._address).hostname)  # the rest may hold a password

    def stop(self, timeout_s: float) -> bool:
        """Send what is left; tell whether that was done in time. What is not is lost."""
        provider, self._tracer = self._provider, None
        if provider is None:
            return True
        # A collector may take the connection and never answer: nobody waits longer than this for it.
        ending = threading.Thread(target=provider.shutdown, name="tracing", daemon=True)
        ending.start()
        ending.join(timeout_s)
        return not ending.is_alive()

    def begin(self, scope: Scope, request_id: str) -> RequestTrace | None:
        """Open the span of a request; None if nothing is collected now."""
        if self._tracer is None:
            return None
        from opentelemetry.trace import SpanKind
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        headers = Headers(scope=scope)
        carrier = {name: headers[name] for name in ("traceparent", "tracestate") if name in headers}
        span = self._tracer.start_span(
            _method(scope),
            context=TraceContextTextMapPropagator().extract(carrier),
            kind=SpanKind.SERVER,
            attributes=_attributes(scope, headers, request_id),
        )
        return RequestTrace(self._tracer, span)


class RequestTrace:
    """The open span of one request; threads may share it."""

    def __init__(self, tracer: Tracer, span: Span) -> None:
        """Take over an open span."""
        from opentelemetry.trace import set_span_in_context

        self._tracer = tracer
        self._span = span
        self._context = set_span_in_context(span)

    @property
    def trace_id(self) -> str:
        """The trace that the request belongs to, 32 hexadecimal digits."""
        return f"{self._span.get_span_context().trace_id:032x}"

    def record_stage(self, stage: str, start_ns: int, end_ns: int, error: str | None) -> None:
        """Add the span of a stage; see ``StageRecorder``."""
        span = self._tracer.start_span(stage, context=self._context, start_time=start_ns)
        if error is not None:
            _mark_failed(span, error)
        span.end(end_ns)

    def end(self, scope: Scope, route: str | None, status: int, error: str | None) -> None:
        """Close the span.

        Args:
            scope: of ASGI.
            route: the template of the path; None if none fits.
            status: of the answer; 0 if none began.
            error: the class of the exception that ended the request, if one did.
        """
        if route is not None:
            self._span.update_name(f"{_method(scope)} {route}")
            self._span.set_attribute("http.route", route)
        if status:
            self._span.set_attribute("http.response.status_code", status)
        if error is not None or status >= 500:
            _mark_failed(self._span, error or str(status))
        self._span.end()


def _resource(version: str) -> Resource:
    """Say who sends: this service, unless the environment names it otherwise."""
    from opentelemetry.sdk.resources import Resource

    given = Resource.create()
    ours = {"service.version": version}
    if str(given.attributes["service.name"]).startswith("unknown_service"):  # what the SDK says where nobody does
        ours["service.name"] = _SERVICE
    return given.merge(Resource(ours))


def _attributes(scope: Scope, headers: Headers, request_id: str) -> dict[str, str | int]:
    attributes: dict[str, str | int] = {
        "http.request.method": _method(scope),
        "url.scheme": scope["scheme"],
        "url.path": scope["path"][:SHOWN_CHARACTERS],
        "network.protocol.version": scope["http_version"],
        "shitu.request_id": request_id,
    }
    if scope.get("client"):
        attributes["client.address"] = scope["client"][0]
    if scope.get("server"):
        attributes |= {"server.address": scope["server"][0], "server.port": scope["server"][1] or 0}
    if "user-agent" in headers:
        attributes["user_agent.original"] = headers["user-agent"][:SHOWN_CHARACTERS]
    return attributes


def _method(scope: Scope) -> str:
    return scope["method"] if scope["method"] in _METHODS else "_OTHER"


def _mark_failed(span: Span, error: str) -> None:
    from opentelemetry.trace import StatusCode

    span.set_attribute("error.type", error)
    span.set_status(StatusCode.ERROR)
