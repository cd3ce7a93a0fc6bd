"""Building a gallery from PP-ShiTu's list of pictures and labels: ``index_operation`` new, append or remove.

Items get ids from the paths in the list, so every operation can be repeated: what is there already is replaced or
left alone, never doubled. *new* first brings in everything that the list names and only then takes away what it
does not name, so a build that fails on its way leaves a gallery that still answers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from .access import CommandError, Enrolment, GalleryAccess, Json
from .listing import Entry, Listing

Operation = Literal["new", "append", "remove"]
Progress = Callable[[int, int | None], None]
"""Called with how many pictures (or items) are done, and of how many, if that is known."""


@dataclass(frozen=True)
class Trouble:
    """One line of the list that did not get into the gallery, and why."""

    line: int
    path: str
    reason: str


@dataclass(frozen=True)
class BuildPlan:
    """What a build is to do.

    Attributes:
        operation: new, append or remove.
        listing: the pictures.
        image_root: what their paths are relative to.
        batch_size: pictures a step; a step is stored as a whole.
        refresh: whether *append* hashes pictures again that are in the gallery with the same label.
        strict: whether *new* keeps what the list does not name when a picture of the list failed.
        hashed: ids of items whose codes are known to be of the pictures in the list.
    """

    operation: Operation
    listing: Listing
    image_root: Path
    batch_size: int = 32
    refresh: bool = False
    strict: bool = False
    hashed: frozenset[str] = frozenset()


@dataclass
class BuildReport:
    """What a build did, counted in pictures; ``items`` is what the gallery holds afterwards."""

    operation: Operation
    listed: int = 0
    added: int = 0
    replaced: int = 0
    unchanged: int = 0
    removed: int = 0
    items: int = 0
    troubles: list[Trouble] = field(default_factory=list)

    @property
    def worked(self) -> bool:
        """Whether any line of the list could be used, or there was nothing wrong with it."""
        return not self.troubles or self.added + self.replaced + self.unchanged + self.removed > 0

    def to_json(self) -> Json:
        """Give the report for machines."""
        counts: dict[str, Any] = {
            name: getattr(self, name)
            for name in ("operation", "listed", "added", "replaced", "unchanged", "removed", "items")
        }
        troubles = [{"line": each.line, "path": each.path, "reason": each.reason} for each in self.troubles]
        return counts | {"troubles": troubles}


def build(gallery: GalleryAccess, plan: BuildPlan, progress: Progress = lambda done, total: None) -> BuildReport:
    """Carry out a plan.

    Raises:
        CommandError: the list names no picture, or the image root is no folder.
        Whatever the gallery raises: what was done before that stays, and the build can be run again.
    """
    listing = plan.listing
    report = BuildReport(plan.operation, listed=len(listing.entries) + len(listing.bad_lines))
    report.troubles += [Trouble(bad.line, bad.text, bad.reason) for bad in listing.bad_lines]
    if not listing.entries:
        raise CommandError("the gallery list has no usable line: each needs a path, the delimiter and a label")
    if plan.operation == "remove":
        _remove(gallery, plan, report, progress)
    else:
        if not plan.image_root.is_dir():
            raise CommandError(f"the image root {plan.image_root} is not a folder")
        _bring_in(gallery, plan, report, progress)
    report.troubles.sort(key=lambda trouble: trouble.line)
    report.items = gallery.info()["items"]
    return report


def _remove(gallery: GalleryAccess, plan: BuildPlan, report: BuildReport, progress: Progress) -> None:
    entries = plan.listing.entries
    present = _present(gallery, {entry.id for entry in entries})
    report.troubles += [
        Trouble(each.line, each.path, "is not in the gallery") for each in entries if each.id not in present
    ]
    for done, batch in _batches(entries, 1000):
        report.removed += gallery.remove([entry.id for entry in batch if entry.id in present])
        progress(done, len(entries))


def _bring_in(gallery: GalleryAccess, plan: BuildPlan, report: BuildReport, progress: Progress) -> None:
    entries = plan.listing.entries
    present = _present(gallery, {entry.id for entry in entries})
    keeps_known = plan.operation == "append" and not plan.refresh
    known = {identity for identity in present if keeps_known or identity in plan.hashed}
    todo = [entry for entry in entries if entry.id not in known or present[entry.id] != entry.label]
    report.unchanged = len(entries) - len(todo)
    failed = set()
    for done, batch in _batches(todo, plan.batch_size):
        failed |= _enrol(gallery, batch, plan.image_root, frozenset(present), report)
        progress(done, len(todo))
    usable = report.worked and not (plan.strict and report.troubles)
    if plan.operation == "new" and usable:
        wanted = {entry.id for entry in entries if entry.id not in failed}
        stale = [item["id"] for item in gallery.items() if item["id"] not in wanted]
        report.removed += gallery.remove(stale)


def _enrol(
    gallery: GalleryAccess, batch: Sequence[Entry], image_root: Path, present: frozenset[str], report: BuildReport
) -> set[str]:
    """Enrol one batch, count what became of it, and return the ids of what failed."""
    readable: list[Entry] = []
    enrolments: list[Enrolment] = []
    failed: dict[Entry, str] = {}
    for entry in batch:
        picture = _read(image_root / entry.path)
        if isinstance(picture, str):
            failed[entry] = picture
        else:
            readable.append(entry)
            enrolments.append(Enrolment(picture, entry.label, entry.id, source=entry.source))
    for entry, outcome in zip(readable, gallery.enrol(enrolments, present) if enrolments else [], strict=True):
        if outcome.item is None:
            failed[entry] = outcome.problem or "was refused"
        else:
            setattr(report, outcome.change, getattr(report, outcome.change) + 1)
    report.troubles += [Trouble(entry.line, entry.path, reason) for entry, reason in failed.items()]
    return {entry.id for entry in failed}


def _read(path: Path) -> bytes | str:
    """Read a picture file, or say why it cannot be read."""
    try:
        return path.read_bytes()
    except (OSError, ValueError) as error:
        return f"cannot be read: {getattr(error, 'strerror', None) or error}"


def _present(gallery: GalleryAccess, ids: set[str]) -> dict[str, str]:
    """Give the labels of those items that are in the gallery."""
    return {item["id"]: item["label"] for item in gallery.items() if item["id"] in ids}


def _batches(entries: Sequence[Entry], size: int) -> Iterator[tuple[int, Sequence[Entry]]]:
    for start in range(0, len(entries), size):
        batch = entries[start : start + size]
        yield start + len(batch), batch
