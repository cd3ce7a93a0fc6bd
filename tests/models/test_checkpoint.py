"""Checkpoints: what is written is read again, and what goes wrong leaves the earlier one and names the file."""

from __future__ import annotations

import pickle
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import paddle
import pytest

from models.training.checkpoint import Ema, load_checkpoint, load_weights, save_checkpoint, to_weights, trained_weights
from models.training.config import ConfigError


@pytest.fixture
def layer() -> paddle.nn.Layer:
    paddle.seed(2)
    return paddle.nn.Sequential(paddle.nn.Linear(3, 4), paddle.nn.BatchNorm1D(4))


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """Let writing more than so many bytes to a file fail, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def assert_same(actual: dict[str, Any], expected: dict[str, Any]) -> None:
    assert actual.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(actual[name], value, err_msg=name)


def test_weights_are_read_as_they_were_written(layer: paddle.nn.Layer, tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "new" / "best.pdparams", to_weights(layer))
    expected = {name: tensor.numpy() for name, tensor in layer.state_dict().items()}
    assert_same(load_weights(tmp_path / "new" / "best.pdparams"), expected)
    assert_same(load_weights(tmp_path / "new" / "best"), expected)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["best.pdparams"]


def test_of_a_checkpoint_the_averages_count(layer: paddle.nn.Layer, tmp_path: Path) -> None:
    frozen, model = {"conv": np.ones(2, np.float32)}, layer.state_dict()
    save_checkpoint(tmp_path / "last.pdparams", {"frozen": frozen, "model": model, "ema": {}, "best": None})
    assert_same(load_weights(tmp_path / "last.pdparams"), {**frozen, **to_weights(layer)})
    averages = Ema(layer, 0.9)
    with paddle.no_grad():
        layer[0].weight.set_value(layer[0].weight + 1)
    averages.update(layer)
    save_checkpoint(tmp_path / "last.pdparams", {"frozen": frozen, "model": model, "ema": averages.average})
    found = load_weights(tmp_path / "last.pdparams")
    assert_same(found, {**frozen, **averages.to_weights()})
    # The decay grows from 2/11 on: nine elevenths of the step of 1 are in the average.
    np.testing.assert_allclose(found["0.weight"], layer[0].weight.numpy() - 2 / 11, rtol=1e-5)


def test_a_full_disk_leaves_the_earlier_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "last.pdparams"
    save_checkpoint(path, {"weight": np.zeros(8, np.float32)})
    with files_of_at_most(10_000), pytest.raises(OSError, match=rf"{path} cannot be written: File too large"):
        save_checkpoint(path, {"weight": np.ones(1_000_000, np.float32)})
    assert_same(load_checkpoint(path), {"weight": np.zeros(8, np.float32)})
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("content", [b"", b"no pickle", pickle.dumps([1, 2]), pickle.dumps({"a": Path("x")})])
def test_other_files_are_refused_by_name(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "last.pdparams"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=str(path)):
        load_checkpoint(path)


def test_a_torn_checkpoint_is_refused_by_name(layer: paddle.nn.Layer, tmp_path: Path) -> None:
    path = tmp_path / "last.pdparams"
    save_checkpoint(path, to_weights(layer))
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(ConfigError, match=rf"{path} cannot be read: it is torn"):
        load_weights(path)


def test_a_dictionary_of_something_else_is_no_weights(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "x.pdparams", {"epoch": 3})
    with pytest.raises(ConfigError, match=r"x.pdparams holds no weights by name"):
        load_weights(tmp_path / "x.pdparams")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=rf"there is no file {tmp_path / 'final.pdparams'}"):
        load_weights(tmp_path / "final.pdparams")


def test_the_best_weights_go_before_the_final_ones(tmp_path: Path) -> None:
    assert trained_weights(tmp_path).name == "final.pdparams"
    (tmp_path / "best.pdparams").touch()
    assert trained_weights(tmp_path).name == "best.pdparams"
