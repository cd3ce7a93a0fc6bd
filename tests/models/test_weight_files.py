"""Files of weights: what ``paddle.save`` writes comes as ``paddle.load`` gives it; what would run is refused unrun."""

from __future__ import annotations

import pickle
import struct
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import paddle
import pytest

from models.nets import build
from models.training.weight_files import WeightFileError, read_state, read_weights


def assert_same(actual: Any, expected: Any) -> None:
    """Compare at any depth, types of arrays and the order of keys included."""
    if isinstance(expected, dict):
        assert list(actual) == list(expected)
        for key in expected:
            assert_same(actual[key], expected[key])
    elif isinstance(expected, (list, tuple)):
        assert type(actual) is type(expected)
        assert len(actual) == len(expected)
        for one, other in zip(actual, expected, strict=True):
            assert_same(one, other)
    elif isinstance(expected, (np.ndarray, np.generic)):
        assert (actual.dtype, actual.shape) == (expected.dtype, expected.shape)
        np.testing.assert_array_equal(actual, expected)
    else:
        assert type(actual) is type(expected)
        assert actual == expected


def network() -> paddle.nn.Layer:
    with paddle.utils.unique_name.guard():
        return build("PPLCNet_x0_25_Tanh", class_num=16)


@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_weights_come_as_paddle_reads_them(tmp_path: Path, protocol: int) -> None:
    path = tmp_path / "weights.pdparams"
    state = network().state_dict()
    paddle.save(state, str(path), protocol=protocol)
    assert b"StructuredToParameterName@@" in path.read_bytes()
    weights = read_weights(path)
    assert_same(weights, paddle.load(str(path), return_numpy=True))
    assert weights["fc.origin_layer.weight"].shape == (1280, 16)
    assert len(weights) == len(state)


@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_checkpoints_come_as_paddle_reads_them(tmp_path: Path, protocol: int) -> None:
    path = tmp_path / "last.pdparams"
    layer = network()
    optimizer = paddle.optimizer.Momentum(0.1, parameters=layer.parameters())
    layer.eval()
    layer(paddle.ones([2, 3, 32, 32])).sum().backward()
    optimizer.step()
    state = {
        "model": layer.state_dict(),
        "optimizer": optimizer.state_dict(),
        "copies": {name: np.array(tensor.numpy()) for name, tensor in layer.state_dict().items()},
        "shapes": OrderedDict(
            empty=np.zeros((0, 3), np.int64), columns=np.asfortranarray(np.arange(6.0).reshape(2, 3)), one=np.float32(7)
        ),
        "halves": paddle.to_tensor([1.5, 2.5]).astype("bfloat16"),
        "step": 12,
        "best": None,
        "names": ["a", "b", ("pair", 1)],
        "rate": 0.25,
        "done": False,
    }
    paddle.save(state, str(path), protocol=protocol)
    expected = paddle.load(str(path), return_numpy=True)
    assert_same(read_state(path), expected)
    assert len(expected["optimizer"]) == sum(not one.stop_gradient for one in layer.parameters())
    with pytest.raises(WeightFileError, match="it holds more than weights: 'model' is a dict"):
        read_weights(path)


def test_an_archive_of_arrays_comes_by_name(tmp_path: Path, shared: Path) -> None:
    path = shared / "data" / "pretrained" / "mobilenet_v1_1.0_224_imagenet.npz"
    with np.load(path) as expected:
        assert_same(read_weights(path), dict(expected))
    np.savez(tmp_path / "objects.npz", a=np.array([{}], object))
    with pytest.raises(WeightFileError, match="allow_pickle=False"):
        read_weights(tmp_path / "objects.npz")


