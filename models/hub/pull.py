"""One pull: an archive is fetched, unpacked beside its place, checked, and put there at once."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path

from .archive import LIMITS, check_archive, unpack
from .catalogue import Kind, KnownFile
from .download import Progress, download, shown
from .errors import ArchiveInvalid, ContentMismatch, RecordInvalid, TargetTaken
from .folders import locked, sync
from .record import RECORD_NAME, PullRecord, differences, measure


@dataclass(frozen=True)
class PullRequest:
    """What to pull, and to where.

    Attributes:
        name: of the model, for its record.
        kind: what the service is to use it as.
        source: http or https address of an archive, or the path of one.
        folder: model folder to make.
        sha256: that the archive must have, in hexadecimal; or None.
        files: what is known of the model's files.
    """

    name: str
    kind: Kind
    source: str | Path
    folder: Path
    sha256: str | None = None
    files: Mapping[str, KnownFile] = field(default_factory=dict)

    @property
    def described_source(self) -> str:
        """The source as a record names it."""
        return shown(self.source) if isinstance(self.source, str) else str(self.source.absolute())


@dataclass(frozen=True)
class Pulled:
    """What a pull came to.

    Attributes:
        record: of the folder.
        is_new: whether it was made now; False: it was there and is intact.
        left_out: paths in the archive that a model folder does not need.
    """

    record: PullRecord
    is_new: bool
    left_out: tuple[str, ...] = ()


def pull(
    request: PullRequest,
    *,
    force: bool = False,
    verify: Callable[[Path], object] | None = None,
    progress: Progress | None = None,
) -> Pulled:
    """Make a model folder from an archive, unless it is there and intact.

    All work is done in ``.<folder>.pull`` beside the folder, which is renamed into place when everything is right: a
    crash or a full disk leaves no half of a model, and what was downloaded serves the next call. One process at a time
    fills a folder; others wait, and find it there.

    Args:
        request: what to pull.
        force: replace what an earlier pull left, with an archive that is fetched anew.
        verify: is called with the unpacked folder before it counts; what it raises ends the pull.
        progress: is told the bytes of the download.

    Raises:
        TargetTaken: the folder holds something else, or another or a damaged pull and ``force`` is not given.
        DownloadError, ArchiveInvalid, ContentMismatch: the archive cannot be had or used.
        OSError: the disk cannot take it.
    """
    folder = request.folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with locked(folder.parent / f".{folder.name}.lock", f"pulling {request.name}"):
        work = work_folder(folder)
        made, before = work / "made", work / "before"
        if before.exists() and not folder.exists():  # of a process that was killed while it replaced one by the other
            before.rename(folder)
        if (there := _look(request, force)) is not None:
            shutil.rmtree(work, ignore_errors=True)  # of a process that was killed just after the rename
            return Pulled(there, is_new=False)
        work.mkdir(exist_ok=True)
        shutil.rmtree(made, ignore_errors=True)
        if force:
            for earlier in work.glob("*.archive"):
                earlier.unlink()
        try:
            archive = _fetch(request, work, progress)
            left_out, record = _make(request, archive, made)
            if verify is not None:
                verify(made)
            _put(made, folder, before)
        except BaseException:
            shutil.rmtree(made, ignore_errors=True)
            if not (list(work.glob("*.archive")) or list(work.glob("*.archive.part"))):
                shutil.rmtree(work)
            raise
        shutil.rmtree(work)
        return Pulled(record, is_new=True, left_out=left_out)


def work_folder(folder: Path) -> Path:
    """Where a pull into a folder works, and leaves what an interrupted download brought."""
    return folder.parent / f".{folder.name}.pull"


def _look(request: PullRequest, force: bool) -> PullRecord | None:
    """Give the record of what is there and fits, or None if the folder is to be filled."""
    folder = request.folder
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return None
    try:
        record = PullRecord.read(folder)
    except RecordInvalid as error:  # not even by force: who knows what it is
        raise TargetTaken(f"{error}: remove {folder}, or choose another folder with --to") from error
    if force:
        return None
    problems = record.compare(folder) or differences(folder, request.files)
    if not request.files and record.source != request.described_source:
        problems.append(f"it came from {record.source}, not from {request.described_source}")
    if request.sha256 not in (None, record.archive.sha256):
        problems.append(f"its archive had the SHA-256 {record.archive.sha256}, not {request.sha256}")
    if problems:
        raise TargetTaken(f"{folder} is there already, but {'; '.join(problems)}. --force replaces it")
    return record


def _fetch(request: PullRequest, work: Path, progress: Progress | None) -> Path:
    if isinstance(request.source, Path):
        return request.source
    # Archives of different addresses do not continue each other.
    target = work / f"{hashlib.sha256(request.source.encode()).hexdigest()[:16]}.archive"
    return download(
        request.source,
        target,
        sha256=request.sha256,
        max_bytes=LIMITS.total_bytes,
        verify=lambda path: check_archive(path, request.described_source),
        progress=progress,
    )


def _make(request: PullRequest, archive: Path, made: Path) -> tuple[tuple[str, ...], PullRecord]:
    """Unpack, check and record; a download that is not what was asked for is thrown away."""
    try:
        measured = measure(archive)
        if request.sha256 not in (None, measured.sha256):
            raise ContentMismatch(
                f"{request.described_source} has the SHA-256 {measured.sha256}, and {request.sha256} was demanded"
            )
        unpacked = unpack(archive, made, request.described_source)
        if problems := differences(made, request.files):
            raise ContentMismatch(
                f"{request.described_source} is not the {request.name} that this version knows: {'; '.join(problems)}. "
                "If you trust it, pull it by its address, under a name of your own"
            )
    except (ArchiveInvalid, ContentMismatch):
        if archive != request.source:
            archive.unlink()
        raise
    record = PullRecord(
        name=request.name,
        kind=request.kind,
        source=request.described_source,
        pulled_at=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        archive=measured,
        files={name: measure(made / name) for name in unpacked.kept},
    )
    record.write(made)
    return unpacked.left_out, record


def _put(made: Path, folder: Path, before: Path) -> None:
    """Rename a finished folder into its place; what was there is moved out of the way first."""
    sync(made / RECORD_NAME)
    sync(made)
    shutil.rmtree(before, ignore_errors=True)
    if folder.exists():
        folder.rename(before)
    made.rename(folder)
    sync(folder.parent)
