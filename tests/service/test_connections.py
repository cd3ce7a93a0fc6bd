"""Hostile connections, byte by byte: a real server over a small application, its limits narrow enough to be reached."""

from __future__ import annotations

import asyncio
import functools
import json
import re
import resource
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import pytest
import uvicorn

from service.connections import ConnectionLimits, Connections, GuardedProtocol, make_room
from service.errors import StartupError
from service.metrics import Metrics
from service.middleware import LingeringClose

HOST = b"Host: x\r\n"
GET = b"GET /short HTTP/1.1\r\n" + HOST
POST = b"POST /read HTTP/1.1\r\n" + HOST
CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n"
SOME_BYTES = 60_000  # so little that the application is not told to wait
LARGE_BYTES = 64 * 2**20


@dataclass
class Guarded:
    """A running server with limits, and what its application saw."""

    port: int
    metrics: Metrics
    seen: list[tuple[str, list[tuple[bytes, bytes]], bytes]]
    begun: list[str] = field(default_factory=list)
    held: threading.Event = field(default_factory=threading.Event)

    def connect(self, *, receive_buffer: int | None = None) -> socket.socket:
        connection = socket.socket()
        if receive_buffer:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        connection.settimeout(60)
        connection.connect(("127.0.0.1", self.port))
        return connection

    def exchange(self, *pieces: bytes) -> bytes:
        """Send pieces and give everything that comes back until the server closes."""
        with self.connect() as connection:
            with suppress(OSError):  # the server may have closed already
                for piece in pieces:
                    connection.sendall(piece)
            return read_all(connection)

    def metric(self, sample: str) -> float:
        text = self.metrics.render().decode()
        found = re.search(rf"^{re.escape(sample)} (\S+)$", text, re.MULTILINE)
        return float(found[1]) if found else 0.0

    def refused(self, reason: str) -> float:
        return self.metric(f'shitu_connections_refused_total{{reason="{reason}"}}')

    def wait_for(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 30
        while not condition():
            assert time.monotonic() < deadline
            time.sleep(0.01)


def read_all(connection: socket.socket) -> bytes:
    received = bytearray()
    with suppress(ConnectionResetError):
        while data := connection.recv(2**16):
            received += data
    return bytes(received)


def take(connection: socket.socket, size: int) -> None:
    """Read at least so much, and leave the connection open."""
    while size > 0:
        data = connection.recv(2**20)
        assert data
        size -= len(data)


def statuses(answers: bytes) -> list[int]:
    return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3}) ", answers)]


@contextmanager
def guarded(send_buffer: int | None = None, **limits: Any) -> Iterator[Guarded]:
    """Serve a few paths: /short answers at once, /read after the body, /hold when told, /some and /large with more."""
    metrics = Metrics()
    running = Guarded(0, metrics, [])
    bodies = {"/some": bytes(SOME_BYTES), "/large": bytes(LARGE_BYTES)}

    async def application(scope: Any, receive: Any, send: Any) -> None:
        path, body = scope["path"], b""
        running.begun.append(path)
        if path == "/read":
            more = True
            while more:
                message = await receive()
                if message["type"] == "http.disconnect":
                    return
                body += message.get("body", b"")
                more = message.get("more_body", False)
        while path == "/hold" and not running.held.is_set():
            await asyncio.sleep(0.01)
        running.seen.append((path, list(scope["headers"]), body))
        await send({"type": "http.response.start", "status": 200, "headers": [(b"x-path", path.encode())]})
        await send({"type": "http.response.body", "body": bodies.get(path, b"ok")})

    connections = Connections(ConnectionLimits(**{"max_connections": 50, "header_timeout_s": 30.0, **limits}), metrics)
    protocol: Any = functools.partial(GuardedProtocol, connections)
    application = LingeringClose(application, linger_s=30.0)  # type: ignore[assignment]
    config = uvicorn.Config(application, log_config=None, lifespan="off", http=protocol, ws="none")
    server = uvicorn.Server(config)
    listener = socket.create_server(("127.0.0.1", 0))
    if send_buffer:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer)  # its connections have it, too
    running.port = listener.getsockname()[1]
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        while not server.started:
            time.sleep(0.01)
        yield running
    finally:
        running.held.set()
        server.force_exit = server.should_exit = True
        thread.join(60)
        assert not thread.is_alive()
        listener.close()


