"""Docker and compose as an operator types them."""

from __future__ import annotations

import os
import shlex
import socket
import subprocess
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import httpx

ROOT = Path(__file__).parent.parent.parent
BUILD_FLAGS = shlex.split(os.environ.get("DOCKER_BUILD_FLAGS", ""))
READY_S = 180.0

Log = Callable[[str], None]


def run(*command: str, check: bool = True, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a command from the repository's root; what it said is in the error if it fails."""
    done = subprocess.run(command, check=False, cwd=ROOT, capture_output=True, text=True, **options)
    if check and done.returncode != 0:
        raise AssertionError(f"{shlex.join(command)} ended with {done.returncode}\n{done.stdout}\n{done.stderr}")
    return done


def build(dockerfile: str, tag: str, context: Path = ROOT, **arguments: str) -> subprocess.CompletedProcess[str]:
    """Build an image, with what ``DOCKER_BUILD_FLAGS`` adds (such as ``--network=host``)."""
    given = [part for name, value in arguments.items() for part in ("--build-arg", f"{name}={value}")]
    command = ("docker", "build", *BUILD_FLAGS, "--file", str(context / dockerfile), "--tag", tag, *given, str(context))
    return run(*command, check=False)


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@dataclass
class Project:
    """A compose project with volumes of its own, published on a free loopback port."""

    compose: str
    environment: dict[str, str]
    name: str = field(default_factory=lambda: f"shitu-e2e-{uuid.uuid4().hex[:8]}")
    port: int = field(default_factory=free_port)
    key: str = ""

    def __call__(self, *arguments: str, check: bool = True, **settings: str) -> subprocess.CompletedProcess[str]:
        command = (*shlex.split(self.compose), "--project-name", self.name, *arguments)
        given = {**os.environ, "SERVICE_ADDRESS": f"127.0.0.1:{self.port}", **self.environment, **settings}
        return run(*command, check=check, env=given)

    @property
    def container(self) -> str:
        return self("ps", "--all", "-q", "shitu").stdout.strip()

    @property
    def services(self) -> list[str]:
        """Of which services containers run."""
        of_project = ("--filter", f"label=com.docker.compose.project={self.name}")
        template = '{{.Label "com.docker.compose.service"}}'
        return sorted(run("docker", "ps", *of_project, "--format", template).stdout.split())

    @property
    def client(self) -> httpx.Client:
        headers = {"Authorization": f"Bearer {self.key}"} if self.key else {}
        return httpx.Client(base_url=f"http://127.0.0.1:{self.port}", headers=headers, timeout=60)

    def wait_until_ready(self) -> float:
        """Wait for ``/readyz`` and give the seconds from the container's start to its first good answer."""
        deadline = time.monotonic() + READY_S
        while time.monotonic() < deadline:
            try:
                if httpx.get(f"http://127.0.0.1:{self.port}/readyz", timeout=20).status_code == 200:
                    started = run("docker", "inspect", "--format", "{{.State.StartedAt}}", self.container).stdout
                    return time.time() - seconds_of(started.strip())
            except httpx.TransportError:
                pass
            time.sleep(0.05)
        raise AssertionError(f"not ready within {READY_S:.0f} s\n{self('logs', 'shitu').stdout}")

    def inspect(self, template: str) -> str:
        return run("docker", "inspect", "--format", template, self.container).stdout.strip()

    def make_key(self, name: str, *scopes: str) -> str:
        """Make a key as an operator does; the service takes it up by itself."""
        options = [part for scope in scopes for part in ("--scope", scope)]
        key = self("exec", "-T", "shitu", "shitu", "keys", "add", name, *options).stdout.strip()
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            answer = httpx.get(f"{self.client.base_url}/index", headers={"Authorization": f"Bearer {key}"})
            if answer.status_code != 401:
                return key
            time.sleep(0.2)
        raise AssertionError(f"the key {name} was not taken up: {answer.text}")


def seconds_of(moment: str) -> float:
    """Seconds since 1970 of a time as Docker writes it, to the nanosecond."""
    whole, _, fraction = moment.removesuffix("Z").partition(".")
    return datetime.fromisoformat(whole).replace(tzinfo=timezone.utc).timestamp() + float(f"0.{fraction or 0}")
