"""The settings, and what they say about keys and traces."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from service.errors import KeyFileError
from service.security.valid_keys import HOW_TO_MAKE_ONE, is_loopback
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
    sources = settings.key_sources
    if not sources.given:
        text = "none: whoever reaches the port can read and change the gallery"
        if is_loopback(settings.host):
            yield Finding("api keys", "ok", f"{text}, which is this machine")
        else:
            remedy = "set SHITU_API_KEYS_FILE, or let only a proxy that checks reach the port"
            yield Finding("api keys", "warn", text, remedy)
        return
    try:
        file = sources.read_file()
        ring = sources.ring(file)
    except KeyFileError as error:
        for problem in str(error).splitlines():
            yield Finding("api keys", "fail", problem, "see docs/api_keys.md")
        return
    if not len(ring):
        yield Finding("api keys", "warn", f"none yet in {sources.place}: every request is refused", HOW_TO_MAKE_ONE)
    elif file is not None and file.exposed is not None:
        yield Finding("api keys", "warn", file.exposed, file.remedy)
    else:
        yield Finding("api keys", "ok", f"{len(ring)} in {sources.place}")


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
