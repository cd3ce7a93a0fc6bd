"""``shitu gallery import`` and ``export``: galleries of PaddleClas, there and back."""

from __future__ import annotations

import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import faiss
import numpy as np
import pytest

from index_store import Item, open_gallery

from .conftest import Draw, Server, Shitu

BITS = 64
LABELS = ["Cola 0.33 l", "绿茶", "tab\tin it", "x"]
TEXTS = [f"drinks/{number}.jpg\t{label}" for number, label in enumerate(LABELS)]


def foreign(folder: Path, texts: list[str], seed: int = 1, bits: int = BITS) -> np.ndarray:
    """Write a gallery as PaddleClas does and return its codes."""
    codes = np.random.default_rng(seed).integers(0, 256, (len(texts), bits // 8), np.uint8)
    index = faiss.index_binary_factory(bits, "BFlat")
    index.add(codes)
    folder.mkdir(exist_ok=True)
    faiss.write_index_binary(index, str(folder / "vector.index"))
    (folder / "id_map.pkl").write_bytes(pickle.dumps(dict(zip(np.arange(len(texts)), texts, strict=True))))
    return codes


def stored(folder: Path) -> list[Item]:
    with open_gallery(folder) as store:
        return list(store.in_order())


def id_map(folder: Path) -> dict[int, str]:
    loaded: dict[int, str] = pickle.loads((folder / "id_map.pkl").read_bytes())
    return loaded


def test_an_import_brings_codes_and_labels_in_order(shitu: Shitu, tmp_path: Path) -> None:
    codes = foreign(tmp_path / "index", TEXTS)
    answer = shitu.ok("gallery", "import", tmp_path / "index", "-d", tmp_path / "data")
    assert "4 vectors: 4 added, 0 unchanged; 4 items of 64 bits now, of model unknown" in answer.out
    assert "shitu serve --adopt" in answer.err
    items = stored(tmp_path / "data")
    assert [item.label for item in items] == LABELS
    assert [item.code for item in items] == [bytes(code) for code in codes]
    assert [item.source for item in items] == [f"file:drinks/{number}.jpg" for number in range(4)]


def test_an_import_can_be_repeated(shitu: Shitu, tmp_path: Path) -> None:
    command = ("gallery", "import", tmp_path / "index", "-d", tmp_path / "data", "--json")
    foreign(tmp_path / "index", TEXTS[:3])
    assert shitu.ok(*command).json["added"] == 3
    before = stored(tmp_path / "data")
    foreign(tmp_path / "index", TEXTS)
    report = shitu.ok(*command).json
    assert report == {
        "vectors": 4,
        "added": 1,
        "unchanged": 3,
        "items": 4,
        "bits": BITS,
        "model_fingerprint": "unknown",
        "refused": [],
    }
    assert stored(tmp_path / "data")[:3] == before
    foreign(tmp_path / "index", TEXTS, seed=2)
    answer = shitu(*command)
    assert answer.code == 1
    assert [each["vector"] for each in answer.json["refused"]] == [0, 1, 2, 3]
    assert all("with another code or label" in each["reason"] for each in answer.json["refused"])
    assert stored(tmp_path / "data")[:3] == before


def test_texts_without_the_delimiter_are_labels(shitu: Shitu, tmp_path: Path) -> None:
    foreign(tmp_path / "index", ["Cola 0.33 l", "a b.jpg,tea, green", " \tx ", "c.jpg\tx"])
    shitu.ok("gallery", "import", tmp_path / "index", "-d", tmp_path / "data", "--delimiter", ",")
    items = stored(tmp_path / "data")
    assert [item.label for item in items] == ["Cola 0.33 l", "tea, green", "x", "c.jpg\tx"]
    assert [item.source for item in items] == [None, "file:a b.jpg", None, None]


def test_the_delimiter_of_a_configuration_counts(shitu: Shitu, tmp_path: Path) -> None:
    foreign(tmp_path / "index", ["a.jpg tea green"])
    config = tmp_path / "ppshitu.yaml"
    config.write_text(f"IndexProcess:\n  index_dir: {tmp_path}/index\n  delimiter: ' '\n")
    shitu.ok("gallery", "import", tmp_path / "index", "--config", config)  # the data folder is the same one
    (item,) = stored(tmp_path / "index")
    assert (item.label, item.source) == ("tea green", "file:a.jpg")


def test_what_cannot_be_an_item_is_told_and_the_rest_comes_in(shitu: Shitu, tmp_path: Path) -> None:
    foreign(
        tmp_path / "index", ["a.jpg\tgood", "", "b.jpg\t" + "x" * 513, "c.jpg\t\ud800", "a.jpg\tother", "item:/\tx"]
    )
    command = ("gallery", "import", tmp_path / "index", "-d", tmp_path / "data")
    answer = shitu.ok(*command)
    assert "5 of the vectors could not be used" in answer.err
    assert "vector 2: 'b.jpg" in answer.err
    assert [item.label for item in stored(tmp_path / "data")] == ["good"]
    refused = shitu.ok(*command, "--json").json["refused"]
    assert [each["vector"] for each in refused] == [1, 2, 3, 4, 5]
    assert "valid Unicode" in refused[2]["reason"]


def test_only_codes_that_fit_the_gallery_come_in(shitu: Shitu, tmp_path: Path) -> None:
    foreign(tmp_path / "index", TEXTS)
    command = ("gallery", "import", tmp_path / "index", "-d", tmp_path / "data")
    with open_gallery(tmp_path / "data", BITS, fingerprint="m1") as store:
        store.add([Item("kept", "x", bytes(8))])
    for options in ([], ["--fingerprint", "m2"]):
        answer = shitu(*command, *options)
        assert answer.code == 1
        assert "say --fingerprint m1" in answer.err
    assert len(stored(tmp_path / "data")) == 1
    assert shitu.ok(*command, "--fingerprint", "m1", "--json").json["model_fingerprint"] == "m1"
    assert len(stored(tmp_path / "data")) == 5

    foreign(tmp_path / "wide", TEXTS, bits=128)
    answer = shitu("gallery", "import", tmp_path / "wide", "-d", tmp_path / "data", "--fingerprint", "m1")
    assert answer.code == 1
    assert "64 bits, these have 128" in answer.err
    assert len(stored(tmp_path / "data")) == 5


def test_a_fingerprint_that_is_told_becomes_that_of_a_new_gallery(shitu: Shitu, tmp_path: Path) -> None:
    foreign(tmp_path / "index", TEXTS)
    command = ("gallery", "import", tmp_path / "index", "-d", tmp_path / "data", "--fingerprint")
    assert shitu(*command, " ").code == 2
    answer = shitu.ok(*command, "m1")
    assert "of model m1" in answer.out
    assert answer.err == ""


def test_a_hostile_pickle_ends_in_one_line_and_makes_no_gallery(shitu: Shitu, tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> object:
            return (Path.touch, (tmp_path / "ran",))

    foreign(tmp_path / "index", TEXTS)
    (tmp_path / "index" / "id_map.pkl").write_bytes(pickle.dumps({0: Evil()}))
    answer = shitu("gallery", "import", tmp_path / "index", "-d", tmp_path / "data")
    assert answer.code == 1
    assert len(answer.err.splitlines()) == 1
    assert "nothing was run" in answer.err
    assert not (tmp_path / "ran").exists()
    assert not (tmp_path / "data").exists()


def test_a_folder_without_an_index_is_told(shitu: Shitu, tmp_path: Path) -> None:
    answer = shitu("gallery", "import", tmp_path, "-d", tmp_path / "data")
    assert answer.code == 1
    assert "vector.index cannot be read" in answer.err
    assert "index_dir" in answer.err


def test_the_reference_gallery_comes_back_byte_for_byte(shitu: Shitu, tmp_path: Path, shared: Path) -> None:
    source = shared / "parity" / "paddleclas_index"
    shitu.ok("gallery", "import", source, "-d", tmp_path / "data")
    report = shitu.ok("gallery", "export", tmp_path / "back", "-d", tmp_path / "data", "--json").json
    assert report == {"folder": str(tmp_path / "back"), "method": "Flat", "items": 200, "bits": 512}
    assert (tmp_path / "back" / "vector.index").read_bytes() == (source / "vector.index").read_bytes()
    assert id_map(tmp_path / "back") == id_map(source)


@pytest.mark.parametrize("method", ["Flat", "IVF", "HNSW32"])
def test_paddleclas_finds_the_label_of_what_is_exported(shitu: Shitu, tmp_path: Path, method: str) -> None:
    codes = [bytes([number] * 8) for number in range(40)]
    with open_gallery(tmp_path / "data", BITS, fingerprint="m1") as store:
        store.add([Item(f"id-{number}", f"label{number} 饮料", code) for number, code in enumerate(codes)])
        store.remove(["id-3"])
        store.replace(Item("id-5", "new 饮料", codes[3]))  # counts as enrolled last
    answer = shitu.ok("gallery", "export", tmp_path / "index", "-d", tmp_path / "data", "--method", method)
    assert f"39 items of 64 bits in {tmp_path / 'index'}, {method}" in answer.out
    index = faiss.read_index_binary(str(tmp_path / "index" / "vector.index"))
    texts = id_map(tmp_path / "index")
    for code, label in ((codes[39], "label39"), (codes[3], "new")):
        distances, found = index.search(np.frombuffer(code, np.uint8).reshape(1, -1), 1)
        assert distances[0, 0] == 0
        assert texts[int(found[0, 0])].split()[1] == label  # what its predictor does
    assert texts[38] == "item:id-5\tnew 饮料"


def test_items_of_no_list_keep_their_ids_there_and_back(shitu: Shitu, tmp_path: Path) -> None:
    with open_gallery(tmp_path / "data", BITS) as store:
        store.add([Item("cola:1", "Cola", bytes(8)), Item(None, "two\nlines", bytes(8), {"sku": 1}, "kept:00")])
    shitu.ok("gallery", "export", tmp_path / "index", "-d", tmp_path / "data")
    shitu.ok("gallery", "import", tmp_path / "index", "-d", tmp_path / "again")
    before, after = stored(tmp_path / "data"), stored(tmp_path / "again")
    assert [(item.id, item.label, item.code) for item in before] == [(item.id, item.label, item.code) for item in after]
    assert [item.source for item in after] == [None, None]


def test_an_export_is_overwritten_only_by_force(shitu: Shitu, tmp_path: Path) -> None:
    foreign(tmp_path / "index", TEXTS)
    shitu.ok("gallery", "import", tmp_path / "index", "-d", tmp_path / "data")
    foreign(tmp_path / "index", TEXTS[:1])
    command = ("gallery", "export", tmp_path / "index", "-d", tmp_path / "data")
    answer = shitu(*command)
    assert answer.code == 1
    assert "--force" in answer.err
    assert len(id_map(tmp_path / "index")) == 1
    shitu.ok(*command, "--force")
    assert id_map(tmp_path / "index") == dict(enumerate(TEXTS))
    answer = shitu(*command, "--force", "--delimiter", "/")
    assert answer.code == 1
    assert "another --delimiter" in answer.err
    assert id_map(tmp_path / "index") == dict(enumerate(TEXTS))


def test_what_cannot_be_exported_is_told(shitu: Shitu, tmp_path: Path) -> None:
    answer = shitu("gallery", "export", tmp_path / "index", "-d", tmp_path / "data")
    assert (answer.code, "holds no gallery" in answer.err) == (1, True)
    with open_gallery(tmp_path / "data", BITS):
        for command in ("import", "export"):
            foreign(tmp_path / "busy", TEXTS)
            answer = shitu("gallery", command, tmp_path / "busy", "-d", tmp_path / "data")
            assert (answer.code, "stop the service" in answer.err, "--server" in answer.err) == (1, True, False)
    (tmp_path / "file").write_bytes(b"")
    answer = shitu("gallery", "export", tmp_path / "file", "-d", tmp_path / "data")
    assert (answer.code, "is no folder" in answer.err) == (1, True)
    answer = shitu("gallery", "export", tmp_path / "index", "-d", tmp_path / "data", "--method", "IVF")
    assert (answer.code, "use Flat" in answer.err) == (1, True)
    assert not (tmp_path / "index").exists()


def test_neither_loads_paddle(tmp_path: Path) -> None:
    foreign(tmp_path / "index", TEXTS)
    script = (
        "import sys, service.cli as cli\n"
        f"for arguments in (['import', {str(tmp_path / 'index')!r}], ['export', {str(tmp_path / 'out')!r}]):\n"
        f"    try: cli.app(['gallery', *arguments, '-d', {str(tmp_path / 'data')!r}])\n"
        "    except SystemExit as end: assert end.code == 0, end.code\n"
        "sys.exit('paddle' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr


def test_an_imported_list_is_known_to_build_and_rehash(shitu: Shitu, draw: Draw, tmp_path: Path) -> None:
    for number in range(3):
        draw(f"{tmp_path}/pictures/{number}.png", number)
    (tmp_path / "list.txt").write_text("".join(f"./{number}.png\tlabel {number}\n" for number in range(3)))
    config = tmp_path / "ppshitu.yaml"
    config.write_text(f"IndexProcess:\n  image_root: {tmp_path}/pictures\n  data_file: {tmp_path}/list.txt\n")
    shitu.ok("gallery", "build", config, "-d", tmp_path / "built")
    built = shitu.ok("gallery", "info", "-d", tmp_path / "built", "--json").json
    shitu.ok("gallery", "export", tmp_path / "index", "-d", tmp_path / "built")
    shitu.ok("gallery", "import", tmp_path / "index", "-d", tmp_path / "data")

    append = ("gallery", "build", config, "-d", tmp_path / "data", "--operation", "append", "--json")
    answer = shitu(*append)
    assert answer.code == 1
    assert "shitu serve --adopt" in answer.err
    with open_gallery(tmp_path / "data", built["bits"], fingerprint=built["model_fingerprint"], adopt=True):
        pass
    assert shitu.ok(*append).json["unchanged"] == 3
    report = shitu.ok("gallery", "rehash", "-d", tmp_path / "data", "--image-root", tmp_path / "pictures", "--json")
    assert report.json["rehashed"] == 3
    again, before = stored(tmp_path / "data"), stored(tmp_path / "built")
    assert [(each.id, each.code) for each in again] == [(each.id, each.code) for each in before]


def test_serving_with_adopt_is_refused_where_the_model_is_known(
    start_server: Callable[..., Server], tmp_path: Path
) -> None:
    with open_gallery(tmp_path / "data", 512, fingerprint="another-model"):
        pass
    server = start_server("--data-dir", tmp_path / "data", "--adopt")
    assert server.process.wait(60) == 1
    server.stop()
    (line,) = [line for line in server.log if line.startswith("shitu: ")]
    assert "--adopt is only for galleries of unknown model" in line
    assert "another-model" in line
    with open_gallery(tmp_path / "data", 512, fingerprint="another-model"):
        pass
