"""A service on a gallery that does not know its model, as after an import: refused until somebody vouches for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from index_store import UNKNOWN_FINGERPRINT, Item, open_gallery
from models.inference import Manifest
from service.settings import Settings


@pytest.fixture(scope="module")
def bits() -> int:
    return Manifest.read(Settings().hasher_dir, "hasher").bits


def imported(folder: Path, bits: int) -> list[Item]:
    rng = np.random.default_rng(3)
    with open_gallery(folder, bits, fingerprint=UNKNOWN_FINGERPRINT) as store:
        return store.add([Item(None, f"label {number}", rng.bytes(bits // 8)) for number in range(30)])


def test_an_imported_gallery_is_served_once_it_is_adopted(serve: Any, tmp_path: Path, bits: int) -> None:
    items = imported(tmp_path, bits)
    with serve(tmp_path) as server:
        ready = server.client.get("/readyz")
        assert (ready.status_code, ready.json()["code"]) == (503, "model_mismatch")
        assert "shitu serve --adopt" in ready.json()["detail"]
        refused = server.client.post("/search", json={"item_id": items[0].id})
        assert refused.status_code == 409
        assert "--adopt" in refused.json()["detail"]
        assert refused.json()["gallery_model_fingerprint"] == UNKNOWN_FINGERPRINT
        assert server.client.get("/index").json()["model_fingerprint"] == UNKNOWN_FINGERPRINT
    for adopt in (True, False):  # once; afterwards a plain start will do
        with serve(tmp_path, adopt=adopt) as server:
            assert server.client.get("/readyz").status_code == 200
            index = server.client.get("/index").json()
            assert index["model_fingerprint"] == server.client.get("/health").json()["model_fingerprint"]
            assert index["items"] == 30
            (found,) = server.search_json(code=items[7].code.hex(), hamming_radius=0)
            assert [match["label"] for match in found["matches"]] == ["label 7"]


@pytest.mark.parametrize(("fingerprint", "more_bits"), [("another-model", 0), (UNKNOWN_FINGERPRINT, 64)])
def test_a_gallery_that_cannot_be_of_the_model_is_not_adopted(
    serve: Any, failed_start: type[Exception], tmp_path: Path, bits: int, fingerprint: str, more_bits: int
) -> None:
    with open_gallery(tmp_path, bits + more_bits, fingerprint=fingerprint):
        pass
    with pytest.raises(failed_start) as caught, serve(tmp_path, adopt=True):
        pass
    assert "--adopt is only for" in str(caught.value.__cause__)
    with serve(tmp_path) as server:
        ready = server.client.get("/readyz").json()
        assert ready["code"] == "model_mismatch"
        assert "--adopt" not in ready["detail"]
        assert server.client.get("/index").json()["model_fingerprint"] == fingerprint
