"""Requests made up from the OpenAPI document, good and bad ones, and sequences of them (Schemathesis).

No answer may be a 5xx, each must have a status, headers and a body that the document describes. Whether a good
request is accepted and a bad one refused is not asked: the document cannot say what is in a picture, that an id is
free, or that numbers in a form are text. ``Allow`` is tested in test_bad_input.py: `/gallery/batch` is an item, too.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from service.openapi import PICTURE_BASE64

SCHEMATHESIS = Path(sys.executable).with_name("schemathesis")
LEFT_OUT = (
    *("positive_data_acceptance", "negative_data_rejection", "allow_header_conformance"),
    *("ignored_auth", "object_level_authorization"),  # the document has no authentication
)


def fuzz(server: Any, folder: Path, examples: int, *more: str) -> str:
    """Run all phases against a server and give what was printed; failures fail."""
    command = [
        *(str(SCHEMATHESIS), "run", f"http://127.0.0.1:{server.port}/openapi.json"),
        *("--max-examples", str(examples), "--phases", "examples,coverage,fuzzing,stateful"),
        *("--checks", "all", "--exclude-checks", ",".join(LEFT_OUT), "--continue-on-failure"),
        *("--request-timeout", "60", "--warnings", "off", "--no-color", *more),
    ]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-10_000:] + done.stderr
    assert "15 selected / 15 total" in done.stdout
    assert server.client.get("/readyz").status_code == 200
    assert server.metric("shitu_requests_under_way") == 0
    return done.stdout


def test_answers_are_as_documented(server: Any, tmp_path: Path) -> None:
    fuzz(server, tmp_path, 5, "--seed", "1", "--generation-deterministic", "--no-shrink")


@pytest.mark.slow
def test_answers_are_as_documented_thousands_of_times(server: Any, tmp_path: Path) -> None:
    output = fuzz(server, tmp_path, 400, "--generation-database", "none")
    print(output[output.index("SUMMARY") :])


def test_the_example_picture_can_be_enrolled(server: Any) -> None:
    answer = server.client.post("/gallery", json={"image_base64": PICTURE_BASE64, "label": "one pixel"})
    assert answer.status_code == 201
