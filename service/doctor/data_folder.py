"""The data folder: who may use it, what disk it is on, and whether what lies in it is whole."""

from __future__ import annotations

import os
import re
import shutil
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path

from index_store import GalleryError, GalleryNotFound
from index_store.inspection import CatalogFacts, inspect_catalog, inspect_snapshot, lock_owner
from service.settings import Settings

from .findings import Check, Finding
from .machine import memory_limit

_LIMIT_S = 10.0  # for reading through what may be gigabytes
_NETWORK = ("nfs", "cifs", "smb", "fuse.sshfs", "9p", "ceph", "glusterfs", "lustre")
_OCTAL = re.compile(r"\\([0-7]{3})")
_RESTORE = "restore a backup into another folder: shitu gallery restore"
_INDEX_OVERHEAD = {"Flat": 12, "IVF": 16, "HNSW32": 284, "auto": 16}  # bytes an item beside its code
_INDEX_FACTOR = 2  # a rebuild makes the new index beside the old one


def checks(settings: Settings) -> list[Check]:
    """Give the checks of this module."""
    folder = settings.data_dir.absolute()
    return [
        Check("data folder", lambda: _folder(folder)),
        Check("owner of the folder", lambda: _owner(folder)),
        Check("file system", lambda: _file_system(folder)),
        Check("free disk", lambda: _free(folder, settings.min_free_bytes)),
        Check("catalog", lambda: _catalog(folder)),
        Check("snapshot", lambda: _snapshot(folder)),
    ]


def catalog_of(folder: Path) -> CatalogFacts | None:
    """Give what the catalog says of itself; None if there is none that can be read."""
    try:
        return inspect_catalog(folder, limit_s=0)
    except GalleryError:
        return None


def _folder(folder: Path) -> Iterator[Finding]:
    nearest = _existing(folder)
    writable = os.access(nearest, os.W_OK | os.X_OK)
    what = f"{folder}" if nearest == folder else f"{folder} is not there yet, and is made in {nearest}"
    if not nearest.is_dir():
        yield Finding("data folder", "fail", f"{nearest} is no folder", "name another SHITU_DATA_DIR")
        return
    facts = nearest.stat()
    described = f"{what} ({stat.filemode(facts.st_mode)}, user {facts.st_uid}, group {facts.st_gid})"
    if not writable:
        remedy = f"let user {os.geteuid()} write there, or name another SHITU_DATA_DIR"
        yield Finding("data folder", "fail", f"{described} is not writable for user {os.geteuid()}", remedy)
    elif facts.st_mode & stat.S_IWOTH and not facts.st_mode & stat.S_ISVTX:
        yield Finding("data folder", "warn", f"{described}: everybody can write there", f"chmod o-w {nearest}")
    else:
        yield Finding("data folder", "ok", described)


def _owner(folder: Path) -> Iterator[Finding]:
    owner = lock_owner(folder)
    if owner is None:
        yield Finding("owner of the folder", "ok", "no process uses it")
    else:
        text = f"process {owner} uses it, such as a running service: what it holds was only read"
        yield Finding("owner of the folder", "ok", text)


def _file_system(folder: Path) -> Iterator[Finding]:
    mounted, kind = _mount_of(_existing(folder))
    where = f"{kind} at {mounted}"
    if kind.startswith(_NETWORK):
        remedy = "use a local disk: SQLite's log and the lock of the folder may not hold over a network"
        yield Finding("file system", "warn", where, remedy)
    elif kind == "overlay":
        yield Finding("file system", "warn", f"{where}: it goes with the container", "mount a volume there")
    elif kind in ("tmpfs", "ramfs"):
        yield Finding("file system", "warn", f"{where}: it is lost when the machine stops", "use a disk")
    else:
        yield Finding("file system", "ok", where)


def _free(folder: Path, reserve: int) -> Iterator[Finding]:
    free = shutil.disk_usage(_existing(folder)).free
    told = f"{free / 2**30:.1f} GiB, of which {reserve / 2**30:.2f} are kept free (SHITU_MIN_FREE_BYTES)"
    if free < reserve:
        yield Finding("free disk", "fail", f"{told}: nothing can be enrolled", "free some, or use a larger disk")
    elif free < 2 * reserve:
        yield Finding("free disk", "warn", f"{told}: enrolment ends soon", "free some, or use a larger disk")
    else:
        yield Finding("free disk", "ok", told)


def _catalog(folder: Path) -> Iterator[Finding]:
    try:
        facts = inspect_catalog(folder, _LIMIT_S)
    except GalleryNotFound:
        yield Finding("catalog", "ok", "none yet; the first start makes it")
        return
    except GalleryError as error:
        yield Finding("catalog", "fail", str(error), _RESTORE)
        return
    told = (
        f"{facts.items:,} items of {facts.bits} bits, model {facts.fingerprint}, {facts.method}, "
        f"{facts.bytes / 2**20:,.1f} MiB"
    )
    if facts.sound is None:
        yield Finding("catalog", "ok", f"{told}; too large to be read through in {_LIMIT_S:.0f} s")
    elif facts.sound:
        yield Finding("catalog", "ok", f"{told}; whole")
    else:
        yield Finding("catalog", "fail", f"{told}; damaged: {facts.flaw}", _RESTORE)
    yield from _index_memory(facts)


def _index_memory(facts: CatalogFacts) -> Iterable[Finding]:
    needed = facts.items * (facts.bits // 8 + _INDEX_OVERHEAD[facts.method]) * _INDEX_FACTOR
    limit = memory_limit()
    if needed > limit // 2:
        text = f"an index of {facts.items:,} items takes up to {needed / 2**30:.1f} GiB of {limit / 2**30:.1f}"
        yield Finding("memory for the index", "warn", text, "more memory, or fewer items")


def _snapshot(folder: Path) -> Iterator[Finding]:
    facts = inspect_snapshot(folder, _LIMIT_S)
    if facts is None:
        yield Finding("snapshot", "ok", "none; the index is made out of the catalog at the start")
        return
    told = f"{facts.method}, {facts.bytes / 2**20:,.1f} MiB"
    if facts.sound is False:
        text = f"{told}: cannot be used ({facts.flaw})"
        yield Finding("snapshot", "warn", text, "nothing is lost: the next start makes the index out of the catalog")
    elif facts.sound is None:
        yield Finding("snapshot", "ok", f"{told}; too large to be read through in {_LIMIT_S:.0f} s")
    else:
        yield Finding("snapshot", "ok", f"{told}; whole")


def _existing(folder: Path) -> Path:
    return next(path for path in (folder, *folder.parents) if path.exists())


def _mount_of(path: Path) -> tuple[str, str]:
    """Give where the file system of a path is mounted, and its kind (proc_pid_mountinfo(5))."""
    real = path.resolve()
    found = ("/", "?")
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        before, _, after = line.partition(" - ")
        mounted = _OCTAL.sub(lambda found: chr(int(found[1], 8)), before.split(" ")[4])  # a blank is written \040
        if real.is_relative_to(mounted) and len(mounted) >= len(found[0]):
            found = (mounted, after.split(" ")[0])
    return found
