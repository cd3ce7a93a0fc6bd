"""A real Docker engine, the image built from this tree, and a compose project of its own."""

from __future__ import annotations

import io
import shlex
import shutil
import time
import uuid
from collections.abc import Iterator, Mapping

import pytest
import skimage.data
from PIL import Image

from .engine import Log, Project, build, run

COMPOSES = ("docker-compose", "docker compose")


@pytest.fixture(scope="session")
def log() -> Log:
    """Tell what has happened, with the seconds since the beginning; ``make test-docker`` shows it."""
    start = time.monotonic()
    return lambda text: print(f"\n[{time.monotonic() - start:7.1f} s] {text}", end="", flush=True)


@pytest.fixture(scope="session", autouse=True)
def engine() -> str:
    """The engine's version; without an engine these tests fail, since they were asked for by their marker."""
    answer = run("docker", "version", "--format", "{{.Server.Version}}", check=False)
    if answer.returncode != 0:
        pytest.fail(f"these tests need a Docker engine (DOCKER_HOST names it): {answer.stderr.strip()}")
    return answer.stdout.strip()


@pytest.fixture(scope="session")
def image(log: Log, engine: str) -> Iterator[str]:
    """The CPU image of this tree."""
    tag = f"shitu-hash:e2e-{uuid.uuid4().hex[:8]}"
    start = time.monotonic()
    done = build("docker/Dockerfile", tag)
    assert done.returncode == 0, done.stdout + done.stderr
    size = int(run("docker", "image", "inspect", "--format", "{{.Size}}", tag).stdout)
    log(f"engine {engine}: image built in {time.monotonic() - start:.0f} s, {size / 1e9:.2f} GB")
    yield tag
    made = run("docker", "image", "ls", "--filter", f"reference={tag}*", "--format", "{{.Repository}}:{{.Tag}}").stdout
    run("docker", "image", "rm", "--force", *made.split())


@pytest.fixture(scope="session")
def composes() -> Mapping[str, str]:
    """The compose commands that are here, with their versions."""
    found = {}
    for compose in COMPOSES:
        command = shlex.split(compose)
        if shutil.which(command[0]):
            answer = run(*command, "version", "--short", check=False)
            if answer.returncode == 0:
                found[compose] = answer.stdout.strip()
    if not found:
        pytest.fail("these tests need docker-compose 1.29 or Compose v2")
    return found


@pytest.fixture(scope="module", params=COMPOSES)
def project(request: pytest.FixtureRequest, image: str, composes: Mapping[str, str], log: Log) -> Iterator[Project]:
    """A project of the image for each compose command; its containers and volumes are removed at the end."""
    if request.param not in composes:
        pytest.skip(f"there is no {request.param} here")
    made = Project(request.param, {"SERVICE_IMAGE": image, "SHITU_DRAIN_DELAY_S": "1"})
    log(f"{made.compose} {composes[made.compose]}, project {made.name}")
    yield made
    made("--profile", "monitoring", "down", "--volumes", "--remove-orphans", "--timeout", "30")


@pytest.fixture(scope="session")
def photos() -> dict[str, bytes]:
    """Photographs as JPEG files, by name."""
    files = {}
    for name in ("astronaut", "coffee", "chelsea", "rocket"):
        stream = io.BytesIO()
        Image.fromarray(getattr(skimage.data, name)()).save(stream, "JPEG", quality=90)
        files[name] = stream.getvalue()
    return files
