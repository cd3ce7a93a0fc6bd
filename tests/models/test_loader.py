"""Batches as threads draw them, against a plain loop."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from models.training.config import Sampler
from models.training.data.datasets import Dataset, DatasetError, load_datasets
from models.training.data.loader import Batch, batches
from models.training.data.samplers import epoch_batches
from models.training.data.transforms import Transforms

NORMALIZE: dict[str, Any] = {"NormalizeImage": {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]}}
RANDOM = Transforms.from_ops([{"RandCropImage": {"size": 16}}, {"RandFlipImage": {}}, NORMALIZE])
PLAIN = Transforms.from_ops([{"ResizeImage": {"size": [12, 16]}}, NORMALIZE])
SEED = (7, 3)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ninety pictures of three classes, with teacher's features for two thirds of them."""
    root = tmp_path_factory.mktemp("loader")
    rng = np.random.default_rng(0)
    lines = []
    for number in range(90):
        Image.fromarray(rng.integers(0, 256, (24, 20, 3), dtype=np.uint8)).save(root / f"{number}.png")
        lines.append(f"{number}.png\t{number % 3}\n")
    (root / "list.txt").write_text("".join(lines), "utf-8")
    names = [f"{number}.png" for number in range(60)]
    np.savez(root / "teacher.npz", path=np.array(names), features=rng.standard_normal((60, 8)).astype(np.float32))
    return root


@pytest.fixture
def dataset(folder: Path) -> Dataset:
    return load_datasets(
        [{"image_root": folder, "cls_label_path": folder / "list.txt", "teacher": folder / "teacher.npz"}]
    )


def indexes(dataset: Dataset, size: int = 20, **options: Any) -> list[np.ndarray]:
    return epoch_batches(Sampler("BatchSampler", size, **options), dataset.labels, SEED)


def assert_equal(one: Batch, other: Batch) -> None:
    for field in ("views", "labels", "teacher", "teacher_group", "indexes"):
        np.testing.assert_array_equal(getattr(one, field), getattr(other, field), err_msg=field)


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("loader")]


def test_batches_equal_a_plain_loop(dataset: Dataset) -> None:
    wanted = indexes(dataset, drop_last=False)
    drawn = list(batches(dataset, PLAIN, wanted, SEED))
    assert [len(batch.labels) for batch in drawn] == [20, 20, 20, 20, 10]
    for batch, chosen in zip(drawn, wanted, strict=True):
        assert batch.views.dtype == np.float32
        for row, index in enumerate(chosen.tolist()):
            np.testing.assert_array_equal(batch.views[row], PLAIN.preprocessing(dataset.read(index)))
            assert batch.labels[row] == index % 3
            assert batch.teacher_group[row] == (0 if index < 60 else -1)
            np.testing.assert_array_equal(batch.teacher[row], dataset.teacher[index])
            assert batch.indexes[row] == index


def test_views_do_not_depend_on_the_number_of_threads(dataset: Dataset) -> None:
    wanted = indexes(dataset)
    expected = list(batches(dataset, RANDOM, wanted, SEED, workers=1))
    for workers in (0, 2, 7):
        for one, other in zip(batches(dataset, RANDOM, wanted, SEED, workers=workers), expected, strict=True):
            assert_equal(one, other)


def test_batches_start_anywhere(dataset: Dataset) -> None:
    wanted = indexes(dataset)
    expected = list(batches(dataset, RANDOM, wanted, SEED))
    for start in range(5):
        rest = list(batches(dataset, RANDOM, wanted, SEED, start=start))
        assert len(rest) == 4 - start
        for one, other in zip(rest, expected[start:], strict=True):
            assert_equal(one, other)


@pytest.mark.parametrize(
    "sampler", [Sampler("BatchSampler", 8, drop_last=False), Sampler("PKSampler", 8, sample_per_id=8)]
)
def test_ranks_draw_the_views_of_one_process(dataset: Dataset, sampler: Sampler) -> None:
    alone = Sampler(sampler.name, 16, sampler.shuffle, sampler.drop_last, sampler.sample_per_id)
    expected = batches(dataset, RANDOM, epoch_batches(alone, dataset.labels, SEED), SEED)
    ranks = [batches(dataset, RANDOM, epoch_batches(sampler, dataset.labels, SEED, rank, 2), SEED) for rank in range(2)]
    for whole, *parts in zip(expected, *ranks, strict=True):
        np.testing.assert_array_equal(np.concatenate([part.views for part in parts]), whole.views)
        np.testing.assert_array_equal(np.concatenate([part.labels for part in parts]), whole.labels)


def test_views_differ_between_epochs_steps_and_repeats(dataset: Dataset) -> None:
    twice = [np.array([5, 5, 6]), np.array([5])]
    first, second = batches(dataset, RANDOM, twice, SEED)
    other, _ = batches(dataset, RANDOM, twice, (7, 4))
    views = [first.views[0], first.views[1], second.views[0], other.views[0]]
    for number, one in enumerate(views):
        for later in views[number + 1 :]:
            assert not np.array_equal(one, later)


def test_no_seed_means_no_randomness(dataset: Dataset) -> None:
    (batch,) = batches(dataset, RANDOM, [np.arange(30)], None)
    for row in range(30):
        np.testing.assert_array_equal(batch.views[row], RANDOM.preprocessing(dataset.read(row)))


def test_a_corrupt_picture_reaches_the_consumer_by_name(folder: Path, tmp_path: Path) -> None:
    text = (folder / "list.txt").read_text("utf-8").splitlines()
    for line in text:
        name = line.split("\t")[0]
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    (tmp_path / "33.png").write_bytes((folder / "33.png").read_bytes()[:300])
    source = {"image_root": tmp_path, "cls_label_path": folder / "list.txt"}
    iterator = batches(load_datasets([source]), PLAIN, np.split(np.arange(90), 9), SEED)
    for number in range(3):
        assert next(iterator).indexes[0] == 10 * number
    with pytest.raises(DatasetError, match=r"list\.txt:34: .*33\.png cannot be decoded"):
        next(iterator)
    assert threads() == []


def test_a_picture_that_does_not_fit_its_crop_is_named(dataset: Dataset) -> None:
    transforms = Transforms.from_ops([{"CropImage": {"size": 22}}, NORMALIZE])  # the pictures are 20 pixels wide
    with pytest.raises(DatasetError, match=r"list\.txt:\d+: \d+\.png cannot be transformed.*CropImage 22 x 22"):
        next(batches(dataset, transforms, [np.arange(3)], SEED))


def test_closing_early_ends_the_threads(dataset: Dataset) -> None:
    iterator = batches(dataset, RANDOM, indexes(dataset), SEED)
    assert threads() == []
    next(iterator)
    assert threads() != []
    iterator.close()  # type: ignore[attr-defined]
    assert threads() == []


def test_no_more_than_two_batches_are_drawn_ahead(dataset: Dataset) -> None:
    cache = dataset.sources[0].cache  # type: ignore[attr-defined]
    each = 24 * 20 * 3
    iterator = batches(dataset, PLAIN, np.split(np.arange(90), 9), SEED)
    next(iterator)
    deadline = time.monotonic() + 10
    while cache.used_bytes < 30 * each and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.1)
    assert cache.used_bytes == 30 * each
    iterator.close()  # type: ignore[attr-defined]


def test_an_epoch_without_batches(dataset: Dataset) -> None:
    assert list(batches(dataset, PLAIN, [], SEED)) == []
    assert list(batches(dataset, PLAIN, indexes(dataset), SEED, start=9)) == []
