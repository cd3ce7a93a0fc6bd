"""Who may use what, when: one owner of a folder, many readers or one writer of the index."""

from __future__ import annotations

import fcntl
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from index_store.base import GalleryLocked
from index_store.faults import storage_faults


class FolderLock:
    """The ownership of a data folder through ``flock`` on a file in it.

    The kernel takes it back when the process ends, however it ends, so it never needs clearing up.
    """

    def __init__(self, folder: Path) -> None:
        """Take the folder. Raises GalleryLocked if it is owned, StorageUnavailable if it is not writable."""
        self.folder = folder
        self._path = folder / "lock"
        while not self._open_and_take(folder):
            pass  # the file was removed by its owner between the two

    def _open_and_take(self, folder: Path) -> bool:
        """Take the folder; False if what was taken is not the folder's file any more."""
        with storage_faults(folder):
            self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            with storage_faults(folder):
                self._take(folder)
                current = os.fstat(self._fd).st_nlink > 0
        except BaseException:
            os.close(self._fd)
            raise
        if not current:
            os.close(self._fd)
        return current

    def _take(self, folder: Path) -> None:
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            owner = os.pread(self._fd, 20, 0).decode("ascii", "replace").strip()
            raise GalleryLocked(
                f"{folder} is owned by {'process ' + owner if owner else 'another process'}: "
                "stop it, or talk to it over HTTP with --server URL"
            ) from error
        # In place and of one length, so that it needs no room on a full disk.
        os.pwrite(self._fd, f"{os.getpid():<19}\n".encode(), 0)

    def release(self, *, remove: bool = False) -> None:
        """Give the folder free. The file stays, unless the folder is to be left as it was found."""
        if remove:
            self._path.unlink(missing_ok=True)
        os.close(self._fd)


class ReadWriteLock:
    """Many readers or one writer; not reentrant.

    A waiting writer holds later readers back, so it never starves; readers wait at most for the readers
    before them and for one writer, which holds the lock only while it changes memory.
    """

    def __init__(self) -> None:
        """Make a free lock."""
        self._gate = threading.Lock()
        self._idle = threading.Condition(threading.Lock())
        self._readers = 0

    @contextmanager
    def read(self) -> Iterator[None]:
        """Hold the lock together with other readers."""
        with self._gate, self._idle:
            self._readers += 1
        try:
            yield
        finally:
            with self._idle:
                self._readers -= 1
                if not self._readers:
                    self._idle.notify_all()

    @contextmanager
    def write(self) -> Iterator[None]:
        """Hold the lock alone."""
        with self._gate:
            with self._idle:
                self._idle.wait_for(lambda: not self._readers)
            yield
