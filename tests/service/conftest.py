"""Real parts for the service's tests: the starter models, a server on a loopback port, photographs."""

from __future__ import annotations

import http.client
import io
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import skimage.data
import uvicorn
from fastapi import FastAPI
from PIL import Image

from service.app import create_app
from service.connections import http_options
from service.security.key_lines import new_key, write_line
from service.security.keys import digest_of, make_key
from service.settings import Settings

Serve = Callable[..., AbstractContextManager["Server"]]
Encode = Callable[..., bytes]
Issue = Callable[..., "Issued"]


@dataclass(frozen=True)
class Issued:
    """A key, and the line that is stored of it."""

    secret: str
    line: str

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.secret}"}


@dataclass
class Server:
    """A running service and a client of it."""

    app: FastAPI
    settings: Settings
    port: int
    client: httpx.Client = field(init=False)

    def __post_init__(self) -> None:
        self.client = httpx.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=60)

    @property
    def bits(self) -> int:
        return int(self.client.get("/index").json()["bits"])

    def count(self) -> int:
        return int(self.client.get("/index").json()["items"])

    def enrol(self, picture: bytes, label: str, **fields: str) -> dict[str, Any]:
        answer = self.client.post("/gallery", files={"image": picture}, data={"label": label, **fields})
        assert answer.status_code == 201, answer.text
        item: dict[str, Any] = answer.json()
        return item

    def enrol_code(self, code: bytes, label: str, **members: Any) -> dict[str, Any]:
        answer = self.client.post("/gallery", json={"code": code.hex(), "label": label, **members})
        assert answer.status_code == 201, answer.text
        item: dict[str, Any] = answer.json()
        return item

    def search(self, picture: bytes, **fields: str) -> list[dict[str, Any]]:
        answer = self.client.post("/search", files={"image": picture}, data=fields)
        assert answer.status_code == 200, answer.text
        objects: list[dict[str, Any]] = answer.json()["objects"]
        return objects

    def search_json(self, **members: Any) -> list[dict[str, Any]]:
        answer = self.client.post("/search", json=members)
        assert answer.status_code == 200, answer.text
        objects: list[dict[str, Any]] = answer.json()["objects"]
        return objects

    def metric(self, sample: str) -> float:
        """Value of a sample, written as Prometheus shows it: name and labels."""
        lines = self.client.get("/metrics").text.splitlines()
        values = [line.removeprefix(sample) for line in lines if line.startswith(f"{sample} ")]
        return float(values[0]) if values else 0.0


