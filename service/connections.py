"""Connections: how many are open, how long a request's head may take and how large it may be, who must go first.

uvicorn limits none of this: a connection that sends nothing stays for ever, a head may have any length, and at the
limit of file descriptors nobody new gets in. Here

- a head has a deadline, from the connection (or, on one that was kept alive, from its first byte) to its last byte;
- it has a greatest size and number of fields, and so have trailers, chunk extensions and a queue of pipelined requests;
- when all connections are taken, the one goes that has waited longest for a head, or else one whose answer is given
  and whose body is only being thrown away; a new client is refused only if all are at work;
- a client that takes nothing of its answer is cut off.

What is refused before there is a request is answered with a problem document (RFC 9457), as all errors are.
"""

from __future__ import annotations

import asyncio
import functools
import resource
import uuid
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from .errors import (
    HeadTimeout,
    HeadTooLarge,
    MalformedRequest,
    RequestError,
    ServiceError,
    StartupError,
    TooManyConnections,
    problem_of,
)
from .metrics import Metrics
from .problems import problem_response
from .security.headers import HEADERS
from .settings import Settings

_REFUSAL_LINGER_S = 2.0  # closing with unread bytes resets the connection, and the client may not see its answer
_RETRY_AFTER_S = 1
_ONCE = frozenset({b"host", b"transfer-encoding"})
_OTHER_FILES = 256  # what a process opens beside connections: the catalog, models, libraries; 100 were seen


@dataclass(frozen=True)
class ConnectionLimits:
    """Limits of a server's connections.

    Attributes:
        max_connections: how many may be open.
        header_timeout_s: how long the head of a request may take.
        max_head_bytes: of request line and header fields; trailers count, too.
        max_header_fields: header fields of a request.
        max_pipelined: requests that wait on one connection for the answer to an earlier one.
        stall_s: how long a client may take nothing of an answer.
        max_unsent_bytes: of answers that are written and wait for their clients, of all connections together.
    """

    max_connections: int
    header_timeout_s: float
    max_head_bytes: int = 64 * 2**10
    max_header_fields: int = 128
    max_pipelined: int = 8
    stall_s: float = 60.0
    max_unsent_bytes: int = 256 * 2**20


def http_options(settings: Settings, metrics: Metrics) -> dict[str, Any]:
    """Give the options of ``uvicorn.Config`` that decide about connections.

    ``X-Forwarded-*`` is not read: nothing here depends on who a client says it is. Nor is there a WebSocket.
    """
    limits = ConnectionLimits(settings.max_connections, settings.header_timeout_s)
    return {
        "http": functools.partial(GuardedProtocol, Connections(limits, metrics)),
        "ws": "none",
        "timeout_keep_alive": settings.keep_alive_timeout_s,
        "proxy_headers": False,
        "server_header": False,
    }


def files_needed(max_connections: int) -> int:
    """How many files a service with so many connections may open."""
    return max_connections + _OTHER_FILES


def make_room(max_connections: int) -> None:
    """Let this process open as many files as its connections need.

    Raises:
        StartupError: the system does not allow so many.
    """
    needed = files_needed(max_connections)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and needed > hard:
        raise StartupError(
            f"SHITU_MAX_CONNECTIONS is {max_connections:,}, but this process may open no more than {hard:,} files "
            f"(connections and {_OTHER_FILES} others): raise the system's limit (`ulimit -Hn`, LimitNOFILE=, "
            f"`docker run --ulimit nofile=`) to {needed:,}, or set SHITU_MAX_CONNECTIONS lower"
        )
    if soft not in (resource.RLIM_INFINITY, hard):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


class Connections:
    """All connections of a server; belongs to the event loop's thread."""

    def __init__(self, limits: ConnectionLimits, metrics: Metrics) -> None:
        """Begin with none."""
        self.limits = limits
        self.metrics = metrics
        self._open: set[GuardedProtocol] = set()
        self._waiting: dict[GuardedProtocol, None] = {}  # for a head; who has waited longest comes first
        self._sending: dict[GuardedProtocol, None] = {}  # who has taken nothing for longest comes first
        metrics.track_connections(lambda: len(self._open))

    def admit(self, connection: GuardedProtocol) -> bool:
        """Count a new connection in, at the cost of an idle one if all are taken; tell whether there was room."""
        if len(self._open) >= self.limits.max_connections and not self._evict():
            self.metrics.count_connection_refused("limit")
            return False
        self._open.add(connection)
        return True

    def waits(self, connection: GuardedProtocol) -> None:
        """Note that a connection waits for a head from now on."""
        if connection in self._open:
            self._waiting.pop(connection, None)
            self._waiting[connection] = None

    def works(self, connection: GuardedProtocol) -> None:
        """Note that a connection has a request to answer."""
        self._waiting.pop(connection, None)

    def sends(self, connection: GuardedProtocol) -> None:
        """Note that a client begins to get an answer or has taken something of it.

        Others that have taken nothing for longest are cut off if what all have not taken is too much.
        """
        self._sending.pop(connection, None)
        self._sending[connection] = None
        sizes = {each: each.unsent_bytes for each in self._sending}
        unsent = sum(sizes.values())
        for each, size in sizes.items():
            if unsent <= self.limits.max_unsent_bytes or each is connection:
                return
            if size:  # else it has taken all since it was looked at last, and may have another request under way
                unsent -= size
                self.cut_off(each)

    def sent(self, connection: GuardedProtocol) -> None:
        """Note that a client has taken all of its answer."""
        self._sending.pop(connection, None)

    def cut_off(self, connection: GuardedProtocol) -> None:
        """End a connection whose answer takes memory that its client does not relieve."""
        self.gone(connection)
        self.metrics.count_connection_refused("stalled")
        connection.transport.abort()

    def gone(self, connection: GuardedProtocol) -> None:
        """Forget a connection."""
        self._waiting.pop(connection, None)
        self._sending.pop(connection, None)
        self._open.discard(connection)

    def _evict(self) -> bool:
        """Close the connection that is needed least; tell whether there was one."""
        idle = next((each for each in self._waiting if not each.unsent_bytes), None)
        victim = idle or next((each for each in self._open if each.only_lingers), None)
        if victim is None:
            return False
        self.gone(victim)
        self.metrics.count_connection_refused("evicted")
        victim.transport.abort()
        return True


