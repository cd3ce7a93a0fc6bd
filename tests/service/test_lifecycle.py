"""Start, stop, and what a service finds in its data folder."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from index_store import Item, open_gallery
from models.inference import Hasher
from service import runtime
from service.errors import NotReady
from service.metrics import Metrics
from service.settings import Settings

from .conftest import slow_upload


@pytest.fixture(scope="module")
def bits(make_settings: Callable[..., Settings], tmp_path_factory: pytest.TempPathFactory) -> int:
    return Hasher.load(make_settings(tmp_path_factory.mktemp("unused")).hasher_dir).bits


@contextmanager
def mounted(folder: Path, options: str) -> Iterator[None]:
    """Mount a small file system in memory, or skip."""
    folder.mkdir(exist_ok=True)
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], capture_output=True, check=False
    )
    if done.returncode:
        pytest.skip(f"cannot mount here: {done.stderr.decode().strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def code(bits: int, number: int) -> bytes:
    return np.random.default_rng(number).bytes(bits // 8)


# What is in the data folder


def test_a_snapshot_cut_in_half_is_rebuilt_from_the_catalog(serve: Any, tmp_path: Path, bits: int) -> None:
    with serve(tmp_path) as server:
        items = [server.enrol_code(code(bits, number), f"label {number}") for number in range(50)]
    snapshots = [
        path for path in tmp_path.iterdir() if path.stat().st_size > 50 * bits // 8 and "sqlite" not in path.name
    ]
    snapshots = [path for path in snapshots if not path.name.startswith("catalog")]
    assert len(snapshots) == 1
    os.truncate(snapshots[0], snapshots[0].stat().st_size // 2)
    with serve(tmp_path) as server:
        assert server.client.get("/readyz").status_code == 200
        assert server.count() == 50
        for number, item in enumerate(items):
            (found,) = server.search_json(code=code(bits, number).hex(), hamming_radius=0)
            assert [match["id"] for match in found["matches"]] == [item["id"]]


@pytest.mark.parametrize("other_bits", [0, 64])
def test_a_gallery_of_another_model_can_be_listed_but_not_searched(
    serve: Any, tmp_path: Path, photo_files: dict[str, bytes], bits: int, other_bits: int
) -> None:
    gallery_bits = bits + other_bits
    with open_gallery(tmp_path, gallery_bits, fingerprint="another-model") as store:
        kept, leaving = store.add(
            [Item(None, "kept", code(gallery_bits, 0)), Item(None, "leaving", code(gallery_bits, 1))]
        )
    with serve(tmp_path) as server:
        client = server.client
        assert client.get("/livez").status_code == 200
        ready = client.get("/readyz")
        assert (ready.status_code, ready.json()["code"]) == (503, "model_mismatch")
        assert client.get("/health").json()["status"] == "not_ready"
        fingerprint = client.get("/health").json()["model_fingerprint"]

        picture = {"image": photo_files["coffee"]}
        refused = [
            client.post("/search", files=picture),
            client.post("/search", json={"item_id": kept.id}),
            client.post("/search", json={"code": kept.code.hex()}),
            client.post("/gallery", files=picture, data={"label": "x"}),
            client.post("/gallery", json={"code": kept.code.hex(), "label": "x"}),
            client.post("/gallery/batch", json={"items": [{"code": kept.code.hex(), "label": "x"}]}),
            client.put(f"/gallery/{kept.id}", files=picture, data={"label": "x"}),
        ]
        for answer in refused:
            problem = answer.json()
            assert (answer.status_code, problem["code"]) == (409, "model_mismatch")
            assert "another-model" in problem["detail"]
            assert fingerprint in problem["detail"]
            assert "shitu gallery rehash" in problem["detail"]
            assert problem["gallery_model_fingerprint"] == "another-model"
            assert problem["loaded_model_fingerprint"] == fingerprint

        index = client.get("/index").json()
        assert (index["model_fingerprint"], index["bits"]) == ("another-model", gallery_bits)
        assert [item["label"] for item in client.get("/gallery").json()["items"]] == ["kept", "leaving"]
        assert client.delete(f"/gallery/{leaving.id}").status_code == 204
        assert client.post("/gallery/delete", json={"ids": [kept.id]}).json() == {"removed": 1}
        assert server.count() == 0


def test_a_folder_that_another_service_owns_is_refused(
    serve: Any, failed_start: type[Exception], tmp_path: Path
) -> None:
    with serve(tmp_path) as server:
        item = server.enrol_code(bytes(server.bits // 8), "x")
        with pytest.raises(failed_start) as caught, serve(tmp_path):
            pass
        assert "--server" in str(caught.value.__cause__)
        assert server.client.get("/gallery").json()["items"] == [item]


def test_a_read_only_folder_is_refused_at_start(
    serve: Any, failed_start: type[Exception], tmp_path: Path, bits: int
) -> None:
    folder = tmp_path / "data"
    with mounted(folder, "size=8m"):
        with open_gallery(folder, bits, fingerprint="x"):
            pass
        subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)
        with pytest.raises(failed_start) as caught, serve(folder):
            pass
        message = str(caught.value.__cause__)
        assert str(folder) in message
        assert "read-only" in message or "not writable" in message


@pytest.mark.parametrize("name", ["hasher_dir", "detector_dir"])
def test_a_model_that_is_not_there_is_refused_at_start(
    serve: Any, failed_start: type[Exception], tmp_path: Path, name: str
) -> None:
    with pytest.raises(failed_start) as caught, serve(tmp_path / "data", **{name: tmp_path / "nothing"}):
        pass
    assert str(tmp_path / "nothing") in str(caught.value.__cause__)
    with serve(tmp_path / "data"):  # nothing holds the folder
        pass


def test_a_radius_beyond_the_codes_is_refused_at_start(
    serve: Any, failed_start: type[Exception], tmp_path: Path, bits: int
) -> None:
    with pytest.raises(failed_start) as caught, serve(tmp_path, hamming_radius=bits + 1):
        pass
    assert str(bits) in str(caught.value.__cause__)


def test_a_full_disk_is_told_and_nothing_is_stored(
    serve: Any, tmp_path: Path, photo_files: dict[str, bytes], bits: int
) -> None:
    folder = tmp_path / "data"
    with mounted(folder, "size=3m"), serve(folder, keep_images=True, min_free_bytes=0) as server:
        item = server.enrol(photo_files["coffee"], "coffee")
        filler = folder / "filler"
        with suppress(OSError), filler.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))
        kept_before = sorted(path.name for path in (folder / "images").rglob("*"))
        answers = [
            server.client.post("/gallery", files={"image": photo_files["rocket"]}, data={"label": "rocket"}),
            server.client.post(
                "/gallery/batch", files=[("images", photo_files["rocket"]), ("labels", (None, "rocket"))]
            ),
        ]
        for answer in answers:
            assert (answer.status_code, answer.json()["code"]) == (507, "disk_full"), answer.text
        big = {"a": "x" * 60_000}
        many = {"items": [{"code": code(bits, number).hex(), "label": "x", "metadata": big} for number in range(50)]}
        answer = server.client.post("/gallery/batch", json=many)
        assert (answer.status_code, answer.json()["code"]) == (507, "disk_full"), answer.text
        assert server.client.get("/readyz").status_code == 503
        assert server.client.get("/gallery").json()["items"] == [item]
        assert sorted(path.name for path in (folder / "images").rglob("*") if path.is_file()) == [
            name for name in kept_before if len(name) == 64
        ]
        assert server.search(photo_files["coffee"], hamming_radius="0")[0]["matches"][0]["id"] == item["id"]

        filler.unlink()
        assert server.enrol(photo_files["rocket"], "rocket")["label"] == "rocket"
        time.sleep(1)  # readiness is asked anew after a second
        assert server.client.get("/readyz").status_code == 200


# Kept pictures


def kept(folder: Path) -> list[bytes]:
    return sorted(path.read_bytes() for path in (folder / "images").rglob("*") if path.is_file())


def test_pictures_are_kept_and_go_with_their_items(
    serve: Any, tmp_path: Path, photo_files: dict[str, bytes], detector_dir: Path
) -> None:
    coffee, rocket, astronaut = (photo_files[name] for name in ("coffee", "rocket", "astronaut"))
    with serve(tmp_path, keep_images=True, detector_dir=detector_dir) as server:
        first, second = server.enrol(coffee, "one"), server.enrol(coffee, "two")
        assert kept(tmp_path) == [coffee]
        server.client.delete(f"/gallery/{first['id']}")
        assert kept(tmp_path) == [coffee]

        put = {"files": {"image": rocket}, "data": {"label": "other"}}
        assert server.client.put(f"/gallery/{second['id']}", **put).status_code == 200
        assert kept(tmp_path) == [rocket]
        relabel = {"code": server.client.get(f"/gallery/{second['id']}").json()["code"], "label": "renamed"}
        assert server.client.put(f"/gallery/{second['id']}", json=relabel).status_code == 200
        assert kept(tmp_path) == [rocket]
        assert server.client.put(f"/gallery/{second['id']}", json={**relabel, "code": first["code"]}).status_code == 200
        assert kept(tmp_path) == []

        detected = server.enrol(astronaut, "detected", detect="true")
        (crop,) = kept(tmp_path)
        assert crop.startswith(b"\x89PNG")
        assert server.search(crop, detect="false", hamming_radius="0")[0]["code"] == detected["code"]

        parts: list[tuple[str, Any]] = [("images", coffee), ("images", b"text"), ("images", rocket)]
        parts += [("labels", (None, "batch"))] * 3
        server.client.post("/gallery/batch", files=parts)
        assert kept(tmp_path) == sorted([crop, coffee, rocket])
        server.client.post("/gallery/delete", json={"label": "batch"})
        assert kept(tmp_path) == [crop]
        server.client.post("/gallery/delete", json={"ids": [detected["id"]]})
        assert kept(tmp_path) == []


def test_refused_and_returned_duplicates_leave_no_picture(
    serve: Any, tmp_path: Path, photos: dict[str, np.ndarray], encode: Any
) -> None:
    # The same pixels in two files: equal codes, different pictures.
    files = [encode(photos["coffee"], "PNG", compress_level=level) for level in (1, 9)]
    with serve(tmp_path, keep_images=True) as server:
        server.enrol(files[0], "coffee", id="there")
        for fields in ({"on_duplicate": "reject"}, {"on_duplicate": "return"}, {"id": "there"}):
            data = {"label": "again", **fields}
            server.client.post("/gallery", files={"image": files[1]}, data=data)
            assert kept(tmp_path) == [files[0]]


def test_pictures_are_not_kept_unless_asked(serve: Any, tmp_path: Path, photo_files: dict[str, bytes]) -> None:
    with serve(tmp_path) as server:
        server.enrol(photo_files["coffee"], "coffee")
    assert not (tmp_path / "images").exists()


def test_orphans_of_a_crash_are_swept_at_start(serve: Any, tmp_path: Path, photo_files: dict[str, bytes]) -> None:
    with serve(tmp_path, keep_images=True) as server:
        server.enrol(photo_files["coffee"], "coffee")
    shard = tmp_path / "images" / "ab"
    shard.mkdir(exist_ok=True)
    (shard / ("ab" * 32)).write_bytes(b"orphan")
    (shard / ("ab" * 32 + ".1.tmp")).write_bytes(b"torn")
    with serve(tmp_path):
        deadline = time.monotonic() + 10
        while len(kept(tmp_path)) > 1 and time.monotonic() < deadline:
            time.sleep(0.02)
        assert kept(tmp_path) == [photo_files["coffee"]]


# Load and stop


def test_more_requests_than_allowed_are_told_to_come_again(
    serve: Any, tmp_path: Path, photo_files: dict[str, bytes]
) -> None:
    with serve(tmp_path, max_concurrent_requests=2) as server:
        uploads = [slow_upload(server.port, f"upload {number}", photo_files["coffee"]) for number in range(2)]
        while server.metric("shitu_requests_under_way") < 2:
            time.sleep(0.01)
        refused = server.client.post("/search", files={"image": photo_files["rocket"]})
        assert (refused.status_code, refused.json()["code"]) == (429, "too_many_requests")
        assert int(refused.headers["retry-after"]) >= 1
        assert server.client.get("/gallery").status_code == 429
        assert server.client.get("/readyz").status_code == 200  # a busy service is no broken one
        assert server.metric('shitu_requests_rejected_total{code="too_many_requests"}') == 2
        for connection, rest in uploads:
            connection.send(rest)
            assert connection.getresponse().status == 201
            connection.close()
        assert server.search(photo_files["coffee"])[0]["matches"][0]["label"] == "upload 0"


def test_batches_leave_the_permits_of_other_requests_alone(
    serve: Any, tmp_path: Path, photo_files: dict[str, bytes]
) -> None:
    with serve(tmp_path, max_concurrent_requests=1) as server:
        batches = 10  # two are read, eight wait
        uploads = [slow_upload(server.port, "batch", photo_files["coffee"], batch=True) for _ in range(batches)]
        deadline = time.monotonic() + 10
        while server.metric("shitu_requests_under_way") < batches:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert server.search(photo_files["rocket"])[0]["matches"] == []
        call = {"items": [{"code": "00" * (server.bits // 8), "label": "one too many"}]}
        refused = server.client.post("/gallery/batch", json=call)
        assert (refused.status_code, refused.json()["code"]) == (429, "too_many_requests")
        assert int(refused.headers["retry-after"]) >= 1
        assert "10 batches are under way" in refused.json()["detail"]
        for connection, rest in uploads:
            connection.send(rest)
            assert connection.getresponse().status == 200
            connection.close()
        assert server.client.post("/gallery/batch", json=call).status_code == 200
        assert server.count() == batches + 1


@pytest.mark.parametrize("kind", ["admission", "batch_admission"])
def test_a_stop_waits_for_all_that_was_admitted(
    make_settings: Callable[..., Settings], tmp_path: Path, kind: str
) -> None:
    async def scenario() -> None:
        running = await runtime.start(make_settings(tmp_path), Metrics())
        admission = getattr(running, kind)
        with admission.permit():
            stopping = asyncio.create_task(running.stop())
            done, _ = await asyncio.wait({stopping}, timeout=1)
            assert not done
            with pytest.raises(NotReady), admission.permit():
                pass
        await stopping

    asyncio.run(scenario())


def test_a_stopping_service_finishes_what_it_accepted(
    serve: Any, tmp_path: Path, photo_files: dict[str, bytes]
) -> None:
    with serve(tmp_path) as server:
        connection, rest = slow_upload(server.port, "accepted", photo_files["coffee"])
        while server.metric("shitu_requests_under_way") < 1:
            time.sleep(0.01)
        answers: list[int] = []

        def finish() -> None:
            time.sleep(0.5)
            connection.send(rest)
            answers.append(connection.getresponse().status)
            connection.close()

        thread = threading.Thread(target=finish)
        thread.start()
    thread.join(30)
    assert answers == [201]
    with serve(tmp_path) as server:
        assert [item["label"] for item in server.client.get("/gallery").json()["items"]] == ["accepted"]


def change_at_random(url: str, pictures: list[bytes], seed: int, ended: threading.Event) -> None:
    """Enrol, replace and remove until the service goes away."""
    generator = np.random.default_rng(seed)
    ids: list[str] = []
    with suppress(httpx.HTTPError), httpx.Client(base_url=url, timeout=10) as client:
        while not ended.is_set():
            call: dict[str, Any] = {
                "files": {"image": pictures[generator.integers(len(pictures))]},
                "data": {"label": "x"},
            }
            action = generator.integers(3) if ids else 0
            if action == 0:
                ids.append(client.post("/gallery", **call).json()["id"])
            elif action == 1:
                client.put(f"/gallery/{ids[generator.integers(len(ids))]}", **call)
            else:
                client.delete(f"/gallery/{ids.pop(generator.integers(len(ids)))}")


def test_killed_services_keep_every_picture_of_every_item(
    serve: Any, start_service: Callable[..., Any], tmp_path: Path, photo_files: dict[str, bytes]
) -> None:
    """No item lacks its picture after a kill, and after the next start no picture lacks its item."""
    generator = np.random.default_rng(4)
    pictures = list(photo_files.values())
    for _ in range(3):
        service = start_service(tmp_path, SHITU_KEEP_IMAGES="1")
        ended = threading.Event()
        threads = [
            threading.Thread(target=change_at_random, args=(service.url, pictures, seed, ended)) for seed in range(3)
        ]
        for thread in threads:
            thread.start()
        time.sleep(generator.uniform(0.3, 1.2))
        assert service.stop(signal.SIGKILL) == -signal.SIGKILL
        ended.set()
        for thread in threads:
            thread.join(30)
        with open_gallery(tmp_path) as store:
            used = {source.removeprefix("kept:") for _, source in store.sources()}
            assert len(store) > 0
        files = {path.name: path for path in (tmp_path / "images").rglob("*") if path.is_file()}
        assert all(files[digest].read_bytes() in pictures for digest in used)
    with serve(tmp_path):
        deadline = time.monotonic() + 10
        while len(kept(tmp_path)) > len(used) and time.monotonic() < deadline:
            time.sleep(0.02)
    assert {path.name for path in (tmp_path / "images").rglob("*") if path.is_file()} == used
