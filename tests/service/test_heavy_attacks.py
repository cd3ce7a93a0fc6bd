"""Attacks by number and size on ``shitu serve`` in a process of its own; each prints what it measured (``-s``)."""

from __future__ import annotations

import io
import re
import resource
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image

from .commands.conftest import Server
from .test_attacks import reset_uploads

pytestmark = pytest.mark.slow

MIB = 2**20
HOLD = """
import resource, socket, sys
resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
port, count, head = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3].encode()
held = []
for _ in range(count):
    held.append(socket.create_connection(("127.0.0.1", port), timeout=60))
    held[-1].sendall(head)
print("held", flush=True)
sys.stdin.read()
"""


class Attacked:
    """A service, and what is seen of it from outside."""

    def __init__(self, process: Server) -> None:
        self.url = process.url()
        self.port = int(self.url.rsplit(":", 1)[1])
        self._status = Path(f"/proc/{process.process.pid}/status")

    def memory_mib(self, field: str = "VmRSS") -> float:
        found = re.search(rf"{field}:\s+(\d+) kB", self._status.read_text())
        assert found
        return int(found[1]) / 1024

    def metric(self, sample: str) -> float:
        text = httpx.get(f"{self.url}/metrics", timeout=60).text
        found = re.search(rf"^{re.escape(sample)} (\S+)$", text, re.MULTILINE)
        return float(found[1]) if found else 0.0

    def wait_until_idle(self, others: int = 0) -> float:
        """Wait until at most so many others are connected, and give the seconds that took."""
        start = time.monotonic()
        while self.metric("shitu_connections") > 1 + others or self.metric("shitu_requests_under_way") > others:
            assert time.monotonic() - start < 120
            time.sleep(0.1)
        return time.monotonic() - start

    @contextmanager
    def well_behaved_client(self, picture: bytes) -> Iterator[list[float]]:
        """Probe and search in the background, a new connection each time; every answer must be good."""
        latencies: list[float] = []
        failures: list[str] = []
        stop = threading.Event()

        def ask() -> None:
            ended = False
            while not ended:  # at least once, however short the attack is
                for method, path in (("GET", "/livez"), ("GET", "/readyz"), ("POST", "/search")):
                    start = time.monotonic()
                    files = {"image": picture} if method == "POST" else None
                    try:
                        status = httpx.request(method, self.url + path, files=files, timeout=60).status_code
                    except httpx.HTTPError as error:
                        failures.append(f"{path}: {error!r}")
                        continue
                    latencies.append(time.monotonic() - start)
                    if status != 200 and not (path == "/search" and status == 429):
                        failures.append(f"{path}: {status}")
                ended = stop.wait(0.05)

        thread = threading.Thread(target=ask)
        thread.start()
        try:
            yield latencies
        finally:
            stop.set()
            thread.join()
        assert failures == []
        assert latencies


@pytest.fixture
def attacked(start_process: Callable[..., Attacked], tmp_path: Path) -> Attacked:
    return start_process("--data-dir", tmp_path / "data", "--detector-dir", "")


@pytest.fixture
def start_process() -> Iterator[Callable[..., Attacked]]:
    processes: list[Server] = []

    def start(*arguments: object, **environment: str) -> Attacked:
        processes.append(Server(*arguments, environment=environment))
        return Attacked(processes[-1])

    yield start
    for process in processes:
        assert process.stop() == 0
        assert "Traceback" not in "".join(process.log)


@pytest.fixture
def picture(photo_files: dict[str, bytes]) -> bytes:
    return photo_files["coffee"]


@contextmanager
def held_connections(port: int, count: int, head: str) -> Iterator[None]:
    """Hold connections that have sent the beginning of a head, in another process."""
    arguments = [sys.executable, "-c", HOLD, str(port), str(count), head]
    with subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        yield
        process.stdin.close()


@pytest.mark.parametrize("head", ["", "GET /livez HTTP/1.1\r\nX: "])
@pytest.mark.parametrize("max_connections", [1000, 11_000])
def test_ten_thousand_idle_connections(
    start_process: Callable[..., Attacked], tmp_path: Path, picture: bytes, head: str, max_connections: int
) -> None:
    count = 10_000
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < max(count, max_connections) + 500:
        pytest.skip(f"this machine allows only {hard} open files")
    attacked = start_process(
        *("--data-dir", tmp_path / "data", "--detector-dir", ""), SHITU_MAX_CONNECTIONS=str(max_connections)
    )
    before = attacked.memory_mib()
    with attacked.well_behaved_client(picture) as latencies, held_connections(attacked.port, count, head):
        held = attacked.metric("shitu_connections")
        memory = attacked.memory_mib()
        lasted = attacked.wait_until_idle(others=1)
    print(
        f"\n{count} connections, at most {max_connections}: {held:.0f} open in the end, closed {lasted:.0f} s later; "
        f"slowest good answer {max(latencies):.2f} s of {len(latencies)}; "
        f"memory {before:.0f}, {memory:.0f}, after {attacked.memory_mib():.0f} MiB"
    )
    attacked.wait_until_idle()
    assert attacked.memory_mib() < before + 300


