"""Who gets through to which route, over HTTP with a real service."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from service.app import create_app
from service.metrics import Metrics
from service.middleware import RequestObserver
from service.routes import routers
from service.security.access import Access, RouteTable, needs
from service.security.gate import Gate, RefusalLog
from service.security.keys import make_key
from service.security.limits import CallerLimits
from service.security.valid_keys import KeySources, ValidKeys
from service.settings import Settings

from ..conftest import Issue, Issued

SCOPES = ("search", "gallery", "admin")
NEEDED = {
    ("POST", "/search"): {"search", "admin"},
    ("POST", "/gallery"): {"gallery", "admin"},
    ("GET", "/gallery"): {"gallery", "admin"},
    ("POST", "/gallery/batch"): {"gallery", "admin"},
    ("POST", "/gallery/delete"): {"gallery", "admin"},
    ("GET", "/gallery/{id}"): {"gallery", "admin"},
    ("PUT", "/gallery/{id}"): {"gallery", "admin"},
    ("DELETE", "/gallery/{id}"): {"gallery", "admin"},
    ("GET", "/backup"): {"admin"},
    ("POST", "/index/rebuild"): {"admin"},
    ("GET", "/index"): set(SCOPES),
    ("GET", "/health"): set(SCOPES),
}
OPEN = {
    *(("GET", path) for path in ("/livez", "/readyz", "/metrics", "/openapi.json", "/docs", "/docs/start.js")),
    *(("GET", f"/docs/{file}") for file in ("swagger-ui.js", "swagger-ui.css", "favicon.png")),
}


@pytest.fixture(scope="module")
def keys(issue: Issue) -> dict[str, Issued]:
    return {scope: issue(f"has-{scope}", scope) for scope in SCOPES}


@pytest.fixture(scope="module")
def guarded(serve: Any, keys: dict[str, Issued], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    lines = ";".join(key.line for key in keys.values())
    with serve(tmp_path_factory.mktemp("data"), api_keys=lines) as server:
        yield server


def test_the_table_below_names_every_route() -> None:
    routes = {(method, route.path) for router in routers() for route in router.routes for method in route.methods}
    assert routes == set(NEEDED) | OPEN
    declared = RouteTable(route for router in routers() for route in router.routes).declared
    assert {(method, each.route.path) for each in declared for method in each.route.methods or ()} == routes


@pytest.mark.parametrize(("method", "path"), NEEDED)
def test_a_route_opens_to_the_keys_that_have_its_scope(
    guarded: Any, keys: dict[str, Issued], method: str, path: str
) -> None:
    url = path.format(id="nobody")
    for headers, reason in [
        ({}, "missing"),
        ({"Authorization": f"Bearer {make_key()}"}, "unknown"),
        ({"Authorization": "Bearer shitu_short"}, "malformed"),
        ({"Authorization": f"Basic {keys['admin'].secret}"}, "malformed"),
    ]:
        before = guarded.metric(f'shitu_authentication_failures_total{{reason="{reason}"}}')
        answer = guarded.client.request(method, url, headers=headers)
        assert answer.status_code == 401
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["code"] == "unauthenticated"
        assert answer.json()["request_id"] == answer.headers["x-request-id"]
        error = "" if reason == "missing" else ', error="invalid_token"'
        assert answer.headers["www-authenticate"] == f'Bearer realm="shitu-hash"{error}'
        assert guarded.metric(f'shitu_authentication_failures_total{{reason="{reason}"}}') == before + 1
    for scope, key in keys.items():
        answer = guarded.client.request(method, url, headers=key.headers)
        assert (answer.status_code == 403) == (scope not in NEEDED[method, path])
        assert answer.status_code != 401
        if answer.status_code == 403:
            assert answer.json()["code"] == "insufficient_scope"
            assert f"has-{scope}" in answer.json()["detail"]
            needed = answer.headers["www-authenticate"].partition(", ")[2]
            assert needed.startswith('error="insufficient_scope", scope="')


@pytest.mark.parametrize(("method", "path"), OPEN)
def test_what_is_open_needs_no_key(guarded: Any, method: str, path: str) -> None:
    for headers in ({}, {"Authorization": "Bearer wrong"}):
        assert guarded.client.request(method, path, headers=headers).status_code == 200


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nothing", 404),
        ("GET", "/docs/", 404),
        ("GET", "/search", 405),
        ("PATCH", "/gallery/x", 405),
        ("OPTIONS", "/search", 405),
        ("HEAD", "/livez", 405),
    ],
)
def test_what_does_not_exist_is_told_to_keys_alone(
    guarded: Any, keys: dict[str, Issued], method: str, path: str, status: int
) -> None:
    assert guarded.client.request(method, path).status_code == 401
    answer = guarded.client.request(method, path, headers=keys["search"].headers)
    assert answer.status_code == status
    if status == 405:
        assert answer.headers["allow"]


def test_a_refused_request_is_counted_under_its_route(guarded: Any) -> None:
    sample = 'shitu_http_requests_total{method="GET",route="/gallery/{id}",status="401"}'
    before = guarded.metric(sample)
    guarded.client.get("/gallery/some-item")
    assert guarded.metric(sample) == before + 1


@pytest.mark.parametrize("scheme", ["bearer", "BEARER"])
def test_the_scheme_is_read_in_any_case(guarded: Any, keys: dict[str, Issued], scheme: str) -> None:
    headers = {"Authorization": f"{scheme} {keys['search'].secret}"}
    assert guarded.client.get("/index", headers=headers).status_code == 200


def test_two_keys_at_once_are_refused(guarded: Any, keys: dict[str, Issued]) -> None:
    both = [("Authorization", f"Bearer {keys[scope].secret}") for scope in ("search", "admin")]
    assert guarded.client.get("/index", headers=both).status_code == 401


def test_a_request_without_a_key_is_refused_before_its_body_comes(guarded: Any) -> None:
    head = b"POST /search HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 1000000\r\n\r\n"
    with socket.create_connection(("127.0.0.1", guarded.port), timeout=30) as connection:
        connection.sendall(head)
        answer = b""
        while b'"unauthenticated"' not in answer:
            piece = connection.recv(65536)
            assert piece, answer
            answer += piece
    assert answer.startswith(b"HTTP/1.1 401 ")


def test_probes_and_metrics_can_be_closed(
    serve: Any, keys: dict[str, Issued], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("data")
    with serve(folder, api_keys=keys["search"].line, open_probes=False, open_metrics=False) as server:
        for path in ("/livez", "/readyz", "/metrics"):
            assert server.client.get(path).status_code == 401
            assert server.client.get(path, headers=keys["search"].headers).status_code == 200
        assert server.client.get("/docs").status_code == 200


def undeclared(app: FastAPI) -> None:
    app.add_api_route("/undeclared", lambda: "secret")
    app.add_route("/plain", lambda _: None)
    app.mount("/mounted", FastAPI())


@pytest.mark.parametrize("path", ["/undeclared", "/plain", "/mounted", "/mounted/docs"])
def test_a_route_that_declares_nothing_is_closed_to_everybody(
    guarded: Any, keys: dict[str, Issued], server: Any, path: str
) -> None:
    for running in (guarded, server):
        if not any(getattr(route, "path", "") == "/plain" for route in running.app.routes):
            undeclared(running.app)
    assert guarded.client.get(path).status_code == 401
    assert guarded.client.get(path, headers=keys["admin"].headers).status_code == 404
    assert server.client.get(path).status_code == 404


def test_a_websocket_is_an_ordinary_request(guarded: Any, keys: dict[str, Issued]) -> None:
    upgrade = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13"}
    headers = {**upgrade, "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==", **keys["admin"].headers}
    assert guarded.client.get("/search", headers=headers).status_code == 405
    del headers["Authorization"]
    assert guarded.client.get("/search", headers=headers).status_code == 401


def test_only_what_is_declared_is_in_the_table() -> None:
    @needs(Access.OPEN)
    def endpoint() -> str:
        return ""

    app = FastAPI()
    app.add_api_route("/here", endpoint)
    app.add_api_route("/there", lambda: "")
    assert [each.route.path for each in RouteTable(app.routes).declared] == ["/here"]


def test_a_declared_route_opens_no_undeclared_one_that_goes_before_it() -> None:
    @needs(Access.OPEN)
    def endpoint() -> str:
        return ""

    app = FastAPI()
    app.add_api_route("/items/export", lambda: "secret")
    app.add_api_route("/items/{id}", endpoint)
    table = RouteTable(app.routes)
    found = [table.find({"type": "http", "method": "GET", "path": path}) for path in ("/items/export", "/items/1")]
    assert [getattr(each, "status_code", None) for each in found] == [404, None]


def test_a_refused_method_is_told_all_methods_of_its_path(server: Any) -> None:
    assert server.client.patch("/gallery/x").headers["allow"] == "DELETE, GET, PUT"
    assert server.client.patch("/gallery").headers["allow"] == "GET, POST"
    assert server.client.patch("/gallery/batch").headers["allow"] == "DELETE, GET, POST, PUT"


def test_the_document_tells_what_each_call_needs(guarded: Any) -> None:
    document = guarded.client.get("/openapi.json").json()
    (scheme,) = document["components"]["securitySchemes"].values()
    assert (scheme["type"], scheme["scheme"]) == ("http", "bearer")
    for (method, path), scopes in NEEDED.items():
        operation = document["paths"][path][method.lower()]
        ((_, needed),) = operation["security"][0].items()
        assert needed == ([] if scopes == set(SCOPES) else [min(scopes - {"admin"}, default="admin")])
        assert ("403" in operation["responses"]) == bool(needed)
        assert {"401", "429"} <= set(operation["responses"])
        assert "rate_limited" in operation["responses"]["429"]["content"]["application/problem+json"]["examples"]
    assert document["paths"]["/livez"]["get"]["security"][0] == {}


# Limits


def test_a_key_that_sends_too_fast_is_told_when_to_try_again(serve: Any, issue: Issue, tmp_path: Any) -> None:
    slow, other = issue("slow", "search", rate="0.01"), issue("other", "search")
    with serve(tmp_path, api_keys=f"{slow.line};{other.line}", rate_limit=0.001, rate_burst=3) as server:

        def get(key: Issued, path: str = "/index") -> httpx.Response:
            return server.client.get(path, headers=key.headers)

        assert get(slow).status_code == 200
        answer = get(slow)
        assert (answer.status_code, answer.json()["code"]) == (429, "rate_limited")
        assert 1 <= int(answer.headers["retry-after"]) <= 100
        assert "slow" in answer.json()["detail"]
        assert [get(other).status_code for _ in range(4)] == [200, 200, 200, 429]
        assert 900 <= int(get(other).headers["retry-after"]) <= 1000
        assert get(slow, "/nothing").status_code == 429
        assert {get(slow, path).status_code for path in ("/livez", "/readyz", "/metrics", "/docs")} == {200}
        assert server.metric('shitu_requests_rejected_total{code="rate_limited"}') == 4


def test_without_keys_the_limits_go_for_all_callers_together(serve: Any, tmp_path: Any) -> None:
    with serve(tmp_path, rate_limit=0.001, rate_burst=2) as server:
        statuses = [
            server.client.get("/index", headers={"Authorization": f"Bearer {make_key()}"}).status_code for _ in range(3)
        ]
        assert statuses == [200, 200, 429]
        assert "all callers together" in server.client.get("/index").json()["detail"]


def test_a_key_has_only_so_many_requests_under_way(serve: Any, issue: Issue, tmp_path: Any) -> None:
    few, other = issue("few", "search", concurrent="1"), issue("other", "search")
    body = json.dumps({"code": "00", "top_k": 1}).encode()
    head = (
        f"POST /search HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {few.secret}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    with serve(tmp_path, api_keys=f"{few.line};{other.line}") as server:
        with socket.create_connection(("127.0.0.1", server.port), timeout=30) as connection:
            connection.sendall(head.encode())
            deadline = time.monotonic() + 60
            while server.metric("shitu_requests_under_way") < 1:  # it waits for its body
                assert time.monotonic() < deadline
            answer = server.client.get("/index", headers=few.headers)
            assert (answer.status_code, answer.json()["code"]) == (429, "too_many_requests")
            assert answer.headers["retry-after"] == "1"
            assert server.client.get("/index", headers=other.headers).status_code == 200
            connection.sendall(body)
            while connection.recv(65536):
                pass
        assert server.client.get("/index", headers=few.headers).status_code == 200


# What is passed on


def test_the_routes_are_told_the_name_of_the_key(issue: Issue) -> None:
    seen: list[Any] = []

    @needs(Access.SEARCH)
    async def endpoint(request: Request) -> Response:
        seen.append(request.scope["state"].get("api_key"))
        return Response()

    @needs(Access.OPEN)
    async def open_endpoint(request: Request) -> Response:
        return await endpoint(request)

    routes = [Route("/", endpoint), Route("/open", open_endpoint)]
    app = Starlette(routes=routes)
    key = issue("camera1", "search")
    keys = ValidKeys(KeySources(lines=key.line))
    keys.load("127.0.0.1")
    app.add_middleware(
        Gate,
        table=RouteTable(routes),
        keys=keys,
        limits=CallerLimits(),
        open_access=frozenset({Access.OPEN}),
        metrics=Metrics(),
    )
    app.add_middleware(RequestObserver, metrics=Metrics(), tracing=None, is_leaving=lambda: False)

    async def ask() -> list[int]:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://x", headers=key.headers) as client:
            return [(await client.get(path)).status_code for path in ("/", "/open")]

    assert asyncio.run(ask()) == [200, 200]
    assert seen == ["camera1", None]


# What is logged


def test_refusals_are_logged_but_not_each(caplog: pytest.LogCaptureFixture) -> None:
    now = 0.0
    log = RefusalLog(lambda: now)
    with caplog.at_level(logging.WARNING, "shitu.keys"):
        for _ in range(1000):
            log.note("unknown", "192.0.2.1")
        now = 60.0
        log.note("scope", "192.0.2.2")
    first, second = caplog.messages
    assert "192.0.2.1" in first
    assert "192.0.2.2" in second
    assert "999" in second


def test_guessing_keys_opens_nothing_locks_nobody_out_and_fills_no_log(
    serve: Any, issue: Issue, tmp_path: Any, caplog: pytest.LogCaptureFixture
) -> None:
    key = issue("owner", "admin")
    near = [key.secret[:-1] + letter for letter in "AQgw" if letter != key.secret[-1]]
    guesses = [*near, key.secret.upper(), key.secret[:-1], "shitu_", "admin", *(make_key() for _ in range(1000))]
    with caplog.at_level(logging.INFO), serve(tmp_path, api_keys=key.line) as server:
        statuses = {
            server.client.get("/gallery", headers={"Authorization": f"Bearer {guess}"}).status_code for guess in guesses
        }
        assert statuses == {401}
        assert server.client.get("/gallery", headers=key.headers).status_code == 200
        counted = sum(
            server.metric(f'shitu_authentication_failures_total{{reason="{reason}"}}')
            for reason in ("missing", "malformed", "unknown")
        )
        assert counted == len(guesses)
        said = [record for record in caplog.records if record.name in ("shitu.keys", "shitu.access")]
        assert len(said) < 20


def test_no_key_and_no_hash_is_logged(
    serve: Any, issue: Issue, tmp_path: Any, caplog: pytest.LogCaptureFixture
) -> None:
    key, wrong = issue("boss", "admin"), make_key()
    with caplog.at_level(logging.DEBUG), serve(tmp_path, api_keys=key.line) as server:
        for secret in (key.secret, wrong):
            server.client.get("/index", headers={"Authorization": f"Bearer {secret}"})
    assert "1 API keys are valid" in caplog.text
    digest = key.line.partition("sha256:")[2]
    assert not any(secret in caplog.text for secret in (key.secret, wrong, digest))


@pytest.mark.parametrize(("host", "level"), [("127.0.0.1", "WARNING"), ("localhost", "WARNING"), ("0.0.0.0", "ERROR")])
def test_a_service_without_keys_says_so(
    make_settings: Callable[..., Settings], tmp_path: Any, host: str, level: str, caplog: pytest.LogCaptureFixture
) -> None:
    app = create_app(make_settings(tmp_path, host=host))
    with caplog.at_level(logging.WARNING, "shitu.keys"):
        app.state.keys.load(host)
    (record,) = caplog.records
    assert record.levelname == level
    assert "no API keys are configured" in record.message