@pytest.fixture(scope="module")
def server() -> Iterator[Guarded]:
    with guarded() as running:
        yield running


# Requests that can be read in two ways (request smuggling)


@pytest.mark.parametrize(
    "request_bytes",
    [
        POST + b"Content-Length: 4\r\n" + CHUNKED + b"1\r\na\r\n0\r\n\r\n",
        POST + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        POST + b"Content-Length: 1\r\nContent-Length: 1\r\n\r\na",
        POST + b"Content-Length: 1, 1\r\n\r\na",
        POST + b"Content-Length: +1\r\n\r\na",
        POST + b"Content-Length: 0x1\r\n\r\na",
        POST + b"Content-Length: 99999999999999999999999\r\n\r\na",
        POST + b"Transfer-Encoding: xchunked\r\n\r\n1\r\na\r\n0\r\n\r\n",
        POST + b"Transfer-Encoding: chunked, identity\r\n\r\n1\r\na\r\n0\r\n\r\n",
        POST + b"Transfer-Encoding: identity\r\n" + CHUNKED + b"1\r\na\r\n0\r\n\r\n",
        POST + b"Transfer-Encoding : chunked\r\n\r\n1\r\na\r\n0\r\n\r\n",
        POST + b"Transfer-Encoding: \x0bchunked\r\n\r\n1\r\na\r\n0\r\n\r\n",
        POST + CHUNKED + b"-1\r\na\r\n0\r\n\r\n",
        POST + CHUNKED + b"fffffffffffffffff1\r\na\r\n0\r\n\r\n",
        POST + CHUNKED + b"1\na\n0\n\n",
        b"GET /short HTTP/1.1\nHost: x\n\n",
        b"GET /short HTTP/1.1\r\nHost: x\nA: b\r\n\r\n",
        GET + b"A: a\r\n folded\r\n\r\n",
        GET + b"A: a\0b\r\n\r\n",
        GET + b"A\0: b\r\n\r\n",
        GET + b": b\r\n\r\n",
        POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n1\r\na\r\n0\r\n\r\n",
        GET + HOST + b"\r\n",
        b"GET /short\xff HTTP/1.1\r\n" + HOST + b"\r\n",
        b"GET /short HTTP/3.7\r\n" + HOST + b"\r\n",
        b"CONNECT evil.example:443 HTTP/1.1\r\n" + HOST + b"\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(100),  # TLS
    ],
)
def test_what_is_ambiguous_or_not_http_is_refused_and_the_connection_ends(
    server: Guarded, request_bytes: bytes
) -> None:
    seen, refused = len(server.seen), server.refused("malformed")
    answer = server.exchange(request_bytes, GET + b"\r\n")
    head, _, body = answer.partition(b"\r\n\r\n")
    assert statuses(answer) == [400]
    assert b"content-type: application/problem+json" in head.lower()
    assert b"connection: close" in head.lower()
    problem = json.loads(body)
    assert (problem["code"], problem["status"]) == ("malformed_request", 400)
    assert f"x-request-id: {problem['request_id']}".encode() in head.lower()
    assert len(server.seen) == seen
    assert server.refused("malformed") == refused + 1


def test_absolute_targets_and_strange_hosts_lead_to_the_same_paths(server: Guarded) -> None:
    close = b"Connection: close\r\n\r\n"
    for head in (
        b"GET http://evil.example/short HTTP/1.1\r\n" + HOST,
        b"GET /short HTTP/1.1\r\nHost: [\r\n",
        b"GET /short HTTP/1.1\r\nHost: evil.example/?\r\n",
        b"GET /short HTTP/1.1\r\n",
    ):
        assert b"x-path: /short" in server.exchange(head + close)


@pytest.mark.parametrize("protocol", [b"h2c", b"websocket", b"TLS/1.0", b"x" * 1000])
def test_an_upgrade_is_ignored_and_nothing_after_it_is_read(server: Guarded, protocol: bytes) -> None:
    seen = len(server.seen)
    answer = server.exchange(GET + b"Connection: Upgrade\r\nUpgrade: " + protocol + b"\r\n\r\n" + GET + b"\r\n")
    assert statuses(answer) == [200]
    assert len(server.seen) == seen + 1


