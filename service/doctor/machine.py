"""What the machine, or the container, gives the service: cores, memory, descriptors, the clock, the port."""

from __future__ import annotations

import errno
import os
import resource
import socket
import time
from collections.abc import Iterable
from pathlib import Path

import httpx

from service.settings import Settings

from .findings import Check, Finding

_CGROUP = Path("/sys/fs/cgroup")
_PROBE_S = 1.0
_OWN_DESCRIPTORS = 128  # models, database, libraries
_DESCRIPTORS_A_REQUEST = 2
_PROJECT_BEGAN = 1_767_225_600  # 2026-01-01: a clock before that was never set


def checks(settings: Settings) -> list[Check]:
    """Give the checks of this module."""
    return [
        Check("cores", lambda: _cores(settings)),
        Check("memory", _memory),
        Check("file descriptors", lambda: _descriptors(settings)),
        Check("clock", _clock),
        Check("port", lambda: _port(settings.host, settings.port)),
    ]


def memory_limit() -> int:
    """Give the bytes that this process and its neighbours in its container may use."""
    limits = [_whole_number(_CGROUP / name) for name in ("memory.max", "memory/memory.limit_in_bytes")]
    installed = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return min([installed, *(limit for limit in limits if limit is not None)])


def _cores(settings: Settings) -> Iterable[Finding]:
    cores = len(os.sched_getaffinity(0))
    threads = settings.cpu_threads or cores
    quota = _cpu_quota()
    if quota is not None and threads > max(1.0, quota):
        remedy = f"SHITU_CPU_THREADS={max(1, int(quota))}, or raise the limit"
        detail = f"{cores}, but the container may use {quota:g}: {threads} threads are held up time and again"
        return [Finding("cores", "warn", detail, remedy)]
    of_container = f", the container may use {quota:g}" if quota is not None else ""
    return [Finding("cores", "ok", f"{cores}{of_container}; {threads} threads of inference and search")]


def _memory() -> Iterable[Finding]:
    return [Finding("memory", "ok", f"{memory_limit() / 2**30:.1f} GiB may be used")]


def _descriptors(settings: Settings) -> Iterable[Finding]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = _OWN_DESCRIPTORS + _DESCRIPTORS_A_REQUEST * settings.max_concurrent_requests
    if soft != resource.RLIM_INFINITY and soft < needed:
        remedy = f"raise the limit (ulimit -n {needed}; hard limit {hard}), or lower SHITU_MAX_CONCURRENT_REQUESTS"
        return [Finding("file descriptors", "warn", f"{soft}; about {needed} may be needed", remedy)]
    return [Finding("file descriptors", "ok", str(soft))]


def _clock() -> Iterable[Finding]:
    now = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime())
    if time.time() < _PROJECT_BEGAN:
        return [Finding("clock", "warn", f"{now} is in the past", "set the clock: items carry their time")]
    return [Finding("clock", "ok", now)]


def _port(host: str, port: int) -> Iterable[Finding]:
    if port == 0:
        return [Finding("port", "ok", "any free one")]
    family, kind, protocol, _, address = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    with socket.socket(family, kind, protocol) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(address)
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                return [_who_listens(host, port)]
            text = f"{host} port {port} cannot be used: {error.strerror}"
            return [Finding("port", "fail", text, "another SHITU_HOST or SHITU_PORT")]
    return [Finding("port", "ok", f"{host} port {port} is free")]


def _who_listens(host: str, port: int) -> Finding:
    near = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, host)
    try:
        alive = httpx.get(f"http://{near}:{port}/livez", timeout=_PROBE_S).headers.get("x-request-id") is not None
    except httpx.HTTPError:
        alive = False
    if alive:
        return Finding("port", "ok", f"a service like this one answers at {host} port {port}")
    return Finding("port", "fail", f"another process listens at {host} port {port}", "choose another SHITU_PORT")


def _cpu_quota() -> float | None:
    """Give the cores that cgroups allow; None: as many as there are."""
    path = _CGROUP / "cpu.max"
    if path.exists():
        quota, _, period = path.read_text().strip().partition(" ")
        return None if quota == "max" else int(quota) / int(period)
    used = _whole_number(_CGROUP / "cpu/cpu.cfs_quota_us")
    period_us = _whole_number(_CGROUP / "cpu/cpu.cfs_period_us")
    return used / period_us if used is not None and used > 0 and period_us else None


def _whole_number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):  # not there, or "max"
        return None
