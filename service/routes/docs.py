"""``/openapi.json``, and ``/docs`` that shows it to people with Swagger UI. Nothing is loaded from elsewhere."""

from __future__ import annotations

from importlib import resources

import anyio
from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, Response

from ..security.access import Access, needs

router = APIRouter(include_in_schema=False)

_ASSETS = "fastapi_swagger.resources"  # Swagger UI's own files as a package
# Swagger UI sets the styles of elements as it draws; its icons are data: addresses, pictures in answers blob: ones.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_CACHE = "public, max-age=86400"
# Addresses are relative, so that the page works behind a proxy that serves it under a prefix.
_PAGE = """\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>shitu-hash</title>
<link rel="icon" href="docs/favicon.png">
<link rel="stylesheet" href="docs/swagger-ui.css">
</head>
<body>
<div id="swagger-ui"></div>
<script src="docs/swagger-ui.js"></script>
<script src="docs/start.js" data-openapi="openapi.json"></script>
</body>
</html>
"""
_START = """\
SwaggerUIBundle({
  url: document.currentScript.dataset.openapi,
  dom_id: "#swagger-ui",
  deepLinking: true,
  displayRequestDuration: true,
});
"""


@router.get("/openapi.json")
@needs(Access.OPEN)
async def openapi_document(request: Request) -> Response:
    """Give the OpenAPI document."""
    return JSONResponse(request.app.openapi())


@router.get("/docs")
@needs(Access.OPEN)
async def page() -> Response:
    """Show the OpenAPI document."""
    return Response(_PAGE, media_type="text/html", headers={"Content-Security-Policy": _POLICY})


@router.get("/docs/start.js")
@needs(Access.OPEN)
async def start() -> Response:
    """Give the script that starts Swagger UI."""
    return Response(_START, media_type="text/javascript", headers={"Cache-Control": _CACHE})


@router.get("/docs/swagger-ui.js")
@needs(Access.OPEN)
async def script() -> Response:
    """Give Swagger UI."""
    return await _asset("swagger-ui-bundle.js", "text/javascript")


@router.get("/docs/swagger-ui.css")
@needs(Access.OPEN)
async def style() -> Response:
    """Give Swagger UI's style."""
    return await _asset("swagger-ui.css", "text/css")


@router.get("/docs/favicon.png")
@needs(Access.OPEN)
async def favicon() -> Response:
    """Give Swagger UI's icon."""
    return await _asset("favicon-32x32.png", "image/png")


async def _asset(name: str, media_type: str) -> Response:
    file = resources.files(_ASSETS).joinpath(name)
    content = await anyio.to_thread.run_sync(file.read_bytes)
    return Response(content, media_type=media_type, headers={"Cache-Control": _CACHE})
