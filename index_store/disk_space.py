"""Room on the disk of a gallery: how much there is, and a reserve that only removals may use.

A full disk stops everything that writes, removals among it, since SQLite's log needs room for them too. So what lets
a gallery grow is refused while there is still some.
"""

from __future__ import annotations

import os
from pathlib import Path

from index_store.base import DiskFull
from index_store.faults import storage_faults


class DiskReserve:
    """The reserve of one folder. The system is asked each time, which takes microseconds on a local disk."""

    def __init__(self, folder: Path, min_free_bytes: int) -> None:
        """Leave ``min_free_bytes`` free on the disk of ``folder``; 0: no reserve."""
        self._folder = folder
        self.min_free_bytes = min_free_bytes

    def free_bytes(self) -> int:
        """Return what this user may still write. Raises StorageUnavailable."""
        with storage_faults(self._folder):
            disk = os.statvfs(self._folder)
        return disk.f_bavail * disk.f_frsize

    def require(self, needed_bytes: int = 0) -> None:
        """Raise DiskFull if less than the reserve would be left after writing ``needed_bytes``."""
        if not self.min_free_bytes:
            return
        free = self.free_bytes()
        if free - needed_bytes < self.min_free_bytes:
            raise DiskFull(
                f"the disk of {self._folder} has {free:,} bytes left, of which {self.min_free_bytes:,} are kept free "
                f"and {needed_bytes:,} would be written: free some (items can still be removed), or lower the reserve "
                "(min_free_bytes); nothing of this call was stored"
            )
