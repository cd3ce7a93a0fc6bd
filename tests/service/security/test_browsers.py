"""What browsers are told: pages of other origins, headers, and the page of the API."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest

from ..conftest import Issue

SHOP = "https://shop.example"
PREFLIGHT = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization,content-type"}


@pytest.fixture(scope="module")
def shop(serve: Any, issue: Issue, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A service with a key, for pages of one origin."""
    key = issue("page", "search")
    with serve(tmp_path_factory.mktemp("data"), api_keys=key.line, cors_origins=(SHOP,)) as server:
        server.key = key
        yield server


def test_a_preflight_passes_without_a_key(shop: Any) -> None:
    answer = shop.client.options("/search", headers={"Origin": SHOP, **PREFLIGHT})
    assert answer.status_code == 200
    assert answer.headers["access-control-allow-origin"] == SHOP
    assert "POST" in answer.headers["access-control-allow-methods"]
    assert "Authorization" in answer.headers["access-control-allow-headers"]
    assert "access-control-allow-credentials" not in answer.headers
    assert answer.headers["x-request-id"]


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://other.example"},
        {"Origin": SHOP, "Access-Control-Request-Method": "PATCH"},
        {"Origin": SHOP, "Access-Control-Request-Headers": "x-other"},
    ],
)
def test_a_preflight_for_anything_else_is_a_problem(shop: Any, headers: dict[str, str]) -> None:
    answer = shop.client.options("/search", headers={**PREFLIGHT, **headers})
    assert (answer.status_code, answer.json()["code"]) == (400, "bad_request")
    assert "Disallowed CORS" in answer.json()["detail"]
    assert answer.json()["request_id"] == answer.headers["x-request-id"]


def test_pages_see_answers_and_refusals(shop: Any) -> None:
    for headers, status in ((shop.key.headers, 200), ({}, 401)):
        answer = shop.client.get("/index", headers={"Origin": SHOP, **headers})
        assert answer.status_code == status
        assert answer.headers["access-control-allow-origin"] == SHOP
        exposed = {name.strip() for name in answer.headers["access-control-expose-headers"].split(",")}
        assert {"X-Request-ID", "Retry-After"} <= exposed
    answer = shop.client.get("/index", headers={"Origin": "https://other.example", **shop.key.headers})
    assert "access-control-allow-origin" not in answer.headers


def test_no_page_of_another_origin_is_allowed_by_default(server: Any) -> None:
    answer = server.client.options("/search", headers={"Origin": SHOP, **PREFLIGHT})
    assert answer.status_code == 405
    answer = server.client.get("/index", headers={"Origin": SHOP})
    assert not any(name.startswith("access-control") for name in answer.headers)


def test_any_origin_is_warned_of(serve: Any, tmp_path: Any, caplog: pytest.LogCaptureFixture) -> None:
    with serve(tmp_path, cors_origins=("*",)) as server:
        answer = server.client.get("/index", headers={"Origin": SHOP})
    assert answer.headers["access-control-allow-origin"] == "*"
    assert "access-control-allow-credentials" not in answer.headers
    assert "pages of any origin may use the service" in caplog.text


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/index", 200), ("GET", "/index", 401), ("GET", "/nothing", 404), ("POST", "/search", 400)],
)
def test_every_answer_has_the_headers(shop: Any, method: str, path: str, status: int) -> None:
    headers = {} if status == 401 else shop.key.headers
    answer = shop.client.request(method, path, headers=headers)
    assert answer.status_code == status
    assert {name: answer.headers[name] for name in (*EXPECTED, "cache-control")} == {
        **EXPECTED,
        "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
        "cache-control": "no-store",
    }


EXPECTED = {
    "x-content-type-options": "nosniff",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
    "referrer-policy": "no-referrer",
    "x-frame-options": "DENY",
    "cross-origin-resource-policy": "same-origin",
}


def test_an_answer_nobody_foresaw_has_the_headers_too(
    server: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(server.app.state.runtime, "storage", None)
    answer = server.client.get("/index")
    assert (answer.status_code, answer.json()["code"]) == (500, "internal_error")
    assert EXPECTED.items() <= dict(answer.headers).items()


def test_the_page_of_the_api_loads_everything_from_the_service(server: Any) -> None:
    page = server.client.get("/docs")
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "script-src 'self';" in policy
    assert "http" not in policy
    assert "http" not in page.text
    assert "<script>" not in page.text
    addresses = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert len(addresses) == 4
    kinds = {}
    for address in addresses:
        answer = server.client.get(f"/{address}")
        assert answer.status_code == 200
        assert answer.headers["cache-control"] == "public, max-age=86400"
        kinds[address] = (answer.headers["content-type"].partition(";")[0], answer.content)
    assert kinds["docs/swagger-ui.js"][0] == "text/javascript"
    assert b"SwaggerUIBundle" in kinds["docs/swagger-ui.js"][1]
    assert b"SwaggerUIBundle(" in kinds["docs/start.js"][1]
    assert kinds["docs/swagger-ui.css"][0] == "text/css"
    assert kinds["docs/favicon.png"][0] == "image/png"
