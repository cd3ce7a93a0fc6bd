"""``GET /backup``: the gallery at one moment as a file, while searches and changes go on."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Generator
from typing import Any

import anyio
from fastapi import APIRouter, Depends, Request
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from .. import openapi
from ..errors import NotReady
from ..runtime import Runtime
from ..security.access import Access, needs
from .common import no_query, runtime_of

router = APIRouter(tags=["gallery"])

_LOG = logging.getLogger("shitu.service")
_MEDIA_TYPE = "application/zip"
_STALL_S = 60.0  # for one piece: a client that takes nothing would keep the catalog's log from shrinking


@router.get(
    "/backup",
    summary="Back up the gallery",
    response_class=Response,
    dependencies=[Depends(no_query)],
    responses=openapi.answers(
        None,
        *(422, 429, 503),
        description="The gallery as it was when the request came, as a ZIP file for `shitu gallery restore`; if the "
        "answer is cut short, its chunked encoding is not ended. Kept pictures are not in it",
        file=_MEDIA_TYPE,
    ),
)
@needs(Access.ADMIN)
async def backup(request: Request) -> Response:
    """Stream a backup. Searches and changes go on; the changes are not in it."""
    return _BackupResponse(runtime_of(request))


class _BackupResponse(Response):
    """Makes a backup piece by piece, each once the client has taken the one before.

    The catalog is read in one transaction, which ends when the backup does, the client goes away, or takes nothing
    for too long.
    """

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self.status_code = 200
        self.background = None
        name = time.strftime("shitu-gallery-%Y%m%dT%H%M%SZ.zip", time.gmtime())
        self.init_headers(
            {
                "Content-Type": _MEDIA_TYPE,
                "Content-Disposition": f'attachment; filename="{name}"',
                "Cache-Control": "no-store",
            }
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        runtime = self._runtime
        with runtime.backup_admission.permit():
            pieces = _Pieces(runtime.store.backup_chunks())
            gone = asyncio.create_task(_until_gone(receive))
            try:
                piece = await runtime.storage.run(pieces.next)  # a gallery that cannot be read is a proper problem
                await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
                while piece is not None:
                    await _send_in_time(send, piece)
                    if gone.done():
                        raise ClientDisconnect
                    piece = await runtime.storage.run(pieces.next)
                await send({"type": "http.response.body", "body": b"", "more_body": False})
            finally:
                gone.cancel()
                await asyncio.shield(_close(runtime, pieces))


class _Pieces:
    """The pieces of a backup, for threads that take them in turns; one may still be at it when another closes."""

    def __init__(self, chunks: Generator[bytes, None, Any]) -> None:
        self._chunks = chunks
        self._lock = threading.Lock()

    def next(self, _: None) -> bytes | None:
        with self._lock:
            return next(self._chunks, None)

    def close(self, _: None) -> None:
        with self._lock:
            self._chunks.close()


async def _close(runtime: Runtime, pieces: _Pieces) -> None:
    try:
        await runtime.storage.run(pieces.close)
    except NotReady:  # the service stops and the threads have ended
        pieces.close(None)


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _send_in_time(send: Send, piece: bytes) -> None:
    with anyio.move_on_after(_STALL_S) as scope:
        await send({"type": "http.response.body", "body": piece, "more_body": True})
    if scope.cancelled_caught:
        _LOG.warning("a backup was given up: the client took less than %d bytes in %.0f s", len(piece), _STALL_S)
        raise ClientDisconnect
