"""A disk with little room, over HTTP and on the command line."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from index_store import DiskFull, Item, open_gallery
from service.commands.access import Enrolment
from service.commands.local import LocalGallery

EVERYTHING = 2**62  # no disk has so much


def test_what_grows_is_507_and_the_rest_goes_on(serve: Any, tmp_path: Path, photo_files: dict[str, bytes]) -> None:
    with serve(tmp_path) as server:
        item = server.enrol(photo_files["coffee"], "coffee")
        assert server.client.get("/readyz").json()["checks"]["disk"] == "ok"
    picture = {"image": photo_files["rocket"]}
    code = "00" * 64
    with serve(tmp_path, min_free_bytes=EVERYTHING, keep_images=True) as server:
        client = server.client
        for answer in (
            client.post("/gallery", files=picture, data={"label": "x"}),
            client.post("/gallery", json={"code": code, "label": "x"}),
            client.post("/gallery/batch", json={"items": [{"code": code, "label": "x"}]}),
            client.put(f"/gallery/{item['id']}", json={"code": code, "label": "x"}),
            client.put(f"/gallery/{item['id']}", files=picture, data={"label": "x"}),
            client.post("/index/rebuild"),
        ):
            assert (answer.status_code, answer.json()["code"]) == (507, "disk_full"), answer.text
            assert answer.headers["content-type"] == "application/problem+json"
        assert not list((tmp_path / "images").rglob("*"))
        ready = client.get("/readyz")
        assert ready.status_code == 200
        assert "are kept free" in ready.json()["checks"]["disk"]
        assert client.get("/health").json()["status"] == "ready"
        assert server.metric("shitu_ready") == 1
        assert server.search(photo_files["coffee"])[0]["matches"][0]["id"] == item["id"]
        assert server.metric("shitu_disk_free_bytes") > 0
        live = server.app.state.runtime.store._live
        live._changes = 50_000  # a snapshot is due
        live._wake_if_due()
        deadline = time.monotonic() + 60
        while live.error is None and time.monotonic() < deadline:
            time.sleep(0.02)
        time.sleep(1)  # readiness is asked anew after a second
        assert isinstance(live.error, DiskFull)
        assert client.get("/readyz").json()["checks"]["background"] == "ok"
        assert client.delete(f"/gallery/{item['id']}").status_code == 204


def test_the_command_line_leaves_the_reserve_too(
    make_settings: Any, tmp_path: Path, photo_files: dict[str, bytes]
) -> None:
    gallery = LocalGallery(make_settings(tmp_path, min_free_bytes=EVERYTHING))
    with pytest.raises(DiskFull):
        gallery.add(Enrolment(photo_files["coffee"], "coffee"))
    assert list(gallery.items()) == []
    gallery.close()
    with open_gallery(tmp_path) as store:
        store.add([Item(None, "there is room", bytes(store.bits // 8))])
