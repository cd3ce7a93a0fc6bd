"""``shitu gallery backup`` and ``restore``."""

from __future__ import annotations

import http.server
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from index_store import Item, check_backup, open_gallery

from .conftest import Shitu


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data folder with a gallery."""
    folder = tmp_path / "data"
    with open_gallery(folder, 64, fingerprint="m1") as store:
        store.add([Item(f"item-{n}", f"étiquette {n}", bytes([n] * 8), {"n": n}, f"kept:{n}") for n in range(7)])
    return folder


def test_there_and_back(shitu: Shitu, data: Path, tmp_path: Path) -> None:
    file, folder = tmp_path / "gallery.zip", tmp_path / "restored"
    done = shitu.ok("gallery", "backup", file, "--data-dir", data)
    assert done.out == f"backed up 7 items ({file.stat().st_size:,} bytes, 64-bit codes of model m1) to {file}\n"
    again = shitu("gallery", "backup", file, "--data-dir", data)
    assert (again.code, again.out) == (1, "")
    assert "--force" in again.err
    facts = shitu.ok("gallery", "backup", file, "--data-dir", data, "--force", "--json").json
    info = check_backup(file)
    assert facts == {
        "file": str(file),
        "items": 7,
        "bits": 64,
        "model_fingerprint": "m1",
        "created_at": info.created_at,
        "bytes": info.bytes,
    }
    done = shitu.ok("gallery", "restore", file, "--data-dir", folder)
    assert done.out == f"restored 7 items ({info.bytes:,} bytes, 64-bit codes of model m1) into {folder}\n"
    with open_gallery(data) as store, open_gallery(folder) as copy:
        assert copy.list().items == store.list().items
    refused = shitu("gallery", "restore", file, "--data-dir", folder)
    assert (refused.code, refused.out) == (1, "")
    assert "another folder" in refused.err
    facts = shitu.ok("gallery", "restore", file, "--data-dir", tmp_path / "third", "--json").json
    assert (facts["folder"], facts["items"], facts["bytes"]) == (str(tmp_path / "third"), 7, info.bytes)


def test_what_is_no_backup_is_told_in_one_line(shitu: Shitu, tmp_path: Path) -> None:
    (tmp_path / "text.zip").write_bytes(b"text")
    refused = shitu("gallery", "restore", tmp_path / "text.zip", "--data-dir", tmp_path / "new")
    assert (refused.code, refused.err) == (1, "shitu: the file is no backup of a gallery\n")
    missing = shitu("gallery", "restore", tmp_path / "missing.zip", "--data-dir", tmp_path / "new")
    assert (missing.code, missing.err.count("\n")) == (1, 1)
    assert names(tmp_path) == ["text.zip"]


def test_a_folder_without_a_gallery_has_no_backup(shitu: Shitu, tmp_path: Path) -> None:
    refused = shitu("gallery", "backup", tmp_path / "gallery.zip", "--data-dir", tmp_path / "nothing")
    assert refused.code == 1
    assert "holds no gallery" in refused.err
    assert names(tmp_path) == []


def test_standard_output_takes_a_backup(data: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "service.cli", "gallery", "backup", "-", "--data-dir", str(data)]
    done = subprocess.run(command, capture_output=True, check=True, timeout=60)
    (tmp_path / "piped.zip").write_bytes(done.stdout)
    assert check_backup(tmp_path / "piped.zip").items == 7
    assert done.stderr.startswith(b"shitu: backed up 7 items")


def test_a_server_is_backed_up_while_it_runs(shitu: Shitu, empty_server: str, tmp_path: Path) -> None:
    bits = shitu.ok("gallery", "info", "--server", empty_server, "--json").json["bits"]
    np.save(tmp_path / "codes.npy", np.random.default_rng(1).integers(0, 256, (20, bits // 8), np.uint8))
    (tmp_path / "labels.txt").write_text("x\n" * 20)
    shitu.ok(
        *("gallery", "load", tmp_path / "codes.npy", "--labels", tmp_path / "labels.txt", "--server", empty_server)
    )
    facts = shitu.ok("gallery", "backup", tmp_path / "gallery.zip", "--server", empty_server, "--json").json
    assert (facts["items"], facts["bytes"]) == (20, (tmp_path / "gallery.zip").stat().st_size)
    shitu.ok("gallery", "restore", tmp_path / "gallery.zip", "--data-dir", tmp_path / "restored")
    command = [sys.executable, "-m", "service.cli", "gallery", "backup", "-", "--server", empty_server]
    done = subprocess.run(command, capture_output=True, check=True, timeout=60)
    (tmp_path / "piped.zip").write_bytes(done.stdout)
    assert check_backup(tmp_path / "piped.zip").items == 20


class Truncating(http.server.BaseHTTPRequestHandler):
    """Answers with the first part of a backup: one that ends as if it were all, one whose connection breaks."""

    protocol_version = "HTTP/1.1"
    data = b""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.send_header("Connection", "close")
        self.end_headers()
        part = self.data[: len(self.data) // 2]
        self.wfile.write(f"{len(part):x}\r\n".encode() + part + b"\r\n")
        if "torn" not in self.path:
            self.wfile.write(b"0\r\n\r\n")
        self.close_connection = True

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def truncating(data: Path, shitu: Shitu, tmp_path: Path) -> Iterator[str]:
    shitu.ok("gallery", "backup", tmp_path / "whole.zip", "--data-dir", data)
    handler = type("Handler", (Truncating,), {"data": (tmp_path / "whole.zip").read_bytes()})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(("path", "reason"), [("", "cut short"), ("/torn", "the connection to")])
def test_what_a_server_sent_is_checked_before_it_takes_its_place(
    shitu: Shitu, truncating: str, tmp_path: Path, path: str, reason: str
) -> None:
    before = names(tmp_path)
    refused = shitu("gallery", "backup", tmp_path / "gallery.zip", "--server", truncating + path)
    assert refused.code == 1
    assert reason in refused.err
    assert names(tmp_path) == before
    whole = (tmp_path / "whole.zip").read_bytes()
    assert shitu("gallery", "backup", tmp_path / "whole.zip", "--force", "--server", truncating + path).code == 1
    assert (tmp_path / "whole.zip").read_bytes() == whole


def test_no_server_no_file(shitu: Shitu, tmp_path: Path) -> None:
    refused = shitu("gallery", "backup", tmp_path / "gallery.zip", "--server", "http://127.0.0.1:9")
    assert (refused.code, names(tmp_path)) == (1, [])
