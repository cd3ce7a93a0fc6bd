"""Lists, folders, archives and pictures become a dataset, or a message that names what is wrong with them."""

from __future__ import annotations

import io
import os
import pickle
import struct
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import skimage.data
from PIL import Image

from models.training.config import ConfigError
from models.training.data.datasets import Dataset, DatasetError, load_datasets
from models.training.data.list_files import read_list


def picture(seed: int, height: int = 12, width: int = 9) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def save(path: Path, pixels: np.ndarray, **options: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Six pictures, one with a blank in its path."""
    for number, name in enumerate(["a.png", "b.png", "c.png", "d.png", "deep/e.png", "deep/on white.png"]):
        save(tmp_path / name, picture(number))
    return tmp_path


def listed(root: Path, text: str, **source: Any) -> dict[str, Any]:
    (root / "list.txt").write_text(text, "utf-8")
    return {"image_root": str(root), "cls_label_path": str(root / "list.txt"), **source}


def rows(dataset: Dataset) -> list[tuple[str, str]]:
    return [
        (dataset.name(index), dataset.class_names[label] if label >= 0 else "")
        for index, label in enumerate(dataset.labels.tolist())
    ]


@pytest.mark.parametrize("name", [None, "ImageNetDataset", "VeriWild"])
@pytest.mark.parametrize(
    ("text", "delimiter"),
    [
        ("a.png\tcat\ndeep/on white.png\tbig dog\n", None),
        ("a.png\tcat\ndeep/on white.png\tbig dog\n", "\t"),
        ("a.png\tcat\ndeep/on white.png\tbig dog\n", r"\t"),
        ("\ufeffa.png\tcat\t4\r\n\r\ndeep/on white.png\tbig dog\t17", None),
        ("a.png,cat\ndeep/on white.png , big dog\n", ","),
        ("a.png::cat::1\ndeep/on white.png::big dog::2\n", "::"),
    ],
)
def test_lists_of_path_and_class(root: Path, text: str, delimiter: str | None, name: str | None) -> None:
    source = listed(root, text)
    source |= {"delimiter": delimiter} if delimiter else {}
    dataset = load_datasets([source | ({"name": name} if name else {})])
    assert rows(dataset) == [("a.png", "cat"), ("deep/on white.png", "big dog")]
    assert dataset.class_names == ["big dog", "cat"]
    assert dataset.labels.dtype == np.int64
    np.testing.assert_array_equal(dataset.read(1), picture(5))


@pytest.mark.parametrize("text", ["a.png 3\nb.png 1\n", "a.png 3 9\nb.png   1  9\n", "a.png  3\n  b.png 1  \n"])
def test_lists_separated_by_blanks_with_and_without_camera(root: Path, text: str) -> None:
    assert rows(load_datasets([listed(root, text)])) == [("a.png", "3"), ("b.png", "1")]
    assert rows(load_datasets([listed(root, text, delimiter=" ")])) == [("a.png", "3"), ("b.png", "1")]


def test_a_path_with_blanks_between_blanks(root: Path) -> None:
    source = listed(root, "a.png 3\ndeep/on white.png 1\n")
    assert rows(load_datasets([source]))[1] == ("deep/on white.png", "1")


def test_a_given_number_of_classes_makes_labels_numbers(root: Path) -> None:
    dataset = load_datasets([listed(root, "a.png 7\nb.png 0\nc.png 07\n")], class_num=10)
    assert dataset.labels.tolist() == [7, 0, 7]
    assert len(dataset.class_names) == 10


def test_names_are_numbered_where_none_is_a_number(root: Path) -> None:
    text = "a.png dog\nb.png cat\nc.png dog\n"
    assert load_datasets([listed(root, text)], class_num=10).labels.tolist() == [1, 0, 1]
    with pytest.raises(DatasetError, match="there are 2 classes, but class_num is 1"):
        load_datasets([listed(root, text)], class_num=1)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a.png 3\nb.png 500000\n", r"list\.txt:2: b\.png: label 500000 of 185341"),
        ("a.png 3\n\nb.png 185341\n", r"list\.txt:3: b\.png: label 185341 of 185341.*0 to 185340"),
        ("a.png\t-1\n", r"list\.txt:1: a\.png: label -1 of"),
        ("a.png\t1.5\nb.png\t1\n", r"list\.txt:1: a\.png: label '1\.5' is no number"),
        ("b.png\t1\na.png\tcat\n", r"list\.txt:2: a\.png: label 'cat' is no number"),
    ],
)
def test_labels_out_of_range_name_file_and_line(root: Path, text: str, message: str) -> None:
    with pytest.raises(DatasetError, match=message):
        load_datasets([listed(root, text)], class_num=185_341)


@pytest.mark.parametrize(
    ("text", "source", "message"),
    [
        ("a.png,1\n", {}, r"list\.txt:1: no blank separates path and class in 'a\.png,1'"),
        ("a.png 1\nb.png 2\n", {"delimiter": "\t"}, r"list\.txt:1: no '\\t' separates"),
        ("a.png\t1\nb.png 2\n", {}, r"list\.txt:2: no '\\t' separates"),
        ("a.png\t1\nb.png\t2\t3\t4\n", {}, r"list\.txt:2: 4 fields"),
        ("a.png\t1\n\t2\n", {}, r"list\.txt:2: the path is empty"),
        ("a.png\t1\nb.png\t\n", {}, r"list\.txt:2: b\.png: the class is empty"),
        ("a.png\t1\nb.png\t \t3\n", {}, r"list\.txt:2: b\.png: the class is empty"),
        ("a.png 1\n", {"delimiter": ""}, r"delimiter is empty"),
        ("\n\n", {}, r"list\.txt is empty"),
    ],
)
def test_lists_that_cannot_be_read_name_file_and_line(
    root: Path, text: str, source: dict[str, Any], message: str
) -> None:
    with pytest.raises(DatasetError, match=message):
        load_datasets([listed(root, text, **source)])


def test_a_list_that_is_absent_or_not_text(root: Path) -> None:
    with pytest.raises(DatasetError, match=r"nowhere\.txt"):
        load_datasets([{"image_root": str(root), "cls_label_path": str(root / "nowhere.txt")}])
    (root / "latin.txt").write_bytes("ä.png 1\n".encode("latin-1"))
    with pytest.raises(DatasetError, match=r"latin\.txt"):
        load_datasets([{"image_root": str(root), "cls_label_path": str(root / "latin.txt")}])


def test_missing_pictures_are_counted_and_the_first_named(root: Path) -> None:
    text = "a.png 1\n" + "".join(f"gone{number}.png 1\n" for number in range(9))
    with pytest.raises(DatasetError) as caught:
        load_datasets([listed(root, text)])
    assert "9 of 10 listed pictures are missing" in str(caught.value)
    for line in range(2, 7):
        assert f"list.txt:{line}: gone{line - 2}.png" in str(caught.value)
    assert "gone5" not in str(caught.value)


def test_folders_are_classes(tmp_path: Path) -> None:
    for number, name in enumerate(["dog/2.png", "cat/b.JPEG", "cat/deep/a.png", ".git/x.png", "dog/.hidden.png"]):
        save(tmp_path / name, picture(number))
    (tmp_path / "cat" / "notes.txt").write_text("no picture", "utf-8")
    (tmp_path / "readme.md").write_text("no class", "utf-8")
    source = {"image_root": str(tmp_path)}
    assert rows(load_datasets([source])) == [("cat/b.JPEG", "cat"), ("cat/deep/a.png", "cat"), ("dog/2.png", "dog")]
    assert load_datasets([source], class_num=2).labels.tolist() == [0, 0, 1]
    with pytest.raises(DatasetError, match="2 classes, but class_num is 1"):
        load_datasets([source], class_num=1)
    (tmp_path / "emu").mkdir()
    with pytest.raises(DatasetError, match=r"class folder .*emu holds no pictures"):
        load_datasets([source])


def test_folders_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="no sub-folders"):
        load_datasets([{"image_root": str(tmp_path)}])
    with pytest.raises(DatasetError, match="nowhere is not a folder"):
        load_datasets([{"image_root": str(tmp_path / "nowhere")}])


def test_sources_join_their_classes_by_name_and_repeat(root: Path) -> None:
    (root / "more").mkdir()
    first = listed(root, "a.png\tdog\nb.png\tcat\n", repeat=2)
    save(root / "more" / "cat" / "x.png", picture(20))
    save(root / "more" / "ant" / "y.png", picture(21))
    dataset = load_datasets([first, {"image_root": str(root / "more")}])
    assert dataset.class_names == ["ant", "cat", "dog"]
    names = [dataset.class_names[label] for label in dataset.labels]
    assert names == ["dog", "cat", "dog", "cat", "ant", "cat"]
    for index, seed in enumerate([0, 1, 0, 1, 21, 20]):
        np.testing.assert_array_equal(dataset.read(index), picture(seed))


def test_teachers_are_found_by_path_and_padded(root: Path) -> None:
    small, large = np.eye(3, dtype=np.float16), np.eye(5, dtype=np.float16)
    np.savez(root / "small.npz", path=np.array(["b.png", "a.png", "unused.png"]), features=small)
    np.savez(root / "large.npz", path=np.array(["c.png", "e", "f", "g", "h"]), features=large)
    first = listed(root, "a.png\tcat\nb.png\t\nd.png\t\n", teacher=str(root / "small.npz"), repeat=2)
    (root / "second.txt").write_text("c.png\tcat\n", "utf-8")
    (root / "third.txt").write_text("d.png\tdog\n", "utf-8")
    second = {"image_root": root, "cls_label_path": root / "second.txt", "teacher": root / "large.npz"}
    third = {"image_root": root, "cls_label_path": root / "third.txt"}
    dataset = load_datasets([first, second, third])
    assert dataset.labels.tolist() == [0, -1, -1] * 2 + [0, 1]
    assert dataset.teacher_group.tolist() == [0, 0, -1] * 2 + [1, -1]
    assert dataset.teacher.dtype == np.float32
    hot = [[0, 1, 0, 0, 0], [1, 0, 0, 0, 0], [0] * 5] * 2 + [[1, 0, 0, 0, 0], [0] * 5]
    assert dataset.teacher.tolist() == hot
    with pytest.raises(DatasetError, match=r"list\.txt.*teacher|teacher file .*list\.txt"):
        load_datasets([first | {"teacher": str(root / "list.txt")}])


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ({"name": "Logos"}, "no dataset is called 'Logos'.*ImageNetDataset.*VeriWild.*CustomizedCifar10"),
        ({"image_rot": "x"}, "ImageNetDataset: unknown key.*image_rot.*image_root"),
        ({"name": "CustomizedCifar10", "mod": "x"}, "CustomizedCifar10: unknown key.*mod.*data_file"),
        ({"name": "CustomizedCifar10", "mode": "val"}, "mode must be train or test, not 'val'"),
        ({"name": "VeriWild"}, "image_root is missing"),
        ({"image_root": ".", "repeat": 0}, "repeat must be a positive whole number, not 0"),
        ({"image_root": ".", "repeat": True}, "repeat"),
        ({"image_root": ".", "delimiter": ","}, "cls_label_path is missing"),
    ],
)
def test_configuration_errors_name_the_key(source: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_datasets([source])


def test_no_source_at_all() -> None:
    with pytest.raises(ConfigError, match="no source"):
        load_datasets([])


RGB = skimage.data.astronaut()[:40, :30]
GREY16 = np.arange(40 * 30, dtype=np.uint16).reshape(40, 30) * 54


def transparent() -> np.ndarray:
    alpha = np.full((40, 30, 1), 255, np.uint8)
    alpha[:20] = 0
    return np.concatenate([RGB, alpha], axis=2)


KINDS: dict[str, tuple[Callable[[Path], None], np.ndarray]] = {
    "grey.png": (lambda path: save(path, RGB[:, :, 0]), np.repeat(RGB[:, :, :1], 3, axis=2)),
    "grey16.png": (lambda path: save(path, GREY16), np.repeat((GREY16 >> 8).astype(np.uint8)[:, :, None], 3, axis=2)),
    "grey16.tiff": (lambda path: save(path, GREY16), np.repeat((GREY16 >> 8).astype(np.uint8)[:, :, None], 3, axis=2)),
    "alpha.png": (
        lambda path: save(path, transparent()),
        np.concatenate([np.full((20, 30, 3), 255, np.uint8), RGB[20:]]),
    ),
    "bilevel.png": (
        lambda path: Image.fromarray(GREY16 % 2 == 0).save(path),
        np.repeat((GREY16 % 2 == 0)[:, :, None] * np.uint8(255), 3, axis=2),
    ),
    "palette.gif": (
        lambda path: Image.fromarray(RGB).quantize(8).save(path),
        np.asarray(Image.fromarray(RGB).quantize(8).convert("RGB")),
    ),
    "lossless.webp": (lambda path: save(path, RGB, lossless=True), RGB),
    "turned.png": (lambda path: save(path, np.rot90(RGB, 1).copy(), exif=orientation(6)), RGB),
    "mirrored.tiff": (lambda path: save(path, RGB[:, ::-1].copy(), exif=orientation(2)), RGB),
}


def orientation(value: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = value
    return exif


@pytest.mark.parametrize("kind", KINDS)
def test_pictures_of_all_kinds_come_as_upright_rgb(tmp_path: Path, kind: str) -> None:
    write, expected = KINDS[kind]
    (tmp_path / "class").mkdir()
    write(tmp_path / "class" / kind)
    image = load_datasets([{"image_root": tmp_path}]).read(0)
    assert image.dtype == np.uint8
    np.testing.assert_array_equal(image, expected)
    assert not image.flags.writeable


def test_cmyk_and_turned_jpegs(tmp_path: Path) -> None:
    smooth = np.array(Image.fromarray(RGB).resize((8, 8)).resize((64, 48)))
    (tmp_path / "class").mkdir()
    Image.fromarray(smooth).convert("CMYK").save(tmp_path / "class" / "cmyk.jpg", quality=98)
    save(tmp_path / "class" / "turned.jpg", np.rot90(smooth, -1).copy(), quality=98, exif=orientation(8))
    dataset = load_datasets([{"image_root": tmp_path}])
    for index in range(2):
        assert dataset.read(index).shape == (48, 64, 3)
        assert np.abs(dataset.read(index).astype(int) - smooth).mean() < 4


def broken(root: Path) -> dict[str, Any]:
    """Sound, cut short, no picture, samples of 32 bit, empty, and repeated."""
    noise = io.BytesIO()
    Image.fromarray(picture(3, 100, 100)).save(noise, "JPEG")
    (root / "cut.jpg").write_bytes(noise.getvalue()[: len(noise.getvalue()) // 2])
    (root / "text.jpg").write_text("<html>not found</html>", "utf-8")
    save(root / "deep.tiff", np.ones((4, 4), np.float32))
    (root / "empty.png").write_bytes(b"")
    return listed(root, "a.png 0\ncut.jpg 0\ntext.jpg 1\ndeep.tiff 1\nempty.png 1\nb.png 1\n", repeat=2)


def test_a_corrupt_picture_names_list_line_and_picture(root: Path) -> None:
    dataset = load_datasets([broken(root)])
    for index, message in [
        (1, r"list\.txt:2: .*cut\.jpg cannot be decoded.*truncated"),
        (2, r"list\.txt:3: .*text\.jpg cannot be decoded.*not a picture"),
        (3, r"list\.txt:4: .*deep\.tiff cannot be decoded.*32 bit"),
        (10, r"list\.txt:5: .*empty\.png cannot be decoded"),
    ]:
        with pytest.raises(DatasetError, match=message):
            dataset.read(index)
    np.testing.assert_array_equal(dataset.read(5), picture(1))


def test_verify_lists_every_problem_once(root: Path) -> None:
    seen: list[tuple[int, int]] = []
    problems = load_datasets([broken(root)]).verify(lambda done, total: seen.append((done, total)))
    assert [problem.split(": ")[0].rsplit("/")[-1] for problem in problems] == [
        f"list.txt:{line}" for line in range(2, 6)
    ]
    assert seen[-1] == (6, 6)
    assert load_datasets([listed(root, "a.png 0\n")]).verify() == []


def test_verify_walks_large_datasets_in_order(tmp_path: Path) -> None:
    for number in range(100):
        save(tmp_path / "class" / f"{number:03}.png", picture(number, 2, 2))
    for number in (7, 40, 99):
        (tmp_path / "class" / f"{number:03}.png").write_bytes(b"torn")
    seen: list[tuple[int, int]] = []
    problems = load_datasets([{"image_root": tmp_path}]).verify(lambda done, total: seen.append((done, total)))
    assert [int(Path(problem.split(" cannot")[0]).stem) for problem in problems] == [7, 40, 99]
    assert seen == sorted(seen)
    assert seen[-1] == (100, 100)


def test_memory_for_pictures_is_bounded(root: Path) -> None:
    source = listed(root, "a.png 0\nb.png 0\nc.png 0\n")
    each = picture(0).nbytes
    dataset = load_datasets([source], cache_bytes=2 * each)
    for index in range(3):
        dataset.read(index)
    for name in ("a.png", "b.png", "c.png"):
        (root / name).unlink()
    np.testing.assert_array_equal(dataset.read(0), picture(0))
    np.testing.assert_array_equal(dataset.read(1), picture(1))
    with pytest.raises(DatasetError, match=r"c\.png"):
        dataset.read(2)
    assert dataset.sources[0].cache.used_bytes == 2 * each


# The CIFAR-10 archive


class Python2Pickler(pickle._Pickler):
    """Pickles as Python 2 did, which wrote the published archive: texts are byte strings, NumPy is an old one."""

    dispatch: ClassVar[dict[Any, Any]] = dict(pickle._Pickler.dispatch)

    def save_string(self, value: str | bytes) -> None:
        data = value.encode("latin-1") if isinstance(value, str) else value
        head = b"U" + struct.pack("<B", len(data)) if len(data) < 256 else b"T" + struct.pack("<i", len(data))
        self.write(head + data)
        self.memoize(value)

    dispatch[str] = dispatch[bytes] = save_string

    @classmethod
    def dumps(cls, value: object) -> bytes:
        stream = io.BytesIO()
        cls(stream, protocol=2).dump(value)
        return stream.getvalue().replace(b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n")


def write_archive(path: Path, members: dict[str, bytes], mode: str = "w:gz") -> Path:
    with tarfile.open(path, mode) as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(f"cifar-10-batches-py/{name}")
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def batch(seed: int, count: int = 20) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    data = rng.integers(0, 256, (count, 3072), dtype=np.uint8)
    return {
        "batch_label": f"training batch {seed} of 5",
        "labels": rng.integers(0, 10, count).tolist(),
        "data": data,
        "filenames": [f"{number}.png" for number in range(count)],
    }


def pairs(seed: int) -> list[tuple[np.ndarray, int]]:
    content = batch(seed)
    return list(zip(content["data"], content["labels"], strict=True))


def members() -> dict[str, bytes]:
    names = [*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"]
    return {name: Python2Pickler.dumps(batch(seed)) for seed, name in enumerate(names, 1)}


def cifar(path: Path, mode: str = "train") -> dict[str, str]:
    return {"name": "CustomizedCifar10", "mode": mode, "data_file": str(path)}


@pytest.mark.parametrize("mode", ["train", "test"])
def test_cifar10_archive(tmp_path: Path, mode: str) -> None:
    path = write_archive(tmp_path / "cifar-10-python.tar.gz", members())
    dataset = load_datasets([cifar(path, mode)], class_num=10)
    seeds = range(1, 6) if mode == "train" else [6]
    expected = [(row, label) for seed in seeds for row, label in pairs(seed)]
    assert len(dataset) == len(expected)
    assert dataset.labels.tolist() == [label for _, label in expected]
    assert dataset.class_names[3] == "cat"
    for index in (0, len(dataset) - 1):
        flat = expected[index][0]
        image = dataset.read(index)
        assert image.shape == (32, 32, 3)
        for y, x, channel in [(0, 0, 0), (0, 5, 1), (31, 2, 2)]:
            assert image[y, x, channel] == flat[channel * 1024 + y * 32 + x]
    assert dataset.name(1) == ("data_batch_1/1" if mode == "train" else "test_batch/1")
    assert dataset.verify() == []


class Hostile:
    """Touches a file where it is unpickled without care."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.path}",)


