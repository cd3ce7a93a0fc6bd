"""A thread that does one job each time it is woken."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from index_store.base import GalleryError

logger = logging.getLogger(__name__)


class BackgroundJob:
    """Runs ``job`` after ``wake``, never twice at once; ``error`` is what ails it.

    A GalleryError (a full disk, say) is logged, kept in ``error`` and tried again after ``retry_s``; the next
    success clears it. Anything else ends the thread and stays in ``error``.
    """

    def __init__(self, name: str, job: Callable[[], None], retry_s: float = 60.0) -> None:
        """Start the thread."""
        self.error: BaseException | None = None
        self._name = name
        self._job = job
        self._retry_s = retry_s
        self._wake = threading.Event()
        self._stop = threading.Event()
        # A daemon, so that a store that nobody closed does not keep the process.
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def wake(self) -> None:
        """Ask for the job to be done soon."""
        self._wake.set()

    def stop(self) -> None:
        """Wait for a job under way and end the thread."""
        self._stop.set()
        self._wake.set()
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def _run(self) -> None:
        try:
            while self._wake.wait() and not self._stop.is_set():
                self._wake.clear()
                self._do()
        except BaseException as error:
            self.error = error
            logger.exception("the thread %s ended", self._name)

    def _do(self) -> None:
        try:
            self._job()
            self.error = None
        except GalleryError as error:
            self.error = error
            logger.warning("%s failed, trying again in %g s: %s", self._name, self._retry_s, error)
            self._stop.wait(self._retry_s)
            self._wake.set()
