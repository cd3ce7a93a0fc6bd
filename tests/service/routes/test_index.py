"""``/index`` over HTTP."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

from models.inference import Hasher


def test_the_index_is_described(serve: Any, tmp_path: Path) -> None:
    with serve(tmp_path) as server:
        hasher = Hasher.load(server.settings.hasher_dir)
        empty = server.client.get("/index").json()
        assert empty == {
            "method": "Flat",
            "serving": "Flat",
            "reason": "Flat was chosen: exact, every code is compared",
            "parameters": {},
            "bits": hasher.bits,
            "items": 0,
            "recent_items": 0,
            "bytes": empty["bytes"],
            "model_fingerprint": hasher.fingerprint,
            "rebuild_progress": None,
            "rebuild_error": None,
        }
        server.enrol_code(bytes(server.bits // 8), "x")
        filled = server.client.get("/index").json()
        assert filled["items"] == 1
        assert filled["bytes"] >= server.bits // 8


def test_a_rebuild_finds_the_same_and_says_when_it_is_done(serve: Any, tmp_path: Path) -> None:
    with serve(tmp_path) as server:
        codes = np.random.default_rng(0).integers(0, 256, (200, server.bits // 8), np.uint8)
        items = [{"code": code.tobytes().hex(), "label": "x"} for code in codes]
        assert server.client.post("/gallery/batch", json={"items": items}).status_code == 200
        query = {"code": items[7]["code"], "hamming_radius": server.bits, "top_k": 50}
        before = server.search_json(**query)
        for body in ({}, {"json": {"method": "Flat"}}, {"json": {}}, {"json": {"method": "auto"}}):
            answer = server.client.post("/index/rebuild", **body)
            assert answer.status_code == 202
            assert answer.json()["items"] == 200
            assert server.search_json(**query) == before
            wait_until_done(server)
            assert server.client.get("/index").json()["rebuild_error"] is None
            assert server.search_json(**query) == before


def test_one_rebuild_at_a_time(serve: Any, tmp_path: Path) -> None:
    with serve(tmp_path) as server:
        store = server.app.state.runtime.store
        free = threading.Event()
        rebuild = store.rebuild

        def slow_rebuild(method: str | None = None) -> None:
            free.wait(30)
            rebuild(method)

        store.rebuild = slow_rebuild
        assert server.client.post("/index/rebuild").status_code == 202
        assert server.client.get("/index").json()["rebuild_progress"] == 0
        refused = server.client.post("/index/rebuild")
        assert (refused.status_code, refused.json()["code"]) == (409, "rebuild_under_way")
        free.set()
        wait_until_done(server)
        assert server.client.post("/index/rebuild").status_code == 202
        wait_until_done(server)


def test_a_rebuild_that_fails_is_told_and_the_old_index_serves(serve: Any, tmp_path: Path) -> None:
    with serve(tmp_path) as server:
        item = server.enrol_code(bytes(server.bits // 8), "x")
        store = server.app.state.runtime.store
        rebuild = store.rebuild

        def failing_rebuild(method: str | None = None) -> None:
            raise MemoryError("no memory for another index")

        store.rebuild = failing_rebuild
        assert server.client.post("/index/rebuild").status_code == 202
        wait_until_done(server)
        assert "no memory for another index" in server.client.get("/index").json()["rebuild_error"]
        assert server.client.get("/readyz").status_code == 200
        assert server.search_json(item_id=item["id"])[0]["matches"][0]["id"] == item["id"]
        store.rebuild = rebuild
        assert server.client.post("/index/rebuild").json()["rebuild_error"] is None
        wait_until_done(server)
        assert server.client.get("/index").json()["rebuild_error"] is None


def wait_until_done(server: Any) -> None:
    deadline = time.monotonic() + 30
    while server.client.get("/index").json()["rebuild_progress"] is not None:
        assert time.monotonic() < deadline
        time.sleep(0.01)