def test_an_archive_cannot_run_anything(tmp_path: Path) -> None:
    hostile = pickle.dumps({"data": Hostile(tmp_path / "touched"), "labels": []}, 2)
    path = write_archive(tmp_path / "cifar.tar.gz", members() | {"data_batch_3": hostile})
    with pytest.raises(DatasetError, match=r"cifar\.tar\.gz: it asks for (posix|nt)\.system"):
        load_datasets([cifar(path)])
    assert not (tmp_path / "touched").exists()
    pickle.loads(hostile)
    assert (tmp_path / "touched").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"data_batch_3": pickle.dumps({b"data": np.array([print])}, 2)}, r"asks for"),
        ({"data_batch_3": pickle.dumps([1, 2], 2)}, "data_batch_3: data must be"),
        ({"data_batch_3": Python2Pickler.dumps(batch(3) | {"data": np.zeros((20, 100), np.uint8)})}, "data must be"),
        ({"data_batch_3": Python2Pickler.dumps(batch(3) | {"data": np.zeros((20, 3072))})}, "data must be bytes"),
        ({"data_batch_3": Python2Pickler.dumps(batch(3) | {"labels": [1] * 19})}, "labels must be 20"),
        ({"data_batch_3": Python2Pickler.dumps(batch(3) | {"labels": [10] * 20})}, "0 to 9"),
        ({"data_batch_3": b"\x80\x02}q"}, "cifar.tar.gz"),
    ],
)
def test_archives_of_something_else(tmp_path: Path, change: dict[str, bytes], message: str) -> None:
    path = write_archive(tmp_path / "cifar.tar.gz", members() | change)
    with pytest.raises(DatasetError, match=message):
        load_datasets([cifar(path)])


