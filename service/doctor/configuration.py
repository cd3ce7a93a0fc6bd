"""The settings, and what they say about keys and traces."""

from __future__ import annotations

import importlib.util
import ipaddress
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from service.settings import Settings

from .findings import Check, Finding


def checks(settings: Settings) -> list[Check]:
    """Give the checks of this module."""
    return [Check("api keys", lambda: _keys(settings)), Check("traces", lambda: _traces(settings))]


def read_settings(config: Path | None, overrides: dict[str, Any]) -> tuple[Settings | None, list[Finding]]:
    """Read the settings; None where they cannot be used, with every reason."""
    from service.settings import SettingsError

    try:
        return Settings.load(config, **overrides), [Finding("settings", "ok", _source(config))]
    except SettingsError as error:
        return None, [Finding("settings", "fail", problem, "see docs/settings.md") for problem in error.problems]


def _source(config: Path | None) -> str:
    return f"all known; file {config}" if config is not None else "all known"


def _keys(settings: Settings) -> Iterator[Finding]:
    path = settings.api_keys_file
    if path is None and not getattr(settings, "api_keys", None):
        text = "none: whoever reaches the port can read and change the gallery"
        local = _is_loopback(settings.host)
        remedy = "" if local else "set SHITU_API_KEYS_FILE, or let only a proxy that checks reach the port"
        yield Finding(
            "api keys", "ok" if local else "warn", text + (", which is this machine" if local else ""), remedy
        )
        return
    if path is None:
        yield Finding("api keys", "ok", "in the settings")
    elif not path.is_file() or not os.access(path, os.R_OK):
        yield Finding("api keys", "fail", f"{path} is no file that can be read", "name another SHITU_API_KEYS_FILE")
    elif path.stat().st_mode & (stat.S_IROTH | stat.S_IWOTH):
        yield Finding("api keys", "warn", f"{path} is open to every user of this machine", f"chmod o= {path}")
    else:
        yield Finding("api keys", "ok", str(path))


def _traces(settings: Settings) -> Iterator[Finding]:
    if settings.otlp_endpoint is None:
        yield Finding("traces", "ok", "none are sent (SHITU_OTLP_ENDPOINT)")
    elif not _exporter_is_there():
        yield Finding("traces", "fail", "what sends them is not installed", "pip install 'shitu-hash[otel]'")
    else:
        yield Finding("traces", "ok", "are sent to a collector")


def _exporter_is_there() -> bool:
    try:
        return importlib.util.find_spec("opentelemetry.exporter.otlp.proto.http.trace_exporter") is not None
    except ModuleNotFoundError:  # of a package above it
        return False


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
