"""A real HTTP server for one file, which can misbehave in the ways that servers do."""

from __future__ import annotations

import re
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


@dataclass
class FileServer:
    """What is served, and how; may be changed while it runs.

    Attributes:
        content: of the file.
        headers: validators that every answer carries.
        status: of every answer, where it is not 200.
        ranges: whether it honours Range.
        shift: bytes by which a range starts too late, for a server that counts wrongly.
        careful: whether it honours Range only if If-Range names what it has.
        breaks: for the next answers, after how many bytes the connection is cut.
        pause_s: between pieces of 64 KiB.
        endless: whether the file is sent again and again, without a length, for as long as the client takes it.
        redirect: address that requests for a path that begins with ``/moved`` are sent to.
        asked: the Range of every request that came, None without one.
    """

    content: bytes
    headers: dict[str, str] = field(default_factory=lambda: {"ETag": '"one"'})
    status: int = 200
    ranges: bool = True
    shift: int = 0
    careful: bool = True
    breaks: list[int] = field(default_factory=list)
    pause_s: float = 0.0
    endless: bool = False
    redirect: str = ""
    asked: list[str | None] = field(default_factory=list)
    url: str = ""

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        if request.path.startswith("/moved"):
            request.send_response(302)
            request.send_header("Location", self.redirect)
            request.send_header("Content-Length", "0")
            request.end_headers()
            return
        if self.endless:
            self.asked.append(request.headers.get("Range"))
            request.send_response(200)
            request.end_headers()
            while True:
                request.wfile.write(self.content)
        wanted = request.headers.get("Range")
        self.asked.append(wanted)
        same = not self.careful or request.headers.get("If-Range") in self.headers.values()
        start, status = 0, self.status
        if status == 200 and self.ranges and wanted is not None and same:
            start = int(re.fullmatch(r"bytes=(\d+)-", wanted).group(1)) + self.shift  # type: ignore[union-attr]
            status = 206 if start < len(self.content) else 416
        body = self.content[start:] if status != 416 else b""
        request.send_response(status)
        for name, value in self.headers.items():
            request.send_header(name, value)
        if status == 206:
            span = f"{start}-{len(self.content) - 1}/{len(self.content)}"
            request.send_header("Content-Range", f"bytes {span}")
        if status == 416:
            request.send_header("Content-Range", f"bytes */{len(self.content)}")
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        if self.breaks:
            body = body[: self.breaks.pop(0)]
        for first in range(0, len(body), 1 << 16):
            request.wfile.write(body[first : first + (1 << 16)])
            time.sleep(self.pause_s)


@contextmanager
def serve(content: bytes, certificate: Path | None = None) -> Iterator[FileServer]:
    """Serve a file on a loopback port; with a certificate and its key in a PEM file over https."""
    state = FileServer(content)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            with suppress(BrokenPipeError, ConnectionResetError):  # a client that was killed
                state.answer(self)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    state.url = f"http{'s' if certificate else ''}://127.0.0.1:{server.server_port}/models/weights.pdparams"
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