def test_torn_missing_and_incomplete_archives(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"nowhere\.tar\.gz"):
        load_datasets([cifar(tmp_path / "nowhere.tar.gz")])
    path = write_archive(tmp_path / "torn.tar.gz", members())
    path.write_bytes(path.read_bytes()[:100_000])
    with pytest.raises(DatasetError, match=r"torn\.tar\.gz"):
        load_datasets([cifar(path)])
    path = write_archive(tmp_path / "part.tar.gz", {"test_batch": members()["test_batch"]})
    assert len(load_datasets([cifar(path, "test")])) == 20
    with pytest.raises(DatasetError, match=r"part\.tar\.gz: data_batch_1 is missing"):
        load_datasets([cifar(path)])
    with pytest.raises(DatasetError, match=r"10 classes, but class_num is 4"):
        load_datasets([cifar(write_archive(tmp_path / "all.tar", members(), "w"))], class_num=4)


def test_without_data_file_says_where_to_put_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(DatasetError, match="set data_file"):
        load_datasets([{"name": "CustomizedCifar10", "mode": "test"}])
    folder = tmp_path / ".cache" / "paddle" / "dataset" / "cifar"
    folder.mkdir(parents=True)
    write_archive(folder / "cifar-10-python.tar.gz", members())
    assert len(load_datasets([{"name": "CustomizedCifar10", "mode": "test"}])) == 20


def test_lists_keep_their_line_numbers(tmp_path: Path) -> None:
    path = tmp_path / "list.txt"
    path.write_text("\na.png\t1\n\n\nb\u2028c.png\t2\n", "utf-8")
    assert [(row.line, row.name, row.label) for row in read_list(path)] == [(2, "a.png", "1"), (5, "b\u2028c.png", "2")]
