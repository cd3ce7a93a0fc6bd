"""The address that a service listens on."""

from __future__ import annotations

import errno
import socket

from .errors import StartupError

_REASONS = {
    errno.EADDRINUSE: "another process listens there; choose another port with --port (0: any free one)",
    errno.EACCES: "ports below 1024 need privileges; choose another with --port",
    errno.EADDRNOTAVAIL: "this machine does not have that address; 0.0.0.0 means all it has",
}


def bind(host: str, port: int) -> socket.socket:
    """Take an address; nobody can connect before somebody listens.

    Args:
        host: name or address of this machine.
        port: 0 takes a free one.

    Raises:
        StartupError: it cannot be had; the text says why.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except socket.gaierror as error:
        raise StartupError(f"host {host!r} is no address of this machine: {error.strerror}") from error
    listener = socket.socket(family, kind, protocol)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(address)
    except OSError as error:
        listener.close()
        reason = _REASONS.get(error.errno or 0, error.strerror)
        raise StartupError(f"cannot listen on {host} port {port}: {reason}") from error
    return listener


def url_of(host: str, port: int) -> str:
    """Write an address as a URL."""
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