def test_five_hundred_uploads_of_20_mib_at_once(attacked: Attacked, picture: bytes) -> None:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (700, 700, 3), np.uint8).repeat(10, axis=0).repeat(10, axis=1)  # 49 million
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", quality=50)
    file = stream.getvalue().ljust(20 * MIB, b"\0")
    head = b'--x\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n'
    body = head + file + b"\r\n--x--\r\n"
    before = attacked.memory_mib()

    def upload(_: int) -> int:
        with httpx.Client(timeout=600) as client:
            try:
                kind = {"Content-Type": "multipart/form-data; boundary=x"}
                return client.post(f"{attacked.url}/search", headers=kind, content=body).status_code
            except httpx.HTTPError:
                return 0

    start = time.monotonic()
    with attacked.well_behaved_client(picture) as latencies, ThreadPoolExecutor(500) as pool:
        statuses = list(pool.map(upload, range(500)))
    counts = {status: statuses.count(status) for status in sorted(set(statuses))}
    print(
        f"\n500 uploads of 20 MiB: {counts} in {time.monotonic() - start:.0f} s; slowest other answer "
        f"{max(latencies):.2f} s; memory {before:.0f}, peak {attacked.memory_mib('VmHWM'):.0f}, "
        f"after {attacked.memory_mib():.0f} MiB"
    )
    assert set(statuses) <= {200, 429, 0}
    assert statuses.count(200) >= 64
    assert (
        attacked.memory_mib("VmHWM") < before + 64 * 2 * 21 + 2000
    )  # twice the bodies of what is admitted, and pixels
    attacked.wait_until_idle()


def test_a_thousand_uploads_that_are_reset(attacked: Attacked, picture: bytes) -> None:
    before = attacked.memory_mib()
    with attacked.well_behaved_client(picture) as latencies:
        reset_uploads(attacked.port, 1000)
    waited = attacked.wait_until_idle()
    print(
        f"\n1,000 resets: slowest other answer {max(latencies):.2f} s; idle {waited:.1f} s after; "
        f"memory {before:.0f}, after {attacked.memory_mib():.0f} MiB"
    )
    assert attacked.metric('shitu_http_requests_total{method="POST",route="/gallery",status="499"}') > 0
    assert attacked.memory_mib() < before + 200


@pytest.mark.parametrize("path", ["/gallery", "/gallery/batch", "/livez", "/nowhere"])
def test_a_body_of_a_gigabyte(attacked: Attacked, path: str) -> None:
    before = attacked.memory_mib()
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: multipart/form-data; boundary=x\r\n"
    sent = 0
    with socket.create_connection(("127.0.0.1", attacked.port), timeout=60) as connection:
        part = b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\n'
        connection.sendall(head.encode() + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n" % (len(part), part))
        with suppress(OSError):
            piece = b"100000\r\n" + bytes(MIB) + b"\r\n"
            for _ in range(1024):
                connection.sendall(piece)
                sent += MIB
        answer = b""
        with suppress(OSError):
            answer = connection.recv(MIB)
    print(
        f"\n1 GiB to {path}: {answer[:12]!r} after {sent // MIB} MiB; memory {before:.0f}, "
        f"peak {attacked.memory_mib('VmHWM'):.0f} MiB"
    )
    assert answer[9:12] in (b"404", b"405", b"413", b"")
    assert attacked.memory_mib("VmHWM") < before + 600
    attacked.wait_until_idle()


def test_a_search_that_finds_as_much_metadata_as_there_can_be(attacked: Attacked, picture: bytes) -> None:
    with httpx.Client(base_url=attacked.url, timeout=600) as client:
        code = "00" * (client.get("/index").json()["bits"] // 8)
        items = [{"code": code, "label": "x", "metadata": {"a": [[]] * 21_000}}] * 40
        for _ in range(8):
            assert client.post("/gallery/batch", json={"items": items}).status_code == 200
        with attacked.well_behaved_client(picture) as latencies:
            start = time.monotonic()
            answer = client.post("/search", json={"code": code, "top_k": 1000})
            took = time.monotonic() - start
    assert len(answer.json()["objects"][0]["matches"]) == 320
    print(f"\n{len(answer.content) / MIB:.0f} MiB found in {took:.1f} s; slowest other answer {max(latencies):.2f} s")
    assert len(latencies) > 6  # others were answered in between


def test_answers_that_nobody_takes(attacked: Attacked, picture: bytes) -> None:
    client = httpx.Client(base_url=attacked.url, timeout=600)
    code = "00" * (client.get("/index").json()["bits"] // 8)
    for _ in range(5):
        items = [{"code": code, "label": "x", "metadata": {"a": "x" * 65_000}}] * 200
        assert client.post("/gallery/batch", json={"items": items}).status_code == 200
    before = attacked.memory_mib()
    readers = []
    with attacked.well_behaved_client(picture) as latencies:
        for _ in range(60):
            time.sleep(0.5)
            reader = socket.socket()
            reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            reader.connect(("127.0.0.1", attacked.port))
            reader.sendall(b"GET /gallery?limit=1000 HTTP/1.1\r\nHost: x\r\n\r\n")
            readers.append(reader)
        time.sleep(65)
    print(
        f"\n60 readers of 62 MiB who take nothing: slowest other answer {max(latencies):.2f} s; memory {before:.0f}, "
        f"peak {attacked.memory_mib('VmHWM'):.0f}, in the end {attacked.memory_mib():.0f} MiB"
    )
    assert attacked.metric('shitu_connections_refused_total{reason="stalled"}') == 60
    for reader in readers:
        reader.close()
    attacked.wait_until_idle()
    client.close()