@pytest.mark.parametrize("body", [b"Content-Length: 5\r\n\r\nhello", CHUNKED + b"2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n"])
@pytest.mark.parametrize("cut", [0, 60, 66])
def test_a_request_that_asks_for_an_upgrade_keeps_its_body(server: Guarded, body: bytes, cut: int) -> None:
    """Java's client asks for HTTP/2 with every first request, also with one that has a body."""
    seen = len(server.seen)
    rest = b"Upgrade: h2c\r\nConnection: Upgrade\r\n" + body + GET + b"\r\n"
    with server.connect() as connection:
        connection.sendall(POST + rest[:cut])
        time.sleep(0.02 * bool(cut))  # so that it mostly comes in two pieces
        connection.sendall(rest[cut:])
        answer = read_all(connection)
    assert statuses(answer) == [200]
    assert b"connection: close" in answer.lower()
    assert [(path, body) for path, _, body in server.seen[seen:]] == [("/read", b"hello")]


def test_a_body_after_an_upgrade_that_turns_into_garbage_is_told_so(server: Guarded) -> None:
    answer = server.exchange(
        POST + b"Connection: Upgrade\r\nUpgrade: h2c\r\n" + CHUNKED + b"1\r\na\r\n", b"garbage\r\n"
    )
    assert statuses(answer) == [400]


def test_trailers_are_not_taken_for_header_fields(server: Guarded) -> None:
    answer = server.exchange(POST + b"Connection: close\r\n" + CHUNKED + b"1\r\na\r\n0\r\nX-Request-ID: forged\r\n\r\n")
    assert statuses(answer) == [200]
    path, headers, body = server.seen[-1]
    assert (path, body) == ("/read", b"a")
    assert b"x-request-id" not in dict(headers)


def test_pipelined_requests_are_answered_in_order(server: Guarded) -> None:
    second = b"GET /other HTTP/1.1\r\n" + HOST + b"Connection: close\r\n\r\n"
    answer = server.exchange(POST + b"Content-Length: 1\r\n\r\na" + GET + b"\r\n" + second)
    assert re.findall(rb"x-path: (\S+)", answer) == [b"/read", b"/short", b"/other"]


def test_garbage_after_a_request_does_not_become_its_answer(server: Guarded) -> None:
    with server.connect() as connection:
        connection.sendall(b"GET /hold HTTP/1.1\r\n" + HOST + b"\r\n" + b"\0garbage\r\n\r\n")
        server.wait_for(lambda: server.begun[-1] == "/hold")
        server.held.set()
        answer = read_all(connection)
    server.held.clear()
    assert statuses(answer) == [200]


def test_a_body_that_turns_into_garbage_is_told_so(server: Guarded) -> None:
    answer = server.exchange(POST + CHUNKED + b"1\r\na\r\n", b"garbage\r\n")
    assert statuses(answer) == [400]


def test_a_connection_that_still_owes_a_body_is_not_used_again(server: Guarded) -> None:
    """Else the next request of a client that is answered in the place of "100 Continue" were taken for its body."""
    head = b"POST /short HTTP/1.1\r\n" + HOST + b"Content-Length: 100\r\nExpect: 100-continue\r\n\r\n"
    with server.connect() as connection:
        connection.sendall(head)
        assert statuses(read_all(connection)) == [200]


# Large heads


@pytest.mark.parametrize(
    "start",
    [
        b"GET /" + b"a" * 70_000,
        b"GET /" + b"a" * 2**20,
        GET + b"A: " + b"a" * 2**20,
        GET + b"A: " + b"a" * 70_000 + b"\r\n\r\n",
        GET + b"A" * 2**20,
        GET + b"A: b\r\n" * 129 + b"\r\n",
        GET + b"A: b\r\n" * 100_000,
        b"\r\n" * 2**17,
        POST + CHUNKED + b"1\r\na\r\n0\r\nA: " + b"a" * 2**20,
        POST + CHUNKED + b"1\r\na\r\n0\r\n" + b"A: bcdefgh\r\n" * 100_000,
        POST + CHUNKED + b"1;" + b"a" * 2**20,
    ],
)
def test_a_head_or_trailer_that_is_too_large_is_refused(server: Guarded, start: bytes) -> None:
    answer = server.exchange(*(start[at : at + 2**16] for at in range(0, len(start), 2**16)))
    assert statuses(answer) == [431]
    assert b'"code":"head_too_large"' in answer


