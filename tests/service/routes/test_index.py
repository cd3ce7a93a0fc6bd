"""``/index`` over HTTP."""

from __future__ import annotations

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
            "bits": hasher.bits,
            "items": 0,
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
            deadline = time.monotonic() + 10
            while server.client.get("/index").json()["rebuild_progress"] is not None:
                assert time.monotonic() < deadline
            assert server.client.get("/index").json()["rebuild_error"] is None
            assert server.search_json(**query) == before
