"""``/index`` over HTTP."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

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
        with ThreadPoolExecutor(8) as clients:
            at_once = clients.map(lambda _: server.client.post("/index/rebuild").status_code, range(8))
        assert sorted(at_once) == [202, *[409] * 7]
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


@pytest.mark.parametrize("method", ["IVF", "HNSW32"])
def test_another_method_is_built_while_the_gallery_serves_and_changes(serve: Any, tmp_path: Path, method: str) -> None:
    with serve(tmp_path) as server:
        rng = np.random.default_rng(0)
        codes = rng.integers(0, 256, (5000, server.bits // 8), np.uint8)
        for start in range(0, len(codes), 250):
            items = [{"code": code.tobytes().hex(), "label": "x"} for code in codes[start : start + 250]]
            assert server.client.post("/gallery/batch", json={"items": items}).status_code == 200
        assert server.client.post("/index/rebuild", json={"method": method}).status_code == 202
        seen = set()
        while (index := server.client.get("/index").json())["rebuild_progress"] is not None:
            seen.add(index["rebuild_progress"])
            late = server.enrol_code(rng.bytes(server.bits // 8), "late")
            assert late["id"] in {match["id"] for match in server.search_json(item_id=late["id"])[0]["matches"]}
        assert all(0 <= part <= 1 for part in seen)
        assert (index["method"], index["serving"], index["rebuild_error"]) == (method, method, None)
        assert index["reason"] == f"{method} was chosen"
        assert index["items"] == server.count()
        exhaustive = {"nprobe": 100_000, "ef_search": 1000}
        for number in (0, 2500, 4999):
            (found,) = server.search_json(code=codes[number].tobytes().hex(), hamming_radius=0, **exhaustive)
            assert [match["distance"] for match in found["matches"]] == [0]
    with serve(tmp_path) as server:  # what was chosen is remembered, and need not be built again
        assert server.client.get("/index").json()["serving"] == method


def test_effort_is_a_field_of_a_search(serve: Any, tmp_path: Path) -> None:
    with serve(tmp_path) as server:
        item = server.enrol_code(bytes(server.bits // 8), "x")
        for name in ("nprobe", "ef_search"):
            assert server.search_json(item_id=item["id"], **{name: 5})[0]["matches"]
            for wrong in (0, -1, 1.5, "many", True, 10**9):
                answer = server.client.post("/search", json={"item_id": item["id"], name: wrong})
                assert (answer.status_code, answer.json()["code"]) == (422, "invalid_fields")
                assert name in answer.json()["detail"]


def test_a_stop_ends_a_rebuild_soon(serve: Any, tmp_path: Path) -> None:
    with serve(tmp_path) as server:
        store = server.app.state.runtime.store
        building = threading.Event()
        rebuild = store.rebuild

        def endless_rebuild(method: str | None = None) -> None:
            def tell(part: float) -> None:
                building.set()
                while part > 0:  # each rebuild tells at its start, and then as long as nobody ends it
                    store._live._go_on()
                    time.sleep(0.01)

            rebuild(method, tell)

        store.rebuild = endless_rebuild
        server.enrol_code(bytes(server.bits // 8), "x")
        assert server.client.post("/index/rebuild").status_code == 202
        assert building.wait(10)
        before = time.monotonic()
    assert time.monotonic() - before < 10  # the deadline for stopping is 20 s
    with serve(tmp_path) as server:
        assert server.count() == 1


def wait_until_done(server: Any) -> None:
    deadline = time.monotonic() + 30
    while server.client.get("/index").json()["rebuild_progress"] is not None:
        assert time.monotonic() < deadline
        time.sleep(0.01)
