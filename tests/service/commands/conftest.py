"""Real parts for the tests of the command line: drawn pictures, data folders, a server in its own process."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from service.cli import app

Draw = Callable[[str, int], Path]


@dataclass(frozen=True)
class Answer:
    """What a command printed, and its exit code."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def json_lines(self) -> list[Any]:
        return [json.loads(line) for line in self.out.splitlines()]


class Shitu:
    """Runs ``shitu`` commands in this process."""

    def __call__(self, *arguments: object) -> Answer:
        result = CliRunner().invoke(app, [str(argument) for argument in arguments], prog_name="shitu")
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return Answer(result.exit_code, result.stdout, result.stderr)

    def ok(self, *arguments: object) -> Answer:
        """Run a command that must succeed."""
        answer = self(*arguments)
        assert answer.code == 0, answer
        return answer


class Server:
    """``shitu serve`` in a process of its own."""

    def __init__(self, *arguments: object, environment: dict[str, str] | None = None) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "service.cli", "serve", "--port", "0", *map(str, arguments)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | (environment or {}),
        )
        self.log: list[str] = []
        self._reader = threading.Thread(target=self._read_log, daemon=True)
        self._reader.start()

    def _read_log(self) -> None:
        assert self.process.stderr is not None
        self.log.extend(self.process.stderr)

    def url(self) -> str:
        """Wait for the line that says it is ready."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        found = re.match(r"shitu is ready at (http://\S+)", line)
        assert found, (line, self.stop(), self.log)
        return found[1]

    def stop(self, number: int = signal.SIGTERM) -> int:
        """End it and return its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            code = self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise
        self._reader.join(10)
        assert self.process.stdout is not None
        assert self.process.stderr is not None
        self.process.stdout.close()
        self.process.stderr.close()
        return code


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No settings but one: no detector, so that the whole picture is the object, whatever models are bundled."""
    for name in [name for name in os.environ if name.upper().startswith("SHITU_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("SHITU_DETECTOR_DIR", "")


@pytest.fixture
def shitu() -> Shitu:
    return Shitu()


@pytest.fixture(scope="session")
def draw() -> Draw:
    """Draw a picture by number: stripes, discs and boxes in its own colours, the same every time."""

    def draw_into(name: str, number: int) -> Path:
        rng = np.random.default_rng(number)
        picture = np.full((200, 160, 3), rng.integers(0, 256, 3), np.uint8)
        for _ in range(6):
            colour = tuple(int(value) for value in rng.integers(0, 256, 3))
            first, second = (tuple(int(value) for value in rng.integers(0, 160, 2)) for _ in range(2))
            cv2.rectangle(picture, first, second, colour, -1)
            cv2.circle(picture, second, int(rng.integers(10, 50)), colour[::-1], -1)
        path = Path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(cv2.imencode(path.suffix, picture)[1].tobytes())
        return path

    return draw_into


@pytest.fixture
def start_server() -> Iterator[Callable[..., Server]]:
    """Start servers that end with the test."""
    servers: list[Server] = []

    def start(*arguments: object, environment: dict[str, str] | None = None) -> Server:
        servers.append(Server(*arguments, environment=environment))
        return servers[-1]

    yield start
    for server in servers:
        server.stop()


@pytest.fixture(scope="module")
def empty_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Give the address of a server that the tests of a module share."""
    server = Server("--data-dir", tmp_path_factory.mktemp("served"), "--detector-dir", "")
    yield server.url()
    assert server.stop() == 0
