"""Kept pictures: files named by their content, beside the gallery, for as long as an item uses them.

The order of things keeps two promises through any crash: an item never refers to a picture that is not there (the
file and its folder entry are on disk before the item is stored), and a file that no item uses does not stay (it is
removed after the item is, or swept at the next start).
"""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import re
import threading
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from index_store import DiskFull, GalleryError, StorageUnavailable
from index_store.snapshot import sync_folder

SOURCE_PREFIX = "kept:"
_DIGEST = re.compile(r"[0-9a-f]{64}")
_LOG = logging.getLogger("shitu.pictures")


class KeptPictures:
    """The files ``<folder>/<aa>/<sha256>``. Threads may share it; a folder has one owner."""

    def __init__(self, folder: Path, in_use: Callable[[str], bool], check_room: Callable[[int], None]) -> None:
        """Keep pictures in a folder, which need not exist yet.

        Args:
            folder: where.
            in_use: tells whether any stored item has a source.
            check_room: raises DiskFull if there is no room to write so many bytes.
        """
        self._folder = folder
        self._in_use = in_use
        self._check_room = check_room
        self._held: Counter[str] = Counter()
        self._lock = threading.Lock()

    @contextmanager
    def change(self) -> Iterator[PictureChange]:
        """Open a change: what it keeps or touches stays on disk inside, and after it only if an item uses it.

        Store or remove the items inside; pictures go when the change ends, whether it succeeded or not.
        """
        change = PictureChange(self)
        try:
            yield change
        finally:
            self._release(change.sources)

    def read(self, source: str) -> bytes | None:
        """Return the file of a source; None if the source is none of ours or the file is gone."""
        path = self._path(source)
        try:
            return path.read_bytes() if path is not None else None
        except FileNotFoundError:
            return None

    @staticmethod
    def shards() -> list[str]:
        """Give the names of all subfolders that files can lie in."""
        return [f"{number:02x}" for number in range(256)]

    def sweep(self, shard: str) -> int:
        """Remove the files of a subfolder that no item uses, such as a crash leaves behind; return how many."""
        names = [path.name for path in (self._folder / shard).glob("*")]
        return sum(self._remove_unused(SOURCE_PREFIX + name) for name in names)

    def remove_torn(self) -> None:
        """Remove what a crash left half written. Call it before anything is kept."""
        if self._folder.is_dir():
            for path in self._folder.glob("*/*.tmp"):
                path.unlink()

    def _hold(self, source: str) -> None:
        with self._lock:
            self._held[source] += 1

    def _release(self, sources: list[str]) -> None:
        for source in sources:
            with self._lock:
                self._held[source] -= 1
                if self._held[source] == 0:
                    del self._held[source]
            try:
                self._remove_unused(source)
            except (OSError, GalleryError):
                # The items are stored or removed by now, and that is what the caller must hear.
                _LOG.exception("%s cannot be removed now: the sweep at the next start tries again", source)

    def _remove_unused(self, source: str) -> bool:
        path = self._path(source)
        # Under the lock nobody can begin to hold the source between the question and the removal.
        with self._lock:
            if path is None or source in self._held or self._in_use(source):
                return False
            try:
                path.unlink()
            except FileNotFoundError:
                return False
        return True

    def _write(self, data: bytes) -> str:
        source = SOURCE_PREFIX + hashlib.sha256(data).hexdigest()
        path = self._path(source)
        self._check_room(len(data))
        if path is None:
            raise ValueError(f"{source} is no source of a kept picture")
        self._hold(source)
        try:
            self._write_durably(path, data)
        except OSError as error:
            self._release([source])
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise DiskFull(f"no room left in {self._folder}: nothing was stored") from error
            raise StorageUnavailable(f"a picture cannot be kept in {self._folder}: {error.strerror}") from error
        return source

    def _write_durably(self, path: Path, data: bytes) -> None:
        if not path.exists():
            if not path.parent.is_dir():
                path.parent.mkdir(parents=True, exist_ok=True)
                sync_folder(self._folder.parent)
                sync_folder(self._folder)
            torn = path.with_name(f"{path.name}.{uuid.uuid4().hex}.tmp")
            try:
                with torn.open("wb") as file:
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
                torn.replace(path)
            except OSError:
                torn.unlink(missing_ok=True)
                raise
        # Also when the file was there: another thread may have renamed it an instant ago.
        sync_folder(path.parent)

    def _path(self, source: str) -> Path | None:
        digest = source.removeprefix(SOURCE_PREFIX)
        if not source.startswith(SOURCE_PREFIX) or not _DIGEST.fullmatch(digest):
            return None
        return self._folder / digest[:2] / digest


class PictureChange:
    """What one change of the gallery does with pictures; see :meth:`KeptPictures.change`."""

    def __init__(self, pictures: KeptPictures) -> None:
        """Begin with nothing held; use :meth:`KeptPictures.change`."""
        self._pictures = pictures
        self.sources: list[str] = []

    def keep(self, data: bytes) -> str:
        """Write a picture file durably and return the source for its item.

        Raises:
            DiskFull, StorageUnavailable.
        """
        source = self._pictures._write(data)
        self.sources.append(source)
        return source

    def touch(self, source: str | None) -> None:
        """Have a source looked at when the change ends, because an item that uses it goes or changes."""
        if source is not None and source.startswith(SOURCE_PREFIX):
            self._pictures._hold(source)
            self.sources.append(source)