def test_the_content_tells_what_a_file_is_and_not_its_name(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", w=np.ones(3, np.float32))
    (tmp_path / "a.npz").rename(tmp_path / "a.pdparams")
    assert_same(read_weights(tmp_path / "a.pdparams"), {"w": np.ones(3, np.float32)})
    # A pickle may well have the mark of an archive's end among its numbers.
    marked = np.frombuffer(b"PK\x05\x06" + bytes(18), np.uint8)
    paddle.save({"w": marked}, str(tmp_path / "b.pdparams"))
    assert_same(read_weights(tmp_path / "b.pdparams"), {"w": marked})


def test_a_pickle_of_python_2_is_read(tmp_path: Path) -> None:
    # GLOBALs of the old NumPy and byte strings, spelt out: what PaddlePaddle 1.x left on Python 2.
    data = struct.pack("<3f", 1.5, -2.0, 3.0)
    content = (
        b"\x80\x02}U\x01wcnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
        b"(K\x01K\x03\x85cnumpy\ndtype\nU\x02f4K\x00K\x01\x87R(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
        b"\x89U" + bytes([len(data)]) + data + b"tbs."
    )
    assert_same(pickle.loads(content, encoding="latin1"), {"w": np.array([1.5, -2.0, 3.0], np.float32)})
    (tmp_path / "old.pdparams").write_bytes(content)
    assert_same(read_weights(tmp_path / "old.pdparams"), {"w": np.array([1.5, -2.0, 3.0], np.float32)})


class Runs:
    """Calls anything when it is unpickled."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


def attacks(flag: Path) -> dict[str, Any]:
    import os
    import subprocess

    command = f"touch {flag}"
    return {
        "posix.system": Runs(os.system, command),
        "subprocess.Popen": Runs(subprocess.Popen, ["touch", str(flag)]),
        "builtins.eval": Runs(eval, f"open({str(flag)!r}, 'w')"),
        "builtins.exec": Runs(exec, f"open({str(flag)!r}, 'w')"),
        "io.open": Runs(open, str(flag), "w"),
        "builtins.getattr": Runs(getattr, {}, "clear"),
        "numpy.memmap": Runs(np.memmap, str(flag), np.uint8, "w+", 0, (10,)),
        "numpy.fromfile": Runs(np.fromfile, "/etc/hostname", np.uint8),
        "paddle.framework.io.load": Runs(paddle.load, str(flag)),
    }


@pytest.mark.parametrize("where", ["value", "whole", "key", "inside"])
@pytest.mark.parametrize("name", sorted(attacks(Path("flag"))))
def test_what_would_run_is_refused_by_name_and_does_not_run(tmp_path: Path, name: str, where: str) -> None:
    flag = tmp_path / "flag"
    attack = attacks(flag)[name]
    contents = {
        "value": {"w": np.ones(3), "fc.weight": attack},
        "whole": attack,
        "key": {attack: np.ones(3)},
        "inside": {"w": [({"deep": attack},)]},
    }
    path = tmp_path / "weights.pdparams"
    path.write_bytes(pickle.dumps(contents[where], 4))
    for read in (read_weights, read_state):
        with pytest.raises(WeightFileError, match=rf"not safe to read: it asks for {name}, which"):
            read(path)
    assert not flag.exists()


def test_the_attacks_of_these_tests_do_run_elsewhere(tmp_path: Path) -> None:
    pickle.loads(pickle.dumps({"w": attacks(tmp_path / "flag")["posix.system"]}))
    assert (tmp_path / "flag").exists()


def array_pickle(code: str, shape: Any, data: Any, order: str = "<") -> bytes:
    """A pickle of an array that claims these things."""

    class Kind:
        def __reduce__(self) -> Any:
            return np.dtype, (code, False, True), (3, order, None, None, None, -1, -1, 0)

    class Array:
        def __reduce__(self) -> Any:
            make = np.ones(1).__reduce__()[0]
            return make, (np.ndarray, (0,), b"b"), (1, shape, Kind(), False, data)

    return pickle.dumps({"w": Array()}, 4)


@pytest.mark.parametrize(
    ("code", "shape", "data", "message"),
    [
        ("f4", (3,), bytes(12), None),
        ("f4", (3,), bytes(8), "w: cannot reshape"),
        ("f4", (1 << 40,), bytes(12), "w: cannot reshape"),
        ("f4", (3,), bytes(11), "w: buffer size must be a multiple"),
        ("f4", ("3",), bytes(12), "w: "),
        ("f4", 3, bytes(12), "other things than type, shape and bytes"),
        ("f4", (3,), [1.0, 2.0, 3.0], "other things than type, shape and bytes"),
        ("O8", (3,), bytes(24), "type 'O8', not of numbers"),
        ("V8", (3,), bytes(24), "type 'V8', not of numbers"),
        ("U2", (3,), bytes(24), "type 'U2', not of numbers"),
    ],
)
def test_arrays_are_what_they_claim(tmp_path: Path, code: str, shape: Any, data: Any, message: str | None) -> None:
    path = tmp_path / "weights.pdparams"
    path.write_bytes(array_pickle(code, shape, data))
    if message is None:
        assert_same(read_weights(path), {"w": np.zeros(3, np.float32)})
    else:
        with pytest.raises(WeightFileError, match=message):
            read_weights(path)


def test_the_byte_order_of_the_writer_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "weights.pdparams"
    path.write_bytes(array_pickle("f4", (2,), struct.pack(">2f", 1.0, 2.5), order=">"))
    np.testing.assert_array_equal(read_weights(path)["w"], [1.0, 2.5])


@pytest.mark.parametrize("keep", [0, 1, 100, -1])
def test_a_torn_file_is_no_file_of_weights(tmp_path: Path, keep: int) -> None:
    path = tmp_path / "weights.pdparams"
    paddle.save(network().state_dict(), str(path))
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(WeightFileError, match="it is torn or no file of weights"):
        read_weights(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"<!DOCTYPE html><title>Sign in</title>", "it is torn or no file of weights"),
        (b"PK\x03\x04 and nothing more", "it is torn or no file of weights"),
        (pickle.dumps([1, 2]), "it holds a list, not weights by name"),
        (pickle.dumps({}), "it holds no weights"),
        (pickle.dumps({"a": "text"}), "more than weights: 'a' is a str"),
        (pickle.dumps({3: np.ones(2)}), "more than weights: '3' is a ndarray"),
        (pickle.dumps({"a": np.dtype("f4")}), "the type of an array without the array"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "weights.pdparams"
    path.write_bytes(content)
    with pytest.raises(WeightFileError, match=message):
        read_weights(path)


def test_a_structure_that_holds_itself_is_refused(tmp_path: Path) -> None:
    endless: list[Any] = []
    endless.append(endless)
    path = tmp_path / "weights.pdparams"
    path.write_bytes(pickle.dumps({"a": endless}))
    with pytest.raises(WeightFileError, match="RecursionError"):
        read_weights(path)
