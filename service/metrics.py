"""Prometheus metrics: one registry an application, nothing global."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, ProcessCollector, generate_latest

from index_store import IndexStats

_REQUEST_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_STAGE_BUCKETS_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
_DISTANCE_BUCKETS = (0.0, 0.01, 0.02, 0.05, 0.075, 0.1, 0.125, 0.15, 0.175, 0.2, 0.25, 0.3, 0.4, 0.5, 1.0)
_BOX_BUCKETS = (0.0, 1.0, 2.0, 3.0, 5.0, 10.0, 20.0, 50.0, 100.0)
_METHODS = frozenset({"GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH"})


class Metrics:
    """What the service counts. Routes are labelled by their template, so labels stay few."""

    def __init__(self) -> None:
        """Start at zero."""
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        self._requests = Counter(
            "shitu_http_requests",
            "Answered requests",
            ["method", "route", "status"],
            registry=self._registry,
        )
        self._request_seconds = Histogram(
            "shitu_http_request_duration_seconds",
            "From the request's head to the answer's end",
            ["method", "route", "status"],
            buckets=_REQUEST_BUCKETS_S,
            registry=self._registry,
        )
        self._rejected = Counter(
            "shitu_requests_rejected",
            "Requests refused for their number or rate or because the service stops",
            ["code"],
            registry=self._registry,
        )
        self._authentication_failures = Counter(
            "shitu_authentication_failures",
            "Requests refused for their API key",
            ["reason"],
            registry=self._registry,
        )
        self._stage_seconds = Histogram(
            "shitu_stage_duration_seconds",
            "Time of one stage in one request",
            ["stage"],
            buckets=_STAGE_BUCKETS_S,
            registry=self._registry,
        )
        self._boxes = Histogram(
            "shitu_search_detected_boxes",
            "Boxes that the detector found in one picture, after threshold and limit",
            buckets=_BOX_BUCKETS,
            registry=self._registry,
        )
        self._top1 = Histogram(
            "shitu_search_top1_distance_ratio",
            "Distance of an object's best match as a share of the bits",
            buckets=_DISTANCE_BUCKETS,
            registry=self._registry,
        )
        self._unmatched = Counter(
            "shitu_search_objects_without_match",
            "Objects that no item lay within the radius of",
            registry=self._registry,
        )
        self._items = Gauge("shitu_gallery_items", "Items in the gallery", registry=self._registry)
        self._index_bytes = Gauge("shitu_index_bytes", "Memory of the search index", registry=self._registry)
        self._recent_items = Gauge(
            "shitu_index_recent_items",
            "Items that are compared one by one until they are folded into lists or graph",
            registry=self._registry,
        )
        self._index_progress = Gauge(
            "shitu_index_build_progress_ratio", "0 to 1 while an index is being built, else 1", registry=self._registry
        )
        self._under_way = Gauge(
            "shitu_requests_under_way", "Requests that hold an admission permit", registry=self._registry
        )
        self._ready = Gauge(
            "shitu_ready", "1 if the last probe found the service ready, else 0", registry=self._registry
        )
        self._free_bytes = Gauge(
            "shitu_disk_free_bytes",
            "Room on the disk of the data folder, when it was last asked",
            registry=self._registry,
        )
        self._connections = Gauge("shitu_connections", "Open connections", registry=self._registry)
        self._connections_refused = Counter(
            "shitu_connections_refused",
            "Connections that were refused or closed: limit (all are at work), evicted (idle, for a new one), "
            "header_timeout (no head in time), malformed (not HTTP/1.1, ambiguous or too large a head), stalled (the "
            "answer was not taken)",
            ["reason"],
            registry=self._registry,
        )
        self._build = Info("shitu_build", "Version and models", registry=self._registry)

    def describe(
        self,
        build: Mapping[str, str],
        index: Callable[[], IndexStats],
        under_way: Callable[[], int],
        ready: Callable[[], bool],
    ) -> None:
        """Tell what is served and where the gauges read."""
        self._build.info(dict(build))
        self._items.set_function(lambda: float(index().items))
        self._index_bytes.set_function(lambda: float(index().bytes))
        self._recent_items.set_function(lambda: float(index().recent))
        self._index_progress.set_function(lambda: _done(index().rebuild_progress))
        self._under_way.set_function(lambda: float(under_way()))
        self._ready.set_function(lambda: float(ready()))

    def track_connections(self, count: Callable[[], int]) -> None:
        """Tell where the number of open connections is read."""
        self._connections.set_function(lambda: float(count()))

    def count_connection_refused(self, reason: str) -> None:
        """Count one connection that was refused or closed early."""
        self._connections_refused.labels(reason).inc()

    def count_request(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count one answered request."""
        method = method if method in _METHODS else "OTHER"
        self._requests.labels(method, route, str(status)).inc()
        self._request_seconds.labels(method, route, str(status)).observe(seconds)

    def count_rejected(self, code: str) -> None:
        """Count one request that admission or its caller's limits refused."""
        self._rejected.labels(code).inc()

    def count_authentication_failure(self, reason: str) -> None:
        """Count one request that was refused for its key: missing, malformed, unknown or scope."""
        self._authentication_failures.labels(reason).inc()

    def observe_stages(self, seconds: Mapping[str, float]) -> None:
        """Note how long each stage of a request took."""
        for stage, duration in seconds.items():
            self._stage_seconds.labels(stage).observe(duration)

    def observe_boxes(self, count: int) -> None:
        """Note how many boxes the detector found in a picture."""
        self._boxes.observe(count)

    def observe_top1(self, distance: int | None, bits: int) -> None:
        """Note the distance of an object's best match; None: it has none."""
        if distance is None:
            self._unmatched.inc()
        else:
            self._top1.observe(distance / bits)

    def note_free_bytes(self, count: int) -> None:
        """Note the room on the disk of the data folder."""
        self._free_bytes.set(count)

    def render(self) -> bytes:
        """Write everything in Prometheus's text format."""
        return generate_latest(self._registry)


def _done(progress: float | None) -> float:
    return 1.0 if progress is None else progress
