"""The configured limit on metadata, in every way that an item comes in."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

MOST = 100


@pytest.fixture(scope="module")
def limited(serve: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with serve(tmp_path_factory.mktemp("data"), max_metadata_bytes=MOST) as server:
        yield server


def metadata(size: int) -> dict[str, str]:
    """Metadata of so many bytes as compact JSON, with a letter that takes two of them."""
    made = {"a": "ü" + "x" * (size - len(b'{"a":""}') - 2)}
    assert len(json.dumps(made, ensure_ascii=False, separators=(",", ":")).encode()) == size
    return made


def refused(answer: Any, field: str) -> None:
    assert answer.status_code == 422, answer.text
    (error,) = answer.json()["errors"]
    assert error["field"] == field
    assert "100" in error["message"]
    assert "101" in error["message"]


def test_a_form(limited: Any, photo_files: dict[str, bytes]) -> None:
    picture = {"image": photo_files["coffee"]}
    spaced = json.dumps(metadata(MOST), indent=4)  # what counts is the compact form
    answer = limited.client.post("/gallery", files=picture, data={"label": "x", "metadata": spaced})
    assert answer.status_code == 201
    sent = {"label": "x", "metadata": json.dumps(metadata(MOST + 1))}
    refused(limited.client.post("/gallery", files=picture, data=sent), "metadata")


@pytest.mark.parametrize(
    "many", ["[" + "[]," * 300_000 + "0]", "[" + "0," * 500_000 + "0]", "{}" + " " * 500_000 + "x"]
)
def test_a_form_with_far_too_much_is_refused_before_it_is_read(
    server: Any, photo_files: dict[str, bytes], many: str
) -> None:
    picture = photo_files["coffee"]
    sent = {"label": "x", "metadata": f'{{"a":{many}}}'}
    answer = server.client.post("/gallery", files={"image": picture}, data=sent)
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "metadata")
    batch = {"labels": ["x"] * 4, "metadata": [sent["metadata"]] * 4}
    answer = server.client.post("/gallery/batch", files=[("images", picture)] * 4, data=batch)
    assert [result["status"] for result in answer.json()["results"]] == [422] * 4


def test_json_and_put(limited: Any) -> None:
    code = "00" * (limited.bits // 8)
    item = limited.enrol_code(bytes.fromhex(code), "x", id="limited", metadata=metadata(MOST))
    assert item["metadata"] == metadata(MOST)
    long = {"code": code, "label": "x", "metadata": metadata(MOST + 1)}
    refused(limited.client.post("/gallery", json=long), "metadata")
    refused(limited.client.put("/gallery/limited", json=long), "metadata")


def test_a_batch(limited: Any, photo_files: dict[str, bytes]) -> None:
    code = "01" * (limited.bits // 8)
    items = [{"code": code, "label": "x", "metadata": metadata(size)} for size in (MOST, MOST + 1)]
    texts = [json.dumps(metadata(size)) for size in (MOST, MOST + 1)]
    pictures = [("images", photo_files["coffee"])] * 2
    for call in (
        {"json": {"items": items}},
        {"files": pictures, "data": {"labels": ["x", "x"], "metadata": texts}},
    ):
        good, bad = limited.client.post("/gallery/batch", **call).json()["results"]
        assert good["status"] == 201
        assert (bad["status"], bad["problem"]["errors"][0]["field"]) == (422, "metadata")


def test_the_limit_is_told(limited: Any, server: Any) -> None:
    assert limited.client.get("/health").json()["limits"]["max_metadata_bytes"] == MOST
    assert server.client.get("/health").json()["limits"]["max_metadata_bytes"] == 64 * 1024
