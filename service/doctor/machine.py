"""What the machine, or the container, gives the service: cores, memory, descriptors, the clock, the port."""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Iterable
from pathlib import Path

import httpx

from service.connections import files_needed
from service.errors import StartupError
from service.listener import bind, url_of
from service.settings import Settings

from .findings import Check, Finding

_CGROUP = Path("/sys/fs/cgroup")
_PROBE_S = 1.0
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
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)  # the service raises the other one to this
    needed = files_needed(settings.max_connections)
    if hard == resource.RLIM_INFINITY:
        return [Finding("file descriptors", "ok", "no limit")]
    if hard < needed:
        remedy = (
            f"raise the limit (`ulimit -Hn {needed}`, `docker run --ulimit nofile=`), or lower SHITU_MAX_CONNECTIONS"
        )
        return [Finding("file descriptors", "fail", f"{hard} are allowed, {needed} are needed", remedy)]
    return [Finding("file descriptors", "ok", f"{hard} are allowed, {needed} are needed")]


def _clock() -> Iterable[Finding]:
    now = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime())
    if time.time() < _PROJECT_BEGAN:
        return [Finding("clock", "warn", f"{now} is in the past", "set the clock: items carry their time")]
    return [Finding("clock", "ok", now)]


def _port(host: str, port: int) -> Iterable[Finding]:
    try:
        bind(host, port).close()
    except StartupError as error:
        if _answers(host, port):
            return [Finding("port", "ok", f"a service like this one answers at {host} port {port}")]
        return [Finding("port", "fail", str(error), "another SHITU_HOST or SHITU_PORT")]
    return [Finding("port", "ok", f"{host} port {port} is free" if port else "any free one")]


def _answers(host: str, port: int) -> bool:
    """Say whether a service like this one is there; its answer may be that a key is needed."""
    near = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    try:
        answer = httpx.get(f"{url_of(near, port)}/livez", timeout=_PROBE_S, trust_env=False)  # not through a proxy
    except httpx.HTTPError:
        return False
    return "x-request-id" in answer.headers


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
