"""The real service as a child process on a free loopback port."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

import httpx

_LOG_LINES_SHOWN = 15
_KEPT_SETTINGS = frozenset(
    {"SHITU_HASHER_DIR", "SHITU_DETECTOR_DIR", "SHITU_DEVICE", "SHITU_CPU_THREADS", "SHITU_ENABLE_MKLDNN"}
)


class ServiceFailed(Exception):
    """The service did not start, died, or answered what it should not; the text says what happened."""


class ServiceProcess:
    """``python -m service.cli serve`` with its own data folder; a context manager that stops it.

    Settings of the caller's environment (``SHITU_*``) are left out, except those that choose models and hardware, so
    that the run is the same everywhere; ``settings`` adds some.
    """

    def __init__(self, data_dir: Path, log: Path, settings: Mapping[str, str] | None = None) -> None:
        """Choose a port; nothing runs yet. ``log`` receives what the service prints."""
        self.port = _free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = log
        self._environment = {
            name: value for name, value in os.environ.items() if not name.startswith("SHITU_") or name in _KEPT_SETTINGS
        }
        self._environment |= {
            "SHITU_HOST": "127.0.0.1",
            "SHITU_PORT": str(self.port),
            "SHITU_DATA_DIR": str(data_dir),
            **(settings or {}),
        }
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> ServiceProcess:
        """Start the process; see `wait_until_ready`."""
        with self.log.open("ab") as log:
            # A session of its own: Ctrl-C reaches us, and we stop the service in order.
            self._process = subprocess.Popen(
                [sys.executable, "-m", "service.cli", "serve"],
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop the service."""
        self.stop()

    @property
    def pid(self) -> int:
        """The process id."""
        return self._running().pid

    def check(self) -> None:
        """Raise `ServiceFailed`, with the end of the log, when the service has ended."""
        if (code := self._running().poll()) is not None:
            raise ServiceFailed(f"the service ended with exit code {code}.\n{self.log_end()}")

    def wait_until_ready(self, timeout_s: float = 120.0) -> float:
        """Poll ``/readyz`` until it answers 200; returns the seconds it took.

        Raises `ServiceFailed`, with the end of the log, when the service ends or the time is over.
        """
        started = time.monotonic()
        last = "no answer yet"
        with httpx.Client(base_url=self.url, timeout=5.0, trust_env=False) as client:
            while time.monotonic() - started < timeout_s:
                self.check()
                try:
                    answer = client.get("/readyz")
                except httpx.TransportError:
                    pass  # it does not listen yet
                else:
                    if answer.status_code == 200:
                        return time.monotonic() - started
                    last = f"{answer.status_code} {answer.text[:200]}"
                time.sleep(0.05)
        raise ServiceFailed(f"the service was not ready within {timeout_s:.0f} s ({last}).\n{self.log_end()}")

    def wait(self) -> int:
        """Block until the service ends by itself; returns its exit code."""
        return self._running().wait()

    def stop(self, timeout_s: float = 30.0) -> int:
        """Ask the service to finish what it accepted and end; kill it after ``timeout_s``. Returns the exit code."""
        process = self._running()
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(timeout_s)
            except BaseException as error:  # also a second Ctrl-C: never leave the service behind
                process.kill()
                process.wait()
                if not isinstance(error, subprocess.TimeoutExpired):
                    raise
        return process.wait()

    def log_end(self) -> str:
        """The last lines that the service printed."""
        try:
            lines = self.log.read_text(errors="replace").splitlines()
        except OSError as error:
            return f"(its log cannot be read: {error})"
        return "\n".join(lines[-_LOG_LINES_SHOWN:])

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise ServiceFailed("the service was not started: use it as a context manager")
        return self._process


def _free_port() -> int:
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            probe.bind(("127.0.0.1", 0))
            return int(probe.getsockname()[1])
    except OSError as error:
        raise ServiceFailed(f"no free port on the loopback interface 127.0.0.1: {error}") from error
