"""The real service over HTTP, as a benchmark's client sees it."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import httpx

from common.datasets import Photo
from service.demo.server import ServiceFailed, ServiceProcess

_BATCH_IMAGES = 32


@contextmanager
def service(settings: dict[str, str], data_dir: Path | None = None) -> Iterator[ServiceProcess]:
    """Start the service, on a temporary data folder unless one is given; yields it when it is ready."""
    with tempfile.TemporaryDirectory(prefix="shitu-bench-") as folder:
        data = data_dir or Path(folder) / "data"
        with ServiceProcess(data, Path(folder) / "service.log", settings) as process:
            process.wait_until_ready()
            yield process


def hasher_setting(hasher: Path | None) -> dict[str, str]:
    """The setting for ``--hasher``."""
    return {"SHITU_HASHER_DIR": str(hasher.resolve())} if hasher else {}


def detector_setting(folder: Path) -> dict[str, str]:
    """The setting for a detector."""
    return {"SHITU_DETECTOR_DIR": str(folder.resolve())}


def item_id(photo: Photo) -> str:
    """The id under which a photo is enrolled."""
    return photo.path.replace("/", ":")


def enrol(client: httpx.Client, photos: Sequence[Photo]) -> list[bytes]:
    """Enrol photos with ``POST /gallery/batch``, each with its path as id; returns their codes in order."""
    codes = []
    for start in range(0, len(photos), _BATCH_IMAGES):
        part = photos[start : start + _BATCH_IMAGES]
        answer = client.post(
            "/gallery/batch",
            files=[("images", (photo.path, photo.data, "image/jpeg")) for photo in part],
            data={"labels": [p.label for p in part], "ids": [item_id(p) for p in part]},
        )
        for photo, result in zip(part, checked(answer)["results"], strict=True):
            if result.get("item") is None:
                raise ServiceFailed(f"{photo.path} was refused: {result}")
            codes.append(bytes.fromhex(result["item"]["code"]))
    return codes


def search(client: httpx.Client, photo: Photo, *, radius: int, top_k: int) -> list[dict[str, Any]]:
    """Search a whole picture; its matches less itself, best first."""
    own = item_id(photo)
    (whole,) = recognize(client, photo, detect=False, radius=radius, top_k=top_k)
    return [match for match in whole["matches"] if match["id"] != own]


def recognize(client: httpx.Client, photo: Photo, *, detect: bool, radius: int, top_k: int = 1) -> list[dict[str, Any]]:
    """Search a picture with ``POST /search``; its objects, the one with the nearest match first."""
    answer = client.post(
        "/search",
        files={"image": (photo.path, photo.data, "image/jpeg")},
        data={"detect": str(detect).lower(), "hamming_radius": str(radius), "top_k": str(top_k)},
    )
    objects: list[dict[str, Any]] = checked(answer)["objects"]
    return objects


def checked(answer: httpx.Response) -> dict[str, Any]:
    """The JSON of a successful answer."""
    if answer.status_code >= 400:
        raise ServiceFailed(f"{answer.request.url.path} answered {answer.status_code}: {answer.text[:500]}")
    body: dict[str, Any] = answer.json()
    return body


class KeepAliveSearch:
    """One keep-alive connection that posts JSON to ``/search``.

    `http.client` costs a fraction of a millisecond a request where richer clients cost one or two: what is measured
    should be the service.
    """

    def __init__(self, port: int, api_key: str | None = None) -> None:
        """Connect to a service on the loopback interface; the key goes with every request."""
        self._connection = HTTPConnection("127.0.0.1", port, timeout=60)
        self._headers = {"Content-Type": "application/json"}
        if api_key is not None:
            self._headers["Authorization"] = f"Bearer {api_key}"

    def __call__(self, body: dict[str, Any]) -> dict[str, Any]:
        """One whole request and answer."""
        data = json.dumps(body).encode()
        self._connection.request("POST", "/search", data, self._headers)
        response = self._connection.getresponse()
        text = response.read()
        if response.status != 200:
            raise ServiceFailed(f"/search answered {response.status}: {text[:500].decode(errors='replace')}")
        answer: dict[str, Any] = json.loads(text)
        return answer

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()