def test_a_head_may_have_just_what_is_allowed(server: Guarded) -> None:
    fields = b"".join(b"A%d: %s\r\n" % (number, b"a" * 400) for number in range(126))
    assert statuses(server.exchange(GET + fields + b"Connection: close\r\n\r\n")) == [200]


def test_of_many_pipelined_requests_only_a_few_are_kept(server: Guarded) -> None:
    seen = len(server.seen)
    answers = statuses(server.exchange((GET + b"\r\n") * 10_000))
    assert set(answers) == {200}
    assert len(answers) < 20
    assert len(server.seen) - seen < 20


# Slow heads


def test_a_head_has_a_deadline_and_neither_bytes_nor_requests_before_it_move_it() -> None:
    with guarded(header_timeout_s=1.0) as server:
        silent, dripping, blank, later = (server.connect() for _ in range(4))
        dripping.sendall(GET)
        later.sendall(GET + b"\r\n")
        later.recv(1000)
        later.sendall(GET)
        stop = threading.Event()

        def drip() -> None:
            with suppress(OSError):
                while not stop.wait(0.05):
                    for connection, drop in ((dripping, b"A"), (blank, b"\r\n"), (later, b"A")):
                        connection.sendall(drop)

        thread = threading.Thread(target=drip)
        thread.start()
        try:
            assert read_all(silent) == b""
            for connection in (dripping, blank, later):
                answer = read_all(connection)
                assert statuses(answer) in ([408], [])  # [] if a byte too late reset the connection
        finally:
            stop.set()
            thread.join()
            for connection in (silent, dripping, blank, later):
                connection.close()
        assert server.refused("header_timeout") == 4
        server.wait_for(lambda: server.metric("shitu_connections") == 0)


def test_who_stops_within_a_head_is_told() -> None:
    with guarded(header_timeout_s=0.2) as quick:
        answer = quick.exchange(b"GET /short HT")
        assert statuses(answer) == [408]
        assert b'"code":"head_timeout"' in answer


def test_a_request_under_way_has_no_deadline_of_heads() -> None:
    with guarded(header_timeout_s=0.2) as server, server.connect() as connection:
        connection.sendall(b"GET /hold HTTP/1.1\r\n" + HOST + b"Connection: close\r\n\r\n")
        time.sleep(0.6)
        server.held.set()
        assert statuses(read_all(connection)) == [200]


# Many connections


def test_a_new_client_takes_the_place_of_the_longest_idle_one() -> None:
    with guarded(max_connections=3) as server:
        idle = []
        for number in range(3):
            idle.append(server.connect())
            server.wait_for(lambda number=number: server.metric("shitu_connections") == number + 1)  # type: ignore[misc]
        idle[0].sendall(GET + b"\r\n")  # served, and idle for a shorter time than the others
        assert statuses(idle[0].recv(1000)) == [200]
        assert statuses(server.exchange(GET + b"Connection: close\r\n\r\n")) == [200]
        assert idle[1].recv(10) == b""
        idle[0].sendall(GET + b"\r\n")
        assert statuses(idle[0].recv(1000)) == [200]
        assert server.refused("evicted") == 1
        for connection in idle:
            connection.close()


def test_a_client_that_has_its_answer_gives_way_although_it_still_sends() -> None:
    with guarded(max_connections=2) as server:
        senders = [server.connect() for _ in range(2)]
        for sender in senders:
            sender.sendall(b"POST /short HTTP/1.1\r\n" + HOST + b"Content-Length: 1000000\r\n\r\nx")
            assert statuses(sender.recv(1000)) == [200]
        assert statuses(server.exchange(GET + b"Connection: close\r\n\r\n")) == [200]
        assert server.refused("evicted") == 1
        for sender in senders:
            sender.close()