class GuardedProtocol(HttpToolsProtocol):
    """uvicorn's HTTP/1.1 protocol with limits."""

    def __init__(self, connections: Connections, **options: Any) -> None:
        """Take the server's connections, and what uvicorn gives a protocol."""
        super().__init__(**options)
        self._connections = connections
        self._limits = connections.limits
        self._deadline: asyncio.TimerHandle | None = None  # for the head that is expected
        self._stall: asyncio.TimerHandle | None = None  # for the answer that is not being taken
        self._unsent_before = 0
        self._in_message = False
        self._in_head = True
        self._head_bytes = 0
        self._fruitless_bytes = 0  # since the parser last got something out of them
        self._closing = False  # nothing further is read

    # What the server asks

    @property
    def unsent_bytes(self) -> int:
        """How much of answers the client has not taken."""
        return self.transport.get_write_buffer_size()

    @property
    def only_lingers(self) -> bool:
        """Whether the answer is given, and the rest of the request's body is read only to be thrown away."""
        cycle = self.cycle
        return cycle is not None and cycle.response_started and cycle.more_body and not self.unsent_bytes

    # What the transport tells

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Admit the client, or send it away."""
        super().connection_made(transport)
        if self._connections.admit(self):
            self._connections.waits(self)
            self._start_deadline()
        else:
            self._closing = True
            self._write_problem(TooManyConnections(self._limits.max_connections, _RETRY_AFTER_S))
            transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the client."""
        self._connections.gone(self)
        self._stop_deadline()
        self._stop_watching()
        self._unset_keepalive_if_required()  # uvicorn leaves the timer, and by it this object, after a reset
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse what came, within the limits."""
        if self._closing:
            return
        self._unset_keepalive_if_required()
        if not self._in_message:
            self._start_deadline()  # blank lines before a request count
        self._fruitless_bytes += len(data)
        try:
            self._parse(data)
        except httptools.HttpParserError as error:
            cause = error.__context__
            self._refuse(
                cause
                if isinstance(cause, RequestError)
                else MalformedRequest("this is not HTTP/1.1, or can be read in more than one way (RFC 9112)"),
                "malformed",
            )
        else:
            if self._fruitless_bytes > self._limits.max_head_bytes:
                self._refuse(self._head_too_large(), "malformed")

    def pause_writing(self) -> None:
        """Wait with the answer until the client takes more of it, but not for ever."""
        super().pause_writing()
        self._watch_answer()

    def resume_writing(self) -> None:
        """Go on with the answer."""
        super().resume_writing()
        self._watch_answer()

    # What the parser finds

    def on_message_begin(self) -> None:
        """Begin a request."""
        if len(self.pipeline) >= self._limits.max_pipelined:
            raise MalformedRequest(f"more than {self._limits.max_pipelined} requests wait for an answer")
        super().on_message_begin()
        self._in_message = self._in_head = True
        self._head_bytes = 0
        self._start_deadline()

    def on_url(self, url: bytes) -> None:
        """Take a piece of the request's target."""
        self._count_head(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header field; trailers are counted and discarded (RFC 9110, section 6.5.1)."""
        self._count_head(len(name) + len(value))
        if self._in_head:
            if len(self.headers) >= self._limits.max_header_fields:
                raise HeadTooLarge(f"the request has more than {self._limits.max_header_fields} header fields")
            self._check_once(name.lower(), value)
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Have the request answered."""
        super().on_headers_complete()
        self._in_head = False
        self._fruitless_bytes = 0
        self._stop_deadline()
        self._connections.works(self)

    def on_body(self, body: bytes) -> None:
        """Take a piece of the body."""
        self._fruitless_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """End a request."""
        if self.parser.should_upgrade() and self._framing():
            return  # the parser takes its body for the other protocol
        self._fruitless_bytes = 0
        self._in_message = False
        super().on_message_complete()

    # What the application does

    def on_response_complete(self) -> None:
        """Wait for the next request, if this connection can have one."""
        self._watch_answer()
        answered = self.cycle.response_complete
        if answered and self._in_message and not self._in_head:
            # The client still owes a body, which would be taken for the next request or the other way round.
            self.transport.close()
        super().on_response_complete()
        if answered and not self.transport.is_closing():
            self._connections.waits(self)

    # What the parser does not do

    def _parse(self, data: bytes) -> None:
        """Parse what came. There is nothing to upgrade to: what asks for it is answered as it is.

        That is RFC 9110, section 7.8; some clients ask so for HTTP/2, with any request. As they may go on in the other
        protocol, nothing is read after the request.
        """
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self.shutdown()
            framing = self._framing()
            if framing is None:
                self._closing = True
                return
            self.parser = httptools.HttpRequestParser(_BodyAlone(self))
            head = b"POST / HTTP/1.1\r\nConnection: close\r\n%s: %s\r\n\r\n" % framing
            self.parser.feed_data(head + data[upgrade.args[0] :])

    def _framing(self) -> tuple[bytes, bytes] | None:
        """Give the header field that tells where the request's body ends; None: it has no body."""
        for name, value in self.headers:
            if name == b"transfer-encoding" or (name == b"content-length" and int(value)):
                return name, value
        return None

    # The limits

    def _check_once(self, name: bytes, value: bytes) -> None:
        """Refuse what a proxy before this service may read in another way (RFC 9112, sections 3.2 and 6.1)."""
        if name in _ONCE and any(name == each for each, _ in self.headers):
            raise MalformedRequest(f"the request has {name.decode()} more than once")
        if name == b"transfer-encoding" and value.strip().lower() != b"chunked":
            raise MalformedRequest("the only transfer coding that is supported is chunked")

    def _count_head(self, length: int) -> None:
        self._head_bytes += length
        if self._head_bytes > self._limits.max_head_bytes:
            raise self._head_too_large()

    def _head_too_large(self) -> HeadTooLarge:
        return HeadTooLarge(
            f"request line and header fields have more than the {self._limits.max_head_bytes:,} bytes that are allowed"
        )

    def _start_deadline(self) -> None:
        if self._deadline is None:
            self._deadline = self.loop.call_later(self._limits.header_timeout_s, self._miss_deadline)

    def _stop_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _miss_deadline(self) -> None:
        if self._in_message or self._fruitless_bytes:
            error = HeadTimeout(f"the head of the request did not arrive within {self._limits.header_timeout_s} s")
            self._refuse(error, "header_timeout")
        else:
            self._connections.metrics.count_connection_refused("header_timeout")
            self.transport.close()

    def _refuse(self, error: RequestError, reason: str) -> None:
        """Answer what is no request, unless answers to earlier ones are still to come; then end the connection."""
        self._connections.metrics.count_connection_refused(reason)
        self._closing = True
        self._stop_deadline()
        cycle = self.cycle
        if cycle is not None and not cycle.response_complete:
            broken_body = self._in_message and not self._in_head
            if not broken_body or cycle.response_started or self.pipeline:
                self.shutdown()  # what is written now would be taken for another request's answer
                return
            cycle.disconnected = True
            cycle.message_event.set()
        self._write_problem(error)
        self._connections.waits(self)
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self.loop.call_later(_REFUSAL_LINGER_S, self.transport.close)
        self._watch_answer()

    def _write_problem(self, error: ServiceError) -> None:
        problem = problem_of(error)
        if problem is None:
            raise TypeError(f"{type(error).__name__} has no status") from error
        request_id = uuid.uuid4().hex
        answer = problem_response(problem, request_id)
        answer.headers.update({"X-Request-ID": request_id, "Connection": "close"})
        status = HTTPStatus(answer.status_code)
        lines = [f"HTTP/1.1 {status.value} {status.phrase}".encode("ascii")]
        lines += [
            name + b": " + value for name, value in [*self.server_state.default_headers, *answer.raw_headers, *HEADERS]
        ]
        self.transport.write(b"\r\n".join([*lines, b"", bytes(answer.body)]))

    # Answers that nobody takes

    def _watch_answer(self) -> None:
        """Give the client time to take something of what it has not taken now."""
        self._stop_watching()
        if self.unsent_bytes:
            self._unsent_before = self.unsent_bytes
            self._stall = self.loop.call_later(self._limits.stall_s, self._check_answer)
            self._connections.sends(self)

    def _stop_watching(self) -> None:
        self._connections.sent(self)
        if self._stall is not None:
            self._stall.cancel()
            self._stall = None

    def _check_answer(self) -> None:
        if self.unsent_bytes and self.unsent_bytes >= self._unsent_before:
            self._connections.cut_off(self)
        else:
            self._watch_answer()


class _BodyAlone:
    """What a parser tells of a request whose head is known already."""

    def __init__(self, protocol: GuardedProtocol) -> None:
        self.on_header = protocol.on_header  # trailers
        self.on_body = protocol.on_body
        self.on_message_complete = protocol.on_message_complete
