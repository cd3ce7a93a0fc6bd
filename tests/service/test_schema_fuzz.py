"""Requests made up from the OpenAPI document, good and bad ones, and sequences of them (Schemathesis).

No answer may be a 5xx, each must have a status, headers and a body that the document describes. Whether a good
request is accepted and a bad one refused is not asked: the document cannot say what is in a picture, that an id is
free, or that numbers in a form are text. ``Allow`` is tested in test_bad_input.py: `/gallery/batch` is an item, too.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from service.openapi import PICTURE_BASE64

SCHEMATHESIS = Path(sys.executable).with_name("schemathesis")
LEFT_OUT = (
    *("positive_data_acceptance", "negative_data_rejection", "allow_header_conformance"),
    "object_level_authorization",  # a gallery belongs to all who have a key
)


@pytest.fixture(scope="module")
def guarded(serve: Any, issue: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A service with a key, which its client sends."""
    key = issue("tester", "admin")
    with serve(tmp_path_factory.mktemp("data"), api_keys=key.line) as running:
        running.client.headers.update(key.headers)
        yield running


def fuzz(server: Any, folder: Path, examples: int, *more: str) -> str:
    """Run all phases against a server and give what was printed; failures fail."""
    key = server.client.headers["Authorization"]
    command = [
        *(str(SCHEMATHESIS), "run", f"http://127.0.0.1:{server.port}/openapi.json"),
        *("--max-examples", str(examples), "--phases", "examples,coverage,fuzzing,stateful"),
        *("--checks", "all", "--exclude-checks", ",".join(LEFT_OUT), "--continue-on-failure"),
        *("--header", f"Authorization: {key}", "--request-timeout", "60", "--warnings", "off", "--no-color", *more),
    ]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-10_000:] + done.stderr
    assert "15 selected / 15 total" in done.stdout
    assert server.client.get("/readyz").status_code == 200
    assert server.metric("shitu_requests_under_way") == 0
    return done.stdout


def test_answers_are_as_documented(guarded: Any, tmp_path: Path) -> None:
    fuzz(guarded, tmp_path, 5, "--seed", "1", "--generation-deterministic", "--no-shrink")


@pytest.mark.slow
def test_answers_are_as_documented_thousands_of_times(guarded: Any, tmp_path: Path) -> None:
    output = fuzz(guarded, tmp_path, 400, "--generation-database", "none")
    print(output[output.index("SUMMARY") :])


def test_the_example_picture_can_be_enrolled(guarded: Any) -> None:
    answer = guarded.client.post("/gallery", json={"image_base64": PICTURE_BASE64, "label": "one pixel"})
    assert answer.status_code == 201