def test_when_all_are_at_work_a_new_client_is_told_to_come_again() -> None:
    with guarded(max_connections=2) as server:
        working = [server.connect() for _ in range(2)]
        for connection in working:
            connection.sendall(b"GET /hold HTTP/1.1\r\n" + HOST + b"Connection: close\r\n\r\n")
        server.wait_for(lambda: server.begun == ["/hold", "/hold"])
        with server.connect() as late:
            answer = read_all(late)
        assert statuses(answer) == [503]
        assert b"retry-after: 1" in answer.lower()
        assert b'"code":"too_many_connections"' in answer
        assert server.refused("limit") == 1
        server.held.set()
        for connection in working:
            assert statuses(read_all(connection)) == [200]
            connection.close()
        server.wait_for(lambda: server.metric("shitu_connections") == 0)


def test_connections_are_counted_while_they_are_open(server: Guarded) -> None:
    with server.connect(), server.connect():
        server.wait_for(lambda: server.metric("shitu_connections") == 2)
    server.wait_for(lambda: server.metric("shitu_connections") == 0)


# Answers that nobody takes


def test_who_takes_nothing_of_an_answer_is_cut_off() -> None:
    with guarded(stall_s=0.3) as server, server.connect(receive_buffer=4096) as reader:
        reader.sendall(b"GET /large HTTP/1.1\r\n" + HOST + b"\r\n")
        server.wait_for(lambda: server.refused("stalled") == 1)
        server.wait_for(lambda: server.metric("shitu_connections") == 0)
        assert len(read_all(reader)) < LARGE_BYTES


def test_answers_that_are_not_taken_are_bounded_together() -> None:
    with guarded(4096, max_unsent_bytes=2 * LARGE_BYTES) as server, server.connect(receive_buffer=4096) as good:
        good.sendall(b"GET /some HTTP/1.1\r\n" + HOST + b"\r\n")
        take(good, SOME_BYTES)
        good.sendall(b"GET /hold HTTP/1.1\r\n" + HOST + b"Connection: close\r\n\r\n")
        readers = []
        for number in range(4):
            readers.append(server.connect(receive_buffer=4096))
            readers[-1].sendall(b"GET /large HTTP/1.1\r\n" + HOST + b"Connection: close\r\n\r\n")
            server.wait_for(lambda number=number: len(server.seen) == number + 2)  # type: ignore[misc]
        server.wait_for(lambda: server.refused("stalled") == 2)
        lengths = [len(read_all(reader)) for reader in readers]
        assert [length > LARGE_BYTES for length in lengths] == [False, False, True, True]
        server.held.set()
        assert statuses(read_all(good)) == [200]  # who has taken everything is not cut off in the place of others
        for reader in readers:
            reader.close()


def test_a_slow_reader_gets_its_whole_answer() -> None:
    with guarded(stall_s=5.0) as server, server.connect() as reader:
        reader.sendall(b"GET /large HTTP/1.1\r\n" + HOST + b"Connection: close\r\n\r\n")
        received = 0
        while data := reader.recv(2**20):
            received += len(data)
            time.sleep(0.01)
        assert received > LARGE_BYTES
        assert server.refused("stalled") == 0


def test_the_time_to_take_an_answer_begins_with_it() -> None:
    with guarded(4096, stall_s=3.0) as server, server.connect(receive_buffer=4096) as reader:
        reader.sendall(b"GET /some HTTP/1.1\r\n" + HOST + b"\r\n")
        take(reader, SOME_BYTES)
        reader.sendall(b"GET /large HTTP/1.1\r\n" + HOST + b"\r\n")
        for _ in range(2):  # longer than stall_s together, but something is taken in between
            time.sleep(1.6)
            take(reader, LARGE_BYTES // 64)
        assert server.refused("stalled") == 0


# File descriptors


def test_room_for_connections_is_made_or_its_lack_is_told() -> None:
    script = (
        "import resource; from service.connections import make_room\n"
        "hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (100, min(hard, 2000)))\n"
        "make_room(1000); print(resource.getrlimit(resource.RLIMIT_NOFILE)[0])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "2000"
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard == resource.RLIM_INFINITY:
        pytest.skip("no limit here")
    with pytest.raises(StartupError, match=r"SHITU_MAX_CONNECTIONS is .* LimitNOFILE"):
        make_room(hard)
