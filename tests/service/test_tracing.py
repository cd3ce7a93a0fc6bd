"""Traces as a collector receives them: OTLP over HTTP, decoded with OpenTelemetry's own messages."""

from __future__ import annotations

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
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

TRACE_ID, PARENT_ID = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


class Collector(ThreadingHTTPServer):
    """Takes what a service exports."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.requests: list[ExportTraceServiceRequest] = []
        self.paths: list[str] = []
        self.answers = True

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    @property
    def spans(self) -> list[Span]:
        return [
            span
            for request in self.requests
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]


class _Handler(BaseHTTPRequestHandler):
    server: Collector

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if not self.server.answers:
            time.sleep(30)
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        self.server.paths.append(self.path)
        self.server.requests.append(ExportTraceServiceRequest.FromString(body))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def attributes(holder: Any) -> dict[str, Any]:
    return {each.key: getattr(each.value, each.value.WhichOneof("value")) for each in holder.attributes}


def test_a_search_is_one_trace_with_a_span_a_stage(
    serve: Any, tmp_path: Path, photo_files: dict[str, bytes], detector_dir: Path, collector: Collector
) -> None:
    headers = {"traceparent": f"00-{TRACE_ID}-{PARENT_ID}-01", "X-Request-ID": "it"}
    with serve(tmp_path, otlp_endpoint=collector.url, detector_dir=detector_dir) as server:
        server.enrol(photo_files["coffee"], "secret label")
        answer = server.client.post("/search", files={"image": photo_files["coffee"]}, headers=headers)
        assert answer.status_code == 200
        server.client.get("/gallery", params={"label": "secret label"})
        server.client.post("/search", files={"image": b"no picture"})
        server.client.get("/livez")
        server.client.get("/metrics")
    assert set(collector.paths) == {"/v1/traces"}
    spans = collector.spans
    (request,) = [span for span in spans if span.trace_id.hex() == TRACE_ID and span.kind == Span.SPAN_KIND_SERVER]
    assert request.name == "POST /search"
    assert request.parent_span_id.hex() == PARENT_ID
    known = attributes(request)
    assert known["http.request.method"] == "POST"
    assert known["http.route"] == known["url.path"] == "/search"
    assert known["http.response.status_code"] == 200
    assert known["client.address"] == "127.0.0.1"
    assert known["server.port"] == server.port
    assert known["shitu.request_id"] == "it"
    stages = [span for span in spans if span.trace_id.hex() == TRACE_ID and span is not request]
    assert [span.name for span in sorted(stages, key=lambda span: span.start_time_unix_nano)] == [
        *("decode", "detect", "hash", "search")
    ]
    for span in stages:
        assert span.parent_span_id == request.span_id
        assert request.start_time_unix_nano <= span.start_time_unix_nano < span.end_time_unix_nano
        assert span.end_time_unix_nano <= request.end_time_unix_nano
    names = {span.name for span in spans}
    assert {"POST /gallery", "persist", "GET /gallery"} <= names
    assert not any("livez" in name or "metrics" in name for name in names)
    failed = [span for span in spans if span.name == "decode" and span.status.code == Status.STATUS_CODE_ERROR]
    assert [attributes(span)["error.type"] for span in failed] == ["UnsupportedPicture"]
    everything = b"".join(request.SerializeToString() for request in collector.requests)
    assert b"secret" not in everything
    resource = attributes(collector.requests[0].resource_spans[0].resource)
    assert resource["service.name"] == "shitu-hash"
    assert resource["service.version"]


def test_the_environment_may_name_the_service(
    serve: Any, tmp_path: Path, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_SERVICE_NAME", "shelf-search")
    with serve(tmp_path, otlp_endpoint=f"{collector.url}/v1/traces") as server:
        server.client.get("/gallery")
    assert attributes(collector.requests[0].resource_spans[0].resource)["service.name"] == "shelf-search"
    assert collector.paths == ["/v1/traces"]


def test_a_broken_service_is_a_failed_trace(serve: Any, tmp_path: Path, collector: Collector) -> None:
    with serve(tmp_path, otlp_endpoint=collector.url) as server:
        server.app.state.runtime.store.close()
        assert server.client.get("/gallery", headers={"traceparent": "nonsense"}).status_code == 503
    (span,) = collector.spans
    assert span.status.code == Status.STATUS_CODE_ERROR
    assert attributes(span)["error.type"] == "503"
    assert not span.parent_span_id


def test_a_collector_that_is_not_there_changes_nothing(
    serve: Any, tmp_path: Path, collector: Collector, caplog: pytest.LogCaptureFixture
) -> None:
    collector.answers = False
    with serve(tmp_path, otlp_endpoint=collector.url, drain_timeout_s=0) as server:
        assert server.client.get("/gallery").status_code == 200
        assert server.client.get("/readyz").status_code == 200
    assert any("last traces were not taken" in record.getMessage() for record in caplog.records)


def test_traces_without_what_sends_them_are_refused_at_start(
    serve: Any, failed_start: type[Exception], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)  # as if it were not installed
    with pytest.raises(failed_start) as caught, serve(tmp_path, otlp_endpoint="http://127.0.0.1:1"):
        pass
    assert "pip install 'shitu-hash[otel]'" in str(caught.value.__cause__)


def test_without_a_collector_nothing_of_it_is_loaded(tmp_path: Path) -> None:
    script = (
        "import sys\n"
        "from service.app import create_app\n"
        "from service.settings import Settings\n"
        f"app = create_app(Settings(data_dir={str(tmp_path)!r}))\n"
        "print([name for name in sys.modules if name.startswith(('opentelemetry.sdk', 'opentelemetry.exporter'))])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
