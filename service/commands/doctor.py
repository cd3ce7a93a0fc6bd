"""``shitu doctor``: the report of an examination, for people and for machines."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from service.doctor import software
from service.doctor.findings import Finding, examine

from .output import console, print_json

_STYLES = {"ok": "green", "warn": "yellow", "fail": "bold red", "skip": "dim"}


def diagnose(config: Path | None, overrides: dict[str, Any]) -> list[Finding]:
    """Examine this installation, machine and data folder under the settings; see ``Settings.load``."""
    return [*examine(software.checks()), *_under_settings(config, overrides)]


def _under_settings(config: Path | None, overrides: dict[str, Any]) -> Iterator[Finding]:
    try:
        from service.doctor import configuration, data_folder, machine, models
    except Exception as error:  # a library of another version than its neighbours can raise anything
        yield Finding("settings", "skip", f"cannot be read without what is not installed ({error})", "see above")
        return
    settings, found = configuration.read_settings(config, overrides)
    yield from found
    if settings is None:
        yield Finding("machine, data folder, models", "skip", "are looked at once the settings can be used")
        return
    for part in (configuration, machine, data_folder, models):
        yield from examine(part.checks(settings))


def print_diagnosis(findings: list[Finding], *, as_json: bool) -> None:
    """Print what was found."""
    if as_json:
        print_json({"ok": not has_failed(findings), "checks": [asdict(finding) for finding in findings]})
        return
    table = Table(box=None, header_style="bold", padding=(0, 2, 0, 0))
    for column in ("", "check", "found", "what to do"):
        table.add_column(column, overflow="fold")
    for finding in findings:
        table.add_row(
            Text(finding.status, style=_STYLES[finding.status]),
            *(Text(part) for part in (finding.check, finding.detail, finding.remedy)),
        )
    console().print(table)


def has_failed(findings: list[Finding]) -> bool:
    """Say whether anything keeps the service from working."""
    return any(finding.status == "fail" for finding in findings)