def slow_upload(
    port: int, label: str, picture: bytes, *, batch: bool = False
) -> tuple[http.client.HTTPConnection, bytes]:
    """Begin an enrolment, by itself or as a batch of one, and send half of its body; give the other half."""
    boundary = "boundary"
    path, plural = ("/gallery/batch", "s") if batch else ("/gallery", "")
    body = (
        (
            f'--{boundary}\r\nContent-Disposition: form-data; name="label{plural}"\r\n\r\n{label}\r\n'
            f'--{boundary}\r\nContent-Disposition: form-data; name="image{plural}"; filename="a"\r\n\r\n'
        ).encode()
        + picture
        + f"\r\n--{boundary}--\r\n".encode()
    )
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.putrequest("POST", path)
    connection.putheader("Content-Type", f"multipart/form-data; boundary={boundary}")
    connection.putheader("Content-Length", str(len(body)))
    connection.endheaders(body[: len(body) // 2])
    return connection, body[len(body) // 2 :]


class FailedStart(Exception):
    """The application did not start; the cause says why."""


@contextmanager
def run_server(settings: Settings, *, adopt: bool = False) -> Iterator[Server]:
    app = create_app(settings, adopt=adopt)
    failure: list[BaseException] = []

    async def noting_failure(scope: Any, receive: Any, send: Any) -> None:
        try:
            await app(scope, receive, send)
        except BaseException as error:
            failure.append(error)
            raise

    options = http_options(settings, app.state.metrics)
    config = uvicorn.Config(noting_failure, host="127.0.0.1", port=0, log_config=None, lifespan="on", **options)
    server = uvicorn.Server(config)

    def run() -> None:
        try:
            server.run()
        except SystemExit:
            if not failure:
                raise

    thread = threading.Thread(target=run, name="server")
    thread.start()
    try:
        while not server.started and thread.is_alive():
            time.sleep(0.01)
        if failure:
            raise FailedStart from failure[0]
        port = server.servers[0].sockets[0].getsockname()[1]
        running = Server(app, settings, port)
        with running.client:
            yield running
    finally:
        server.should_exit = True
        thread.join(60)
        assert not thread.is_alive()


@pytest.fixture(scope="session")
def make_settings() -> Callable[..., Settings]:
    """Settings with the starter hasher and no detector, unless told otherwise."""

    def make(data_dir: Path, **overrides: Any) -> Settings:
        return Settings(**{"data_dir": data_dir, "detector_dir": None, "drain_timeout_s": 10.0, **overrides})

    return make


@pytest.fixture(scope="session")
def serve(make_settings: Callable[..., Settings]) -> Serve:
    """Start a service: ``with serve(data_dir, **settings) as server``."""
    return lambda data_dir, *, adopt=False, **overrides: run_server(make_settings(data_dir, **overrides), adopt=adopt)


class Process:
    """``shitu serve`` in a process of its own, with what it wrote to standard output and standard error."""

    def __init__(self, data_dir: Path, environment: dict[str, str]) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        ours = {"SHITU_DATA_DIR": str(data_dir), "SHITU_PORT": str(self.port), "SHITU_DETECTOR_DIR": ""}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "service.cli", "serve"],
            env={**os.environ, **ours, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.output = ""
        self.log: list[str] = []
        self._readers = [threading.Thread(target=read, daemon=True) for read in (self._read_output, self._read_log)]
        for reader in self._readers:
            reader.start()

    def _read_output(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as output:
            self.output = output.read()

    def _read_log(self) -> None:
        assert self.process.stderr is not None
        with self.process.stderr as log:
            self.log.extend(log)

    def wait_until_ready(self) -> None:
        deadline = time.monotonic() + 120
        while not any("shitu is ready" in line or "startup complete" in line for line in self.log):
            assert self.process.poll() is None, self.log
            assert time.monotonic() < deadline
            time.sleep(0.02)

    def wait_for_line(self, text: str) -> None:
        deadline = time.monotonic() + 60
        while not any(text in line for line in self.log):
            assert time.monotonic() < deadline, self.log
            time.sleep(0.01)

    def wait_until_under_way(self) -> None:
        """Wait until it has admitted one request."""
        deadline = time.monotonic() + 60
        while "shitu_requests_under_way 1.0" not in httpx.get(f"{self.url}/metrics").text:
            assert time.monotonic() < deadline
            time.sleep(0.02)

    def wait_until_closed(self) -> None:
        """Wait until it takes no new connections; the log says so an instant before."""
        deadline = time.monotonic() + 60
        with suppress(ConnectionRefusedError):
            while time.monotonic() < deadline:
                socket.create_connection(("127.0.0.1", self.port), timeout=5).close()
                time.sleep(0.02)
            pytest.fail("the service still takes connections")

    def stop(self, number: int = signal.SIGTERM) -> int:
        """End it and return its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.wait()

    def wait(self) -> int:
        """Wait for its end, read the rest of what it wrote, and return its exit code."""
        try:
            code = self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise
        for reader in self._readers:
            reader.join(10)
        return code


@pytest.fixture
def start_service() -> Iterator[Callable[..., Process]]:
    """Start ``shitu serve``: ``start_service(data_dir, SHITU_X="...")``; it ends with the test."""
    processes: list[Process] = []

    def start(data_dir: Path, *, ready: bool = True, **environment: str) -> Process:
        processes.append(Process(data_dir, environment))
        if ready:
            processes[-1].wait_until_ready()
        return processes[-1]

    yield start
    for process in processes:
        process.stop()


@pytest.fixture(scope="session")
def noisy_detector(export_detector: Callable[[Any], Path]) -> Path:
    """A detector that finds nothing, and whose graph makes Paddle write to standard output past Python."""
    import paddle

    paddle.disable_static()

    class Mean(paddle.nn.Layer):
        def __init__(self) -> None:
            super().__init__()
            self.row = self.create_parameter([1, 6])

        def forward(self, image: Any, im_shape: Any, scale_factor: Any) -> Any:
            mean = image.mean([2, 3]).sum() + 0 * (im_shape[0, 0] + scale_factor[0, 0])
            return self.row * 0 - 1 + 0 * mean, paddle.full([1], 1, "int32")

    return export_detector(Mean())


@pytest.fixture(scope="session")
def failed_start() -> type[FailedStart]:
    return FailedStart


@pytest.fixture(scope="module")
def server(serve: Serve, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A service that the tests of a module share."""
    with serve(tmp_path_factory.mktemp("data")) as running:
        yield running


@pytest.fixture(scope="session")
def photos() -> dict[str, np.ndarray]:
    """Photographs, RGB uint8 (H, W, 3)."""
    names = ("astronaut", "coffee", "chelsea", "rocket", "hubble_deep_field", "immunohistochemistry")
    photos = {name: np.asarray(getattr(skimage.data, name)()) for name in names}
    return {name: np.ascontiguousarray(pixels[:400, :400]) for name, pixels in photos.items()}


@pytest.fixture(scope="session")
def detector_dir(export_detector: Callable[[Any], Path]) -> Path:
    """A detector under PP-ShiTu's export contract that finds the same boxes in every picture.

    In quarters of the picture's width and height: (1, 1, 3, 3) with score 0.9, (1, 1, 3, 2) with 0.8, which lies
    in the first, (0, 3, 1, 4) with 0.5, and (3, 3, 4, 4) with 0.1.
    """
    import paddle

    paddle.disable_static()  # dynamic mode is a thread's own; a server's thread may have imported Paddle first

    class FixedBoxes(paddle.nn.Layer):
        def __init__(self) -> None:
            super().__init__()
            quarters = [[1, 1, 3, 3], [1, 1, 3, 2], [0, 3, 1, 4], [3, 3, 4, 4]]
            self.quarters = self.create_parameter([4, 4])
            self.quarters.set_value(np.array(quarters, np.float32))

        def forward(self, image: Any, im_shape: Any, scale_factor: Any) -> Any:
            scores = paddle.to_tensor([[0.9], [0.8], [0.5], [0.1]])
            # im_shape is the size of the input as (y, x); its ratio to scale_factor is the picture's size.
            size = (im_shape / scale_factor)[0].flip(0)
            boxes = self.quarters / 4 * paddle.concat([size, size])
            rows = paddle.concat([paddle.zeros([4, 1]), scores, boxes + 0 * image[0, 0, 0, 0]], axis=1)
            return rows, paddle.full([1], 4, "int32")

    return export_detector(FixedBoxes())


@pytest.fixture(scope="session")
def encode() -> Encode:
    """Write pixels (or a Pillow picture) as a file: ``encode(pixels, "PNG", **options)``."""

    def encode(picture: np.ndarray | Image.Image, kind: str = "PNG", **options: Any) -> bytes:
        image = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
        stream = io.BytesIO()
        image.save(stream, kind, **options)
        return stream.getvalue()

    return encode


@pytest.fixture(scope="session")
def photo_files(photos: dict[str, np.ndarray], encode: Encode) -> dict[str, bytes]:
    """The photographs as JPEG files."""
    return {name: encode(pixels, "JPEG", quality=92) for name, pixels in photos.items()}


@pytest.fixture(scope="session")
def issue() -> Issue:
    """Make a key: ``issue("camera1", "search", "gallery", rate="10")``."""

    def issue(name: str, *scopes: str, **limits: str) -> Issued:
        secret = make_key()
        return Issued(secret, write_line(new_key(name, scopes, digest_of(secret), limits)))

    return issue
