"""What an examination finds, and how checks are kept apart: one that fails never hides another."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

Status = Literal["ok", "warn", "fail", "skip"]


@dataclass(frozen=True)
class Finding:
    """One line of the report.

    Attributes:
        check: what was looked at.
        status: ok; warn: works, but not as it could; fail: the service does not start or work; skip: not looked at.
        detail: what was found.
        remedy: what to do; empty where nothing is to be done.
    """

    check: str
    status: Status
    detail: str
    remedy: str = ""


@dataclass(frozen=True)
class Check:
    """One look at one thing; ``look`` may find several things and may raise anything."""

    name: str
    look: Callable[[], Iterable[Finding]]


def examine(checks: Sequence[Check]) -> Iterator[Finding]:
    """Carry out checks one after another, whatever becomes of each."""
    for check in checks:
        found: list[Finding] = []
        try:
            found.extend(check.look())
        except Exception as error:  # a broken installation can break a check in any way
            text = f"could not be checked: {type(error).__name__}: {error}"
            found.append(Finding(check.name, "fail", text, "if the other lines do not explain it, report it"))
        yield from found
